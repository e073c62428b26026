"""A guest that executes what is made at random, in ring 0, and one that does nothing but fault (guests/chaos.asm),
beside one that computes and one whose memory must stay as it is.

How far they are, each tells in a page that it shares with the one that computes. One that ends, halts or comes no
further begins anew, and goes on behind its last step. With QUIRE_LONG=1 there are 20 million steps, which Bochs takes
twenty minutes for.
"""

import os
import re
import signal
import time

import pytest

from machines import guest, quit_machine, rows
from quire_machine import MachineError
from quire_machine.engines import Bochs, Qemu
from test_chaos import rounds_of

PATIENCE = 240
LONG = os.environ.get("QUIRE_LONG") == "1"
STEPS = 20_000_000
SECONDS = 20
LEAST = 300
COUNTS = {3: 0x40000000, 4: 0x40400000}  # of each guest: where the one that computes sees it
MODULES = [
    (guest("reckon.elf"), "reckon mem=4M share=chaos:4K:r@1G share=faults:4K:r@1028M -- 64"),
    (guest("copies.elf"), "quiet mem=8M"),
    (guest("chaos.elf"), "chaos mem=24M rom=1M+4K hole=8M+4K share=chaos:4K@1G reset=restart paused -- 1"),
    (guest("chaos.elf"), "faults mem=24M rom=1M+4K hole=8M+4K share=faults:4K@1G reset=restart paused -- faults"),
]


def start(boot, engine):
    machine = boot(modules=MODULES, engine=engine)
    machine.expect("round 1 of g2: all holds", PATIENCE)
    machine.expect(r"\[g1 reckon\] round ", PATIENCE)
    machine.press("\r")
    machine.wait_prompt(PATIENCE)
    machine.command("pause g2", timeout=PATIENCE)
    return machine


def steps_of(machine, number):
    lines = machine.command(f"peek g1 gpa {COUNTS[number]:#x}", timeout=PATIENCE)
    return int(next(line for line in lines if line.startswith("value: ")).split(": ")[1], 0)


def digest(machine):
    """Of the memory of the guest that is paused."""
    return re.findall(r"0x[0-9a-f]{16}", "\n".join(machine.command("digest g2", timeout=PATIENCE)))


def is_running(machine, number):
    state = rows(machine.command("guests", timeout=PATIENCE), "guest")
    return next(row["state"] for row in state if row["guest"] == f"g{number}") == "running"


def keep_going(machine, goes_on):
    """How many steps each has made by the end, and how often one had to begin anew."""
    before, anew = dict.fromkeys(COUNTS, -1), 0
    for number in COUNTS:
        machine.command(f"start g{number}", timeout=PATIENCE)
    while goes_on(before):
        time.sleep(1)
        for number in COUNTS:
            steps = steps_of(machine, number)
            if steps == before[number] or not is_running(machine, number):
                machine.command(f"kill g{number}; start g{number}", timeout=PATIENCE)
                anew += 1
            before[number] = steps
    return before, anew


def judge(machine, least, goes_on):
    kept, told = digest(machine), rounds_of(machine)
    assert kept and told > 0
    steps, anew = keep_going(machine, goes_on)
    print(f"steps {steps}, begun anew {anew} times")
    assert all(each >= least for each in steps.values()), steps
    assert digest(machine) == kept
    assert any(line.endswith("rules hold.") for line in machine.command("audit", timeout=PATIENCE))
    assert rounds_of(machine) > told
    for number in (1, 2, 3, 4):
        machine.command(f"kill g{number}", timeout=PATIENCE)
    assert any(line.endswith("rules hold.") for line in machine.command("audit", timeout=PATIENCE))
    assert machine.command("check", timeout=PATIENCE)[-1].endswith("hold.")
    quit_machine(machine)


def long_enough(seconds, least):
    """So many seconds, and on until each has made as many steps, for the computer may be busy."""
    if LONG:
        return lambda steps: sum(steps.values()) < STEPS
    end = time.monotonic() + seconds
    return lambda steps: time.monotonic() < end or min(steps.values()) < least


@pytest.mark.seconds(24 * 3600 if LONG else 300)
@pytest.mark.one_vendor("names its engine")
def test_what_is_made_at_random_stays_where_it_is(boot):
    # QEMU itself dies now and then of what such a guest executes. That says nothing of Quire: once more, then.
    for _ in range(4):
        machine = start(boot, Qemu())
        try:
            judge(machine, LEAST, long_enough(SECONDS, LEAST))
            return
        except MachineError:
            if machine.status not in (-signal.SIGSEGV, -signal.SIGABRT):
                raise
    pytest.skip("QEMU crashed each time")


@pytest.mark.seconds(24 * 3600 if LONG else 400)
@pytest.mark.one_vendor("by VMX, whatever the other one is")
def test_what_is_made_at_random_stays_where_it_is_in_vmx(boot):
    judge(start(boot, Bochs()), LEAST, long_enough(SECONDS / 2, LEAST))
