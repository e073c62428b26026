"""Commands from a script, a pipe or `tools/quire` while guests run on: the key that a person would press
is pressed for them, what is typed arrives whole, and nothing of it reaches a guest."""

import json
import os
import re
import subprocess
import sys

import pytest

from machines import SPIN, assemble, guest
from quire_machine import Machine, connect
from quire_machine.engines import Qemu
from support import TOOLS

pytestmark = pytest.mark.one_vendor("launcher, keys and console, which know no vendor", vendor="svm")

LAUNCH = [sys.executable, "-B", os.path.join(TOOLS, "launch.py")]
QUIRE = [sys.executable, "-B", os.path.join(TOOLS, "quire")]

ENDLESS = {
    "silent": lambda: [(SPIN, "spin mem=1M")],
    "chatty": lambda: [(assemble("chatty.asm"), "chatty mem=1M")],
    "flood": lambda: [(assemble("flood.asm"), "flood mem=1M"), (SPIN, "spin mem=1M")],
}


@pytest.fixture(autouse=True)
def settings(monkeypatch):
    for name in ("CPU", "MEMORY", "CMDS", "QUIRE_SOCKET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ENGINE", "qemu")


def run(command, *options, **more):
    return subprocess.run(
        [*command, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **({"stdin": subprocess.DEVNULL} | more if "input" not in more else more),
    )


def typed(done):
    """What stands behind the prompts of a transcript."""
    return [line[7:] for line in done.stdout.splitlines() if line.startswith("quire> ")]


@pytest.mark.parametrize("kind", ENDLESS)
def test_commands_while_a_guest_runs_on(make_iso, kind):
    commands = ["version", "guests", "wait", "map g1", "x" * 50, "check"]
    iso = make_iso(ENDLESS[kind]())
    done = run(LAUNCH, iso, "--patience", "2", "--cmds", "; ".join(commands))
    assert done.returncode == 0, done.stdout
    assert typed(done) == [*commands, "quit"]
    lines = done.stdout.splitlines()
    assert any(re.match(r"  g1 .* running ", line) for line in lines)
    assert "a key ended the wait" in lines
    assert "launcher: guests run on; a key brings the console" in lines
    assert "quire: power off" in lines
    # A transcript that goes into a file shows what a person would have seen.
    assert "\x1b" not in done.stdout and "\r" not in done.stdout


def test_commands_from_a_pipe_while_a_guest_runs_on(make_iso):
    done = run(LAUNCH, make_iso(ENDLESS["flood"]()), "--patience", "1", input="guests\nmem\nquit\n")
    assert done.returncode == 0, done.stdout
    assert typed(done) == ["guests", "mem", "quit"]


def test_guests_that_end_are_waited_for(make_iso):
    done = run(LAUNCH, make_iso([(guest("hello.elf"), "hello")]), "--cmds", "guests; quit")
    assert done.returncode == 0, done.stdout
    assert "quire: guests: 1 of 1 as expected" in done.stdout.split("quire> guests")[0]
    assert "a key brings" not in done.stdout


@pytest.mark.parametrize("patience", ["0", "0.05", "0.2"])
def test_a_guest_that_ends_while_the_key_is_pressed(make_iso, patience):
    modules = [(guest("touch.elf"), "touch mem=8M lazy"), (guest("hello.elf"), "hello mem=4M")]
    done = run(LAUNCH, make_iso(modules), "--patience", patience, "--cmds", "guests; wait; guests")
    assert done.returncode == 0, done.stdout
    assert typed(done) == ["guests", "wait", "guests", "quit"]


def test_an_unhappy_end_is_no_success(make_iso):
    done = run(LAUNCH, make_iso([], "selftest=ud"), "--patience", "0", "--cmds", "quit")
    assert done.returncode == 1, done.stdout


def test_a_guest_hears_nothing_of_it(make_iso):
    iso = make_iso([(assemble("ears.asm"), "ears mem=1M")])
    commands = ["attach g1", "guests", "wait", "output g1"]
    done = run(LAUNCH, iso, "--patience", "1", "--cmds", "; ".join(commands))
    assert done.returncode == 0, done.stdout
    assert "g1 ears: detached" in done.stdout
    assert "heard" not in done.stdout


def test_what_is_no_patience(make_iso):
    done = run(LAUNCH, "x.iso", "--patience", "none", "--cmds", "quit")
    assert done.returncode == 2
    assert "patience is a number of seconds, not 'none'" in done.stdout


@pytest.mark.parametrize("kind", ["silent", "flood"])
def test_the_command_quire(make_iso, tmp_path, kind):
    socket, iso = str(tmp_path / "sock"), make_iso(ENDLESS[kind]())
    quire = [*QUIRE, "--socket", socket]
    alone = run(quire, "ask", "--iso", iso, "--patience", "1", "guests; wait; guests")
    assert alone.returncode == 0, alone.stdout
    ends = [json.loads(line) for line in alone.stdout.splitlines() if '"kind": "end"' in line]
    assert [each["command"] for each in ends] == ["guests", "wait", "guests"]

    started = run(quire, "start", "--iso", iso, "--patience", "1")
    assert started.returncode == 0, started.stdout
    try:
        for _ in range(2):
            done = run(quire, "ask", "--patience", "1", "guests", "wait")
            assert done.returncode == 0, done.stdout
            assert '"state": "running"' in done.stdout
            text = run(quire, "ask", "--text", "guests")
            assert text.returncode == 0 and " running " in text.stdout
    finally:
        assert run(quire, "stop").returncode == 0


def test_a_caller_who_left_while_attached(make_iso, tmp_path):
    socket, iso = str(tmp_path / "sock"), make_iso([(assemble("ears.asm"), "ears mem=1M")])
    quire = [*QUIRE, "--socket", socket]
    assert run(quire, "start", "--iso", iso, "--patience", "1").returncode == 0
    try:
        with connect("unix:" + socket) as console:
            console.send("attach g1\r")
            console.expect("attached to g1")
        done = run(quire, "ask", "--text", "output g1")
        assert done.returncode == 0, done.stdout
        assert "heard" not in done.stdout
    finally:
        assert run(quire, "stop").returncode == 0


def test_many_commands_while_a_guest_prints_for_ever(make_iso):
    with Machine(Qemu(), make_iso(ENDLESS["flood"]())) as machine:
        machine.bring_prompt(patience=0.5)
        for index in range(40):
            answer = machine.command(f"echo{index}")
            own = [each for each in answer if not re.match(r"\[g1|quire: g1 ", each)]
            assert own[0].startswith(f'error: "echo{index}" is no command'), answer
            assert machine.ask("guests").records("guest")[0]["state"] == "running"


def test_no_patience_presses_no_key_at_answers(make_iso):
    done = run(LAUNCH, make_iso(ENDLESS["silent"]()), "--patience", "0", "--cmds", "map host; quit")
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("a key brings the console") == 1
