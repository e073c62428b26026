#!/usr/bin/env python3
"""Holds every #include of the C files named against the table of docs/ARCHITECTURE.md: who may include whom.

usage: layers.py TABLE.md FILE...

Of the table's rows the first column is a folder, the last what its files may include beside their own folder:
`x/y.h` one header, `x/*` those right in x/, `x/**` those below as well. A file belongs to the longest folder that
it is in. Says also what the table allows and no file does, so that the table stays exact.
"""

import re
import sys

ROW = re.compile(r"\| `([\w/]+/)` \|.*\| ([^|]*) \|$")
INCLUDE = re.compile(r'\s*#\s*include\s+"([^"]+)"')


def read_table(text):
    """{folder: [pattern]} of a page's table."""
    rows = (ROW.match(line) for line in text.splitlines())
    return {row[1]: re.findall(r"`([^`]+)`", row[2]) for row in rows if row}


def fits(pattern, header):
    parts = (re.escape(part).replace(r"\*", "[^/]*") for part in pattern.split("**"))
    return re.fullmatch(".*".join(parts), header) is not None


def folder_of(table, path):
    return max((folder for folder in table if path.startswith(folder)), key=len, default=None)


def check(table, files):
    """The sentences about what is wrong. `files`: (path, text) of each."""
    faults, used = [], set()
    for path, text in files:
        folder = folder_of(table, path)
        if folder is None:
            faults.append(f"{path}: the table has no row for its folder")
            continue
        for number, line in enumerate(text.splitlines(), 1):
            found = INCLUDE.match(line)
            if not found or folder_of(table, found[1]) == folder:
                continue
            allowed = [pattern for pattern in table[folder] if fits(pattern, found[1])]
            used.update((folder, pattern) for pattern in allowed)
            if not allowed:
                may = ", ".join(table[folder]) or "nothing"
                faults.append(f'{path}:{number}: includes "{found[1]}"; {folder} may include {may}')
    faults += [f"{folder} may include {pattern}, and no file of it does"
               for folder, patterns in table.items() for pattern in patterns
               if (folder, pattern) not in used]
    return faults


def main(page, *paths):
    with open(page, encoding="utf-8") as text:
        table = read_table(text.read())
    files = []
    for path in paths:
        with open(path, encoding="utf-8") as text:
            files.append((path, text.read()))
    faults = check(table, files)
    for fault in faults:
        print(fault)
    return f"{len(faults)} against the table of {page}" if faults else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
