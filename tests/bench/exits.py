#!/usr/bin/env python3
"""What exits cost, in instructions: boots tests/bench/exits.asm as a guest in Bochs, whose TSC counts
instructions, and holds its figures against limits. Exits 1 when one is missed.
"""

import sys

from costs import costs, machine_with

# Instructions in the hypervisor, the guest's own few beside.
LIMITS = {
    "CPUID": 350,
    "OUT to a port of no device": 500,
    "IN from the clock": 500,
    "OUT to the 8259": 500,
    "local APIC: EOI by the window": 900,
    "local APIC: EOI by x2APIC": 450,
}


def measure():
    """[(what, lowest, mean)]"""
    with machine_with("exits", "mem=8M pc") as machine:
        machine.wait_prompt()
        return costs(machine)


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
