"""What the whole-machine tests know about guests, images and CPU models."""

import os
import re
import struct
import subprocess
import tempfile

import pytest

from quire_machine.debian import Debian, DebianError
from support import BUILD, ROOT

# Bochs's models by what their VMX offers; see docs/ARCHITECTURE.md, "What the CPU must offer".
COMPLETE_CPUS = ["corei7_icelake_u", "corei7_skylake_x", "corei7_haswell_4770"]
NO_ACCESSED_DIRTY_CPU = "corei5_arrandale_m520"
NO_UNRESTRICTED_CPU = "corei5_lynnfield_750"
NO_EPT_CPU = "core2_penryn_t9600"
# The second level's kind, by the vendor (conftest.py).
TABLES = {"vmx": "EPT", "svm": "NPT"}
# QEMU's: neither VMX nor SVM.
NO_SVM_CPU = "EPYC,-svm"


def guest(name):
    """The file of a test guest."""
    return os.path.join(BUILD, "guests", name)


def user_program(name):
    """The file of a ring-3 program."""
    return guest(f"user_{name}.elf")


def demo_modules():
    """The demonstration's modules as (file, command line), from the one list of them."""
    with open(os.path.join(ROOT, "boot", "grub.cfg"), encoding="utf-8") as config:
        words = [line.split(None, 2)[1:] for line in config if line.startswith("module2 ")]
    return [(os.path.join(BUILD, path.lstrip("/")), line.strip()) for path, line in words]


def demo_guests():
    """Names of the demonstration's guests, without ring-3 programs, in the order of their numbers."""
    names = [line.split()[0] for _, line in demo_modules()]
    return [name for name in names if not name.startswith("user:")]


def package(name):
    """The unpacked files of one of Debian's packages, without what it depends on, fetched once. Where it cannot be
    had the test is skipped."""
    debian = Debian(os.path.join(BUILD, "packages", name))
    with debian.alone():
        if not debian.is_there():
            try:
                debian.fetch_alone([name])
            except DebianError as error:
                pytest.skip(f"Debian's packages cannot be had: {error}")
    return debian.root


def memtest86plus():
    """Its image, which speaks Linux's boot protocol."""
    return os.path.join(package("memtest86+"), "boot", "memtest86+x64.bin")


def flat_image(code):
    """A flat 16-bit image that runs `code` at 0x7c00."""
    assert len(code) <= 510
    return code.ljust(510, b"\x90") + b"\x55\xaa"


def assemble(name, options=()):
    """The flat image made of tests/emulator/guests/NAME."""
    here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "guests")
    source = os.path.join(here, name)
    with tempfile.TemporaryDirectory() as folder:
        output = os.path.join(folder, "image")
        subprocess.run(["nasm", "-f", "bin", "-I", here + "/", *options, "-o", output, source], check=True)
        with open(output, "rb") as made:
            return made.read()


def link(name, folder, bits, options=()):
    """The ELF file made of tests/emulator/guests/NAME, for 1M."""
    here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "guests")
    made, output = (os.path.join(folder, f"{name}-{bits}.{end}") for end in ("o", "elf"))
    command = ["nasm", "-f", f"elf{bits}", "-I", here + "/", *options, "-o", made, os.path.join(here, name)]
    subprocess.run(command, check=True)
    machine = {32: "elf_i386", 64: "elf_x86_64"}[bits]
    command = ["ld", "-m", machine, "-static", "-nostdlib", "-z", "noexecstack", "-T", os.path.join(here, "format.ld")]
    subprocess.run([*command, made, "-o", output], check=True)
    return output


def link_high(name, folder, bits, options=()):
    """The same with its segments 2G above in virtual addresses; the entry point stays a physical one."""
    path = link(name, folder, bits, options)
    with open(path, "rb") as file:
        image = bytearray(file.read())
    table, count = struct.unpack_from("<I", image, 28 if bits == 32 else 32)[0], image[44 if bits == 32 else 56]
    for i in range(count):
        at = table + i * (32 if bits == 32 else 56)
        if struct.unpack_from("<I", image, at)[0] == 1:
            address = at + (8 if bits == 32 else 16)
            struct.pack_into("<I", image, address, struct.unpack_from("<I", image, address)[0] + 0x80000000)
    with open(path, "wb") as file:
        file.write(image)
    return path


SPIN = flat_image(b"\xeb\xfe")  # jmp $


def quit_machine(machine):
    """Switches the machine off at its console; it must end as a machine that is well."""
    machine.command("quit")
    machine.wait_end()
    assert machine.powered_off(), machine.tail()


def cells(line):
    return re.split(r"\s{2,}", line.strip())


def rows(lines, first_column):
    """The table in a command's answer whose heading begins with `first_column`, as a dict a row.
    A guest may have printed a line in between; the table ends where cells do not fit the heading."""
    lines = [line for line in lines if not line.startswith("[g")]
    start = next((i for i, line in enumerate(lines) if cells(line)[0] == first_column), None)
    assert start is not None, f"no table of {first_column} in {lines}"
    heading, found = cells(lines[start]), []
    for line in lines[start + 1 :]:
        if not line.startswith("  ") or len(cells(line)) != len(heading):
            break
        found.append(dict(zip(heading, cells(line))))
    return found


def facts(lines):
    """The `name: value` lines of a command's answer."""
    pairs = [line.split(": ", 1) for line in lines if re.match(r"[A-Za-z][\w ]*: ", line)]
    return dict(pairs)


def called(answer):
    """The functions in the answer to `bt cpuN`, from where the CPU is up to where its stack begins."""
    assert answer.facts("place")["ended"] == "the stack begins here"
    return [record["symbol"].partition("+")[0] for record in answer.records("call")]


def reported(lines, cpu):
    """Likewise in the report that ends the machine, of a CPU that it has stopped."""
    lines = lines[lines.index(f"quire: CPU {cpu}") + 1 :]
    assert lines[0] == "  backtrace:"
    end = next(i for i, line in enumerate(lines) if not line.startswith("  "))
    return [found[1] for line in lines[1:end] if (found := re.match(r"    0x\w+ (\w+)\+0x", line))]
