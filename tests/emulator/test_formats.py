"""Kernels of each format, started as they are: each looks from within at what it was given. Their headers
are judged by GRUB's own tool, and their files made by the linker that everybody has."""

import os
import subprocess

import pytest

from machines import link, link_high, quit_machine, user_program
from support import QUIRE_ELF

pytestmark = pytest.mark.both_vendors

PAYLOAD = (b"payload!", "payload of mine")

# Options of NASM: where a section header has its address, and how wide the note's is.
CLASSES = {32: ["-DSECTION_ADDRESS=12", "-DNOTE_SIZE=4"], 64: ["-DSECTION_ADDRESS=16", "-DNOTE_SIZE=8"]}


def boot_one(boot, image, words, kind, *modules):
    machine = boot(modules=[(image, f"kernel {words}"), *modules])
    machine.expect(rf"^quire: g1 kernel: {kind}, memory to")
    machine.expect("^quire: g1 kernel: (passed|failed|stopped|refused)")
    said = [line for line in machine.lines if line.startswith("[g1 kernel]")]
    assert "quire: g1 kernel: passed" in machine.lines, "\n".join(said + machine.lines[-20:])
    assert not any("BAD" in line for line in said)
    machine.wait_prompt()
    assert machine.command("check")[-1].endswith("hold.")
    quit_machine(machine)
    return said


def is_file(path, kind):
    return subprocess.run(["grub-file", f"--is-x86-{kind}", path], check=False).returncode == 0


@pytest.mark.parametrize("bits", CLASSES)
def test_pvh(boot, tmp_path, bits):
    image = link("pvh.asm", tmp_path, bits, CLASSES[bits])
    said = boot_one(boot, image, "mem=8M mods=1 -- words for pvh", f"PVH ELF{bits}", PAYLOAD)
    assert len(said) == 14


@pytest.mark.parametrize("bits", CLASSES)
def test_multiboot2(boot, tmp_path, bits):
    image = link("multiboot2.asm", tmp_path, bits, CLASSES[bits])
    assert is_file(image, "multiboot2") and not is_file(image, "multiboot")
    words = "mem=8M mods=1 -- words for multiboot 2"
    said = boot_one(boot, image, words, f"Multiboot2 ELF{bits}", PAYLOAD)
    assert len(said) == 20


def test_a_multiboot2_image_that_is_moved(boot, tmp_path):
    image = link("moved.asm", tmp_path, 32)
    assert is_file(image, "multiboot2")
    boot_one(boot, image, "mem=8M", "Multiboot2 ELF32")


@pytest.mark.parametrize("bits", CLASSES)
def test_multiboot1_with_a_physical_entry_point(boot, tmp_path, bits):
    """As GRUB passes it, and an entry point that is no virtual address."""
    image = link_high("multiboot1.asm", tmp_path, bits, CLASSES[bits])
    assert is_file(image, "multiboot")
    words = "mem=8M mods=1 -- words for multiboot 1"
    said = boot_one(boot, image, words, f"Multiboot ELF{bits}", PAYLOAD)
    assert len(said) == 15


@pytest.mark.parametrize("bits", CLASSES)
def test_an_elf_file_without_a_header(boot, tmp_path, bits):
    image = link(f"plain{bits}.asm", tmp_path, bits)
    boot_one(boot, image, f"mem=8M entry=elf{bits} -- words for elf", f"ELF{bits}")


def test_quire_itself(boot):
    """A Multiboot 2 kernel that takes its map, command line and modules seriously; a CPU to run guests is all that it misses."""
    modules = [(QUIRE_ELF, "inner mem=64M mods=1 -- reserve=8M"), (user_program("hello"), "user:hello")]
    machine = boot(modules=modules)
    machine.expect("^quire: g1 inner: Multiboot2 ELF64, memory to 64M")
    machine.expect(r"^\[g1 inner\] quire: boot: by Quire, 1 modules, command line \"reserve=8M\"")
    machine.expect(r"^\[g1 inner\] quire: memory: 6\d\.?\d*M usable, RAM ends at 0x4000000")
    machine.expect(r"^\[g1 inner\] quire: no guests can run: this CPU has no VMX")
    machine.expect(r"^\[g1 inner\] quire: user hello: exited with 0")
    machine.expect(r"^\[g1 inner\] quire: audit: .*all rules hold")
    machine.press("\r")
    machine.wait_prompt()
    machine.command("kill g1")
    quit_machine(machine)


def test_refused_without_that_word_and_the_report_says_why(boot, tmp_path):
    image = link("plain32.asm", tmp_path, 32)
    machine = boot(modules=[(image, "plain expect=refused")])
    machine.expect("g1 plain: refused: not an image that can be started: an ELF file without a Multiboot header")
    machine.wait_prompt()
    report = machine.command("report g1")
    for format_, why in [("Linux", "HdrS"), ("Multiboot 1", "0x1badb002"), ("Multiboot 2", "0xe85250d6"), ("PVH", "Xen")]:
        assert any(line.strip().startswith(f"{format_}: no ") and why in line for line in report), report
    assert os.path.getsize(image) > 0
