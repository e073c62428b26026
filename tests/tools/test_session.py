"""What the launcher makes of keys and of lines of commands: for whom a Ctrl-C is, and where a command ends."""

import threading

import pytest

from quire_machine.commands import split
from quire_machine.screen import Screen
from quire_machine.session import Attachment, line_behind, wants_out


class Machine:
    """A screen, and what was printed on it."""

    def __init__(self, printed=""):
        self.changed = threading.Condition()
        self.screen = Screen()
        self.screen.feed(printed.encode())

    def at_prompt(self):
        return self.screen.current == "quire> "


@pytest.mark.parametrize(
    "row, line, keys, out",
    [
        ("quire> ", b"", b"\x03", True),
        ("quire> mem", b"", b"\x03", False),
        ("quire> ", b"", b"mem\x03", False),  # not echoed yet
        ("quire> ", b"mem", b"\x03", False),
        ("quire> ", b"", b"mem\x03\x03", True),  # the second finds nothing
        ("quire> ", b"", b"mem\r\x03", True),
        ("booting", b"mem", b"\x03", True),
        ("-- more, as usual", b"", b"\x03", False),
        ("quire> ", b"", b"mem", False),
    ],
)
def test_for_whom_a_ctrl_c_is(row, line, keys, out):
    assert wants_out(Machine(row), line, keys, None) == out
    assert not wants_out(Machine(row), line, keys, "g1 spin")


def test_what_stands_in_the_line():
    assert line_behind(b"me", b"m") == b"mem"
    assert line_behind(b"me", b"m\rgu") == b"gu"
    assert line_behind(b"me", b"m\x03") == b""


def test_a_guest_is_attached_until_the_console_says_otherwise():
    machine = Machine("[g1 sh] attached to g1 sh (running)\r\n")
    attachment = Attachment(machine)
    assert attachment.look() is None
    machine.screen.feed(b"attached to g1 sh (running); Ctrl-] comes back\r\n# ls\r\n")
    assert attachment.look() == "g1 sh"
    machine.screen.feed(b"g1 sh: detached\r\nquire> ")
    assert attachment.look() == "g1 sh", "the guest said that"
    attachment.typed(b"\x1d")
    machine.screen.feed(b"\r\ng1 sh: detached\r\n")
    assert attachment.look() is None
    machine.screen.feed(b"attached to g2 sh (paused); Ctrl-] comes back\r\n")
    assert attachment.look() == "g2 sh"
    machine.screen.feed(b"g2 sh: it has ended, and so detached\r\n")
    assert attachment.look() is None


@pytest.mark.parametrize(
    "line, commands",
    [
        ("guests; mem ;; quit;", ["guests", "mem", "quit"]),
        ("print \"a;b\"; find g1 gpa 0 4K 'c;\"d'", ['print "a;b"', "find g1 gpa 0 4K 'c;\"d'"]),
        ('print a"b;c', ['print a"b;c']),
        ("", []),
    ],
)
def test_commands_of_a_line(line, commands):
    assert split(line) == commands
