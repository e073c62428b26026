"""Answers fit the terminal: at 80 columns, which is what the console takes for granted, no line is
longer and no word is broken."""

import re

import pytest

from machines import SPIN, guest, user_program
from test_console import RIGHT, WRONG

pytestmark = pytest.mark.one_vendor("the console breaks lines whatever they say; a vendor's own are in test_what_is_wide", vendor="svm")

COLUMNS = 80
# Beside the console's own tests: what is wide, on a machine where there is something to see.
MORE = """help walk; help map; map g2; map g2 save; map g2 diff; map g2 gva; map user; walk g2 gpa 0x100000;
    explain g2 gpa 0x7c00 w; explain g2 gva 0x7c00 x; explain host kernel_text; regs g2; root g2;
    report g3; output g1; exits g2; trace on; start g1; wait; trace show 40; trace counters; trace off;
    who 0x200000; find hva kernel_text 64K ELF; find g2 gpa 0 1M 0xfeeb; dump hva kernel_text;
    dump g2 gpa 0x7c00; layout; audit selftest; mem; frames; cpu; log; columns; bench 1; print 1+1"""


@pytest.fixture(scope="module")
def machine(boot_for_module):
    booted = boot_for_module(
        modules=[
            (guest("hello.elf"), "hello mem=4M"),
            (SPIN, "held mem=1M paused"),
            (guest("rogue.elf"), "stray expect=stopped -- unannounced"),
            (user_program("stray"), "user:stray"),
        ]
    )
    booted.expect("g3 stray: stopped")
    booted.wait_prompt()
    return booted


def words(lines):
    """Those of letters alone: numbers change from one answer to the next, bytes and their text are shown by fewer."""
    said = [re.sub(r"^(  0x[0-9a-f]+ (?: [0-9a-f]{2})+)  .*", r"\1", line) for line in lines]
    return {each for line in said for each in line.split() if re.fullmatch(r"[^\W\d]+[.,:;]?", each)}


def check(machine, command):
    machine.set_width(1000)
    wide = machine.command(command)
    machine.set_width(COLUMNS)
    narrow = [line for line in machine.command(command) if not line.startswith("[g")]
    for line in narrow:
        assert len(line) <= COLUMNS, line
    notes = {"left", "out:"} | {each.rstrip(",") for line in wide for each in line.split()}
    broken = {each.rstrip(",") for each in words(narrow)} - notes
    assert not broken, (broken, narrow)


MORE_COMMANDS = [each.strip() for each in MORE.split(";")]


@pytest.mark.parametrize("command", MORE_COMMANDS)
@pytest.mark.both_vendors
def test_what_is_wide(machine, command):
    if command.startswith("start "):
        machine.command(command)  # for what comes after it; twice, it would not say the same
    else:
        check(machine, command)


@pytest.mark.parametrize("command", [each for each in RIGHT if not each.startswith("oracle")])
def test_each_command(machine, command):
    check(machine, command)


def test_each_mistake(machine):
    for command in WRONG:
        # Those of a guest depend on what it is at, which the answer before may have changed.
        if WRONG[command] and len(command) < 60 and not command.startswith(("resume", "start", "kill")):
            check(machine, command)


def test_80_is_what_is_taken_for_granted(boot):
    machine = boot(modules=[(SPIN, "held mem=1M paused")])
    machine.wait_prompt()
    machine.send("columns\r")
    machine.expect("^answers are at most 80 columns wide$")
    machine.wait_prompt()
    machine.send("columns 100; columns 39; columns\r")
    machine.expect("^answers are at most 100 columns wide$")
    machine.expect(r"^error: columns: 39 columns\? from 40 to 1000$")
    machine.expect("^answers are at most 100 columns wide$")
    machine.wait_prompt()
    machine.send("columns ask\r")
    machine.expect("^asked; a terminal that knows its size says it now$")
    assert b"\x1b[18t" in machine.take_output()
