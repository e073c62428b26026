"""Serial output rendered into lines: what the console's line editor sends must come out as a person
would see it, however it is cut into pieces."""

import pytest

from quire_machine.console import shows_typed
from quire_machine.screen import Screen

CASES = {
    "plain": (b"one\r\ntwo\r\n$ ", ["one", "two"], "$ "),
    "newline alone": (b"one\ntwo\n", ["one", "two"], ""),
    "overwritten from the start": (b"abc\rX", [], "Xbc"),
    "backspace rubs nothing out": (b"abc\b\bX", [], "aXc"),
    "erased and drawn again": (b"quire> me\r\x1b[K[g1] hi\r\nquire> me", ["[g1] hi"], "quire> me"),
    "inserted in the middle": (b"quire> ac\x1b[1D\r\x1b[Kquire> abc\x1b[1D", [], "quire> abc"),
    "whole line erased": (b"abc\x1b[2Kd", [], "   d"),
    "rest erased": (b"abcdef\x1b[3D\x1b[K", [], "abc"),
    "characters deleted": (b"abcdef\x1b[5D\x1b[2P", [], "adef"),
    "column set": (b"abc\x1b[2GX", [], "aXc"),
    "moved right past the end": (b"a\x1b[2Cb", [], "a  b"),
    "colour is no text": (b"\x1b[1;31mred\x1b[0m", [], "red"),
    "bell is no text": (b"a\ab", [], "ab"),
    "an escape that is none": (b"a\x1bb", [], "ab"),
    "not UTF-8": (b"a\xffb", [], "a\ufffdb"),
    "trailing blanks": (b"abc   \r\n", ["abc"], ""),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("piece", [1, 2, 3, 1000])
def test_rendering(name, piece):
    data, lines, current = CASES[name]
    screen = Screen()
    for start in range(0, len(data), piece):
        screen.feed(data[start : start + piece])
    assert (screen.lines, screen.current) == (lines, current)


def test_endless_escape_is_given_up():
    screen = Screen()
    screen.feed(b"\x1b[" + b"1" * 1000)
    screen.feed(b"\r\nnext\r\n")
    assert screen.lines[-1] == "next"


@pytest.mark.parametrize(
    "line, text, shown",
    [
        ("quire> mem", "mem", True),
        ("quire> mem ", "mem", True),
        ("quire> me", "mem", False),
        ("quire> ", "mem", False),
        ("mem", "mem", False),
        ("quire> " + "x" * 50, "walk " + "x" * 50, True),  # scrolled sideways
        ("quire> " + "x" * 20, "walk " + "x" * 20, False),  # too short a line to be scrolled
    ],
)
def test_typed_line(line, text, shown):
    assert shows_typed(line, text) is shown
