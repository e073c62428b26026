"""The auditor on the whole machine: it is content with what runs there, names what is broken on purpose,
and is asked without being told at the end of each guest and of each program."""

import re

import pytest

from machines import NO_EPT_CPU, SPIN, TABLES, demo_guests, facts, guest, quit_machine, rows, user_program
from quire_machine.engines import Bochs, Qemu

# More than this many instructions for an audit would be felt between a guest and the next.
MOST_TICKS = 5_000_000

pytestmark = pytest.mark.both_vendors


def content(machine):
    lines = machine.command("audit")
    assert re.fullmatch(r"All \d+ rules hold\.", lines[-1]), "\n".join(lines)
    return facts(lines)


def audits_said(machine):
    """What audits have said. Where ticks are the host's, a guest's turn may end before its last audit does."""
    said = [line for line in machine.lines if "audit: " in line]
    return [line for line in said if "not judged to the end: its time was over after " not in line]


def test_the_demonstration_is_audited_and_nothing_is_found(boot):
    machine = boot()
    machine.wait_prompt()
    said = audits_said(machine)
    assert [re.sub(r"\d+ frames", "N frames", line) for line in said] == [
        "quire: audit: 1 tables, N frames, all rules hold"
    ], said
    for number, _ in enumerate(demo_guests(), 1):
        machine.command(f"start g{number} paused")
    found = content(machine)
    assert found["tables"] == str(1 + len(demo_guests()))
    assert int(found["memory shown to guests"].split()[0]) > 10_000
    # Elsewhere its ticks are the host's, and no instructions.
    assert "guests run by: VMX" not in machine.command("cpu") or int(found["ticks"]) < MOST_TICKS
    for number, _ in enumerate(demo_guests(), 1):
        machine.command(f"kill g{number}")
    assert content(machine)["memory shown to guests"] == "0 (0B)"
    assert not any("audit: g" in line for line in audits_said(machine))
    quit_machine(machine)


@pytest.mark.one_vendor("names its engines")
@pytest.mark.parametrize("engine", [Bochs(), Bochs(NO_EPT_CPU), Qemu()], ids=lambda e: e.cpu)
def test_each_rule_is_broken_and_named(boot, engine):
    machine = boot(modules=[(user_program("hello"), "user:hello")], engine=engine)
    machine.wait_prompt()
    free = facts(machine.command("mem"))["free frames"]
    lines = machine.command("audit selftest")
    trials = rows(lines, "rule")
    assert len(trials) >= 60
    assert {row["named"] for row in trials} == {"yes"}
    # Every rule there is was broken in some way.
    rules = {row["rule"] for row in rows(machine.command("audit"), "rule")}
    assert len(rules) == 22
    assert {row["rule"] for row in trials} - {"-"} == rules
    assert facts(machine.command("mem"))["free frames"] == free
    content(machine)
    quit_machine(machine)


@pytest.fixture
def waiting(boot):
    machine = boot(modules=[(SPIN, "waiting mem=2M paused"), (guest("hello.elf"), "hello mem=4M paused")])
    machine.wait_prompt()
    content(machine)
    return machine


def leaf_of(machine, who, address):
    """Where the leaf entry for a guest-physical address is, and what it holds."""
    step = rows(machine.command(f"walk {who} gpa {address:#x}"), "level")[-1]
    assert step["is"] == "leaf"
    return int(step["entry at"], 16), int(step["raw"], 16)


def findings(machine):
    lines = machine.command("audit")
    assert lines[-1].startswith("error: audit: ")
    return rows(lines, "table")


def poke(machine, at, value):
    assert facts(machine.command(f"poke hpa {at:#x} {value:#x} force"))["value"] == f"{value:#x}"


# An entry that no CPU accepts, made of a legal one, and what is said of it.
ILLEGAL = {
    "vmx": (lambda raw: raw | 0x38, "a reserved memory type"),  # type 7
    "svm": (lambda raw: raw & ~4, "a bit that must be 1 is clear"),  # U/S
}


def test_an_entry_that_no_cpu_accepts_is_found_live_and_at_the_end(waiting, vendor):
    damaged, rule = ILLEGAL[vendor]
    at, raw = leaf_of(waiting, "g1", 0x5000)
    poke(waiting, at, damaged(raw))
    (found,) = findings(waiting)
    assert found["table"] == "g1 waiting"
    assert found["address"] == "0x5000"
    assert found["frame or entry"] == f"{at:#x}"
    assert found["what is wrong"].endswith(rule)
    poke(waiting, at, raw)
    content(waiting)

    poke(waiting, at, damaged(raw))
    waiting.command("kill g1")
    (said,) = [line for line in waiting.lines if "audit: g1" in line]
    assert f"g1 waiting: 0x5000: at {at:#x}: PT entry 5 holds" in said
    content(waiting)


def test_a_guest_that_is_shown_its_neighbours_memory_is_found(waiting):
    _, theirs = leaf_of(waiting, "g2", 0x5000)
    at, raw = leaf_of(waiting, "g1", 0x5000)
    poke(waiting, at, theirs)
    (found,) = findings(waiting)
    assert (found["table"], found["address"]) == ("g1 waiting", "0x5000")
    assert found["frame or entry"] == f"{theirs & ~0xfff:#x}"
    poke(waiting, at, raw)
    content(waiting)


def test_a_guest_that_is_shown_its_own_table_is_found(waiting, vendor):
    at, raw = leaf_of(waiting, "g1", 0x5000)
    poke(waiting, at, (raw & 0xFFF) | (at & ~0xFFF))
    (found,) = findings(waiting)
    assert f"{TABLES[vendor]} tables" in found["what is wrong"]
    poke(waiting, at, raw)
    content(waiting)
