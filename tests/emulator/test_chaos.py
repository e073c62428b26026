"""Two guests that do their worst and one that computes, for as long as a test can afford: the one that computes comes
to what it must, the machine's books are right at the end, and everything comes back.

Which two are hostile, and in which way, changes every few seconds; QUIRE_LONG=1 goes on for ten minutes of the guests'
clock. QEMU's clock is that of the computer. Bochs counts instructions, a second of 50 million.
"""

import os
import random
import re
import time

import pytest

from machines import guest, quit_machine
from quire_machine.engines import Bochs, Qemu
from test_shares import MODES

LONG = os.environ.get("QUIRE_LONG") == "1"
PATIENCE = 120
SECONDS = 600 if LONG else 30
PAIR = 1.5  # seconds

pytestmark = [pytest.mark.one_vendor("names its engines"), pytest.mark.seconds(180 + 2 * SECONDS)]

# What is made of every mode there; a boot of Bochs has time for some.
BOCHS_MODES = ["outsb", "lazy", "steps", "uart", "eoi"]


def expected_digest():
    """guests/reckon.c's rule."""
    words, x, digest = [], 1, 0
    for _ in range(16384):
        x = (x * 1664525 + 1013904223) & 0xFFFFFFFF
        words.append(x)
    for word in reversed(words):
        digest = ((digest << 5 | digest >> 27) & 0xFFFFFFFF) ^ word
    return digest


def rounds_of(machine, number=1):
    """How many rounds it has told of, each of which came to what it must. The last it may be telling still."""
    lines = [line.strip() for line in machine.command(f"output g{number}", timeout=PATIENCE)]
    told = [found for found in (re.fullmatch(r"round (\d+): (\d+)", line) for line in lines) if found]
    comes_to = str(expected_digest())
    assert {found[2] for found in told[:-1]} <= {comes_to}, lines
    assert all(comes_to.startswith(found[2]) for found in told[-1:]), lines
    return int(told[-1][1]) if told else 0


def hostile(mode):
    options = "mem=64M quota=24M" if mode == "lazy" else "mem=4M"
    return (guest("hostile.elf"), f"{mode} {options} paused{' lazy' if mode == 'lazy' else ''} -- {mode}")


def chaos(machine, modes, seconds, chance):
    """Pairs of guests of these modes, numbered from 2, run for a few seconds each."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pair = chance.sample(range(2, 2 + len(modes)), 2)
        for number in pair:
            machine.command(f"start g{number}", timeout=PATIENCE)
        time.sleep(PAIR)
        for number in pair:
            # One that has ended by its own doing starts anew the next time.
            machine.command(chance.choice([f"pause g{number}", f"kill g{number}"]), timeout=PATIENCE)


def modules(modes, told):
    return [(guest("reckon.elf"), f"reckon mem=4M -- {told}"), *map(hostile, modes)]


def ready(machine):
    """Once the one that computes has come round, with the prompt."""
    machine.expect(r"\[g1 reckon\] round ", PATIENCE)
    machine.press("\r")
    machine.wait_prompt(PATIENCE)
    return machine


def end(machine, modes):
    state = machine.command("guests", timeout=PATIENCE)
    assert any(re.match(r"\s*g1\s+reckon\s+running\b", line) for line in state), state
    assert machine.command("audit", timeout=PATIENCE)[-1].endswith("rules hold.")
    for number in range(1, 2 + len(modes)):
        machine.command(f"kill g{number}", timeout=PATIENCE)
    assert machine.command("audit", timeout=PATIENCE)[-1].endswith("rules hold.")
    assert machine.command("check", timeout=PATIENCE)[-1].endswith("hold.")
    quit_machine(machine)


def test_one_computes_among_two_that_are_hostile(boot):
    machine = ready(boot(modules=modules(MODES, told=2048), engine=Qemu()))
    before = rounds_of(machine)
    assert before > 0
    chaos(machine, MODES, SECONDS, random.Random(1))
    assert rounds_of(machine) > before
    end(machine, MODES)


@pytest.mark.one_vendor("by VMX, whatever the other one is")
def test_one_computes_among_two_that_are_hostile_in_vmx(boot):
    machine = ready(boot(modules=modules(BOCHS_MODES, told=64), engine=Bochs()))
    before = rounds_of(machine)
    assert before > 0
    chaos(machine, BOCHS_MODES, SECONDS if LONG else SECONDS / 4, random.Random(2))
    assert rounds_of(machine) > before
    end(machine, BOCHS_MODES)
