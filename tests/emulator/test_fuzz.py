"""A guest with a fault planted in it, found by its inputs, again and again."""

import pytest

from machines import facts, guest, quit_machine
from quire_machine.engines import Bochs, Qemu

pytestmark = pytest.mark.one_vendor("names its engines")

PATIENCE = 240
ENGINES = {"nested paging": Qemu, "EPT with a log": lambda: Bochs("corei7_icelake_u")}
QUESTION = "fuzz g1 input=0x300000:32 rounds=4000 seed=3"


def ask(machine, question):
    lines = machine.command(question, timeout=PATIENCE)
    return facts(lines), lines[-1]


@pytest.mark.parametrize("engine", ENGINES)
def test_the_planted_crash_is_found(boot, engine):
    machine = boot(modules=[(guest("parser.elf"), "parser bare mem=4M")], engine=ENGINES[engine]())
    machine.expect("ready", PATIENCE)
    machine.press("\r")
    machine.wait_prompt(PATIENCE)
    assert machine.command("fuzz g1 replay")[-1].startswith("error: fuzz: g1 parser has no crash")
    assert "where the input goes" in machine.command("fuzz g1 rounds=2")[-1]
    assert "an input has 1 to 1024 bytes" in machine.command("fuzz g1 input=0x300000:0")[-1]
    assert "no memory for the input" in machine.command("fuzz g1 input=0xa0000:32")[-1]
    found, last = ask(machine, QUESTION)
    assert "it crashes" in last
    assert found["crashed"] == "yes"
    assert found["reason"].startswith("write to GPA 0xa0000: no memory")
    assert int(found["rounds"]) == int(found["round"])
    assert int(found["done"]) + int(found["out of time"]) + 1 == int(found["round"])
    assert machine.command("audit")[-1].endswith("hold.")
    # The same question has the same answer, and the crash is had again.
    again, _ = ask(machine, QUESTION)
    for name in ("rounds", "round", "at", "reason", "input"):
        assert again[name] == found[name]
    replayed, last = ask(machine, "fuzz g1 replay")
    assert "the same again, at the same instruction" in last
    assert replayed["at"] == found["at"]
    assert facts(machine.command("regs g1"))
    assert "put back; running" in machine.command("reset g1")[-1]
    machine.command("kill g1")
    assert machine.command("check")[-1].endswith("hold.")
    quit_machine(machine)
