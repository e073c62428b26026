"""Snapshots, the way back to them, and forks: the guest verifies from inside what the console claims from outside."""

import re

import pytest

from copies_guest import PATIENCE, audit, press, start
from machines import NO_ACCESSED_DIRTY_CPU, facts, guest, quit_machine
from quire_machine.engines import Bochs, Qemu

pytestmark = pytest.mark.one_vendor("names its engines")

ENGINES = {
    "nested paging": Qemu,
    "EPT with a log": lambda: Bochs("corei7_icelake_u"),
    "EPT without A and D": lambda: Bochs(NO_ACCESSED_DIRTY_CPU),
}


def free_frames(machine):
    return facts(machine.command("mem"))["free frames"]


@pytest.mark.parametrize("engine", ENGINES)
def test_back_to_a_snapshot(boot, engine):
    machine = start(boot, ENGINES[engine]())
    assert "has no snapshot to go back to" in machine.command("reset g1")[-1]
    assert "`reset g1` comes back to here" in machine.command("snapshot g1")[-1]
    audit(machine)
    for _ in range(2):
        press(machine, 1, "w", "round 2 of g1: all holds")
        press(machine, 1, "w", "round 3 of g1: all holds")
        back = machine.command("reset g1")[-1]
        pages = int(re.search(r"back, (\d+) pages? put back; running", back)[1])
        assert 682 <= pages < 720  # two thirds of 1024, and where it keeps its numbers
        audit(machine)
        press(machine, 1, "v", "round 1 of g1: all holds")
    press(machine, 1, "c", "it has a snapshot: `reset g1` goes back to it")
    assert "is held at its end" in machine.command("resume g1")[-1]
    assert "put back; running" in machine.command("reset g1")[-1]
    press(machine, 1, "w", "round 2 of g1: all holds")
    machine.command("kill g1")
    assert machine.command("check")[-1].endswith("hold.")
    quit_machine(machine)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_poked_is_written_by_the_guest_alone(boot, engine):
    """As if it wrote itself: its snapshot and its fork keep what they have, and it is among the dirty pages."""
    machine = start(boot, ENGINES[engine]())
    at = 0x500000
    before = facts(machine.command(f"peek g1 gpa {at:#x}"))["value"]
    for command in ("pause g1", "snapshot g1", "fork g1", "dirty g1"):
        machine.command(command)
    for words in ("", " force"):
        assert facts(machine.command(f"poke g1 gpa {at:#x} 0x1234{words}"))["was"] == before
        assert facts(machine.command(f"peek g1 gpa {at:#x}"))["value"] == "0x1234"
        assert facts(machine.command(f"peek g2 gpa {at:#x}"))["value"] == before
        assert any(line.split()[:1] == [f"{at:#x}"] for line in machine.command("dirty g1"))
        audit(machine)
        assert "back, 1 page put back" in machine.command("reset g1")[-1]
        assert facts(machine.command(f"peek g1 gpa {at:#x}"))["value"] == before
    audit(machine)
    machine.command("kill g1; kill g2")
    assert machine.command("check")[-1].endswith("hold.")
    quit_machine(machine)


@pytest.mark.parametrize("engine", ENGINES)
def test_forks(boot, engine):
    machine = start(boot, ENGINES[engine]())
    assert "a fork of g1, running" in machine.command("fork g1")[-1]
    audit(machine)
    press(machine, 2, "v", "round 1 of g2: all holds")
    press(machine, 2, "w", "round 2 of g2: all holds")
    press(machine, 1, "v", "round 1 of g1: all holds")
    assert "a fork of g2, running" in machine.command("fork g2")[-1]
    press(machine, 1, "w", "round 2 of g1: all holds")
    press(machine, 3, "v", "round 2 of g3: all holds")
    audit(machine)
    # The first ends first.
    press(machine, 1, "q", "g1 copies: passed")
    audit(machine)
    press(machine, 2, "w", "round 3 of g2: all holds")
    press(machine, 3, "w", "round 3 of g3: all holds")
    audit(machine)
    press(machine, 2, "q", "g2 copies: passed")
    press(machine, 3, "w", "round 4 of g3: all holds")
    audit(machine)
    press(machine, 3, "q", "g3 copies: passed")
    machine.expect("g3 copies: gave back")
    assert machine.command("check")[-1].endswith("hold.")
    # All that is held now are the structures of guests.
    before = free_frames(machine)
    machine.command("start g1 paused; fork g1; snapshot g4; kill g1; kill g4")
    after = free_frames(machine)
    machine.command("start g1 paused; kill g1; start g4 paused; kill g4")
    assert free_frames(machine) == after
    assert int(before.split()[0]) - int(after.split()[0]) < 16
    quit_machine(machine)


