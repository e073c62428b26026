"""What takes KVM in Bochs many minutes: kernels that no one here wrote, and hostile guests for long. With this machine's
own KVM they run with the rest, else with QUIRE_LONG=1."""

import os
import random
import re
import tempfile

import pytest

import linux
import test_chaos
from machines import memtest86plus, package, quit_machine
from quire_machine.debian import DebianError
from support import BUILD
from test_bios import grub_disk

pytestmark = [pytest.mark.minutes, pytest.mark.seconds(3600)]

PATIENCE = 120  # of the machine's; a host in Bochs multiplies it
SECONDS = 600
# What is made of every mode elsewhere: string output, lazy memory, single steps, a serial port, ends of interrupts.
MODES = test_chaos.BOCHS_MODES


def linux_modules():
    try:
        root = linux.packages(os.path.join(BUILD, "linux"))
    except DebianError as error:
        pytest.skip(f"Debian's packages cannot be had: {error}")
    words = "linux mem=128M mods=1 expect=stopped -- console=ttyS0 quiet once"
    return [(linux.kernel_of(root), words), (linux.initramfs(root), "initrd")]


def grub_modules():
    with tempfile.TemporaryDirectory() as folder:
        return [(grub_disk(folder), "grub flat pc mem=32M")]


def ipxe_modules():
    return [(os.path.join(package("ipxe"), "boot", "ipxe.lkrn"), "ipxe mem=32M -- ")]


IMAGES = {
    "linux": linux_modules,
    "memtest": lambda: [(memtest86plus(), "memtest mem=8M -- console=none")],
    "grub": grub_modules,
    "ipxe": ipxe_modules,
    "chaos": lambda: test_chaos.modules(MODES, told=64),
}


def end(machine):
    machine.command("kill g1")
    assert machine.command("check")[-1].endswith("hold.")
    assert re.fullmatch(r"All \d+ rules hold\.", machine.command("audit")[-1])
    quit_machine(machine)


def prompt(machine):
    machine.press("\r")
    machine.wait_prompt(PATIENCE)


def screen(machine):
    return "\n".join(row["text"] for row in machine.ask("screen g1").records("screen row"))


def test_debians_linux(boot):
    """As natively: its timer ticks, its memory holds what is written, its reset ends it."""
    machine = boot("linux", memory=384)
    machine.expect("^quire: g1 linux: Linux bzImage, memory to 128M", PATIENCE)
    machine.expect(r"^\[g1 linux\] busybox on Linux \d+\.\d+\.", PATIENCE)
    first, second = machine.expect(r"^\[g1 linux\] digest: (\w{32})  - (\w{32})", PATIENCE).groups()
    assert first == second
    machine.expect("^quire: guests: 1 of 1 as expected", PATIENCE)
    machine.wait_prompt(PATIENCE)
    assert not [line for line in machine.lines if "Kernel panic" in line]
    assert machine.command("check")[-1].endswith("hold.")
    quit_machine(machine)


def test_memtest86plus(boot):
    machine = boot("memtest")
    machine.expect("g1 memtest: Linux bzImage", PATIENCE)
    prompt(machine)
    machine.wait_for(lambda: "<Enter> to start testing" in screen(machine), "its first screen", PATIENCE)
    machine.command("type g1 \\n")
    machine.wait_for(lambda: re.search(r"Test #[3-9]", screen(machine)), "its third test", PATIENCE)
    assert re.search(r"Status: Testing .*\n.*Errors: 0$", screen(machine), re.M)
    end(machine)


def test_grub(boot):
    machine = boot("grub")
    machine.expect(r"\[g1 grub\] .*hello from GRUB", PATIENCE)
    machine.expect(r"\[g1 grub\] .*GNU GRUB  version", PATIENCE)
    prompt(machine)
    end(machine)


def test_ipxe(boot):
    machine = boot("ipxe")
    machine.expect("g1 ipxe: Linux 16-bit", PATIENCE)
    prompt(machine)
    machine.wait_for(lambda: "Open Source Network Boot Firmware" in screen(machine), "its banner", PATIENCE)
    end(machine)


def test_one_computes_among_two_that_are_hostile(boot):
    machine = test_chaos.ready(boot("chaos"))
    before = test_chaos.rounds_of(machine)
    assert before > 0
    test_chaos.chaos(machine, MODES, SECONDS, random.Random(3))
    assert test_chaos.rounds_of(machine) > before
    test_chaos.end(machine, MODES)
