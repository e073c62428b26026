#!/usr/bin/python3
"""The table of `make coverage`: lines and branches of one folder, over all programs of a coverage build.

    tests/coverage/table.py [--show] BUILD FOLDER

A function that several programs contain (or that is inlined in several places) counts as one: a branch is
covered when any of them took it. The condition of an invariant() is left out: it has one side that is
never taken, or there is a bug to be fixed. Status 1 when fewer than 95 of 100 branches are covered.
"""

import glob
import json
import os
import re
import subprocess
import sys

REQUIRED = 95.0


def tool(name):
    for candidate in (name, *sorted(glob.glob(f"/usr/bin/{name}-*"), reverse=True)):
        if subprocess.run(["which", candidate], capture_output=True).returncode == 0:
            return candidate
    sys.exit(f"{name} is not installed (Debian package llvm)")


def programs(build):
    """The programs that have run: those beside their logs."""
    logs = glob.glob(f"{build}/hosted/*/*.log")
    return sorted(log[:-4] for log in logs if os.access(log[:-4], os.X_OK))


def export(build):
    """llvm-cov's account of everything, as it prints it."""
    profile = f"{build}/all.profdata"
    raw = glob.glob(f"{build}/raw/*.profraw")
    if not raw:
        sys.exit("no program has left a profile")
    subprocess.run([tool("llvm-profdata"), "merge", "-sparse", *raw, "-o", profile], check=True)
    first, *rest = programs(build)
    objects = [word for program in rest for word in ("-object", program)]
    command = [tool("llvm-cov"), "export", "-instr-profile", profile, first, *objects]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(out)["data"][0]


def in_folder(name, folder):
    return os.path.relpath(name).startswith(folder + os.sep)


def source(name, cache={}):
    if name not in cache:
        with open(name, encoding="utf-8") as file:
            cache[name] = file.read().splitlines()
    return cache[name]


def is_invariant(name, line):
    """Is this within the parentheses of an invariant()?"""
    for back in range(3):
        text = source(name)[line - 1 - back] if line - 1 - back >= 0 else ""
        if re.search(r"\binvariant\(", text):
            return True
        if text.rstrip().endswith((";", "{", "}")) and back:
            return False
    return False


def branches(data, folder):
    """{file: {place: [times true, times false]}}"""
    found = {}
    for function in data["functions"]:
        for line, column, _, _, true, false, file_id, *_ in function["branches"]:
            name = function["filenames"][file_id]
            if in_folder(name, folder) and not is_invariant(name, line):
                sides = found.setdefault(name, {}).setdefault((line, column), [0, 0])
                sides[0] += true
                sides[1] += false
    return found


def main():
    arguments = sys.argv[1:]
    show = "--show" in arguments
    build, folder = [each for each in arguments if each != "--show"]
    data = export(build)
    by_file = branches(data, folder)
    rows, missing = [], []
    for file in sorted(data["files"], key=lambda each: each["filename"]):
        name = file["filename"]
        if not in_folder(name, folder):
            continue
        lines = file["summary"]["lines"]
        places = by_file.get(name, {})
        taken = sum(bool(side) for sides in places.values() for side in sides)
        rows.append((os.path.relpath(name), lines["covered"], lines["count"], taken, 2 * len(places)))
        for (line, column), sides in sorted(places.items()):
            for side, times in zip(("true", "false"), sides):
                if not times:
                    missing.append((os.path.relpath(name), line, column, side))
    total = ["all of it", *(sum(row[i] for row in rows) for i in range(1, 5))]
    print(f"{'file':<24} {'lines':>12} {'':>6}  {'branches':>12} {'':>6}")
    for name, line, lines, branch, count in [*rows, total]:
        print(
            f"{name:<24} {line:>5} /{lines:>5} {100 * line / max(lines, 1):>5.1f}%"
            f"  {branch:>5} /{count:>5} {100 * branch / max(count, 1):>5.1f}%"
        )
    if show:
        for name, line, column, side in missing:
            print(f"{name}:{line}:{column}: never {side}: {source(name)[line - 1].strip()}")
    percent = 100 * total[3] / max(total[4], 1)
    if percent < REQUIRED:
        print(f"{percent:.1f} % of the branches, and {REQUIRED} % are asked for")
        sys.exit(1)


if __name__ == "__main__":
    main()
