"""A guest that is a PC: keys typed at it, its screen, its devices; and the machine as Debian's Linux finds it."""

import base64
import os
import re
import subprocess
import sys
import time

import pytest

from machines import assemble, quit_machine
from support import ROOT

sys.path.insert(0, os.path.join(ROOT, "tools"))
import linux  # noqa: E402
from quire_machine.debian import DebianError  # noqa: E402

pytestmark = pytest.mark.both_vendors


def test_keys_and_screen(boot):
    machine = boot(modules=[(assemble("keys.asm"), "keys mem=1M pc")])
    machine.expect(r"^\[g1 keys\] ready$")
    machine.press("\r")
    machine.wait_prompt()
    machine.command("trace on interrupt")
    machine.send("type g1 hI\r")
    machine.expect("typed 2 characters on the keyboard of g1 keys")
    for code in ("23", "a3", "2a", "17", "97", "aa"):
        machine.expect(rf"^\[g1 keys\] {code}$")
    machine.wait_prompt()
    handed = {(row["at"], row["detail"]) for row in machine.ask("trace show g1 interrupt").records("event")}
    assert {detail for _, detail in handed} == {"keyboard, 8259 line 1"}
    # The codes of h, shift and i are what it wrote: '#', '*' and an arrow.
    assert machine.command("screen g1")[:2] == ["g1 keys: 80 by 25, cursor at row 0, column 3", "#*|"]
    answer = machine.ask("screen g1")
    assert answer.records("screen")[0] == {
        "columns": 80, "rows": 25, "cursor_row": 0, "cursor_column": 3, "cursor_shown": True,
    }
    texts = [row["text"] for row in answer.records("screen row")]
    assert texts == ["#*|"] + [""] * 24
    shown = machine.ask("devices g1").records("device")
    assert {"keyboard", "PIC", "PIT", "CMOS", "PCI", "VGA", "ACPI", "serial"} <= {row["device"] for row in shown}
    assert any("IMR 0xfd" in row["state"] for row in shown if row["device"] == "PIC")
    machine.send("type g1 \\n\r")
    machine.expect("g1 keys: passed")
    machine.wait_prompt()
    # What was on the screen at the end.
    assert machine.command("screen g1")[1].startswith("#*|")
    quit_machine(machine)


def test_a_guest_restarts_itself(boot):
    code = bytes([0xb0, 0x06, 0xba, 0xf9, 0x0c, 0xee, 0xf4])  # mov al, 6; mov dx, 0xcf9; out dx, al; hlt
    machine = boot(modules=[(code.ljust(510, b"\x90") + b"\x55\xaa", "again mem=1M reset=restart expect=stopped")])
    for times in range(1, 9):
        machine.expect(rf"g1 again: restarts \({times} of 8\)")
    machine.expect("g1 again: restarted 8 times; it stays stopped until `start g1`")
    machine.expect("1 of 1 as expected")


INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for table in APIC DSDT FACP HPET; do
    base64 /sys/firmware/acpi/tables/$table | sed "s/^/table $table /"
done
sed 's/^/rtc /' /proc/driver/rtc
sed 's/^/irq /' /proc/interrupts
cat /sys/bus/pci/devices/0000:00:00.0/vendor /sys/bus/pci/devices/0000:00:00.0/device /sys/bus/pci/devices/0000:00:00.0/class
ls /sys/bus/pci/devices | wc -l | sed 's/^/devices /'
dmesg | grep -E 'ACPI.*(Error|Warning|Exception)|Firmware Bug|BIOS bug' | sed 's/^/complaint /'
dmesg | grep -E 'PCI: Using configuration|supports S0 S5|Console: colour|i8042: PNP|hpet0: |ACPI: PM-Timer' |
    sed 's/^[^]]*. /said /'
date '+date %s'
echo "on the screen" > /dev/tty0
echo "type now"
read line < /dev/tty0
echo "typed: $line"
poweroff -f
"""


def tables_of(lines):
    """{signature: bytes} of what the guest printed."""
    found = {}
    for line in lines:
        match = re.match(r"\[g1 linux\] table (\w{4}) (\S+)$", line)
        if match:
            found[match[1]] = found.get(match[1], "") + match[2]
    return {name: base64.b64decode(text) for name, text in found.items()}


def check_tables(tables, folder):
    """Sound by their sums, and by Intel's disassembler, which names a sum that is wrong."""
    assert set(tables) == {"APIC", "DSDT", "FACP", "HPET"}
    for name, table in tables.items():
        assert table[:4] == name.encode() and sum(table) % 256 == 0
        path = folder / f"{name}.aml"
        path.write_bytes(table)
        said = subprocess.run(["iasl", "-d", str(path)], capture_output=True, text=True, check=False)
        assert said.returncode == 0, said.stdout + said.stderr
        text = (folder / f"{name}.dsl").read_text()
        assert not re.search(r"Incorrect checksum|Warning|Error|Unknown", text + said.stderr), text
    dsdt = (folder / "DSDT.dsl").read_text()
    assert set(re.findall(r"PNP\w{4}", dsdt)) == {"PNP0A03", "PNP0501", "PNP0303", "PNP0B00"}


@pytest.mark.one_vendor("minutes of Linux; it boots by SVM in test_linux.py and test_guest_symbols.py", vendor="vmx")
@pytest.mark.seconds(900)
def test_linux_finds_a_pc(boot, tmp_path):
    try:
        root = linux.packages(os.path.join(linux.BUILD, "linux"))
    except DebianError as error:
        pytest.skip(f"Debian's packages cannot be had: {error}")
    before = int(time.time())
    machine = boot(
        modules=[
            (linux.kernel_of(root), "linux mem=128M mods=1 -- console=ttyS0 quiet"),
            (linux.initramfs(root, INIT), "initrd"),
        ],
        memory=384,
    )
    machine.expect(r"^\[g1 linux\] type now$", 800)
    said = [line.removeprefix("[g1 linux] ") for line in machine.lines if line.startswith("[g1 linux] ")]
    check_tables(tables_of(machine.lines), tmp_path)
    assert not [line for line in said if line.startswith("complaint ")]
    text = "\n".join(said)
    for pattern in (
        r"^said PCI: Using configuration type 1",
        r"^said ACPI: PM: \(supports S0 S5\)",
        r"^said ACPI: PM-Timer IO Port: 0x608",
        r"^said Console: colour VGA\+ 80x25",
        r"^said i8042: PNP: PS/2 Controller \[PNP0303:KBD0\] at 0x60,0x64 irq 1",
        r"^said hpet0: 3 comparators",
        r"^0x8086\n0x1237\n0x060000$",
        r"^devices 1$",
        r"^rtc 24hr\s*: yes",
        r"^rtc batt_status\s*: okay",
        r"^irq .*\bIO-APIC +1-edge +i8042",
        r"^irq .*\bIO-APIC +9-fasteoi +acpi",
    ):
        assert re.search(pattern, text, re.M), f"no {pattern!r} in\n{text}"
    # The date is the host's, whose clock Bochs begins with its own start.
    assert abs(int(re.search(r"^date (\d+)$", text, re.M)[1]) - before) < 26 * 3600
    machine.press("\r")
    machine.wait_prompt()
    assert "on the screen" in machine.command("screen g1")
    machine.command('type g1 "Hello, World!\\n"')
    machine.expect(r"^\[g1 linux\] typed: Hello, World!$", 300)
    machine.expect("g1 linux: powered off by ACPI", 300)
    machine.expect("g1 linux: passed")
    machine.wait_prompt()
    assert "Hello, World!" in machine.command("screen g1")
    quit_machine(machine)
