"""A guest with a fault planted in it, found by its inputs, again and again."""

import pytest

from machines import facts, guest, link, quit_machine, rows
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
    assert "no symbol of g1 parser" in machine.command("fuzz g1 input=0x300000:1 until=nowhere")[-1]
    assert "no instruction is there" in machine.command("fuzz g1 input=0x300000:1 until=0x800000000000")[-1]
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
    # So it is where a round ends before the hypercall that says so.
    before, _ = ask(machine, f"{QUESTION} until=parsed")
    for name in ("rounds", "done", "round", "at", "reason", "input"):
        assert before[name] == found[name]
    met = {row["exit"]: int(row["count"]) for row in rows(machine.command("exits g1"), "exit")}["until"]
    assert met == int(found["done"])
    replayed, last = ask(machine, "fuzz g1 replay")
    assert "the same again, at the same instruction" in last
    assert replayed["at"] == found["at"]
    assert facts(machine.command("regs g1"))
    assert "put back; running" in machine.command("reset g1")[-1]
    machine.command("kill g1")
    assert machine.command("check")[-1].endswith("hold.")
    quit_machine(machine)


ROUNDS = 5


def said(machine):
    """All that the guest has printed, but for how it was broken into lines."""
    return "".join("".join(machine.ask("output g1").quoted).split())


def rounds_until(machine, where, at):
    """All of them end there, before the instruction is executed. What the guest has said in them."""
    before = said(machine)
    machine.command("trace on exit")
    answer = machine.ask(f"fuzz g1 input=0x300000:1 rounds={ROUNDS} until={where}", timeout=PATIENCE)
    seen = [row for row in machine.ask("trace show 2048 exit g1").records("event") if row["detail"] == "until"]
    machine.command("trace off")
    found = answer.records("fuzzing")[0]
    assert (found["done"], found["halted"], found["out_of_time"], found["crashed"]) == (ROUNDS, 0, 0, False)
    assert [int(row["at"], 16) for row in seen] == [at] * ROUNDS
    return said(machine)[len(before) :]


@pytest.mark.both_vendors
def test_a_round_ends_at_an_instruction(boot, vendor, tmp_path):
    machine = boot(modules=[(link("until64.asm", tmp_path, 64), "until entry=elf64 mem=4M bare")])
    machine.expect(r"g1 until\] r", PATIENCE)
    machine.press("\r")
    machine.wait_prompt(PATIENCE)
    symbols = {name: int(facts(machine.command(f"print g1 {name}"))["value"], 16)
               for name in ("waits", "plain", "middle", "rights")}  # fmt: skip
    # It stands there in the snapshot, executes that and comes back to it.
    rounds_until(machine, "waits", symbols["waits"])
    machine.command("poke g1 gva waits 0x9090909090909090")
    machine.command("snapshot g1")
    assert rounds_until(machine, "plain", symbols["plain"]) == "a" * ROUNDS
    assert rounds_until(machine, "middle", symbols["middle"]) == "am" * ROUNDS
    assert rounds_until(machine, "0x8000000000", 0x8000000000) == "amh" * ROUNDS
    own = "b" if vendor == "vmx" else ""  # QEMU: docs/SVM.md
    assert rounds_until(machine, "rights", symbols["rights"]) == f"amh{own}" * ROUNDS
    machine.command("poke g1 gva many 1")
    machine.command("snapshot g1")
    crowded = "fuzz g1 input=0x300000:1 rounds=2 until=wrong"
    assert any("uses all four debug registers itself" in line for line in machine.command(crowded))
    assert machine.command("audit")[-1].endswith("hold.")
    quit_machine(machine)
