"""The picture of memory: the curve, the page that is drawn from a dump, and the page in Chromium."""

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

import browser
import picture
from support import TOOLS

MIB = 1 << 20
SIZES = [(1600, 1000), (1100, 800), (500, 900)]


def test_the_curve_goes_from_each_cell_to_its_neighbour():
    for order in (1, 2, 5):
        cells = [picture.hilbert(order, index) for index in range(4**order)]
        assert len(set(cells)) == 4**order
        assert all(abs(a - c) + abs(b - d) == 1 for (a, b), (c, d) in zip(cells, cells[1:]))
        assert {cells[0], cells[-1]} == {(0, 0), (2**order - 1, 0)} or order % 2 == 0
        assert cells[0] == (0, 0)


@pytest.mark.parametrize("first, count", [(0, 1), (0, 64), (3, 50), (63, 2), (16, 240), (255, 1)])
def test_a_range_is_squares_that_hold_exactly_its_cells(first, count):
    curve = picture.Curve(256)
    wanted = {picture.hilbert(curve.order, index) for index in range(first, first + count)}
    covered = []
    for x, y, side, offset, part in curve.squares(first * 4096, count * 4096):
        left, top, cells = round(x / curve.unit), round(y / curve.unit), round(side / curve.unit)
        assert part == cells**2 * 4096 and offset >= 0
        covered += [(left + i, top + j) for i in range(cells) for j in range(cells)]
    assert len(covered) == len(set(covered)) and set(covered) == wanted


def test_heights_share_the_room():
    found = picture.heights([4096, 1 << 30, 4096], 200)
    assert sum(found) == pytest.approx(200) and min(found) >= picture.RUN_LEAST
    assert found[1] > 10 * found[0]


def row(record, **values):
    return {"kind": "row", "record": record, "values": values}


def frames(first, size, state="used", purpose="guest memory", owner=None):
    return row(
        "frames", first=hex(first), last=hex(first + size - 1), size=size, state=state,
        purpose=purpose, owner=owner,
    )


def run(first, size, page, to):
    return row(
        "run", first=hex(first), last=hex(first + size - 1), size=size, page=page, to=hex(to),
        rights="rwx--", type="WB", what="RAM",
    )


def machine(guests, memory=256 * MIB):
    """A dump of a machine with this many guests, one of them with a name that HTML would stumble over
    and the last one ended."""
    layout, rows, maps = [frames(0, MIB, "reserved", "firmware", "host")], [], {}
    share = (memory - 2 * MIB) // (guests + 1) // (2 * MIB) * 2 * MIB
    for number in range(1, guests + 1):
        name = "a<b>&\"c'" if number == 1 else f"guest-{number}"
        state = "passed" if number == guests else "running"
        base = 2 * MIB + (number - 1) * share
        owner = f"g{number} {name}"
        if state == "running":
            layout.append(frames(base, share - 4096, owner=owner))
            layout.append(frames(base + share - 4096, 4096, purpose="EPT tables", owner=owner))
        rows.append(
            row(
                "guest",
                guest=f"g{number}",
                name=name,
                state=state,
                expected="passed",
                memory=share + 64 * MIB,
                frames=share // 4096,
                exits=3,
                image="flat",
                reason=None,
            )
        )
        maps[f"map g{number}"] = [
            run(0, 640 << 10, 4096, base),
            run(MIB, share - 2 * MIB, 2 * MIB, base + MIB),
            run(1 << 40, 4096, 4096, base + share - 8192),
        ]
    layout.append(frames(memory - 2 * MIB, 2 * MIB, "free", "free"))
    return {"version": 1, "machine": {"layout": layout, "guests": rows, **maps}}


