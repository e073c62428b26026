"""What guests find at their ports, and the modules that a guest is handed."""

import pytest

from machines import NO_ACCESSED_DIRTY_CPU, flat_image, guest, link, quit_machine
from quire_machine.engines import Bochs, Qemu

pytestmark = pytest.mark.both_vendors


def payload(name, size):
    """A module's content as guests/devices.c wants it: its command line over and over."""
    return (name * (size // len(name) + 1))[:size].encode()


@pytest.mark.one_vendor("names its engines")
@pytest.mark.parametrize(
    "engine", [Bochs("corei7_icelake_u"), Bochs(NO_ACCESSED_DIRTY_CPU), Qemu()], ids=lambda engine: engine.cpu
)
def test_devices_and_modules(boot, engine):
    machine = boot(engine=engine, modules=[
        (guest("devices.elf"), "devices mods=3"),
        (payload("initrd", 10000), "initrd"),
        (payload("second module", 1), "second module"),
        (payload("third", 4096), "third"),
        (guest("devices.elf"), "alone lazy mem=128M"),
    ])
    machine.wait_prompt()
    assert "quire: g1 devices: passed" in machine.lines, machine.tail()
    assert "quire: g2 alone: passed" in machine.lines, machine.tail()
    said = [line for line in machine.lines if line.startswith("[g1 devices]")]
    assert '[g1 devices] module "initrd", 10000 bytes' in said
    assert '[g1 devices] module "second module", 1 bytes' in said
    assert '[g1 devices] module "third", 4096 bytes' in said
    for text in ("REP OUTSB, forwards", "REP OUTSB, backwards", "REP OUTSB through ESI"):
        assert f"[g1 devices] ok: {text}" in said
    quit_machine(machine)


def test_more_modules_wanted_than_follow(boot):
    machine = boot(modules=[
        (guest("hello.elf"), "greedy mods=2 expect=refused"),
        (guest("hello.elf"), "hello"),
    ])
    machine.expect(r"g1 greedy: refused: mods=2, but only 1 modules follow")
    machine.expect("g2 hello: passed")
    machine.expect("2 of 2 as expected")


def test_string_output_in_real_mode(boot):
    """REP OUTSB of a text that crosses the end of its segment: SI wraps, the base stays."""
    text = b"around the corner\n"
    code = bytes([
        0xfc,                    # cld
        0xb8, 0x00, 0x20,        # mov ax, 0x2000
        0x8e, 0xd8,              # mov ds, ax
        0x8e, 0xc0,              # mov es, ax
        0xbf, 0xf8, 0xff,        # mov di, 0xfff8
        0xbe, 0x00, 0x7d,        # mov si, 0x7d00: the text
        0xb9, len(text), 0x00,   # mov cx, length
        0x2e, 0xac,              # again: cs lodsb
        0xaa,                    # stosb, DI wraps as well
        0xe2, 0xfb,              # loop again
        0xbe, 0xf8, 0xff,        # mov si, 0xfff8
        0xb9, len(text), 0x00,   # mov cx, length
        0xba, 0xe9, 0x00,        # mov dx, QUIRE_PORT_DEBUG
        0xf3, 0x6e,              # rep outsb
        0x81, 0xfe, len(text) - 8, 0x00,  # cmp si, behind the text
        0x75, 0x08,              # jne over the verdict
        0x66, 0x31, 0xc0,        # xor eax, eax
        0xba, 0x10, 0x05,        # mov dx, QUIRE_PORT_RESULT
        0x66, 0xef,              # out dx, eax
        0xf4,                    # hlt
    ])
    image = flat_image(code.ljust(0x100, b"\x90") + text)
    machine = boot(modules=[(image, "wrap mem=1M")])
    machine.expect(r"^\[g1 wrap\] around the corner$")
    machine.expect("g1 wrap: passed")


@pytest.mark.parametrize("operand", [0x9fff, 0xb800])
def test_string_output_from_a_hole_stops_the_guest(boot, operand):
    """The second byte from 9fff:000f is the first of the hole."""
    code = bytes([
        0xb8, operand & 0xff, operand >> 8,  # mov ax, operand
        0x8e, 0xd8,                          # mov ds, ax
        0xbe, 0x0f, 0x00,                    # mov si, 15
        0xb9, 0x02, 0x00,                    # mov cx, 2
        0xba, 0xe9, 0x00,                    # mov dx, QUIRE_PORT_DEBUG
        0xf3, 0x6e,                          # rep outsb
        0xf4,
    ])
    machine = boot(modules=[(flat_image(code), "lost mem=1M expect=stopped")])
    at = max(0xa0000, operand << 4 | 15)
    machine.expect(rf"g1 lost: stopped: read of GPA 0x{at:x}: no memory \(hole 0xa0000\.\.")
    machine.expect("1 of 1 as expected")


def test_stray_accesses_can_be_lost(boot, tmp_path):
    image = link("stray32.asm", tmp_path, 32)
    words = "mem=8M bare entry=elf32 rom=4M+64K expect=stopped"
    machine = boot(modules=[(image, f"lost {words} stray=lost"), (image, f"kept {words}")])
    machine.wait_prompt()
    said = [line for line in machine.lines if line.startswith("[g1 lost]")]
    assert len(said) == 12 and all("] ok " in line for line in said), machine.tail()
    ends = "stopped: instruction fetch from GPA 0xc0000000: no memory"
    assert any(line.startswith(f"quire: g1 lost: {ends}") for line in machine.lines)
    assert any(line.startswith("quire: g2 kept: stopped: read of GPA 0x800000: no memory") for line in machine.lines)
    quit_machine(machine)


def test_a_reset_ends_only_the_guest(boot):
    code = bytes([0xb0, 0xfe, 0xe6, 0x64, 0xf4])  # mov al, 0xfe; out 0x64, al; hlt
    machine = boot(modules=[(flat_image(code), "reset mem=1M expect=stopped"),
                            (guest("hello.elf"), "hello")])
    machine.expect("g1 reset: stopped: the guest asked for a reset of its machine")
    machine.expect("g2 hello: passed")
    machine.wait_prompt()
    quit_machine(machine)
