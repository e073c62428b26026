"""`stress` and `bench` on the live machine: repeatable, honest, and without a trace."""

import re

import pytest

from machines import NO_SVM_CPU, SPIN, TABLES, guest, quit_machine, rows
from quire_machine.engines import Qemu

pytestmark = pytest.mark.one_vendor(
    "stress and bench are of the host, but for the rows of the second level", vendor="svm"
)

WRONG = {
    "stress 1": "E_RANGE",
    "stress 65G": "E_RANGE",
    "stress lots": "E_FORMAT",
    "stress 1M lots": "E_FORMAT",
    "stress 1M 1 1": "E_INVAL",
    "bench 0": "E_RANGE",
    "bench 100": "E_RANGE",
    "bench soon": "E_FORMAT",
    "bench 1 1": "E_INVAL",
}


@pytest.fixture(scope="module")
def machine(boot_for_module):
    booted = boot_for_module(modules=[(guest("hello.elf"), "hello mem=4M"), (SPIN, "held mem=2M paused")])
    booted.expect("g1 hello: passed")
    booted.wait_prompt()
    yield booted
    quit_machine(booted)  # after all that, it is well


def state(machine):
    answer = machine.ask("mem")
    memory = answer.facts("memory")
    kept = {key: memory[key] for key in ("total_frames", "free_frames", "used_frames")}
    return kept, answer.records("purpose"), answer.records("owner")


def test_stress_is_repeatable_and_leaves_no_trace(machine):
    before = state(machine)
    runs = [machine.ask("stress 24M 7") for _ in range(2)]
    for each in runs:
        assert each.ok, each.errors
        facts = each.facts("stress")
        assert facts["seed"] == 7 and facts["pages_that_read_back_otherwise"] == 0
        assert facts["written_and_read_back"] >= 24 << 20 and facts["ticks"] > 0
        assert sum(row["size"] for row in each.records("stressed order")) == facts["written_and_read_back"]
        facts["ticks"] = None
    assert runs[0].records("stressed order") == runs[1].records("stressed order")
    assert runs[0].facts("stress") == runs[1].facts("stress")
    other = machine.ask("stress 24M 8")
    assert other.records("stressed order") != runs[0].records("stressed order")
    assert state(machine) == before
    assert machine.ask("check").ok


def test_stress_at_boot_is_that_of_the_console(boot):
    machine = boot(modules=[], cmdline="stress=20M,7")
    machine.expect("boot: stress 20M 7")
    machine.expect("The allocator is as it was before, bit for bit")
    machine.wait_prompt()
    at_boot = rows(machine.lines, "order")
    again = rows(machine.command("stress 20M 7"), "order")
    assert at_boot == again and sum(int(row["blocks"]) for row in again) > 20
    quit_machine(machine)


def test_a_boot_stops_where_the_allocator_does_not_stand_it(boot):
    machine = boot(modules=[], cmdline="memory=2M reserve=1M stress=1G")
    machine.expect("boot: stress 1G")
    machine.expect("error: stress: too little memory is free for it")
    machine.expect("memory: the allocator does not stand this")
    machine.wait_end()
    assert not machine.powered_off()


@pytest.mark.parametrize("value", ["", "lots", "4M,", "4M,x", "4M,1,1", "1" * 40])
def test_a_size_that_is_none_is_named_and_passed_by(boot, value):
    machine = boot(modules=[], cmdline=f"stress={value}")
    machine.expect(re.escape(f'boot: option "stress={value}'[:45]))
    machine.wait_prompt()
    assert not any("stress" in line and "error" in line for line in machine.lines)


def test_stress_shows_how_far_it_is_and_then_only_its_answer(machine):
    lines = machine.command("stress 8M")
    assert lines[0].split() == ["order", "block", "blocks", "size"]
    assert lines[-1].startswith("The allocator is as it was before")
    assert not any("%" in line for line in lines)


@pytest.mark.both_vendors
def test_bench(machine, vendor):
    before = state(machine)
    answer = machine.ask("bench 3")
    assert answer.ok, answer.errors
    rows = answer.records("bench")
    assert len(rows) == 13
    for row in rows:
        assert 0 < row["at_best"] <= row["ticks_each"] <= row["at_worst"], row
    assert {row["operation"].split(":")[0] for row in rows} == {"buddy", "user", TABLES[vendor]}
    # Bochs counts instructions, and the console says so.
    assert answer.facts("bench conditions")["a_tick_is_an_instruction"] == (vendor == "vmx")
    assert state(machine) == before
    assert machine.ask("check").ok


@pytest.mark.parametrize("command", WRONG)
def test_wrong(machine, command):
    assert machine.ask(command).code == WRONG[command]


def test_where_there_are_no_guests(boot):
    machine = boot(modules=[], engine=Qemu(NO_SVM_CPU))
    machine.wait_prompt()
    answer = machine.ask("bench 2")
    measured = {row["operation"].split(":")[0] for row in answer.records("bench")}
    assert answer.ok and measured == {"buddy", "user"}
    assert machine.ask("stress 64M").ok
    quit_machine(machine)
