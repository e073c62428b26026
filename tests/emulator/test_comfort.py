"""What makes the console comfortable, over a real serial line: completion, paging, expressions and
symbols, colour, a guest's serial port, scripts, and noise that does no harm."""

import os
import random
import re
import sys

import pexpect
import pytest

from machines import SPIN, facts, flat_image, guest, quit_machine, rows
from support import TOOLS

pytestmark = pytest.mark.one_vendor("the console's line, screen and scripts, which know no vendor", vendor="svm")

TAB = "\t"


def assemble_echo():
    """A guest, assembled by hand: a prompt `say: `, then every byte comes back plus one, newlines as they
    are."""
    code = bytearray()
    code += b"\x31\xc0\x8e\xd8\xbe\x00\x00"  # xor ax,ax; mov ds,ax; mov si,text
    loop = len(code)
    code += b"\xac\x84\xc0"  # lodsb; test al,al
    code += b"\x74\x06"  # jz wait
    code += b"\xba\xf8\x03\xee"  # mov dx,0x3f8; out dx,al
    code += b"\xeb" + bytes([(loop - len(code) - 2) & 0xFF])  # jmp loop
    wait = len(code)
    code += b"\xba\xfd\x03\xec\xa8\x01"  # mov dx,0x3fd; in al,dx; test al,1
    code += b"\x74" + bytes([(wait - len(code) - 2) & 0xFF])  # jz wait
    code += b"\xba\xf8\x03\xec"  # mov dx,0x3f8; in al,dx
    code += b"\x3c\x0d\x75\x04\xb0\x0a\xeb\x02"  # cmp al,13; jne +4; mov al,10; jmp +2
    code += b"\xfe\xc0"  # inc al
    code += b"\xee"  # out dx,al
    code += b"\xeb" + bytes([(wait - len(code) - 2) & 0xFF])  # jmp wait
    text = 0x7C00 + len(code)
    code[5:7] = text.to_bytes(2, "little")
    return flat_image(bytes(code + b"say: \0"))


@pytest.fixture(scope="module")
def machine(boot_for_module):
    booted = boot_for_module(
        modules=[
            (guest("hello.elf"), "hello mem=4M"),
            (assemble_echo(), "echo mem=1M"),
            (SPIN, "held mem=1M paused"),
        ]
    )
    booted.expect("g1 hello: passed")
    booted.press("\r")
    booted.wait_prompt()
    yield booted
    quit_machine(booted)  # after all that, it is well


def shown(machine, text):
    machine.wait_for(lambda: machine.screen.current == "quire> " + text, f"{text!r} in the line")


def test_a_guests_prompt_is_shown(boot):
    """A line without its end is there after a moment, and whole in its place when it has ended."""
    machine = boot(modules=[(assemble_echo(), "echo mem=1M")])
    machine.wait_for(lambda: machine.lines[-1:] == ["[g1 echo] say:"], "the guest's prompt", 20)
    machine.press("\r")
    machine.wait_prompt()
    machine.send("attach g1\r")
    machine.expect("attached to g1 echo")
    machine.send("a\r")
    machine.expect("^say: b$")
    machine.send("\x1d")
    machine.wait_prompt()
    assert "  [g1 echo] say: b" in machine.command("log")
    quit_machine(machine)


def test_completion(machine):
    machine.wait_prompt()
    machine.send("wa" + TAB)
    machine.expect("^walk  wait$|^wait  walk$")
    shown(machine, "wa")
    machine.send("l" + TAB)
    shown(machine, "walk ")
    machine.send("g3" + " gp" + TAB)
    shown(machine, "walk g3 gpa ")
    machine.send("0x7c00\r")
    machine.expect("^verdict: mapped")
    machine.wait_prompt()
    machine.send("map g" + TAB)
    machine.expect("^g1  g2  g3$")
    shown(machine, "map g")
    machine.send("\x15")
    machine.wait_prompt()


def test_expressions_and_symbols(machine):
    seen = facts(machine.command("walk host kernel_text+0x40"))
    assert (seen["verdict"], seen["hva"]) == ("mapped", "0xffffffff80200040")
    assert seen["hpa"] == "0x200040"
    seen = facts(machine.command("walk g3 gpa (1+1)*16K-4096"))
    assert seen["gpa"] == "0x7000"
    assert "no symbol" in machine.command("walk host kernel_txt+1")[-1]


def test_a_long_answer_stops_at_each_page(machine):
    assert machine.command("paging 10") == ["long answers stop after 10 rows"]
    machine.wait_prompt()
    machine.send("help\r")
    try:
        machine.wait_for(lambda: machine.screen.current.startswith("-- more"), "the stop")
        page = len(machine.lines)
        machine.send(" ")
        machine.wait_for(lambda: len(machine.lines) == page + 9, "another page")
        machine.wait_for(lambda: machine.screen.current.startswith("-- more"), "the stop")
        machine.send("\r")
        machine.wait_for(lambda: len(machine.lines) == page + 10, "another line")
        machine.send("xq")
        machine.wait_prompt()
        assert len(machine.lines) == page + 10
        # What fits does not stop.
        assert machine.command("map g3 --json")
    finally:
        machine.command("paging off")
    assert len(machine.command("help")) > 20


def raw(machine, command):
    machine.take_output()
    machine.command(command)
    return machine.take_output()


def test_colour_is_only_where_it_is_wanted(machine):
    assert b"\x1b[1;31merror" not in raw(machine, "frobnicate")
    machine.send("\x1b[?62;22c")
    assert b"\x1b[1;31merror" in raw(machine, "frobnicate")
    assert b"\x1b[4m" in raw(machine, "guests")
    # Programs get none, and the answers are the same.
    assert not re.search(rb"\x1b\[[0-9;]*m", raw(machine, "guests --json"))
    assert machine.ask("guests").ok
    machine.command("colour off")
    assert b"\x1b[1;31merror" not in raw(machine, "frobnicate")


