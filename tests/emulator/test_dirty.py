"""What a guest writes, as the hypervisor finds it: by the CPU's log, by the table's dirty bits, by write protection.
The guest says itself which pages it wrote; and whatever finds them finds the same."""

import re

import pytest

from machines import NO_ACCESSED_DIRTY_CPU, facts, guest, quit_machine, rows
from quire_machine.engines import Bochs, Qemu

pytestmark = pytest.mark.one_vendor("names its engines")

PATIENCE = 120
FIRST, END = 0x200000, 0x800000

WAYS = {
    "the CPU's log": lambda: Bochs("corei7_icelake_u"),
    "the table's dirty bits": lambda: Bochs("corei7_haswell_4770"),
    "write protection": lambda: Bochs(NO_ACCESSED_DIRTY_CPU),
    "the table's dirty bits, of NPT": Qemu,
}
found = {}  # by way


def dirty(machine, number=1):
    lines = machine.command(f"dirty g{number}")
    runs = [(int(row["from"], 16), int(row["to"], 16)) for row in rows(lines, "from")] if len(lines) > 1 else []
    return runs, lines[-1]


def run_writer(boot, engine, options="mem=8M"):
    """The guest's own list, what was found in the meantime, and what was found after it."""
    machine = boot(modules=[(guest("writer.elf"), f"writer {options} paused -- 7")], engine=engine)
    machine.wait_prompt(PATIENCE)
    begun = machine.command("dirty g1")[-1]
    assert re.search("tracked from now on, by ", begun)
    assert dirty(machine)[0] == []
    machine.send("resume g1\r")
    machine.expect("halted", PATIENCE)
    machine.wait_prompt(PATIENCE)
    said = [line.split("wrote ")[1].split() for line in machine.command("output g1") if "wrote " in line]
    return machine, [(int(a, 16), int(b, 16)) for a, b in said], *dirty(machine), dirty(machine)[0]


@pytest.mark.parametrize("way", WAYS)
def test_what_is_found_is_what_was_written(boot, way):
    machine, said, runs, note, again = run_writer(boot, WAYS[way]())
    assert way.split(",")[0] in note
    assert len(said) > 20
    assert [run for run in runs if FIRST <= run[0] < END] == said
    assert again == []
    found[way] = runs
    assert all(other == runs for other in found.values())
    assert machine.command("audit")[-1].endswith("hold.")
    # Joined again: what the table maps is what it mapped before it was tracked.
    tables = facts(machine.command("map g1"))
    assert "tracked no more" in machine.command("dirty g1 off")[-1]
    assert machine.command("audit")[-1].endswith("hold.")
    joined = facts(machine.command("map g1"))
    assert int(joined["table frames"].split()[0]) < int(tables["table frames"].split()[0])
    machine.command("kill g1")
    assert machine.command("check")[-1].endswith("hold.")
    quit_machine(machine)


def test_lazy_memory_and_questions_that_are_none(boot):
    machine, said, runs, _, _ = run_writer(boot, Qemu(), "mem=8M lazy")
    assert [run for run in runs if FIRST <= run[0] < END] == said
    assert machine.command("dirty g1 on")[-1].startswith("error: dirty: ")
    machine.command("dirty g1 off")
    assert "is not tracked" in machine.command("dirty g1 off")[-1]
    machine.command("kill g1")
    assert "has no memory" in machine.command("dirty g1")[-1]
    quit_machine(machine)


HEAT_WAYS = {"EPT": lambda: Bochs("corei7_haswell_4770"), "NPT": Qemu}


@pytest.mark.parametrize("way", HEAT_WAYS)
def test_a_working_set(boot, way):
    """A loop reaches its own page in every sample, and what it left behind in none."""
    machine = boot(modules=[(guest("spin.elf"), "spin mem=4M pages=4K")], engine=HEAT_WAYS[way]())
    machine.expect("spin", PATIENCE)
    machine.press("\r")
    machine.wait_prompt(PATIENCE)
    machine.command("heat g1 samples=1")  # what it reached at its start
    lines = machine.command("heat g1 samples=4 ticks=2000000")
    told = facts(lines)
    assert told["samples"] == "4"
    assert 1 <= int(told["in every sample"].split()[0]) <= int(told["in any sample"].split()[0]) < 32
    runs = rows(lines, "from")
    assert any(int(row["from"], 16) <= 0x100000 <= int(row["to"], 16) for row in runs if row["samples"] == "4")
    machine.command("kill g1")
    assert "only a guest that runs" in "".join(machine.command("heat g1"))
    quit_machine(machine)


def test_no_working_set_without_accessed_bits(boot):
    machine = boot(modules=[(guest("spin.elf"), "spin mem=4M")], engine=Bochs(NO_ACCESSED_DIRTY_CPU))
    machine.expect("spin", PATIENCE)
    machine.press("\r")
    machine.wait_prompt(PATIENCE)
    assert "does not note in a guest's table what was accessed" in machine.command("heat g1")[-1]
    quit_machine(machine)
