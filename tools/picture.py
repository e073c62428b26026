#!/usr/bin/python3
"""Draws what a machine said about its memory: a page of its own, that needs no network.

    tools/picture.py dump.json -o picture.html     from what `tools/quire dump` saved
    tools/picture.py --boot build/quire.iso ...    boots a machine, brings its guests to life, and asks
    tools/picture.py dump.json --tables host,own   and what the host's and the guests' own tables map

In the middle physical memory, frame by frame along a Hilbert curve (what is near in memory is near in
the picture, and an aligned block is a square); beside it each guest's address space, with ribbons to
the frames behind it.
"""

import argparse
import json
import os
import sys
from html import escape

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from quire_machine import Machine, MachineError, dump, engines  # noqa: E402
from quire_machine.answers import address, size_text  # noqa: E402

FRAME = 4096

# The drawing's measures, in its own units.
MAP = 600  # the side of the square of physical memory
BAR = 44  # the width of a guest's address space
REACH = 150  # what the ribbons have to cross
LABELS = 200  # beside each bar
TOP = 46
GUEST_GAP = 54
GUEST_LEAST = 110
RUN_LEAST = 7
STRIP = 9  # what a guest writes and reaches, within its bar ...
STRIP_GAP = 3  # ... so far from its sides
RIBBONS = 48  # blocks of a guest that get a ribbon, the largest ones
GUEST_COLOURS = 8

DEAD = ("passed", "failed", "stopped", "killed", "refused")

PAGE_PATTERNS = {4 << 10: "p4k", 2 << 20: "p2m", 4 << 20: "p2m", 1 << 30: "p1g"}


def hilbert(order, index):
    """Where the curve of 4^order cells is after `index` steps: column and row."""
    x = y = 0
    for level in range(order):
        quarter = index >> 2 * level & 3
        right, down = quarter >> 1, (quarter ^ quarter >> 1) & 1
        side = 1 << level
        if not down:
            if right:
                x, y = side - 1 - x, side - 1 - y
            x, y = y, x
        x += side * right
        y += side * down
    return x, y


def blocks(first, count):
    """The frames [first, first + count) as (frame, level): aligned blocks of 4^level frames, each a
    square of the curve."""
    end = first + count
    while first < end:
        level = 0
        while first % 4 ** (level + 1) == 0 and first + 4 ** (level + 1) <= end:
            level += 1
        yield first, level
        first += 4**level


def words(size):
    """A size for people: K below 1M, then M with at most one decimal, then G likewise."""
    for unit, letter in ((1 << 30, "G"), (1 << 20, "M")):
        if size >= unit:
            return f"{size / unit:.1f}".removesuffix(".0") + letter
    return size_text(size)


