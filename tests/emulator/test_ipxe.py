"""Programs that have the 16-bit entry of Linux's boot protocol alone, from Debian's packages as they are: iPXE, to what
its prompt answers, and memdisk, which makes a disk of its initrd and boots from that."""

import os
import time

import pytest

from machines import assemble, package, quit_machine
from quire_machine.engines import Qemu

pytestmark = pytest.mark.one_vendor("what it tries are devices, in minutes of Bochs; names its engine")

PATIENCE = 120


def screen(machine):
    return machine.command("screen g1", timeout=PATIENCE)[1:]


def wait_for(machine, text, seconds=PATIENCE):
    """The screen, once `text` is on it."""
    end = time.monotonic() + seconds
    while True:
        rows = screen(machine)
        if any(text in row for row in rows):
            return rows
        assert time.monotonic() < end, "\n".join(rows)
        time.sleep(0.2)


def test_ipxe_answers_at_its_prompt(boot):
    """Ctrl-B, typed before it looks for two seconds, waits in the BIOS's ring. By AMD-V in QEMU: it asks all of the
    PCI bus for devices, which takes minutes in Bochs."""
    ipxe = os.path.join(package("ipxe"), "boot", "ipxe.lkrn")
    machine = boot(modules=[(ipxe, "ipxe paused mem=32M -- ")], engine=Qemu())
    machine.expect(r"^quire: g1 ipxe: Linux 16-bit, memory to 32M", PATIENCE)
    machine.wait_prompt(PATIENCE)
    machine.command("type g1 \\cb")
    machine.command("start g1")
    wait_for(machine, "Open Source Network Boot Firmware")
    wait_for(machine, "iPXE>")
    machine.command('type g1 "set answer 42 && echo the answer is ${answer} on ${platform}\\n"')
    wait_for(machine, "the answer is 42 on pcbios")
    machine.command("kill g1")
    assert machine.command("check")[-1].endswith("hold.")
    quit_machine(machine)


def test_memdisk_boots_from_its_initrd(boot):
    """Its disk lies beyond 1 MiB: each sector comes by the BIOS's block move."""
    sector = assemble("bootsector.asm", ["-DUNDER_MEMDISK"])
    disk = sector.ljust(63 * 16 * 512, b"\0")
    memdisk = os.path.join(package("syslinux-common"), "usr", "lib", "syslinux", "memdisk")
    words = "memdisk mem=32M mods=1 -- harddisk c=1 h=16 s=63"
    machine = boot(modules=[(memdisk, words), (disk, "disk")], engine=Qemu())
    machine.expect(r"^quire: g1 memdisk: Linux 16-bit, memory to 32M")
    machine.expect(r"^\[g1 memdisk\] .*Using safe INT 15h access to high memory", PATIENCE)
    machine.expect(r"^\[g1 memdisk\] read by the BIOS: the third sector", PATIENCE)
    machine.expect("g1 memdisk: (passed|failed|stopped)", PATIENCE)
    assert "quire: g1 memdisk: passed" in machine.lines
    machine.wait_prompt()
    assert machine.command("check")[-1].endswith("hold.")
    quit_machine(machine)
