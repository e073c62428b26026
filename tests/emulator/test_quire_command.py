"""tools/quire: a machine in the background that is asked by several callers, one machine for one
question, and what is said when there is none."""

import json
import os
import re
import socket
import subprocess
import sys
import time

import pexpect
import pytest

from machines import SPIN, guest
from quire_machine import MachineError, connect, dump
from support import TOOLS

pytestmark = pytest.mark.one_vendor("the command and its sockets, which know no vendor", vendor="svm")

QUIRE = os.path.join(TOOLS, "quire")


@pytest.fixture
def quire(tmp_path, make_iso):
    """Runs the command on a socket of this test's own."""
    path = tmp_path / "sock"
    iso = make_iso([(guest("hello.elf"), "hello mem=4M"), (SPIN, "held mem=2M paused")])

    def run(*words):
        if words[0] in ("start", "ask", "dump"):
            words = (words[0], "--iso", iso, "--engine", "qemu", *words[1:])
        command = [sys.executable, QUIRE, "--socket", str(path), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=200)

    run.socket = path
    yield run
    if path.exists():
        run("stop")


def objects(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_machine_in_the_background(quire):
    started = quire("start")
    assert started.returncode == 0, started.stderr
    assert quire("start").returncode == 2

    answer = quire("ask", "map g2")
    assert answer.returncode == 0, answer.stderr
    assert sum(each["values"]["size"] for each in objects(answer) if each.get("record") == "run") == (
        (2 << 20) - (384 << 10)
    )
    refused = quire("ask", "map g7", "guests")
    assert refused.returncode == 1
    assert [each["code"] for each in objects(refused) if each["kind"] == "end"] == ["E_NOENT", "E_OK"]
    unsaved = quire.socket.parent / "none.saved"
    refused = quire("save", "g7", "-o", str(unsaved))
    assert refused.returncode == 1 and not unsaved.exists()
    assert refused.stderr.startswith("quire: save: there is no g7"), refused.stderr
    text = quire("ask", "--text", "guests")
    assert "  g2     held" in text.stdout
    # The same by the module, which finds whatever stands in the line out of the way.
    with connect(f"unix:{quire.socket}") as console:
        console.send("half a comm")
        console.wait_for(lambda: console.shows_typed("half a comm"), "the half command")
    with connect(f"unix:{quire.socket}") as console:
        assert console.ask("guests").records("guest")[1]["state"] == "paused"
        assert console.ask("check").ok

    saved = quire.socket.parent / "dump.json"
    assert quire("dump", "-o", str(saved)).returncode == 0
    taken = json.loads(saved.read_text())
    assert taken["version"] == dump.VERSION
    assert set(taken["machine"]) == set(dump.WHOLE) | {
        f"{what} {name}{own}"
        for name in ("g1", "g2")
        for what, own in (("map", ""), ("map", " gva"), ("screen", ""))
    }
    assert taken["engine"] == f"the machine at unix:{quire.socket}" and taken["taken"]
    frames = dump.records(taken, "layout", "frames")
    assert any(each["owner"] == "g2 held" and each["purpose"] == "guest memory" for each in frames)

    assert quire("stop").returncode == 0
    # The process in the background removes its socket on its way out.
    deadline = time.monotonic() + 10
    while quire.socket.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not quire.socket.exists()
    with pytest.raises(MachineError):
        connect(f"unix:{quire.socket}")


def test_a_machine_for_one_question(quire):
    done = quire("ask", "guests; version", "find g2 gpa 0x7c00 64 'a;b'")
    assert done.returncode == 0, done.stderr
    ends = [each["command"] for each in objects(done) if each["kind"] == "end"]
    assert ends == ["guests", "version", "find g2 gpa 0x7c00 64 a;b"]


def test_no_machine(quire, tmp_path):
    for where in ("unix:" + str(tmp_path / "none"), "tcp:localhost:1", str(tmp_path / "no-tty"), "tcp:x"):
        done = quire("ask", "--to", where, "mem")
        assert done.returncode == 2
        assert done.stderr.startswith(f"quire: no machine at {where}"), done.stderr
    assert quire("stop").returncode == 2
    # A socket that nobody listens at any more is in nobody's way.
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(quire.socket))
    done = quire("ask", "guests")
    assert done.returncode == 0, done.stderr


def test_answers_on_a_terminal_are_text(quire):
    """... that fits it; JSON where it is asked for."""
    assert quire("start").returncode == 0
    for words, expected in ((["mem"], "^memory map"), (["--json", "mem"], r'^\{"kind": ?"title"')):
        command = [QUIRE, "--socket", str(quire.socket), "ask", *words]
        child = pexpect.spawn(sys.executable, command, timeout=100, dimensions=(24, 60))
        child.expect(pexpect.EOF)
        assert re.search(expected, child.before.decode()), child.before
        if words == ["mem"]:
            assert all(len(line) <= 60 for line in child.before.decode().splitlines())