class Curve:
    """Physical memory as a square of MAP units."""

    def __init__(self, frames):
        self.order = 1
        while 4**self.order < frames:
            self.order += 1
        self.unit = MAP / 2**self.order

    def square(self, frame, level):
        """x, y and side of an aligned block."""
        x, y = hilbert(self.order, frame)
        mask = ~(2**level - 1)
        return (x & mask) * self.unit, (y & mask) * self.unit, 2**level * self.unit

    def squares(self, first, size):
        """The squares of a range of bytes, each with the part of the range that it stands for."""
        for frame, level in blocks(first // FRAME, size // FRAME):
            if frame + 4**level > 4**self.order:
                return
            yield (*self.square(frame, level), frame * FRAME - first, 4**level * FRAME)


def number(value):
    """A coordinate without needless digits."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def path_of(squares):
    return "".join(
        f"M{number(x)} {number(y)}h{number(side)}v{number(side)}h-{number(side)}z"
        for x, y, side, *_ in squares
    )


def colour_class(purpose, owner, state):
    """The class of a run of frames, by what it is for and, where that is a guest's, by whose it is."""
    if state in ("free", "cached"):
        return state
    if owner and owner.startswith("g") and owner[1:].split()[0].isdigit():
        table = " table" if purpose not in ("guest memory", "guest RAM") else ""
        return f"guest c{(int(owner[1:].split()[0]) - 1) % GUEST_COLOURS}{table}"
    return "host " + "p-" + purpose.replace(" ", "-").lower()


class Space:
    """What one table maps: a bar beside physical memory. `sparse`: what is between the runs is left
    out of the scale, for it would be all there is to see."""

    alive, sparse, frames, memory, state = True, True, 0, 0, ""
    written, reached, samples = (), (), 0  # as `dirty` and `heat` say

    def __init__(self, name, title, colour, runs):
        self.name, self.title, self.colour, self.runs = name, title, colour, runs

    def behind(self, run):
        """The stretches of physical memory behind a run: (offset in the run, first, size)."""
        return [(0, address(run["to"]), run["size"])]

    def about(self):
        return f"{len(self.runs)} runs"

    def pages(self):
        """{page size: bytes mapped by it}"""
        by_size = {}
        for run in self.runs:
            by_size[run["page"]] = by_size.get(run["page"], 0) + run["size"]
        return dict(sorted(by_size.items()))

    def parts(self):
        """The address space from 0 on: (first, size, run or None for what is not mapped)."""
        at, found = 0, []
        for run in self.runs:
            first = address(run["first"])
            if first > at:
                found.append((at, first - at, None))
            found.append((first, run["size"], run))
            at = first + run["size"]
        if at < self.memory:
            found.append((at, self.memory - at, None))
        return found

    def weights(self, parts):
        return [0 if self.sparse and run is None else size for _, size, run in parts]


class Guest(Space):
    """A guest's memory, by its second-level table."""

    sparse = False

    def __init__(self, row, taken):
        name = row["guest"]
        super().__init__(name, f"{name} {row['name']}", 0, dump.records(taken, f"map {name}", "run"))
        self.written = dump.records(taken, f"dirty {name}", "dirty")
        self.reached = dump.records(taken, f"heat {name}", "heat")
        for facts in dump.records(taken, f"heat {name}", "working set"):
            self.samples = facts["samples"]
        self.state = row["state"]
        self.memory = row["memory"]
        self.frames = row["frames"]
        self.alive = self.state not in DEAD
        self.colour = (int(self.name[1:]) - 1) % GUEST_COLOURS

    def about(self):
        return f"{words(self.memory)} of memory"


class OwnTables(Space):
    """What a guest's own tables map: to guest-physical addresses, which its second-level table leads on from."""

    def __init__(self, guest, runs):
        super().__init__(guest.name + "-own", f"{guest.name} own tables", guest.colour, runs)
        self.guest = guest
        self.alive = guest.alive

    def behind(self, run):
        first, found = address(run["to"]), []
        for each in self.guest.runs:
            start = max(first, address(each["first"]))
            end = min(first + run["size"], address(each["first"]) + each["size"])
            if start < end:
                to = address(each["to"]) + start - address(each["first"])
                found.append((start - first, to, end - start))
        return found


def heights(parts, total):
    """A height for each of these sizes: as the square root of its size, so that a page beside gigabytes is seen,
    none below RUN_LEAST; `total` is what they share out where there is room for it."""
    roots = [size**0.5 for size in parts]
    free = max(total - RUN_LEAST * len(parts), 0)
    return [RUN_LEAST + free * root / (sum(roots) or 1) for root in roots]


def stretches(run, places):
    """Where a range of addresses is drawn: y and height in each part of a bar, given as (first, size, y, height);
    none so low that it is not seen."""
    first, last = address(run["from"]), address(run["to"])
    for start, size, y, height in places:
        low, high = max(first, start), min(last, start + size - 1)
        if low <= high:
            yield y + height * (low - start) / size, max(height * (high - low + 1) / size, 1)


def shape(kind, geometry, classes, label, extra=""):
    """Something that can be pointed at: `label` is what there is to know about it."""
    return (
        f'<{kind} {geometry} class="{classes}" tabindex="-1" role="img" '
        f'aria-label="{escape(label, quote=True)}"{extra}/>'
    )


class Picture:
    def __init__(self, taken, tables=()):
        self.taken = taken
        self.frames = dump.records(taken, "layout", "frames")
        self.guests = [
            Guest(row, taken)
            for row in dump.records(taken, "guests", "guest")
        ]
        self.spaces = [guest for guest in self.guests if guest.runs]
        if "own" in tables:
            own = [
                OwnTables(guest, dump.records(taken, f"map {guest.name} gva", "run"))
                for guest in self.guests
            ]
            self.spaces += [each for each in own if each.runs]
        if "host" in tables:
            runs = dump.records(taken, "map host", "run")
            self.spaces.append(Space("host", "host", "host", runs))
        if not self.frames:
            raise ValueError("the dump has no frames: it lacks the answer to `layout`")
        end = max(address(run["last"]) + 1 for run in self.frames)
        self.curve = Curve((end + FRAME - 1) // FRAME)
        self.ribbons = []
        self.threads = []  # each ribbon's way over the map: what it passes keeps its colour
        self.bars = []
        self.down = 0  # how far the map is moved down, to stand in the middle

    # --- The drawing ------------------------------------------------------------------------

    def map_shapes(self):
        """The runs of frames as shapes, those that nobody uses apart from those in use."""
        idle, used = [], []
        for index, run in enumerate(self.frames):
            first, owner = address(run["first"]), run["owner"]
            classes = "frames " + colour_class(run["purpose"], owner, run["state"])
            what = run["purpose"] if run["state"] in ("used", "reserved") else run["state"]
            whose = f", of {owner}" if owner else ""
            label = f"{run['first']} to {run['last']}: {words(run['size'])}, {what}{whose}"
            drawn = path_of(self.curve.squares(first, run["size"]))
            (used if what != run["state"] else idle).append(
                shape("path", f'd="{drawn}"', classes, label, f' data-order="{index}"')
            )
        return "".join(idle), "".join(used)

    def place_guests(self):
        """Guests with memory on both sides of the map, in turn; returns the height they need."""
        sides = [self.spaces[0::2], self.spaces[1::2]]
        rows = max((len(side) for side in sides), default=0)
        height = max(MAP, rows * (GUEST_LEAST + GUEST_GAP) - GUEST_GAP)
        self.down = (height - MAP) / 2
        for side, guests in enumerate(sides):
            room = (height + GUEST_GAP) / max(len(guests), 1)
            for index, guest in enumerate(guests):
                self.draw_guest(guest, side, index * room, room - GUEST_GAP)
        return height

    def draw_guest(self, guest, side, top, room):
        left = -REACH - BAR if side == 0 else MAP + REACH
        parts, shapes, targets, places = guest.parts(), [], [], []
        y = top
        for index, ((first, size, run), height) in enumerate(
            zip(parts, heights(guest.weights(parts), room))
        ):
            places.append((first, size, y, height))
            box = f'x="{left}" y="{number(y)}" width="{BAR}" height="{number(height)}"'
            last = first + size - 1
            if run is None:
                label = f"{guest.title}: {first:#x} to {last:#x}: {words(size)}, not mapped"
                shapes.append(shape("rect", box, "run absent", label))
            else:
                name = f"{guest.name}-{index}"
                label = (
                    f"{guest.title}: {run['first']} to {run['last']}: {words(size)} of "
                    f"{run['what'] or 'memory'} in pages of {words(run['page'])}, "
                    f"{run['rights']} {run['type']}, "
                    + ("behind it " if guest.alive else "behind it was ")
                    + f"{'guest' if isinstance(guest, OwnTables) else 'host'}-physical {run['to']}"
                )
                shapes.append(
                    shape("rect", box, f"run guest c{guest.colour}", label, f' data-run="{name}"')
                )
                pattern = PAGE_PATTERNS.get(run["page"])
                if pattern:
                    shapes.append(f'<rect {box} class="page" fill="url(#{pattern})"/>')
                for start, to, part in guest.behind(run) if guest.alive else ():
                    for x, at, wide, offset, covered in self.curve.squares(to, part):
                        targets.append(((x, at, wide, start + offset, covered), name, y, height, size))
            y += height
        shapes += self.use_of(guest, left, places)
        self.draw_ribbons(guest, side, left, targets)
        self.draw_labels(guest, side, left, top, y, shapes)

    @staticmethod
    def use_of(guest, left, places):
        """Two strips within the bar: what the guest has written, and what it reached, the more often the
        fuller."""
        found = []
        for run in guest.written:
            label = f"{guest.title}: {run['from']} to {run['to']}: {words(run['size'])} written since the last question"
            for y, height in stretches(run, places):
                box = f'x="{left + STRIP_GAP}" y="{number(y)}" width="{STRIP}" height="{number(height)}"'
                found.append(shape("rect", box, "written", label))
        for run in guest.reached:
            often = run["samples"] / max(guest.samples, 1)
            label = (
                f"{guest.title}: {run['from']} to {run['to']}: {words(run['size'])} reached in "
                f"{run['samples']} of {guest.samples} samples"
            )
            for y, height in stretches(run, places):
                box = (
                    f'x="{left + BAR - STRIP - STRIP_GAP}" y="{number(y)}" width="{STRIP}" '
                    f'height="{number(height)}" fill-opacity="{number(0.2 + 0.8 * often)}"'
                )
                found.append(shape("rect", box, "reached", label))
        return found

    def draw_ribbons(self, guest, side, left, targets):
        """From each part of a bar to the squares behind it, the largest squares first."""
        edge = left + BAR if side == 0 else left
        for square, name, y, height, size in sorted(targets, key=lambda each: -each[0][4])[:RIBBONS]:
            x, at, wide, offset, part = square
            at += self.down
            upper, lower = y + height * offset / size, y + height * (offset + part) / size
            end = x if side == 0 else x + wide
            middle = (edge + (0 if side == 0 else MAP)) / 2
            at_edge = 0 if side == 0 else MAP
            self.threads.append(
                f'<path class="thread c{guest.colour}" d="M{at_edge} {number(at + wide / 2)}H{number(end)}"/>'
            )
            self.ribbons.append(
                f'<path class="ribbon guest c{guest.colour}" data-run="{name}" '
                f'd="M{edge} {number(upper)}C{number(middle)} {number(upper)} {number(middle)} '
                f"{number(at)} {number(end)} {number(at)}V{number(at + wide)}C{number(middle)} "
                f'{number(at + wide)} {number(middle)} {number(lower)} {edge} {number(lower)}z"/>'
            )

    def draw_labels(self, guest, side, left, top, bottom, shapes):
        beside = left - 10 if side == 0 else left + BAR + 10
        anchor = "end" if side == 0 else "start"
        lines = [
            (guest.state, "state"),
            (guest.about(), "small"),
            *((f"{words(mapped)} in {words(page)} pages", "small")
              for page, mapped in guest.pages().items()),
        ]
        text = "".join(
            f'<text x="{beside}" y="{number(top + 34 + 17 * index)}" text-anchor="{anchor}" '
            f'class="{classes}">{escape(line)}</text>'
            for index, (line, classes) in enumerate(each for each in lines if each[0])
        )
        self.bars.append(
            f'<g class="space{"" if guest.alive else " ended"}" data-group="" tabindex="0" role="group" '
            f'aria-label="address space of {escape(guest.title, quote=True)}, {guest.state}">'
            f'<text x="{beside}" y="{number(top + 14)}" text-anchor="{anchor}" class="name">'
            f"{escape(guest.title)}</text>{text}"
            + "".join(shapes)
            + f'<rect x="{left}" y="{number(top)}" width="{BAR}" height="{number(bottom - top)}" '
            'class="frame"/></g>'
        )

    def svg(self):
        height = self.place_guests()
        width = MAP + 2 * (REACH + BAR + LABELS)
        idle, used = self.map_shapes()
        patterns = "".join(
            f'<pattern id="{name}" width="{BAR}" height="{step}" patternUnits="userSpaceOnUse">'
            f'<path d="M0 .5H{BAR}" class="hatch"/></pattern>'
            for name, step in (("p4k", 3), ("p2m", 9), ("p1g", 27))
        )
        patterns += (
            '<pattern id="cached" width="4" height="4" patternUnits="userSpaceOnUse">'
            '<path d="M0 0H4V4H0z" class="free"/><path d="M-1 1L1 -1M0 4L4 0M3 5L5 3" class="stripe"/></pattern>'
        )
        # Guests stand beside the map at its own height; where they need more, the map is in the middle.
        moved = f' transform="translate(0 {number(self.down)})"'
        middle, above = MAP / 2, number(self.down - 12)
        size = sum(run["size"] for run in self.frames)
        return (
            f'<svg id="drawing" viewBox="{-REACH - BAR - LABELS} {-TOP} {width} {height + TOP + 20}" '
            'role="group" aria-label="physical memory and the address spaces of the guests">'
            f"<defs>{patterns}</defs>"
            f'<text x="{middle}" y="{above}" text-anchor="middle" class="heading">'
            f"physical memory, {words(size)}</text>"
            f'<text x="0" y="{above}" class="small">0</text>'
            f'<text x="{MAP}" y="{above}" text-anchor="end" class="small">'
            f"{words(4**self.curve.order * FRAME)}</text>"
            '<g id="memory" data-group="" tabindex="0" role="group" '
            'aria-label="physical memory, along a Hilbert curve">'
            # Ribbons end at the map's edge; a thread goes on to the frames, over what is free.
            f"<g>{''.join(self.ribbons)}</g>"
            f'<rect width="{MAP}" height="{MAP}" class="ground"{moved}/>'
            f"<g{moved}>{idle}</g><g>{''.join(self.threads)}</g><g{moved}>{used}</g></g>"
            '<g id="chosen-ribbons"></g>'
            + "".join(self.bars)
            + "</svg>"
        )

    # --- Around it --------------------------------------------------------------------------

    def legend(self):
        """What each colour means, with how much of it there is."""
        totals = {}
        for run in self.frames:
            classes = colour_class(run["purpose"], run["owner"], run["state"])
            if classes.startswith("guest"):
                table = "table" in classes
                name = run["owner"] + (": tables, vCPU" if table else ": memory")
            else:
                name = run["purpose"] if classes.startswith("host") else classes
            classes, size = totals.get(name, (classes, 0))
            totals[name] = (classes, size + run["size"])
        order = sorted(totals, key=lambda name: (totals[name][0].startswith("guest"), name))
        items = [(f"frames {totals[name][0]}", name, totals[name][1]) for name in order]
        for kind, name in (("written", "written since the last question"), ("reached", "reached while it ran")):
            runs = [run for guest in self.guests for run in getattr(guest, kind)]
            if runs:
                items.append((kind, name, sum(run["size"] for run in runs)))
        none = 4**self.curve.order * FRAME - sum(size for classes, _, size in items if classes.startswith("frames"))
        if none:
            items.append(("ground", "no memory", none))
        return "".join(
            f'<li><svg width="14" height="14" aria-hidden="true"><rect width="14" height="14" '
            f'class="{classes}"/></svg>{escape(name)} <small>{words(size)}</small></li>'
            for classes, name, size in items
        )

    def table(self):
        rows = []
        for guest in self.guests:
            pages = ", ".join(
                f"{words(mapped)} in {words(page)}" for page, mapped in guest.pages().items()
            )
            cells = [guest.title, guest.state, words(guest.memory), guest.frames, pages or "-"]
            rows.append("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in cells) + "</tr>")
        return (
            "<thead><tr><th>guest</th><th>state</th><th>memory</th><th>frames held</th>"
            "<th>mapped, by page size</th></tr></thead><tbody>" + "".join(rows) + "</tbody>"
        )

    def page(self):
        drawing = self.svg()
        return PAGE.format(
            style=STYLE,
            script=SCRIPT,
            drawing=drawing,
            legend=self.legend(),
            table=self.table(),
            guests=len(self.guests),
            screens=self.screens(),
            origin=escape(self.origin()),
        )

    def screens(self):
        """What each guest's VGA shows, where it has one and there is something on it."""
        found = []
        for guest in self.guests:
            rows = dump.records(self.taken, f"screen {guest.name}", "screen row")
            text = "\n".join(row["text"] for row in rows).rstrip()
            if text:
                heading = f"<h2>Screen of {escape(guest.title)}</h2>"
                found.append(f'<section class="scroll">{heading}<pre>{escape(text)}</pre></section>\n')
        return "".join(found)

    def origin(self):
        """Of which machine, of which Quire, when: as far as the dump says it."""
        said = (dump.records(self.taken, "version", "version") or [{}])[0]
        program = " ".join(filter(None, [said.get("program"), self.taken.get("tree")]))
        built = said.get("compiler") and f"built by {said['compiler']}"
        found = [program, built, self.taken.get("engine"), self.taken.get("taken")]
        return "; ".join(each for each in found if each)


STYLE = """
:root { color-scheme: light dark;
  --back: #fbfaf7; --text: #22262b; --soft: #6a7078; --line: #c9c8c2; --panel: #f1efe9;
  --ground: #ffffff; --free: #e9e7e0; --cached: #8b8f86; --hatch: rgba(255,255,255,.55);
  --firmware: #8f8b84; --image: #3e4650; --boot: #a58a6f; --frame-database: #6f7f94;
  --tables: #52708f; --stacks: #8a6d86; --heap: #7d8a5e; --vcpu: #a3623f; --other: #77736c;
  --c0: #2f78c4; --c1: #d9822b; --c2: #2e9d73; --c3: #b3486f; --c4: #7a63c7; --c5: #8c9a1f;
  --c6: #1f9fb0; --c7: #c25a3c; --written: #8c1d18; --reached: #14365c; }
@media (prefers-color-scheme: dark) { :root {
  --back: #14171a; --text: #e4e6e8; --soft: #9aa1a9; --line: #3a4047; --panel: #1d2125;
  --ground: #0d0f11; --free: #23282d; --cached: #77828c; --hatch: rgba(0,0,0,.42);
  --firmware: #6e6a64; --image: #aab4bf; --boot: #b59a7e; --frame-database: #8797ad;
  --tables: #7fa0c2; --stacks: #b394af; --heap: #a3b07f; --vcpu: #cf8a64; --other: #8e8a83;
  --c0: #5aa2ea; --c1: #f0a050; --c2: #4fc497; --c3: #e0769c; --c4: #a28df0; --c5: #bccb4a;
  --c6: #4cc7d8; --c7: #ec8567; --written: #ffc9c2; --reached: #f4f7fb; } }
* { box-sizing: border-box; }
body { margin: 0; padding: 1.2rem clamp(.8rem, 3vw, 2.5rem) 2rem; background: var(--back);
  color: var(--text); font: 15px/1.45 system-ui, "DejaVu Sans", sans-serif; }
header, section { max-width: 1500px; margin: 0 auto; }
h1 { font-size: 1.35rem; margin: 0; } header p { margin: .2rem 0 .9rem; color: var(--soft); }
h2 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
/* What is wider than the window scrolls within, with a shadow on the side where there is more. */
.scroll { overflow-x: auto; background:
  linear-gradient(to right, var(--back) 40%, transparent) 0 0 / 40px 100% local no-repeat,
  linear-gradient(to left, var(--back) 40%, transparent) 100% 0 / 40px 100% local no-repeat,
  linear-gradient(to right, var(--line), transparent) 0 0 / 14px 100% scroll no-repeat,
  linear-gradient(to left, var(--line), transparent) 100% 0 / 14px 100% scroll no-repeat; }
#sideways { display: none; } @media (max-width: 900px) { #sideways { display: inline; } }
#drawing { display: block; width: 100%; min-width: 860px; height: auto; }
#drawing text { fill: var(--text); font: 14px system-ui, "DejaVu Sans", sans-serif; }
#drawing .name { font-weight: 650; font-size: 16px; } #drawing .heading { font-size: 16px; }
#drawing .small { fill: var(--soft); font-size: 13px; } #drawing .state { font-size: 13px; }
.ground { fill: var(--ground); stroke: var(--line); }
.frames { fill: var(--other); } .free { fill: var(--free); } .cached { fill: url(#cached); }
.stripe { stroke: var(--cached); stroke-width: 1.3; fill: none; }
.thread { fill: none; stroke: var(--own); stroke-width: 1; opacity: .55; pointer-events: none; }
.chost { --own: var(--image); }
.p-firmware { fill: var(--firmware); } .p-image { fill: var(--image); } .p-boot { fill: var(--boot); }
.p-frame-database { fill: var(--frame-database); } .p-heap { fill: var(--heap); }
.p-host-tables, .p-user-tables { fill: var(--tables); } .p-stacks { fill: var(--stacks); }
.p-vcpu, .p-per-cpu { fill: var(--vcpu); }
.c0 { --own: var(--c0); } .c1 { --own: var(--c1); } .c2 { --own: var(--c2); }
.c3 { --own: var(--c3); } .c4 { --own: var(--c4); } .c5 { --own: var(--c5); }
.c6 { --own: var(--c6); } .c7 { --own: var(--c7); }
.guest { fill: var(--own); } .guest.table { fill: color-mix(in srgb, var(--own) 55%, var(--text)); }
.ribbon { opacity: .22; pointer-events: none; transition: opacity .15s; }
.run { stroke: var(--back); stroke-width: 1; } .absent { fill: var(--free); }
.written { fill: var(--written); } .reached { fill: var(--reached); }
.page { pointer-events: none; } .hatch { stroke: var(--hatch); stroke-width: 1; }
.frame { fill: none; stroke: var(--line); pointer-events: none; }
.ended { opacity: .45; }
svg :focus { outline: none; }
.chosen { stroke: var(--text) !important; stroke-width: 2.5; paint-order: stroke; }
[data-group]:focus-visible > .frame, [data-group]:focus-visible > .ground {
  stroke: var(--text); stroke-width: 3; }
.linked #memory .ribbon { opacity: .06; } #chosen-ribbons .ribbon { opacity: .7; stroke: var(--back); }
#detail { position: sticky; bottom: 0; max-width: 1500px; margin: .4rem auto; padding: .55rem .9rem;
  background: var(--panel); border: 1px solid var(--line); border-radius: 6px; min-height: 2.6rem;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
ul { list-style: none; margin: 0; padding: 0; display: grid; gap: .2rem 1.2rem;
  grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); }
li { display: flex; align-items: center; gap: .5rem; } small { color: var(--soft); }
li svg { flex: none; border: 1px solid var(--line); border-radius: 3px; }
table { border-collapse: collapse; min-width: 34rem; } th { text-align: left; font-weight: 600; }
th, td { padding: .2rem 1.4rem .2rem 0; border-bottom: 1px solid var(--line); }
kbd { border: 1px solid var(--line); border-radius: 4px; padding: 0 .3em; font: inherit; }
"""

SCRIPT = """
(function () {
  var drawing = document.getElementById("drawing"), detail = document.getElementById("detail");
  var above = document.getElementById("chosen-ribbons");
  var first = detail.innerHTML, chosen = null;
  function choose(shape) {
    if (chosen) chosen.classList.remove("chosen");
    chosen = shape;
    above.textContent = "";
    drawing.classList.remove("linked");
    if (!shape) { detail.innerHTML = first; return; }
    detail.textContent = shape.getAttribute("aria-label");
    shape.classList.add("chosen");
    var run = shape.getAttribute("data-run");
    var ribbons = run ? drawing.querySelectorAll('#memory .ribbon[data-run="' + run + '"]') : [];
    ribbons.forEach(function (r) { above.appendChild(r.cloneNode()); });
    if (ribbons.length) drawing.classList.add("linked");
  }
  function order(shape) { return +(shape.getAttribute("data-order") || 0); }
  function shapes(group) {
    return Array.from(group.querySelectorAll("[tabindex='-1']")).sort(function (a, b) {
      return order(a) - order(b);
    });
  }
  drawing.addEventListener("pointerover", function (event) {
    var shape = event.target.closest("[aria-label][tabindex='-1']");
    choose(shape || null);
  });
  drawing.addEventListener("pointerleave", function () { choose(null); });
  drawing.addEventListener("focusin", function (event) {
    if (event.target.hasAttribute("data-group"))
      detail.textContent = event.target.getAttribute("aria-label") + ": arrow keys go through it";
    else choose(event.target);
  });
  drawing.addEventListener("focusout", function () { choose(null); });
  drawing.addEventListener("keydown", function (event) {
    var group = event.target.closest("[data-group]");
    if (!group) return;
    var all = shapes(group), at = all.indexOf(event.target), to;
    if (event.key === "ArrowDown" || event.key === "ArrowRight") to = Math.min(at + 1, all.length - 1);
    else if (event.key === "ArrowUp" || event.key === "ArrowLeft") to = Math.max(at - 1, 0);
    else if (event.key === "Home") to = 0;
    else if (event.key === "End") to = all.length - 1;
    else if (event.key === "Escape") { group.focus(); event.preventDefault(); return; }
    else return;
    all[to].focus();
    choose(all[to]);
    event.preventDefault();
  });
  document.documentElement.setAttribute("data-ready", "");
})();
"""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Quire: a picture of memory</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>A picture of memory</h1>
<p>Physical memory along a Hilbert curve: an aligned block is a square. Ribbons lead from each guest's
addresses to the frames behind them. Heights in a guest go with the square root of the size; its lines
are page sizes: close for 4K, wide for 2M, widest for 1G. <span id="sideways">The drawing scrolls
sideways.</span></p>
<p id="origin">{origin}</p>
</header>
<section class="scroll">{drawing}</section>
<div id="detail" role="status" aria-live="polite">Point at something, or go there by <kbd>Tab</kbd> and the
arrow keys, to read about it here.</div>
<section><h2>Colours</h2><ul>{legend}</ul></section>
<section class="scroll"><h2>{guests} guests</h2><table>{table}</table></section>
{screens}<script>{script}</script>
</body>
</html>
"""


def boot(options):
    """A dump of a machine whose guests are alive: each that has ended is made anew and held, and each
    that runs on is held where it is."""
    engine, _ = engines.choose(options.engine, options.cpu, options.memory)
    with Machine(engine, options.boot) as machine:
        machine.bring_prompt()
        for row in machine.ask("guests").records("guest"):
            if row["state"] in DEAD and row["state"] != "refused":
                machine.ask(f"start {row['guest']} paused")
            elif row["state"] == "running" and not options.use:
                machine.ask(f"pause {row['guest']}")
        return dump.take(machine, options.use)


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    setting = os.environ.get
    parser.add_argument("dump", nargs="?", help="what `tools/quire dump` saved")
    parser.add_argument("--boot", metavar="ISO", help="an image to boot and ask instead")
    parser.add_argument("--engine", default=setting("ENGINE") or "auto")
    parser.add_argument("--cpu", default=setting("CPU") or None)
    parser.add_argument(
        "--memory", type=engines.memory_size, default=setting("MEMORY") or "256", help="in MiB"
    )
    parser.add_argument("-o", "--output", default="picture.html")
    parser.add_argument(
        "--tables", default="", metavar="host,own", help="tables to show beside the guests' EPTs"
    )
    parser.add_argument(
        "--use", action="store_true",
        help="with --boot: also what the guests that run write and reach, for which they run on a little",
    )
    options = parser.parse_args()
    options.tables = [each.strip() for each in options.tables.split(",") if each.strip()]
    odd = [each for each in options.tables if each not in ("host", "own")]
    if odd:
        parser.error(f"there are no tables {odd[0]!r}; --tables has host, own, or both")
    if bool(options.dump) == bool(options.boot):
        parser.error("either a dump or --boot, please")
    return options


def main():
    options = arguments()
    try:
        if options.boot:
            taken = boot(options)
        else:
            with open(options.dump, encoding="utf-8") as source:
                taken = json.load(source)
        page = Picture(taken, options.tables).page()
    except (MachineError, engines.EngineError, OSError, ValueError, KeyError, TypeError) as error:
        print(f"picture: {error}", file=sys.stderr)
        return 1
    with open(options.output, "w", encoding="utf-8") as out:
        out.write(page)
    print(f"picture: {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