def draw(taken, folder):
    source, page = folder / "dump.json", folder / "picture.html"
    source.write_text(json.dumps(taken))
    command = [sys.executable, os.path.join(TOOLS, "picture.py"), str(source), "-o", str(page)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done, page


def test_the_page_needs_nothing_from_outside(tmp_path):
    done, page = draw(machine(3), tmp_path)
    assert done.returncode == 0, done.stderr
    text = page.read_text(encoding="utf-8")
    assert "http" not in text and "@import" not in text and "url(#" in text
    assert re.findall(r"url\((?!#)", text) == [] and re.findall(r"<(?:link|img|iframe)\b|src=", text) == []
    # The drawing is well-formed, whatever guests are called, and each of its shapes says what it is.
    drawing = ElementTree.fromstring(re.search(r"<svg id=.*</svg>(?=</section>)", text, re.S).group(0))
    shapes = [each for each in drawing.iter() if each.get("tabindex") == "-1"]
    assert len(shapes) > 10 and all(each.get("aria-label") for each in shapes)
    assert any(each.text == "g1 a<b>&\"c'" for each in drawing.iter() if each.get("class") == "name")


NO_DUMPS = [
    {},
    [],
    {"machine": {}},
    {"machine": {"layout": []}},
    {"machine": {"layout": [{"record": "frames", "values": {}}]}},
]


@pytest.mark.parametrize("taken", NO_DUMPS)
def test_what_is_no_dump(taken, tmp_path):
    done, page = draw(taken, tmp_path)
    assert done.returncode == 1 and done.stderr.startswith("picture: ") and not page.exists()
    assert "Traceback" not in done.stderr


def looks_well(page, folder, size, dark):
    seen = json.loads(browser.measure(page, folder, size, browser.LOOK, dark))
    assert seen["ready"] and seen["clashes"] == 0 and seen["outside"] == 0 and seen["wide"] <= 0, seen
    assert seen["smallest"] >= 8, seen
    return seen


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dark", [False, True])
def test_in_chromium(size, dark, tmp_path):
    _, page = draw(machine(5), tmp_path)
    seen = looks_well(page, str(tmp_path), size, dark)
    names = ["g1 a<b>&\"c'"] + [f"g{number} guest-{number}" for number in range(2, 6)]
    assert sorted(seen["names"]) == seen["listed"] == names
    assert seen["ribbons"] > 5 and seen["frames"] == 10 and seen["runs"] == 5 * 5
    # By keyboard: into a guest, to a part that is mapped, and out again.
    assert seen["spoken"].startswith("g1 a<b>") and "in pages of" in seen["spoken"]
    assert seen["chosen"] > 0 and seen["escaped"]
    light = [int(each) for each in re.findall(r"\d+", seen["back"])[:3]]
    assert (sum(light) < 200) == dark
    image = browser.screenshot(page, str(tmp_path), size, dark)
    assert image.startswith(b"\x89PNG") and len(image) > 10000


@pytest.mark.parametrize("guests, memory", [(0, 64 * MIB), (1, 32 * MIB), (24, 3 << 30)])
def test_few_and_many_guests(guests, memory, tmp_path):
    done, page = draw(machine(guests, memory), tmp_path)
    assert done.returncode == 0, done.stderr
    seen = looks_well(page, str(tmp_path), SIZES[0], False)
    assert len(seen["names"]) == guests


def test_sizes_for_people():
    sizes = {4096: "4K", 1000 << 10: "1000K", MIB: "1M", 242116 << 10: "236.4M", 1 << 30: "1G", 3 << 29: "1.5G"}
    assert {size: picture.words(size) for size in sizes} == sizes


def test_of_which_machine_it_is(tmp_path):
    taken = machine(2)
    taken |= {"taken": "2026-01-02 03:04", "engine": "Bochs, CPU <model>", "tree": "v1-2-g3"}
    version = {"program": "Quire", "compiler": "gcc 12.2.0"}
    taken["machine"]["version"] = [{"kind": "facts", "record": "version", "values": version}]
    _, page = draw(taken, tmp_path)
    wanted = "Quire v1-2-g3; built by gcc 12.2.0; Bochs, CPU &lt;model&gt;; 2026-01-02 03:04"
    assert f'<p id="origin">{wanted}</p>' in page.read_text(encoding="utf-8")


def test_screens(tmp_path):
    taken = machine(3)
    lines = ["a <b> & c", "", "  +--+"] + [""] * 22
    taken["machine"]["screen g1"] = [row("screen row", row=at, text=text) for at, text in enumerate(lines)]
    taken["machine"]["screen g2"] = [row("screen row", row=at, text="") for at in range(25)]
    _, page = draw(taken, tmp_path)
    text = page.read_text(encoding="utf-8")
    assert "<pre>a &lt;b&gt; &amp; c\n\n  +--+</pre>" in text
    assert text.count("Screen of g") == 1 and "Screen of g1 a&lt;b&gt;" in text


def test_what_is_free_is_over_the_ribbons_and_unlike_what_is_cached(tmp_path):
    taken = machine(3)
    taken["machine"]["layout"].append(frames(256 * MIB, MIB, "cached", "free"))
    _, page = draw(taken, tmp_path)
    text = page.read_text(encoding="utf-8")
    free = text.index('class="frames free"')
    assert text.rindex('class="ribbon') < text.index('class="ground"') < free < text.index('class="thread')
    assert ".cached { fill: url(#cached)" in text and '<pattern id="cached"' in text


def with_tables(taken):
    """The host's table, and one of the first guest's own that maps two pages through its EPT."""
    own = run(1 << 40, 8192, 4096, (640 << 10) - 4096)
    taken["machine"]["map g1 gva"] = [own, run(1 << 41, 4096, 4096, 0)]
    taken["machine"]["map host"] = [run(0xFFFF800000000000, 64 * MIB, 2 * MIB, 0)]
    return taken


def test_own_tables_lead_through_the_ept():
    drawn = picture.Picture(with_tables(machine(2)), ["own", "host"])
    own = next(space for space in drawn.spaces if space.name == "g1-own")
    # Of the first run the second page is in a hole of the EPT's; 2 MiB is where the guest's memory begins.
    assert own.behind(own.runs[0]) == [(0, 2 * MIB + (640 << 10) - 4096, 4096)]
    assert own.behind(own.runs[1]) == [(0, 2 * MIB, 4096)]


def test_the_tables_of_host_and_guests(tmp_path):
    source, page = tmp_path / "dump.json", tmp_path / "picture.html"
    source.write_text(json.dumps(with_tables(machine(3))))
    command = [sys.executable, os.path.join(TOOLS, "picture.py"), str(source), "-o", str(page)]
    done = subprocess.run([*command, "--tables", "own,host"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seen = looks_well(page, str(tmp_path), SIZES[0], False)
    assert set(seen["names"]) - set(seen["listed"]) == {"host", "g1 own tables"}
    done = subprocess.run([*command, "--tables", "odd"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "there are no tables 'odd'" in done.stderr


def test_what_a_guest_writes_and_reaches():
    taken = machine(2)
    taken["machine"]["dirty g1"] = [
        row("dirty", **{"from": "0x1000", "to": "0x1fff", "pages": 1, "size": 4096}),
        row("dirty", **{"from": hex((640 << 10) - 4096), "to": hex(MIB + 8191), "pages": 3, "size": 12288}),
    ]
    taken["machine"]["heat g1"] = [
        row("heat", **{"from": "0x0", "to": "0x3fff", "pages": 4, "size": 16384, "samples": 2}),
        {"kind": "facts", "record": "working set", "values": {"samples": 8}},
    ]
    drawn = picture.Picture(taken)
    page = drawn.page()
    strips = re.findall(r'<rect x="([-0-9.]+)" y="([-0-9.]+)" width="9" height="([0-9.]+)"([^>]*)class="(\w+)"', page)
    # One range lies in two parts of the bar and in the hole between them.
    assert [each[4] for each in strips] == ["written"] * 4 + ["reached"]
    assert all(float(each[2]) >= 1 for each in strips)
    assert 'fill-opacity="0.4"' in strips[4][3]
    assert strips[0][0] != strips[4][0]
    assert "g1 a&lt;b&gt;&amp;&quot;c&#x27;: 0x0 to 0x3fff: 16K reached in 2 of 8 samples" in page
    assert page.count("written since the last question") == 4 + 1  # and the legend
    assert "<li><svg" in page and "reached while it ran <small>16K</small>" in page
    # Without the answers there is nothing of it.
    plain = picture.Picture(machine(2)).page()
    assert 'class="written"' not in plain and "reached while it ran" not in plain


class Asked:
    """A console that says what it was asked."""

    def __init__(self, tracked):
        self.tracked, self.asked = tracked, []

    def ask(self, command):
        self.asked.append(command)
        begun = command == "dirty g1" and not self.tracked
        self.tracked = self.tracked or begun
        text = "tracked from now on, by the log" if begun else "2 pages"
        return Said(text)


class Said:
    def __init__(self, text):
        self.objects, self.notes = [{"kind": "note", "text": text}], [text]


def test_nothing_is_left_tracked():
    fresh, before = Asked(False), Asked(True)
    found = picture.dump.ask_use(fresh, "g1")
    assert fresh.asked == ["dirty g1", "heat g1", "dirty g1", "dirty g1 off"]
    assert found["dirty g1"][0]["text"] == "2 pages"
    picture.dump.ask_use(before, "g1")
    assert before.asked == ["dirty g1", "heat g1"]