@pytest.mark.parametrize("engine", ENGINES)
def test_equal_pages(boot, engine):
    """Two guests that hold the same, and much that was never written: kept once, until they write."""
    modules = [(guest("copies.elf"), f"{name} mem=8M merge") for name in ("one", "two")]
    machine = boot(modules=modules, engine=ENGINES[engine]())
    for _ in modules:
        machine.expect("round 1 of g[12]: all holds", PATIENCE)
    machine.press("\r")
    machine.wait_prompt(PATIENCE)
    before = int(free_frames(machine).split()[0])
    told = facts(machine.command("merge"))
    assert int(told["shared with an equal one"].split()[0]) > 2048
    freed = int(told["frames that came free"].split()[0])
    assert freed > 2048
    audit(machine)
    memory = facts(machine.command("mem"))
    assert freed - 16 <= int(memory["free frames"].split()[0]) - before <= freed
    assert freed - 16 <= int(memory["saved by sharing"].split()[0]) <= freed
    press(machine, 1, "v", "round 1 of g1: all holds")
    press(machine, 2, "w", "round 2 of g2: all holds")
    press(machine, 1, "w", "round 2 of g1: all holds")
    audit(machine)
    machine.command("merge; fork g2; kill g2")
    press(machine, 1, "w", "round 3 of g1: all holds")
    press(machine, 3, "v", "round 2 of g3: all holds")
    audit(machine)
    machine.command("kill g1; kill g3")
    assert machine.command("check")[-1].endswith("hold.")
    quit_machine(machine)


def test_quota(boot):
    """A fork that may not hold what it copies is paused, and goes on where it was once it may."""
    machine = start(boot, Qemu(), "mem=8M lazy quota=9M")
    machine.command("fork g1")
    machine.command("quota g2 512K")
    press(machine, 2, "w", "its quota is 512K; `quota g2 SIZE`, then `resume g2`")
    press(machine, 1, "w", "round 2 of g1: all holds")
    audit(machine)
    machine.command("resume g2")
    machine.expect("its quota is 512K", PATIENCE)
    machine.command("quota g2 none")
    machine.send("resume g2\r")
    machine.expect("round 2 of g2: all holds", PATIENCE)
    machine.command("kill g1; kill g2")
    assert machine.command("check")[-1].endswith("hold.")
    quit_machine(machine)


def test_what_copying_costs_is_tried_on_the_guest_and_leaves_it_as_it_was(boot):
    machine = boot(modules=[(guest("hello.elf"), "hello mem=8M paused")], engine=Qemu())
    machine.wait_prompt()
    # What was shared for a moment may be written again at its first write, as after a fork's end.
    before, free = machine.command("digest g1"), free_frames(machine)
    asked = machine.ask("cost g1").records("cost")
    assert {row["what"]: int(row["pages"]) for row in asked}.keys() >= {
        "shared with another table", "a loop over entries and counts", "given back by that table",
    }  # fmt: skip
    assert all(int(row["ticks_each"]) > 0 for row in asked), asked
    assert machine.command("digest g1") == before
    assert free_frames(machine) == free
    audit(machine)
    machine.command("start g1")
    machine.expect("g1 hello: passed")
    quit_machine(machine)
