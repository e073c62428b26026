#!/usr/bin/python3
"""One summary of many test runs.

    tools/summary.py unit LOG... -- property LOG... -- emulator XML

Each group is a name and its results: the logs of cmocka programs (their output, then a line `exit
status N`), or JUnit files as pytest writes them. Failing output is shown, then a row for each
group, then the total, alone on its line: `N passed, N failed`. Status 1 when anything failed, or
when a result is not there.
"""

import os
import re
import sys
import xml.etree.ElementTree as ElementTree

SHOWN_LINES = 60  # of a failing program's output


class Counts:
    def __init__(self, passed=0, failed=0, skipped=0):
        self.passed, self.failed, self.skipped = passed, failed, skipped

    def __add__(self, other):
        return Counts(
            self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped
        )


def show(title, text):
    lines = text.rstrip().splitlines()
    print(f"--- {title}")
    if len(lines) > SHOWN_LINES:
        print(f"    ({len(lines) - SHOWN_LINES} lines before these)")
    for line in lines[-SHOWN_LINES:]:
        print(f"    {line}")


def of_cmocka(path):
    """A test that began and is not said to be OK has failed, so that a crash counts."""
    with open(path, encoding="utf-8", errors="replace") as log:
        text = log.read()
    run = re.split(r"^\[==========\] \d+ test\(s\) run", text, flags=re.M)[0]
    begun = len(re.findall(r"^\[ RUN      \]", text, re.M))
    passed = len(re.findall(r"^\[       OK \]", text, re.M))
    skipped = len(re.findall(r"^\[  SKIPPED \]", run, re.M))  # listed once more at the end
    failed = begun - passed - skipped
    status = re.search(r"^exit status (\d+)\n\Z", text, re.M)
    if failed == 0 and (not begun or not status or status.group(1) != "0"):
        failed = 1  # died before the first test or after the last, as for a leak
    if failed:
        show(path, text)
    return Counts(passed, failed, skipped)


def of_junit(path):
    counts = Counts()
    for case in ElementTree.parse(path).iter("testcase"):
        wrong = [each for each in case if each.tag in ("failure", "error")]
        if wrong:
            counts += Counts(failed=1)
            show(f"{case.get('classname')}.{case.get('name')}", wrong[0].text or "")
        elif case.find("skipped") is not None:
            counts += Counts(skipped=1)
        else:
            counts += Counts(passed=1)
    return counts if counts.passed + counts.failed else Counts(failed=1)


def of_file(path):
    if not os.path.exists(path):
        print(f"--- {path}: no result")
        return Counts(failed=1)
    try:
        return of_junit(path) if path.endswith(".xml") else of_cmocka(path)
    except ElementTree.ParseError as error:
        print(f"--- {path}: {error}")
        return Counts(failed=1)


def groups(arguments):
    name, files = None, []
    for each in arguments + ["--"]:
        if each == "--":
            if name:
                yield name, files
            name, files = None, []
        elif name is None:
            name = each
        else:
            files.append(each)


def main():
    total, rows = Counts(), []
    for name, files in groups(sys.argv[1:]):
        counts = sum((of_file(each) for each in files), Counts())
        total += counts
        skipped = f", {counts.skipped} skipped" if counts.skipped else ""
        rows.append(f"{name:<10} {counts.passed:5} passed, {counts.failed} failed{skipped}")
    print("\n".join(rows))
    print(f"{total.passed} passed, {total.failed} failed")
    sys.exit(1 if total.failed or not total.passed else 0)


if __name__ == "__main__":
    main()
