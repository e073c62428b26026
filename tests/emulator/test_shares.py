"""Shares of the CPU, measured: next to a guest that does its worst another has half of it.

QEMU counts instructions here (-icount): its clock then does not run while the computer that it runs on does
something else, and what the victim measures is Quire's doing.
"""

import re
import time

import pytest

from machines import SPIN, guest, quit_machine
from quire_machine.engines import Bochs, Qemu

pytestmark = pytest.mark.one_vendor("names its engines")

PATIENCE = 120

MODES = [
    "outsd",
    "outsb",
    "serial",
    "uart",
    "puts",
    "cpuid",
    "ports",
    "insb",
    "msrs",
    "lazy",
    "timer",
    "timer0",
    "eoi",
    "movs",
    "hlt",
    "invlpg",
    "exceptions",
    "steps",
    "icebp",
    "yields",
    "wbinvd",
]
# What VMX alone does, or does otherwise: string output by the VMCS, single steps, EPT violations.
MODES_OF_VMX = ["outsb", "lazy", "steps"]


class CountingQemu(Qemu):
    accel = ["-accel", "tcg", "-icount", "shift=0,sleep=off"]


def modules(mode):
    options = "mem=64M reset=restart" + (" lazy" if mode == "lazy" else "")
    return [(guest("victim.elf"), "victim"), (guest("hostile.elf"), f"hostile {options} -- {mode}")]


@pytest.mark.parametrize("mode", MODES)
def test_the_victim_has_its_share(boot, mode):
    machine = boot(modules=modules(mode), engine=CountingQemu())
    machine.expect("% of the CPU", PATIENCE)
    machine.expect("g1 victim: passed", 10)


@pytest.mark.parametrize("mode", MODES_OF_VMX)
def test_the_victim_has_its_share_in_vmx(boot, mode):
    machine = boot(modules=modules(mode), engine=Bochs())
    machine.expect("g1 victim: passed", PATIENCE)
    machine.press("\r")
    machine.wait_prompt(PATIENCE)
    quit_machine(machine)


def sixteen(boot, engine):
    """A console among sixteen that do their worst."""
    worst = [mode for mode in MODES if mode not in ("lazy", "hlt", "yields")][:16]
    assert len(worst) == 16
    many = [(guest("hostile.elf"), f"{mode} mem=4M -- {mode}") for mode in worst]
    machine = boot(modules=many, engine=engine)
    machine.expect("quire: g16 ", PATIENCE)
    machine.press("\r")
    machine.wait_prompt(PATIENCE)
    return machine


def test_the_console_answers_among_sixteen(boot):
    """And the log keeps what the hypervisor has said of itself, however much guests print."""
    machine = sixteen(boot, Qemu())
    for _ in range(5):
        start = time.monotonic()
        machine.command("version")
        assert time.monotonic() - start < 5  # this computer may run other machines
    log = machine.command("log", timeout=PATIENCE)
    assert any("quire: image: text" in line for line in log)
    quit_machine(machine)


def test_a_key_waits_for_sixteen_less_than_a_fifth_of_a_second(boot):
    """By the machine's own clock, which counts instructions here, 10^9 a second."""
    machine = sixteen(boot, CountingQemu())
    machine.command("top", timeout=PATIENCE)
    time.sleep(5)
    answer = "\n".join(machine.command("top", timeout=PATIENCE))
    waited = int(re.search(r"a key waited for guests at most (\d+) ticks", answer)[1])
    assert 0 < waited < 200_000_000
    quit_machine(machine)


def test_what_is_dropped_is_said(boot):
    machine = boot(modules=[(guest("hostile.elf"), "flood mem=4M -- puts"), (SPIN, "spin mem=1M")], engine=Qemu())
    machine.expect("bytes of its output were dropped here", PATIENCE)
    machine.press("\r")
    machine.wait_prompt(PATIENCE)
    exits = machine.command("exits g1")
    dropped = next(int(line.split(": ")[1]) for line in exits if line.startswith("bytes of output dropped"))
    assert dropped > 0
    machine.command("kill g1")
    assert "the last 4096" in machine.command("output g1")[0]
    quit_machine(machine)
