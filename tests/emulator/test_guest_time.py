"""The time that a guest has: its TSC begins at 0 and stands still while it is paused, and its timer keeps
to it, alone or beside others."""

import re
import time

import pytest

from machines import SPIN, assemble, quit_machine
from quire_machine.engines import Bochs, Qemu

pytestmark = pytest.mark.one_vendor("names its engines")

# With counts of the 8254 for an interrupt: the TSC of Bochs counts instructions, QEMU's is the host's.
ENGINES = {"bochs": (Bochs, 1193), "qemu": (Qemu, 11930)}
TICKS = 100


def reports(machine):
    lines = "\n".join(machine.lines)
    return re.findall(r"^ticks (\w{8}) time (\w{16}) gap (\w{16})$", lines, re.M)


def report(machine):
    """What the guest has seen since it spoke last: interrupts, ticks of its TSC, the longest of them in one go."""
    count = len(reports(machine))
    machine.send("attach g1\r")
    machine.expect("attached to g1 clock")
    machine.send("x")
    machine.wait_for(lambda: len(reports(machine)) > count, "the guest's answer")
    machine.send("\x1d")
    machine.wait_prompt()
    return [int(word, 16) for word in reports(machine)[-1]]


def period(machine):
    """Ticks of the TSC for one interrupt, and the longest time in one go."""
    ticks = passed = longest = 0
    report(machine)
    while ticks < TICKS:
        time.sleep(1)
        more, ticks_passed, gap = report(machine)
        ticks, passed, longest = ticks + more, passed + ticks_passed, max(longest, gap)
    return passed / ticks, longest


@pytest.mark.parametrize("name", ENGINES)
def test_a_pause_is_not_seen(boot, name):
    engine, counts = ENGINES[name]
    image = assemble("clock.asm", [f"-DPERIOD={counts}"])
    machine = boot(
        modules=[(image, "clock mem=1M pc paused"), (SPIN, "spin mem=1M paused")], engine=engine()
    )
    machine.wait_prompt(120)
    machine.command("start g1")
    begins = machine.expect(r"\[g1 clock\] begins at (\w{16})")
    if name == "bochs":  # whose TSC is at more than ten times that when a prompt comes
        assert int(begins.group(1), 16) < 30_000_000
    alone, _ = period(machine)
    # The machine's time goes on, the guest's does not.
    report(machine)
    machine.command("pause g1")
    time.sleep(10)
    machine.command("start g1")
    ticks, passed, gap = report(machine)
    assert gap < 3 * TICKS * alone / counts * 1193 and passed < 2 * gap + 2 * (ticks + 2) * alone
    # Another guest takes half of the CPU.
    machine.command("start g2")
    shared, _ = period(machine)
    assert shared == pytest.approx(alone, rel=0.05)  # those that a look comes between
    quit_machine(machine)
