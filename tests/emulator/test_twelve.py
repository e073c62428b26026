"""Twelve guests at once, half of them forks of the others: each has its share of the CPU, each comes to what it must,
and at the end the machine has what it had before."""

import re
import time

import pytest

from machines import facts, guest, quit_machine, rows
from quire_machine.engines import Qemu
from test_chaos import rounds_of

pytestmark = pytest.mark.one_vendor("what they share is of no vendor's, and QEMU is quick; names its engine")

PATIENCE = 120
PARENTS = 6
GUESTS = 2 * PARENTS
SECONDS = 8
FAIR = 0.25  # of the middle, either way: QEMU's clock runs on while the computer does something else


def line(number):
    """Half of them get their memory as they touch it; no two are of one size."""
    return f"g{number} mem={4 + number}M{' lazy' if number % 2 else ''} -- 128"


def fork_all(machine, first):
    """Forks of g1 to g6, numbered from `first`."""
    for number in range(1, 1 + PARENTS):
        machine.command(f"fork g{number}", timeout=PATIENCE)
    names = [row["name"] for row in rows(machine.command("guests", timeout=PATIENCE), "guest")]
    assert names[first - 1 :] == [f"g{number}" for number in range(1, 1 + PARENTS)]


def ticks(machine):
    """What each of the twelve has had of the CPU."""
    lines = machine.command("; ".join(f"exits g{number}" for number in range(1, 1 + GUESTS)), timeout=PATIENCE)
    found = [int(line.split(": ")[1]) for line in lines if line.startswith("ticks inside: ")]
    assert len(found) == GUESTS
    return found


def frames(machine):
    """Free ones, and those of the structures that stay for guests that have ended."""
    lines = machine.command("mem", timeout=PATIENCE)
    heap = next(int(row["frames"]) for row in rows(lines, "purpose") if row["purpose"] == "heap")
    return int(facts(lines)["free frames"].split()[0]) + heap


def expect_rules(machine):
    """Guests may print behind the answer."""
    assert any(line.endswith("rules hold.") for line in machine.command("audit", timeout=PATIENCE))


def end_all(machine, count):
    for number in range(1, 1 + count):
        machine.command(f"kill g{number}", timeout=PATIENCE)
    assert {row["frames"] for row in rows(machine.command("guests", timeout=PATIENCE), "guest")} == {"0"}
    expect_rules(machine)


def test_twelve_at_once(boot):
    machine = boot(modules=[(guest("reckon.elf"), line(number)) for number in range(1, 1 + PARENTS)], engine=Qemu())
    machine.expect(rf"\[g{PARENTS} g{PARENTS}\] round ", PATIENCE)
    machine.press("\r")
    machine.wait_prompt(PATIENCE)
    fork_all(machine, 1 + PARENTS)
    machine.command("dirty g1; snapshot g2", timeout=PATIENCE)
    expect_rules(machine)
    before = ticks(machine)
    time.sleep(SECONDS)
    had = [after - earlier for earlier, after in zip(before, ticks(machine), strict=True)]
    middle = sorted(had)[GUESTS // 2]
    assert all(abs(each - middle) < FAIR * middle for each in had), had
    for number in range(1, 1 + GUESTS):
        machine.wait_for(lambda n=number: rounds_of(machine, n) > 0, f"what g{number} comes to", PATIENCE)
    expect_rules(machine)
    end_all(machine, GUESTS)
    held = frames(machine)
    # Once more from the start: nothing has stayed behind, and nothing does.
    machine.command("; ".join(f"start g{number}" for number in range(1, 1 + PARENTS)), timeout=PATIENCE)
    fork_all(machine, 1 + GUESTS)
    time.sleep(1)
    end_all(machine, GUESTS + PARENTS)
    assert frames(machine) == held
    assert machine.command("check", timeout=PATIENCE)[-1].endswith("hold.")
    quit_machine(machine)
