"""Slots that are changed while the guest runs: what it finds then, what comes back, and that every frame does."""

import pytest

from copies_guest import audit, press, start
from machines import link, quit_machine, rows

pytestmark = pytest.mark.both_vendors


def frames(machine):
    return int(rows(machine.command("guests"), "guest")[0]["frames"])


def test_memory_goes_and_comes_back(boot):
    machine = start(boot)
    machine.command("snapshot g1")
    held = frames(machine)
    assert "nothing is at 0x300000+1M any more" in machine.command("slot g1 remove 0x300000 1M")[-1]
    audit(machine)
    press(machine, 1, "v", r"no memory \(hole 0x300000..0x3fffff; a PC loses that: `stray=lost`\), at RIP")
    assert "its slots as they were" in machine.command("reset g1")[-1]
    audit(machine)
    press(machine, 1, "v", "round 1 of g1: all holds")
    assert frames(machine) - held < 8
    # What is there no more may not be written, and what may not be written is not.
    machine.command("slot g1 protect 0x400000 rx 64K")
    audit(machine)
    press(machine, 1, "v", "round 1 of g1: all holds")
    press(machine, 1, "w", r"RAM at 0x400000\+64K, now r-x--, at RIP")
    assert "its slots as they were" in machine.command("reset g1")[-1]
    press(machine, 1, "w", "round 2 of g1: all holds")
    machine.command("slot g1 protect 0x400000 rx 64K; slot g1 protect 0x400000 rwx")
    press(machine, 1, "w", "round 3 of g1: all holds")
    machine.command("kill g1")
    assert machine.command("check")[-1].endswith("hold.")
    quit_machine(machine)


def test_slots_of_all_kinds(boot):
    machine = start(boot)
    before = frames(machine)
    machine.command("dirty g1")
    assert "overlaps RAM at 0x100000" in machine.command("slot g1 add ram 0x700000 2M")[-1]
    assert "the addresses of a guest on this CPU end at" in machine.command("slot g1 add lazy 0x7ffffffffff000 8K")[-1]
    assert "multiples of 4K" in machine.command("slot g1 add ram 0x800001 4K")[-1]
    machine.command("slot g1 add ram 0x40000000 4M; slot g1 add lazy 0x80000000 1G; slot g1 add rom 0xc0000000 64K")
    assert frames(machine) - before >= 1024 + 16
    audit(machine)
    machine.command("fork g1")
    machine.command("slot g1 remove 0x40100000 1M; slot g1 remove 0x40000000 1M; slot g1 remove 0x40200000")
    machine.command("slot g1 remove 0xc0000000; slot g1 remove 0x80000000; dirty g1 off")
    audit(machine)
    slots = [{row["first"] for row in rows(machine.command(f"slot g{n}"), "first")} for n in (1, 2)]
    assert slots[1] - slots[0] == {"0x40000000", "0x80000000", "0xc0000000"}
    press(machine, 1, "w", "round 2 of g1: all holds")
    press(machine, 2, "w", "round 2 of g2: all holds")
    machine.command("kill g2")
    press(machine, 1, "w", "round 3 of g1: all holds")
    assert frames(machine) <= before + 4
    machine.command("kill g1")
    assert machine.command("check")[-1].endswith("hold.")
    quit_machine(machine)


def test_holes_and_windows(boot):
    """A hole goes through several slots; a device's window comes and goes as a whole."""
    machine = start(boot)
    machine.command("snapshot g1")
    assert "nothing is at 0x90000+384K any more" in machine.command("slot g1 add hole 0x90000 384K")[-1]
    audit(machine)
    ends = [(row["first"], row["last"]) for row in rows(machine.command("slot g1"), "first")]
    assert ends[:2] == [("0x0", "0x8ffff"), ("0xf0000", "0xfffff")]
    press(machine, 1, "v", "round 1 of g1: all holds")
    assert "its slots as they were" in machine.command("reset g1")[-1]
    assert "no device has its window at 0xfed10000" in machine.command("slot g1 add device 0xfed10000 4K")[-1]
    assert "nothing is at 0xfed00000+4K any more" in machine.command("slot g1 remove 0xfed00000")[-1]
    before = [row["first"] for row in rows(machine.command("slot g1"), "first")]
    machine.command("slot g1 add device 0xfed00000 4K")
    after = [row["first"] for row in rows(machine.command("slot g1"), "first")]
    assert set(after) - set(before) == {"0xfed00000"}
    audit(machine)
    press(machine, 1, "w", "round 2 of g1: all holds")
    machine.command("kill g1")
    assert machine.command("check")[-1].endswith("hold.")
    quit_machine(machine)


LARGE = ("0x200000", "0x400000", "0x800000", "0xa00000", "0xc00000", "0xe00000")


def leaves(machine, address):
    """Pages and rights in the 2M there."""
    first, last = int(address, 16), int(address, 16) + (2 << 20) - 1
    runs = machine.ask("map g1").records("run")
    return {(row["page"], row["rights"]) for row in runs if int(row["first"], 16) <= last and int(row["last"], 16) >= first}


def test_what_is_executed_has_small_pages(boot, tmp_path):
    image = link("large64.asm", tmp_path, 64)
    machine = boot(modules=[(image, "large entry=elf64 mem=16M bare nx-huge")])
    machine.expect(r"g1 large\] c", 120)
    machine.press("\r")
    machine.wait_prompt(120)
    for address in LARGE:
        assert leaves(machine, address) == {(2 << 20, "rw---")}, address
    assert leaves(machine, "0x600000") == {(4096, "rwx--")}
    audit(machine)
    # Watched, and no more: what was split for that is joined, what is executed is not.
    machine.command("dirty g1")
    machine.command("poke g1 gpa 0xa00008 1")
    assert leaves(machine, "0xa00000") == {(4096, "rw---")}
    machine.command("dirty g1 off")
    assert leaves(machine, "0xa00000") == {(2 << 20, "rw---")}
    assert leaves(machine, "0x600000") == {(4096, "rwx--")}
    audit(machine)
    machine.command("kill g1")
    assert machine.command("check")[-1].endswith("hold.")
    quit_machine(machine)
