"""Modules that are no guests, or want what cannot be: each is refused with its reason, and the
others run as if it were not there."""

import gzip
import struct

import pytest

from machines import SPIN, guest, quit_machine, rows

pytestmark = pytest.mark.one_vendor("refusals by loaders and options, which know no vendor", vendor="svm")

MULTIBOOT_MAGIC = 0x1BADB002


def hello():
    with open(guest("hello.elf"), "rb") as image:
        return image.read()


def with_bytes(image, at, new):
    return image[:at] + new + image[at + len(new) :]


def header_at(image):
    return image.index(struct.pack("<I", MULTIBOOT_MAGIC))


def elf_field(offset, form, value):
    """hello.elf with one field of its ELF header changed (offsets are those of its own class)."""
    return lambda: with_bytes(hello(), offset, struct.pack(form, value))


def program_header(offset, form, value):
    """hello.elf with one field of its first program header changed (32-bit layout)."""

    def made():
        image = hello()
        at = struct.unpack_from("<I", image, 28)[0] + offset
        return with_bytes(image, at, struct.pack(form, value))

    return made


def shared_object():
    """Position-independent, and linked from low memory on."""
    image = program_header(12, "<I", 0x2000)()
    return with_bytes(image, 16, struct.pack("<H", 3))


def broken_checksum():
    image = hello()
    return with_bytes(image, header_at(image) + 8, b"\0\0\0\0")


def no_header():
    return hello().replace(struct.pack("<I", MULTIBOOT_MAGIC), bytes(4))


def efi_program():
    return b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x80) + bytes(0x40) + b"PE\0\0" + bytes(500)


# What the module is, its options, and a part of the reason.
IMAGES = {
    "one byte": (lambda: b"x", "", "not an image that can be started"),
    "text": (lambda: b"no image at all\n" * 100, "", "not an image that can be started"),
    "zeroes": (lambda: bytes(65536), "", "not an image that can be started"),
    "ELF magic alone": (lambda: b"\x7fELF", "", "not an image that can be started"),
    "cut after the header": (lambda: hello()[: header_at(hello()) + 32], "", "beyond the end"),
    "half of it": (lambda: hello()[: len(hello()) * 2 // 3], "", "beyond the end|cut off"),
    "wrong checksum": (broken_checksum, "", "wrong checksum"),
    "ELF for ARM": (elf_field(18, "<H", 40), "", "for another processor than x86"),
    "ELF big-endian": (elf_field(5, "<B", 2), "", "not little-endian"),
    "ELF object file": (elf_field(16, "<H", 1), "", "no executable"),
    "ELF shared object": (shared_object, "", "position-independent"),
    "gzip file": (lambda: gzip.compress(hello()), "", "a gzip file: unpack it first"),
    "EFI program": (efi_program, "", "an EFI program"),
    "ELF without a header": (no_header, "", "without a Multiboot header or a PVH note; entry="),
    "ELF entered by the other class": (hello, "entry=elf64", "is a 32-bit one: entry=elf32"),
    "no program headers": (elf_field(44, "<H", 0), "", "no program headers"),
    "program headers far away": (elf_field(28, "<I", 0x7FFFFFFF), "", "beyond the end"),
    "entry outside": (elf_field(24, "<I", 0x50), "", "entry point 0x50 lies in no segment"),
    "segment outside": (program_header(12, "<I", 0xF0000000), "", "outside the guest's memory"),
    "segment cut off": (program_header(16, "<I", 0x7FFFFFF), "", "beyond the end|more bytes"),
    "segment that wraps": (program_header(20, "<I", 0xFFFFFFFF), "", "wrap|outside|beyond"),
    "flat and too long": (lambda: SPIN + bytes(0x80000), "", "does not fit into 0x7c00"),
}
OPTIONS = {
    "unknown word": ("frobnicate", "frobnicate"),
    "memory of no size": ("mem=lots", "a size is a number with K, M or G behind it"),
    "memory too small": ("mem=4K", "at least 1M"),
    "memory past 64 bits": ("mem=99999999999999999999", "does not fit into 64 bits"),
    "more memory than there is": ("mem=8G", "not enough free memory"),
    "memory beyond the quota": ("mem=16M quota=1M", "quota|not enough"),
    "area without a size": ("rom=0x200000", "write rom=ADDRESS"),
    "area askew": ("rom=0x200001+64K", "multiples of 4K"),
    "areas that overlap": ("rom=0x400000+64K nox=0x400000+4K", "overlaps"),
    "area that wraps": ("hole=0xfffffffffffff000+8K", "end at 64T"),
    "image under a hole": ("hole=0x100000+64K", "overlaps|outside"),
    "two machines at once": ("pc bare", "are opposites"),
    "no such fate": ("expect=glory", "one can expect"),
    "modules that are not there": ("mods=3", "modules follow|only"),
}


@pytest.fixture(scope="module")
def machine(boot_for_module):
    """All of them, between two guests that must pass. The one that asks for modules behind it has but one."""
    broken = [(content(), f"{i} expect=refused {options}") for i, (content, options, _) in enumerate(IMAGES.values())]
    asking = [(hello(), f"{words} expect=refused {options}") for words, (options, _) in zip("abcdefghijklmnop", OPTIONS.values())]
    good = guest("hello.elf")
    machine = boot_for_module(modules=[(good, "first mem=4M"), *broken, *asking, (good, "last mem=4M")])
    machine.wait_prompt()
    return machine


@pytest.fixture(scope="module")
def guests(machine):
    return rows(machine.command("guests"), "guest")


def judge(machine, row, fragments):
    """The guest of this row was refused for a reason that has one of the fragments."""
    assert (row["state"], row["frames"]) == ("refused", "0")
    assert any(each in row["reason"] for each in fragments.split("|")), row["reason"]
    assert f"quire: {row['guest']} {row['name']}: refused: {row['reason']}" in machine.lines


@pytest.mark.parametrize("name", IMAGES)
def test_a_broken_image_is_refused(machine, guests, name):
    judge(machine, guests[1 + list(IMAGES).index(name)], IMAGES[name][-1])


@pytest.mark.parametrize("name", OPTIONS)
def test_options_that_cannot_be_met_are_refused(machine, guests, name):
    judge(machine, guests[1 + len(IMAGES) + list(OPTIONS).index(name)], OPTIONS[name][-1])


def test_the_others_run_as_if_none_of_them_were_there(machine, guests):
    assert [row["state"] for row in guests if row["name"] in ("first", "last")] == ["passed", "passed"]
    assert len(guests) == 2 + len(IMAGES) + len(OPTIONS)
    assert f"quire: guests: {len(guests)} of {len(guests)} as expected" in machine.lines, machine.tail()
    assert machine.command("check")[-1].endswith("hold.")


def test_a_module_without_a_command_line(boot):
    machine = boot(modules=[(hello(), ""), (guest("hello.elf"), "last mem=4M")])
    machine.expect("g1 .*: refused: ")
    machine.expect("g2 last: passed")


def test_more_guests_than_there_is_memory_for(boot):
    machine = boot(modules=[(guest("hello.elf"), f"hello{i} mem=64M") for i in range(6)])
    machine.wait_prompt()
    states = [row["state"] for row in rows(machine.command("guests"), "guest")]
    assert states.count("passed") >= 2
    assert states.count("refused") >= 2
    assert set(states) == {"passed", "refused"}
    assert machine.command("check")[-1].endswith("hold.")
