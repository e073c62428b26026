#!/usr/bin/env python3
"""Makes the ACPI tables of a guest that is a PC: compiles vm/acpi/*.asl by iasl and writes them as a C source.

usage: acpi.py [-o build/acpi/tables.c] vm/acpi

They are C, and no object or NASM's incbin, because the same source goes into the hypervisor's image and into the
hosted tests. Where each table lies is stated here; that the tables point to one another there, do not overlap, and
have their checksums, is checked.
"""

import argparse
import os
import struct
import subprocess
import sys
import tempfile

# The ROM of a PC, and, for the one that the guest may write, its extended BIOS data area (vm/load_pc.c).
PLACES = {
    "rsdp": 0xE0000,
    "rsdt": 0xE0040,
    "xsdt": 0xE0080,
    "facp": 0xE00C0,
    "apic": 0xE0200,
    "hpet": 0xE02A0,
    "dsdt": 0xE02E0,
    "facs": 0x9FE00,
}
LISTED = ["facp", "apic", "hpet"]  # by RSDT and XSDT
ROM_LAST = 0xE0FFF  # one page (vm/guest.c)


class TableError(Exception):
    """What is wrong with a table."""


def compiled(source, folder):
    name = os.path.splitext(os.path.basename(source))[0]
    output = os.path.join(folder, name)
    # -we: a warning is an error; -vr: no remarks on the names of manufacturers.
    done = subprocess.run(["iasl", "-we", "-vr", "-p", output, source], capture_output=True, text=True, check=False)
    if done.returncode:
        raise TableError(f"iasl refuses {source}:\n{done.stdout}{done.stderr}")
    with open(f"{output}.aml", "rb") as file:
        return file.read()


def numbers(table, form, at):
    return list(struct.unpack_from(form, table, at))


def check_sums(tables):
    for name, table in tables.items():
        if name == "facs":  # has none
            continue
        parts = [table[:20], table] if name == "rsdp" else [table]
        if any(sum(part) % 256 for part in parts):
            raise TableError(f"{name}: its checksum is wrong")


def check_places(tables):
    last = None
    for name in sorted(tables, key=PLACES.get):
        if last is not None and PLACES[name] < last:
            raise TableError(f"{name} at {PLACES[name]:#x} lies within the table before it, which ends at {last:#x}")
        last = PLACES[name] + len(tables[name])
    if last > ROM_LAST + 1:
        raise TableError(f"the tables do not fit: they end at {last:#x}")


def check_pointers(tables):
    """(who points, where to, what should be there)"""
    listed = [PLACES[name] for name in LISTED]
    found = [
        ("rsdp", numbers(tables["rsdp"], "<I", 16), [PLACES["rsdt"]]),
        ("rsdp", numbers(tables["rsdp"], "<Q", 24), [PLACES["xsdt"]]),
        ("rsdt", numbers(tables["rsdt"], f"<{len(tables['rsdt']) // 4 - 9}I", 36), listed),
        ("xsdt", numbers(tables["xsdt"], f"<{(len(tables['xsdt']) - 36) // 8}Q", 36), listed),
        ("facp", numbers(tables["facp"], "<2I", 36), [PLACES["facs"], PLACES["dsdt"]]),
        ("facp", numbers(tables["facp"], "<2Q", 132), [0, PLACES["dsdt"]]),  # the FACS by one of its two fields
    ]
    for name, points, places in found:
        if points != places:
            raise TableError(f"{name} points to {[hex(each) for each in points]}, not {[hex(each) for each in places]}")


def as_c(tables):
    lines = ["/* Made by tools/acpi.py from vm/acpi/. */", '#include "vm/acpi_tables.h"', ""]
    for name, table in tables.items():
        lines.append(f"static const unsigned char {name}[] = {{")
        lines += ["    " + ", ".join(f"0x{each:02x}" for each in table[at : at + 12]) + ","
                  for at in range(0, len(table), 12)]
        lines += ["};", ""]
    lines.append("const struct acpi_table acpi_tables[] = {")
    lines += [f"    {{{PLACES[name]:#x}, {name}, sizeof({name})}}," for name in tables]
    lines += ["};", f"const unsigned acpi_table_count = {len(tables)};", ""]
    return "\n".join(lines)


def build(folder):
    with tempfile.TemporaryDirectory() as scratch:
        tables = {name: compiled(os.path.join(folder, f"{name}.asl"), scratch) for name in PLACES}
    check_sums(tables)
    check_places(tables)
    check_pointers(tables)
    return as_c(tables)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("-o", "--output", required=True)
    options = parser.parse_args()
    try:
        text = build(options.folder)
    except (TableError, OSError) as error:
        sys.exit(f"acpi: {error}")
    with open(options.output, "w", encoding="ascii") as file:
        file.write(text)


if __name__ == "__main__":
    main()
