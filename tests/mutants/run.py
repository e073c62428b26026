#!/usr/bin/python3
"""Breaks the product on purpose, one break at a time, and sees whether the tests notice.

    tests/mutants/run.py [--write FILE] [--only TEXT,...] [--by KIND] [--jobs N] [--check] BUILD --world SOURCE... --flush SOURCE...

The breaks of the mapper are tried by mapper.py, all others by product.py; anchor.py says how they are
written down and how they find their place. Status 1 when a break does not apply any more, does not
build, or survives. --by unit: only what hosted tests notice, in seconds. --check only looks whether each
break applies.
"""

import argparse
import os
import re
import sys
import time

import anchor
import mapper
import product


def write_document(path, mutants):
    killed = sum(mutant.result == "killed" for mutant in mutants)
    lines = [
        "# Mutants",
        "",
        "Deliberate breaks, one at a time, and the test that notices. Made by `make mutants` from the lists in",
        "`tests/mutants/`, which say what each changes. It fails when one of them survives, or does not",
        "apply any more.",
        "",
        f"**{killed} of {len(mutants)} killed.**",
        "",
        "| break | file | function | what it means | noticed by |",
        "|---|---|---|---|---|",
    ]
    for mutant in mutants:
        by = mutant.by if mutant.result == "killed" else f"**{mutant.result}**"
        by = re.sub(r"\s*\(.*?; .*\)$", "", by).replace("|", "\\|")[:110]
        where = f"`{mutant.file}` | `{mutant.function}`"
        lines.append(f"| {mutant.name} | {where} | {mutant.means} | {by} |")
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


def check(mutants):
    """Says which breaks do not apply; 1 if there are any."""
    lost = 0
    for mutant in mutants:
        try:
            with open(mutant.file, encoding="utf-8") as file:
                mutant.apply(file.read())
        except (anchor.Misplaced, OSError) as why:
            print(f"{mutant.name}: {mutant.file}: {why}")
            lost += 1
    print(f"{len(mutants) - lost} of {len(mutants)} apply")
    return lost != 0


def chosen(mutants, only, by):
    """Those with one of these texts in their list's name, their own, their file or function; of these, those
    whose tests are all of that kind."""
    texts = only.split(",")
    return [
        mutant
        for mutant in mutants
        if any(text in f"{mutant.list} {mutant.name} {mutant.file} {mutant.function}" for text in texts)
        and all(test.startswith(by) for test in mutant.tests)
    ]


def show(mutant):
    print(f"{mutant.result:<9} {mutant.name} ({mutant.by[:90]})", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--world", nargs="+", required=True)
    parser.add_argument("--flush", nargs="+", required=True)
    parser.add_argument("--write")
    parser.add_argument("--only", default="")
    parser.add_argument("--by", default="")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    base = os.path.abspath(f"{arguments.build}/mutants")
    of_mapper = chosen(mapper.load(), arguments.only, "")
    of_product = chosen(product.load(), arguments.only, arguments.by)
    mutants = of_mapper + of_product
    if arguments.check:
        sys.exit(check(mutants))
    start = time.monotonic()
    if of_mapper:
        mapper.run_all(base, of_mapper, arguments, show)
    if of_product:
        product.run_all(base, of_product, arguments.jobs, show)
    killed = sum(mutant.result == "killed" for mutant in mutants)
    seconds = int(time.monotonic() - start)
    print(f"{killed} of {len(mutants)} killed ({100 * killed // max(len(mutants), 1)} %), {seconds} s")
    if arguments.write:
        write_document(arguments.write, mutants)
    sys.exit(killed != len(mutants))


if __name__ == "__main__":
    main()
