#!/usr/bin/env python3
"""Makes the hypervisor's symbol table (arch/x86_64/symbols.c reads it) from the first link pass.

usage: symbols.py NM IMAGE OUT.asm

The table is NASM source for a section .symbols, which the linker script places behind everything
else: to link it in moves no symbol, so that the addresses in it are right.
"""
import re
import subprocess
import sys

IMAGE_BASE = 0xFFFFFFFF80000000
TYPES = "tTdDbBrR"
# Compilers' and the linker's own names say nothing to a reader, and NASM's local labels (`function.label`) hide in
# which function they are; what a compiler makes of a part of a function has such a name, too.
SKIP = re.compile(
    r"^(\.L|\.\.@|__func__|__PRETTY_FUNCTION__|symbol_(count|table|names)$|kernel_\w+_end$"
    r"|\w+\.(?!cold|part|isra|constprop)[A-Za-z_]\w*$)"
)


def symbols(nm, image):
    """(address, name) pairs by address; of several names for one address the best."""
    listing = subprocess.run([nm, "--defined-only", image], check=True, capture_output=True,
                             text=True).stdout
    best = {}
    for line in listing.splitlines():
        address, kind, name = line.split(maxsplit=2)
        address = int(address, 16)
        if kind not in TYPES or address < IMAGE_BASE or SKIP.match(name):
            continue
        # A global name before a local one, then the shorter, then alphabetically.
        rank = (kind.islower(), name.startswith("kernel_"), len(name), name)
        if address not in best or rank < best[address][0]:
            best[address] = (rank, name)
    return [(address, best[address][1]) for address in sorted(best)]


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    nm, image, out = sys.argv[1:]
    table = symbols(nm, image)
    if not any(name == "quire_main" for _, name in table):
        sys.exit(f"{image}: no symbol quire_main: not the hypervisor's image")
    entries, names, offset = [], [], 0
    for address, name in table:
        entries.append(f"        dd {address - IMAGE_BASE:#x}, {offset}")
        names.append(f'        db "{name}", 0')
        offset += len(name) + 1
    with open(out, "w", encoding="ascii") as file:
        file.write("; Made by tools/symbols.py.\n"
                   "global symbol_count, symbol_table, symbol_names\n"
                   "section .symbols progbits alloc noexec nowrite align=8\n"
                   f"symbol_count: dd {len(table)}\n"
                   "        align 8\n"
                   "symbol_table:\n" + "\n".join(entries) +
                   "\nsymbol_names:\n" + "\n".join(names) + "\n")


if __name__ == "__main__":
    main()
