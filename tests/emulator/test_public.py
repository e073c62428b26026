"""Kernels that are no Linux and that no one here wrote, from Debian's packages as they are: memtest86+, which speaks
Linux's boot protocol, and Xen, which is a Multiboot kernel. Each is held to what it says on its serial port."""

import glob
import gzip

import pytest

from machines import memtest86plus, package, quit_machine

pytestmark = pytest.mark.one_vendor(
    "kernels by their boot protocols; by VMX test_linux.py and test_bios.py have such", vendor="svm"
)


@pytest.fixture(scope="module")
def xen():
    """The packed kernel."""
    return glob.glob(f"{package('xen-hypervisor-4.17-amd64')}/boot/xen-*.gz")[0]


def end(machine):
    machine.press("\r")
    machine.wait_prompt()
    machine.command("kill g1")
    assert machine.command("check")[-1].endswith("hold.")
    quit_machine(machine)


@pytest.mark.one_vendor("twice as long in QEMU, where it runs in test_side_by_side.py", vendor="vmx")
def test_memtest86plus(boot):
    """It sets up long mode, finds its memory and begins to test it, without the seconds that it gives one for a key."""
    machine = boot(modules=[(memtest86plus(), "memtest mem=32M -- console=ttyS0,115200 nopause")])
    machine.expect("^quire: g1 memtest: Linux bzImage, memory to 32M")
    machine.expect(r"^\[g1 memtest\] .*Memtest86\+ v\d", timeout=300)
    machine.expect(r"^\[g1 memtest\] .*\[Address test", timeout=300)
    end(machine)


def test_xen(boot, xen, tmp_path):
    """It relocates itself, turns on paging, and reads the memory map as Multiboot gives it."""
    kernel = tmp_path / "xen"
    with gzip.open(xen) as packed:
        kernel.write_bytes(packed.read())
    words = "xen mem=128M mods=1 -- com1=115200,8n1 console=com1"
    machine = boot(modules=[(str(kernel), words), (bytes(8192), "no kernel")], memory=384)
    machine.expect("^quire: g1 xen: Multiboot")
    machine.expect(r"^\[g1 xen\] \(XEN\) Xen version 4", timeout=120)
    machine.expect(r"^\[g1 xen\] \(XEN\) Bootloader: Quire")
    machine.expect(r"^\[g1 xen\] \(XEN\) Command line: .*console=com1")
    machine.expect(r"^\[g1 xen\] \(XEN\) .*\[0000000000100000, 0000000007ffffff\] \(usable\)")
    machine.expect(r"^\[g1 xen\] \(XEN\) System RAM: 127MB")


def test_a_packed_kernel_is_named(boot, xen):
    machine = boot(modules=[(xen, "xen expect=refused")])
    machine.expect("g1 xen: refused: a gzip file: unpack it first, by gunzip")