def test_a_terminal_that_says_its_size_gets_pages(machine):
    machine.wait_prompt()
    machine.send("\x1b[8;12;200t")  # no row of it wraps
    machine.wait_prompt()
    machine.send("help\r")
    machine.wait_for(lambda: machine.screen.current.startswith("-- more"), "the stop")
    machine.send("q")
    machine.wait_prompt()
    machine.set_width(1000)
    assert machine.command("paging") == ["long answers do not stop"]


def test_attach(machine):
    machine.wait_prompt()
    machine.send("attach g2\r")
    machine.expect("attached to g2 echo")
    machine.wait_for(lambda: machine.screen.current == "say: ", "the prompt it stands in")
    machine.send("abc")
    machine.wait_for(lambda: machine.screen.current == "say: bcd", "what it makes of the keys")
    machine.send("\r")
    machine.expect("^say: bcd$")
    machine.send("\x1a")
    machine.wait_for(lambda: machine.screen.current == "\\x1b", "an escape that steers nothing")
    machine.send("\x1d")
    machine.expect("g2 echo: detached")
    machine.wait_prompt()
    # What g2 made of the last key may come in between.
    refused = [line for line in machine.command("attach g1") if not line.startswith("[g2 echo] ")]
    assert refused[-1] == "error: attach: g1 hello has passed: nobody is at its serial port"
    assert machine.ask("attach g2").code == "E_UNSUPPORTED"


def test_a_script_runs_at_the_start(boot):
    script = b"# first\r\n\n  pause g1\nstart g2\nwait\nguests\nno such\n" + b"x" * 300 + b"\nversion"
    machine = boot(
        modules=[
            (SPIN, "still mem=1M"),
            (guest("hello.elf"), "hello mem=4M paused"),
            (script, "script:first"),
        ]
    )
    machine.expect("quire: script script:first")
    machine.expect("^quire> pause g1$")
    machine.expect("^g1 still: paused$")
    machine.expect("^quire> wait$")
    machine.expect("g2 hello: passed")
    machine.expect("^no guest can run$")
    machine.expect("^  g1 +still +paused")
    machine.expect('^error: "no" is no command')
    machine.expect("^error: a line longer than 255 characters in a script")
    machine.expect("^program: Quire$")
    machine.wait_prompt()
    assert len(rows(machine.command("guests"), "guest")) == 2
    quit_machine(machine)


@pytest.mark.parametrize(
    "settings, coloured",
    [
        ({"TERM": "xterm-256color"}, True),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
    ],
)
def test_the_launcher_says_what_the_terminal_is(settings, coloured, make_iso, monkeypatch):
    """Colours where they are wanted, and pages of the terminal's own size."""
    for name in ("NO_COLOR", "ENGINE", "CPU", "CMDS", "MEMORY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    iso = make_iso([(SPIN, "spin mem=1M paused")])
    launch = [os.path.join(TOOLS, "launch.py"), iso, "--engine", "bochs"]
    child = pexpect.spawn(sys.executable, launch, timeout=60, dimensions=(12, 250))
    try:
        child.expect("quire> ")
        child.expect_exact("\x1b[Kquire> ")  # the line is drawn anew for a terminal of this size
        child.send("help\r")
        child.expect_exact("-- more: space, return, or q --")
        page = child.before
        assert page.count(b"\n") == 12  # the command's own line, and a screen but for the question
        assert (b"\x1b[4m" in page) == coloured
        child.send("q")
        child.expect("quire> ")
        child.send("quit\r")
        child.expect(pexpect.EOF)
    finally:
        child.close(force=True)


# None of these changes a guest; the hosted test (tests/unit/test_monitor.c) types the others as well.
COMMANDS = (
    "help mem map walk guests regs bt exits report output root cpu log check layout version explain who frames "
    "peek dump find trace audit colour wait"
).split()
ARGUMENTS = (
    "host user gpa gva hva hpa g1 g2 g3 g4 0x1000 1M -1 ( ) kernel_text+1 ; \" ' --json \x1b[A \x1b[D \t \x08 "
    "\x03 \x04 force r w x save diff forget on off show exit counters rights=w page=4K purpose=heap 64"
).split(" ") + ["g3 gpa 0x7c00", "g3 gva 0x7c00", "hpa 0x200000", "hva kernel_text"]

# What the guest that waits is, down to its bytes.
IDENTITY = ("regs g3", "map g3", "root g3", "dump g3 gpa 0x7c00 512", "exits g3", "output g3")


@pytest.mark.seconds(600)
def test_random_lines_over_the_serial_line(machine):
    """A share of what the hosted test types by the hundred thousand."""
    machine.wait_prompt()

    def state():
        rows_of_guests = machine.ask("guests").records("guest")
        for each in rows_of_guests:
            del each["exits"]
        return rows_of_guests, [machine.ask(command).objects for command in IDENTITY]

    before = state()
    generator = random.Random(20)
    for _ in range(300):
        if generator.random() < 0.3:
            line = bytes(generator.randrange(256) for _ in range(generator.randrange(60)))
            line = line.replace(b"\x1b", b"\x1a")  # a terminal's report could switch paging on
        else:
            words = [generator.choice(ARGUMENTS) for _ in range(generator.randrange(6))]
            line = " ".join([generator.choice(COMMANDS), *words]).encode()
        machine.send(line + b"\r")
    machine.send("\x15\r")
    machine.wait_for(machine.at_prompt, "the prompt", timeout=400)
    machine.synchronise()
    machine.command("trace off; colour off")
    assert machine.ask("check").ok
    assert machine.ask("audit").ok
    assert state() == before
