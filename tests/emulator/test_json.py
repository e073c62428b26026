"""Both forms of every command's answer, on a machine where guests wait, have ended and were refused:
each object is what the schema says, and says the same as the text."""

import json
import os
import re

import pytest

from machines import SPIN, guest, quit_machine, user_program
from quire_machine import address, validate
from quire_machine.answers import Answer, text_lines
from support import ROOT

pytestmark = pytest.mark.one_vendor("the form of answers; what they say of a vendor is in test_both_forms_of_every_command", vendor="svm")

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
    "bt cpu0",
    "report g4",
    "output g1",
    "devices g3",
    "root g3",
    "log",
    "explain g3 gpa 0x7c00 w",
    "explain g3 gpa 0xa0000",
    "explain host kernel_text x",
    "who kernel_text-0xffffffff80000000",
    "dump hpa 0x200000 64",
    "peek g3 gpa 0x7c00",
    "peek g3 gva 0x7c00 2",
    "peek hva kernel_text 4",
    "dump g3 gpa 0x9ffe0 64",
    "poke g3 gpa 0x7e00 0 2",
    "find g3 gpa 0 1M 0xfeeb",
    "find hpa 0x200000 64K nothing_like_that",
    "map host what=stack",
    "map host page=2M rights=w",
    "map host purpose=heap",
    "map g2 save",
    "map g2 diff",
    "map g3 gva",
    "who 0xfee00000",
    "explain g2 gpa 0x5000 w",
    "explain g3 gva 0x7c00 x user",
    "explain host 0x8000000000000000",
    "audit selftest",
    "oracle 200 3",
    "trace on",
    "stress 1M 4",
    "trace off",
    "trace show 12",
    "trace show host cpu=0",
    "trace counters",
    "paging",
    "colour on",
    "colour off",
    "help trace",
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
    "root g1": "E_STATE",
    "bt cpu1": "E_NOENT",
    "bt cpu": "E_FORMAT",
    "log 0": "E_RANGE",
    "help nothing": "E_NOENT",
    'mem "': "E_FORMAT",
    "explain g1 gva 0": "E_STATE",
    "explain g3 gpa 0 rw": "E_INVAL",
    "who where": "E_FORMAT",
    "who 1T*1T": "E_RANGE",
    "peek hpa 0xfee00000": "E_NOENT",
    "peek g3 gpa 0x7c00 3": "E_INVAL",
    "poke hpa 0x200000 0": "E_PERM",
    "dump g3 gpa 0 1M": "E_RANGE",
    "find g3 gpa 0 0 x": "E_RANGE",
    "map g3 diff": "E_STATE",
    "map g3 forget": "E_NOENT",
    "map g3 rights=q": "E_INVAL",
    "trace show cpu=x": "E_FORMAT",
    "trace everything": "E_INVAL",
    "stress 1": "E_RANGE",
    "bench 0": "E_RANGE",
    "oracle 0": "E_RANGE",
    "audit me": "E_FORMAT",
    "start g4": "E_FORMAT",
    "colour blue": "E_INVAL",
    "layout now": "E_INVAL",
    "screen g3": "E_NOENT",
    "type g1 x": "E_STATE",
    "type g3 \\x": "E_FORMAT",
}

CHANGING = {"columns", "start", "pause", "resume", "kill", "quit", "attach", "type"}
DRAWN = {"screen"}  # for people the screen itself, for programs its rows (test_pc.py)
# What counts ticks or events, or takes other blocks the next time, is never the same twice: of these the forms
# agree but for their digits.
MOVING = {"top", "version", "bench", "stress", "audit", "oracle"}
MOVING_TRACES = {"trace on", "trace off"}


@pytest.fixture(scope="module")
def machine(boot_for_module):
    booted = boot_for_module(modules=MODULES)
    booted.expect("g1 hello: passed")
    booted.wait_prompt()
    yield booted
    quit_machine(booted)  # after all that, it is well


@pytest.fixture(scope="module")
def commands(machine):
    """Everything that is asked: each command's example, and more."""
    names = [row["command"] for row in machine.ask("help").records("command")]
    examples = [machine.ask(f"help {name}").notes[-1].removeprefix("example: ") for name in names]
    return [each for each in examples if each.split()[0] not in CHANGING | DRAWN] + MORE


def check_schema(answer):
    assert answer.complete
    for each in answer.objects:
        assert validate.problems(each, SCHEMA) == [], each


def folded(lines):
    """Text without its blanks, headings left in. What guests and the log print meanwhile is not it."""
    return [" ".join(line.split()) for line in lines if line and not line.startswith(("quire: ", "["))]


def without_digits(lines):
    """Lines with each number replaced by #, with its unit."""
    return [re.sub(r"\b(0x[0-9a-f]+|\d+(\.\d)?[KMG]?)\b", "#", line) for line in lines]


def check_agreement(text, objects, moving):
    """Every line of the objects is in the text, in order; what the text has besides are headings,
    which are equal for equal records."""
    at = 0
    expected = text_lines(objects, lambda name, values: validate.kinds_of(SCHEMA, name, values))
    if moving:
        text, expected = without_digits(text), without_digits(expected)
    kinds = [each["kind"] for each in objects]
    for line in expected:
        rest = text[at:]
        if line.startswith(":"):  # a fact: its name is before it
            found = next((i for i, each in enumerate(rest) if each.endswith(line)), None)
        else:
            found = next((i for i, each in enumerate(rest) if each == line), None)
        assert found is not None, f"no {line!r} in {rest}"
        assert found == 0 or "row" in kinds and found == 1, f"{rest[:found]} is not in the objects"
        at += found + 1
    assert text[at:] == []


@pytest.mark.seconds(600)
@pytest.mark.both_vendors
def test_both_forms_of_every_command(machine, commands):
    asked = {each.split()[0] for each in commands} | CHANGING | DRAWN
    assert asked >= {row["command"] for row in machine.ask("help").records("command")}
    for command in commands:
        text = folded(machine.command(command))
        answer = machine.ask(command)
        check_schema(answer)
        assert answer.objects[-1]["command"] == command
        moving = command.split()[0] in MOVING or command in MOVING_TRACES
        check_agreement(text, answer.objects[:-1], moving)
        assert answer.ok == (not any(line.startswith("error: ") for line in text))


@pytest.mark.parametrize("command", WRONG)
def test_errors(machine, command):
    text = folded(machine.command(command))
    answer = machine.ask(command)
    check_schema(answer)
    assert answer.code == WRONG[command]
    assert ["error: " + each for each in answer.errors] == text
    assert [each["code"] for each in answer.objects if each["kind"] == "error"] == [answer.code]


def test_too_much_for_every_command(machine):
    """More words than any command takes: refused in both forms, whatever the command."""
    for row in machine.ask("help").records("command"):
        command = row["command"] + " 1" * 13
        text = folded(machine.command(command))
        answer = machine.ask(command)
        check_schema(answer)
        assert answer.code == "E_INVAL" and "too many arguments" in text[0]
        assert ["error: " + each for each in answer.errors] == text


def test_changes_in_both_forms(machine):
    for command, state in (("resume g3", "running"), ("pause g3", "paused")):
        answer = machine.ask(command)
        check_schema(answer)
        assert answer.notes == [f"g3 waiting: {state}"]
    assert machine.ask("map g2 save").ok
    forgotten = machine.ask("map g2 forget")
    check_schema(forgotten)
    assert forgotten.ok and machine.ask("map g2 forget").code == "E_NOENT"
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
