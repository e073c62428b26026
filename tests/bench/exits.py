#!/usr/bin/env python3
"""What exits cost, in instructions: boots tests/bench/exits.asm as a guest in Bochs, whose TSC counts
instructions, and holds its figures against limits. Exits 1 when one is missed.
"""

import os
import re
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [os.path.join(ROOT, "tools"), os.path.join(ROOT, "tests"), os.path.join(ROOT, "tests", "emulator")]

import image  # noqa: E402
from machines import assemble  # noqa: E402
from quire_machine.engines import Bochs  # noqa: E402
from quire_machine.machine import Machine  # noqa: E402
from support import BUILD  # noqa: E402

# Instructions in the hypervisor, the guest's own few beside.
LIMITS = {
    "CPUID": 350,
    "OUT to a port of no device": 500,
    "IN from the clock": 500,
    "OUT to the 8259": 500,
    "local APIC: EOI by the window": 900,
    "local APIC: EOI by x2APIC": 450,
}
ROW = re.compile(r"\[g1 exits\] cost (.*): +(\d+) (\d+)$")


def measure():
    """[(what, lowest, mean)]"""
    with tempfile.TemporaryDirectory() as folder:
        guest, iso = os.path.join(folder, "exits.bin"), os.path.join(folder, "exits.iso")
        with open(guest, "wb") as made:
            made.write(assemble("../../bench/exits.asm"))
        image.build_image(iso, os.path.join(BUILD, "quire.elf"), "", [(guest, "exits mem=8M pc")])
        machine = Machine(Bochs(), iso)
        try:
            machine.wait_prompt()
            found = [ROW.match(line) for line in machine.lines]
        finally:
            machine.stop()
    return [(row[1], int(row[2]), int(row[3])) for row in found if row]


def main():
    missed = 0
    print(f"{'exits, in instructions of the emulated CPU':44}{'lowest':>8}{'mean':>8}{'limit':>8}")
    rows = measure()
    for what, lowest, mean in rows:
        limit = LIMITS.get(what)
        verdict = "" if limit is None else "  ok" if mean <= limit else "  MISSED"
        missed += "MISSED" in verdict
        print(f"{what:44}{lowest:>8}{mean:>8}{limit or '':>8}{verdict}")
    lost = LIMITS.keys() - {row[0] for row in rows}
    return f"no figure for {', '.join(sorted(lost))}" if lost else missed != 0


if __name__ == "__main__":
    sys.exit(main())
