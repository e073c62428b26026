#!/usr/bin/env python3
"""What a guest's memory costs as an object, in instructions: boots tests/bench/memory.asm as a guest in Bochs, whose
TSC counts instructions, and holds faults, copies, ways back and lists of dirty pages against limits. Exits 1 when one is
missed.
"""

import sys

from costs import costs, machine_with
from machines import facts, rows

PATIENCE = 240
COUNT = 0x6000  # memory.asm: how many pages it dirties in a round
INPUT = "0x3000:8"  # nobody reads it
DIRTY, FEW, LISTED = 44, 4, 100


def faults():
    """Instructions of a first touch and of a copy on write, without what zeroes and copies."""
    with machine_with("memory", "mem=128M lazy pages=4K") as machine:
        machine.expect("ready", PATIENCE)
        machine.press("\r")
        machine.wait_prompt(PATIENCE)
        machine.command("snapshot g1")
        machine.send("type g1 w\r")
        machine.expect("cost a write after a snapshot", PATIENCE)
        mean = {what: mean for what, _, mean in costs(machine)}
    return (
        mean["a first touch"] - mean["a page zeroed"],
        mean["a write after a snapshot"] - mean["a page copied"],
        mean["a page copied"],
    )


def touch_beside(others):
    """Of a first touch on a CPU of its own, while so many other guests do the same on others, with what zeroes."""
    options = [f"mem=64M lazy pages=4K pin={cpu}" for cpu in range(1, others + 2)]
    with machine_with("memory", *options, cpus=3) as machine:
        for number in range(1, others + 2):
            machine.wait_for(lambda tag=f"[g{number} memory] ready": tag in machine.lines, "the guests", PATIENCE)
        return {what: mean for what, _, mean in costs(machine)}["a first touch"]


def reset(machine, pages):
    """(instructions, pages put back) of a way back after the guest has dirtied so many."""
    machine.command(f"poke g1 gpa {COUNT:#x} {pages}")
    machine.command("snapshot g1", timeout=PATIENCE)
    found = facts(machine.command(f"fuzz g1 input={INPUT} rounds=50", timeout=PATIENCE))
    return int(found["ticks a reset"]), int(found["pages put back a reset"])


def copies(size, memory):
    """Of an eager guest of this size by pages of 4K: a table's sharing, the plain loop's, for each page; ways back
    from few and from many dirty pages; a list of dirty pages, all of it."""
    with machine_with("memory", f"mem={size} pages=4K", memory=memory) as machine:
        machine.expect("ready", PATIENCE)
        machine.send("type g1 w\r")
        machine.expect("cost a write after a snapshot", PATIENCE)
        machine.press("\r")
        machine.wait_prompt(PATIENCE)
        machine.command("pause g1")
        few, many = reset(machine, FEW), reset(machine, DIRTY)
        machine.command(f"reset g1; poke g1 gpa {COUNT:#x} {LISTED}; resume g1")
        told = {row["what"]: row for row in rows(machine.command("cost g1", timeout=PATIENCE), "what")}
        each = {what: int(row["ticks each"]) for what, row in told.items()}
        listed = told["written, found and listed"]
        return {
            "shared": each["shared with another table"],
            "loop": each["a loop over entries and counts"],
            "page": (many[0] - few[0]) / (many[1] - few[1]),
            "back": many[0],
            "list": int(listed["ticks each"]) * int(listed["pages"]),
        }


def main():
    touch, write, copied = faults()
    small, large = copies("128M", 256), copies("1G", 1536)
    table = [
        ("first touch of 4K, without zeroing", touch, 900),
        ("first touch: two guests on two CPUs to one", touch_beside(1) / touch_beside(0), 1.1),
        ("copy on write of 4K, without the copy", write, 1100),
        ("fork, for each 2M by 4K: to a plain loop", small["shared"] / small["loop"], 1.3),
        ("way back, each page without its copy", round(small["page"] - copied), 600),
        (f"way back, {DIRTY} dirty pages of 128M", small["back"], None),
        (f"way back, {DIRTY} dirty pages: 1G to 128M", large["back"] / small["back"], 1.2),
        (f"list of {LISTED} dirty pages of 1G", large["list"], None),
        (f"list of {LISTED} dirty pages: 1G to 128M", large["list"] / small["list"], 1.2),
    ]
    missed = 0
    print(f"{'memory, in instructions of the emulated CPU':44}{'':>10}{'limit':>8}")
    for what, found, limit in table:
        verdict = "" if limit is None else "  ok" if found <= limit else "  MISSED"
        missed += "MISSED" in verdict
        shown = f"{found:.2f}" if isinstance(found, float) else str(found)
        print(f"{what:44}{shown:>10}{limit or '':>8}{verdict}")
    return missed != 0


if __name__ == "__main__":
    sys.exit(main())
