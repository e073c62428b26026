"""A console at which nothing happens leaves the host's CPU alone, where the emulator's HLT does."""

import os
import time

import pytest

from machines import SPIN, quit_machine
from quire_machine.engines import Qemu

pytestmark = pytest.mark.one_vendor("how the console waits, which no guest has a part in", vendor="svm")

SECONDS = 3


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
        user, system = stat.read().rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def test_an_idle_prompt_does_not_burn_a_core(boot):
    machine = boot(engine=Qemu())
    machine.wait_prompt()
    for _ in range(2):
        time.sleep(0.5)
        before = cpu_seconds(machine.process.pid)
        time.sleep(SECONDS)
        assert cpu_seconds(machine.process.pid) - before < 0.2 * SECONDS
        # A byte wakes it at once.
        start = time.monotonic()
        machine.command("version")
        assert time.monotonic() - start < 5
    machine.send("mem; version; " * 17 + "\r")  # a line that comes all at once, out of sleep
    machine.expect("^program: Quire$")
    machine.wait_prompt()
    quit_machine(machine)


def test_a_guest_that_waits_does_not_hinder_it(boot):
    machine = boot(modules=[(SPIN, "held mem=1M paused")])
    machine.expect("^quire: g1 held: ")
    machine.wait_prompt()
    time.sleep(1)
    assert machine.command("start g1") == ["g1 held: running"]
    assert "g1 held: killed" in machine.command("kill g1")
    quit_machine(machine)
