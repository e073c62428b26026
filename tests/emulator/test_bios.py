"""Boot sectors that call a BIOS: one of ours, and GRUB's for a PC with all that it loads behind it, both as they
are."""

import os
import struct
import subprocess

import pytest

from image import GRUB_FOLDER
from machines import assemble, facts, quit_machine

pytestmark = pytest.mark.both_vendors

MODULES = ["biosdisk", "serial", "terminal", "normal", "echo", "lsmmap", "ls", "date"]
COMMANDS = """serial --unit=0 --speed=115200
terminal_output console serial
echo hello from GRUB
lsmmap
ls
"""


def test_a_boot_sector_and_its_bios(boot):
    machine = boot(modules=[(assemble("bootsector.asm"), "sector pc mem=8M")])
    machine.expect(r"^quire: g1 sector: boot sector, memory to 8M")
    machine.expect(r"^\[g1 sector\] read by the BIOS: the third sector")
    machine.expect("g1 sector: (passed|failed|stopped)")
    assert "quire: g1 sector: passed" in machine.lines
    machine.wait_prompt()
    quit_machine(machine)


def press_and_read(machine, guest, key, expected):
    machine.command(f"type g{guest} {key}")
    machine.expect(rf"^\[g{guest} disk\] on the disk: {expected}$")


def test_what_is_written_to_the_disk(boot):
    """A snapshot and a fork have it as it was; a guest that is started anew has its image."""
    machine = boot(modules=[(assemble("diskwriter.asm"), "disk pc mem=1M")])
    machine.expect(r"^quire: g1 disk: boot sector")
    machine.press("\r")
    machine.wait_prompt()
    press_and_read(machine, 1, "0", "=")
    press_and_read(machine, 1, "a", "a")
    machine.command("snapshot g1")
    press_and_read(machine, 1, "b", "b")
    machine.command("fork g1")
    press_and_read(machine, 2, "0", "b")
    press_and_read(machine, 2, "c", "c")
    machine.command("reset g1")
    press_and_read(machine, 1, "0", "a")
    press_and_read(machine, 2, "0", "c")
    frame = int(facts(machine.command("peek g1 gpa 0x50000 1"))["hpa"], 16) & ~0xFFF
    ways = {way["table"] for way in machine.ask(f"who {frame:#x}").records("mapping")}
    assert ways == {"host", "g1 disk", "g1's snapshot", "g2 disk"}
    assert machine.command("check")[-1].endswith("hold.")
    machine.command("kill g1")
    machine.command("start g1")
    press_and_read(machine, 1, "0", "=")
    machine.command("kill g1")
    machine.command("kill g2")
    assert machine.command("check")[-1].endswith("hold.")
    quit_machine(machine)


def grub_disk(folder, commands=COMMANDS, modules=MODULES):
    """GRUB's boot sector, and all that it loads behind it."""
    script, core = os.path.join(folder, "commands"), os.path.join(folder, "core.img")
    with open(script, "w", encoding="ascii") as file:
        file.write(commands)
    made = ["grub-mkimage", "-O", "i386-pc", "-d", GRUB_FOLDER, "-p", "/boot", "-c", script]
    subprocess.run([*made, "-o", core, *modules], check=True)
    with open(os.path.join(GRUB_FOLDER, "boot.img"), "rb") as sector, open(core, "rb") as rest:
        return sector.read() + rest.read()


def with_a_partition(disk, folder, first=2048, sectors=2880):
    """The disk with a file system of DOS in its first partition, and GRUB's file of variables there."""
    partition, variables = os.path.join(folder, "partition"), os.path.join(folder, "grubenv")
    with open(variables, "w", encoding="ascii") as file:
        file.write("# GRUB Environment Block\n".ljust(1024, "#"))
    subprocess.run(["mformat", "-C", "-f", "1440", "-i", partition, "::"], check=True)
    subprocess.run(["mcopy", "-i", partition, variables, "::grubenv"], check=True)
    with open(partition, "rb") as file:
        content = file.read()
    # Where the other entries are to be, the boot sector has code for diskettes.
    entries = struct.pack("<BBBBBBBBII48x", 0x80, 0, 0, 0, 0x0C, 0, 0, 0, first, sectors)
    return disk[:446] + entries + disk[510:].ljust(first * 512 - 510, b"\0") + content


def test_grub_from_its_boot_sector_to_its_prompt(boot, tmp_path):
    """Real mode and back for each call; its disk is its own image."""
    machine = boot(modules=[(grub_disk(tmp_path), "grub flat pc mem=32M")])
    machine.expect(r"^\[g1 grub\] GRUB loading\.")
    machine.expect(r"\[g1 grub\] .*hello from GRUB", timeout=120)
    for part in ("base_addr = 0x0, length = 0x9fc00, available", "base_addr = 0x100000, length = 0x1f00000, available"):
        machine.expect(rf"\[g1 grub\] {part}")
    machine.expect(r"\[g1 grub\] .*\(hd0\)")
    machine.expect(r"\[g1 grub\] .*GNU GRUB  version")
    machine.press("\r")
    machine.wait_prompt()
    machine.command("kill g1")
    assert machine.command("check")[-1].endswith("hold.")
    quit_machine(machine)


WRITES = """serial --unit=0 --speed=115200
terminal_output serial
set root=(hd0,msdos1)
set said=nothing
load_env -f /grubenv
echo before: $said
set said="it was written"
save_env -f /grubenv said
set said=nothing
load_env -f /grubenv
echo after: $said
"""


def test_grub_writes_to_its_disk(boot, tmp_path):
    """By the extensions, into a file of a file system that it reads again."""
    modules = [*MODULES, "part_msdos", "fat", "loadenv", "test"]
    disk = with_a_partition(grub_disk(tmp_path, WRITES, modules), tmp_path)
    machine = boot(modules=[(disk, "grub flat pc mem=32M")])
    machine.expect(r"\[g1 grub\] .*before: nothing", timeout=120)
    machine.expect(r"\[g1 grub\] .*after: it was written", timeout=120)
    machine.press("\r")
    machine.wait_prompt()
    machine.command("kill g1")
    assert machine.command("check")[-1].endswith("hold.")
    quit_machine(machine)
