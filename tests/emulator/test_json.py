"""Both forms of every command's answer, on a machine where guests wait, have ended and were refused:
each object is what the schema says, and says the same as the text."""

import json
import os

import pytest

from machines import SPIN, guest, quit_machine, user_program
from quire_machine import address, validate
from quire_machine.answers import Answer, text_lines
from support import ROOT

with open(os.path.join(ROOT, "docs", "monitor.schema.json"), encoding="ascii") as text:
    SCHEMA = json.load(text)

# Nothing runs on this machine unless a test says so: what is asked twice is answered twice alike.
MODULES = [
    (guest("hello.elf"), "hello mem=4M"),
    (guest("touch.elf"), "touch mem=8M lazy paused"),
    (SPIN, "waiting mem=1M paused"),
    (b"no image", "broken"),
    (user_program("hello"), "user:hello"),
]

# Beside each command's own example.
MORE = [
    "help walk",
    "map host",
    "map user",
    "map g1",
    "map g2",
    "map g3",
    "walk host 0xffffffff80200000",
    "walk host 0xffffa00000000000",
    "walk g1 gpa 0x1000",
    "walk g3 gpa 0x7c00",
    "walk g3 gpa 0xa0000",
    "walk g2 gpa 4096",
    "walk g3 gva 0x7c00",
    "regs g3",
    "report g4",
    "output g1",
    "eptp g3",
    "log",
    "explain g3 gpa 0x7c00 w",
    "explain g3 gpa 0xa0000",
    "explain host kernel_text x",
    "who kernel_text-0xffffffff80000000",
    "dump hpa 0x200000 64",
    "peek g3 gpa 0x7c00",
]

WRONG = {
    "frobnicate": "E_NOENT",
    "mem all": "E_INVAL",
    "map": "E_INVAL",
    "map g9": "E_NOENT",
    "map elsewhere": "E_FORMAT",
    "walk host 0": "E_RANGE",
    "walk host nowhere": "E_FORMAT",
    "pause g1": "E_STATE",
    "eptp g1": "E_STATE",
    "log 0": "E_RANGE",
    "help nothing": "E_NOENT",
    'mem "': "E_FORMAT",
}

CHANGING = {"start", "pause", "resume", "kill", "quit", "attach"}
# What counts ticks or events is never the same twice.
MOVING = {"version", "bench", "stress", "trace", "audit"}


@pytest.fixture(scope="module")
def machine(boot_for_module):
    booted = boot_for_module(modules=MODULES)
    booted.expect("g1 hello: passed")
    booted.wait_prompt()
    return booted


@pytest.fixture(scope="module")
def commands(machine):
    """Everything that is asked: each command's example, and more."""
    names = [row["command"] for row in machine.ask("help").records("command")]
    examples = [machine.ask(f"help {name}").notes[-1].removeprefix("example: ") for name in names]
    return [each for each in examples if each.split()[0] not in CHANGING] + MORE


def check_schema(answer):
    assert answer.complete
    for each in answer.objects:
        assert validate.problems(each, SCHEMA) == [], each


def folded(lines):
    """Text without its blanks, headings left in. What guests and the log print meanwhile is not it."""
    return [" ".join(line.split()) for line in lines if line and not line.startswith(("quire: ", "["))]


def check_agreement(text, objects):
    """Every line of the objects is in the text, in order; what the text has besides are headings,
    which are equal for equal records."""
    at = 0
    expected = text_lines(objects, lambda name, values: validate.kinds_of(SCHEMA, name, values))
    kinds = [each["kind"] for each in objects]
    for line in expected:
        rest = text[at:]
        if line.startswith(": "):  # a fact: its name is before it
            found = next((i for i, each in enumerate(rest) if each.endswith(line)), None)
        else:
            found = next((i for i, each in enumerate(rest) if each == line), None)
        assert found is not None, f"no {line!r} in {rest}"
        assert found == 0 or "row" in kinds and found == 1, f"{rest[:found]} is not in the objects"
        at += found + 1
    assert text[at:] == []


@pytest.mark.seconds(600)
def test_both_forms_of_every_command(machine, commands):
    asked = {each.split()[0] for each in commands} | CHANGING
    assert asked >= {row["command"] for row in machine.ask("help").records("command")}
    for command in commands:
        text = folded(machine.command(command))
        answer = machine.ask(command)
        check_schema(answer)
        assert answer.objects[-1]["command"] == command
        if command.split()[0] not in MOVING:
            check_agreement(text, answer.objects[:-1])
        assert answer.ok == (not any(line.startswith("error: ") for line in text))


@pytest.mark.parametrize("command", WRONG)
def test_errors(machine, command):
    text = folded(machine.command(command))
    answer = machine.ask(command)
    check_schema(answer)
    assert answer.code == WRONG[command]
    assert ["error: " + each for each in answer.errors] == text
    assert [each["code"] for each in answer.objects if each["kind"] == "error"] == [answer.code]


def test_changes_in_both_forms(machine):
    for command, state in (("resume g3", "running"), ("pause g3", "paused")):
        answer = machine.ask(command)
        check_schema(answer)
        assert answer.notes == [f"g3 waiting: {state}"]
    assert machine.ask("kill g3").ok
    again = machine.ask("kill g3")
    assert (again.ok, again.code) == (False, "E_STATE")
    assert machine.ask("start g3 paused").ok


def test_the_flag_stands_anywhere(machine):
    here = machine.ask("map g3").objects
    lines = machine.command("--json map g3")
    assert Answer.of(lines).objects == here
    assert Answer.of(machine.command("map --json g3")).objects == here
    alone = Answer.of(machine.command("--json"))
    check_schema(alone)
    assert alone.code == "E_INVAL"
    # Each command of a line has its own.
    lines = machine.command("map g3 --json; version")
    assert Answer.of(lines).objects == here and "program: Quire" in lines


def test_numbers_are_numbers_and_addresses_hexadecimal(machine):
    runs = machine.ask("map g3").records("run")
    assert sum(run["size"] for run in runs) == 640 << 10
    assert address(runs[0]["first"]) == 0 and address(runs[0]["to"]) % 4096 == 0
    frames = machine.ask("mem").facts("memory")
    assert frames["total_frames"] == frames["free_frames"] + frames["used_frames"]
    assert machine.ask("walk g3 gpa 0x7c00").facts("verdict")["page"] == 4096


def test_end(machine):
    quit_machine(machine)
