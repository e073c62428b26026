"""Every MSR that the bitmaps know, read and written by a guest: those are open that the documents say are, and each
other one exits."""

import os
import re

import pytest

from machines import link, quit_machine
from quire_machine.engines import Bochs, Qemu
from support import ROOT

pytestmark = pytest.mark.one_vendor("names its engines")

PATIENCE = 120
TRIED = 2 * (0x2000 + 0x2000)  # reads and writes
IA32_PAT, IA32_EFER = 0x277, 0xC0000080


def open_msrs(page):
    with open(os.path.join(ROOT, "docs", page), encoding="utf-8") as text:
        section = text.read().split("\n## Open MSRs\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (0x[0-9a-f]+) \| \w+ \| ([^|]+) \|$", section, re.M)
    assert rows and all(reason.strip() for _, reason in rows)
    return {int(number, 16) for number, _ in rows}


# `below`: registers that exit, and that the backend itself answers.
@pytest.mark.parametrize(
    "engine, page, below", [(Qemu, "SVM.md", {IA32_PAT, IA32_EFER}), (Bochs, "VMX.md", {IA32_PAT})], ids=["svm", "vmx"]
)
def test_those_are_open_that_the_page_says(boot, tmp_path, engine, page, below):
    machine = boot(modules=[(link("msrs.asm", str(tmp_path), 32), "msrs mem=2M")], engine=engine())
    machine.expect("g1 msrs: passed", PATIENCE)
    machine.wait_prompt(PATIENCE)
    told = {way: set() for way in "rw"}
    for line in machine.lines:
        found = re.fullmatch(r"\[g1 msrs\] ([rw]) ([0-9a-f]{8})", line)
        if found:
            told[found.group(1)].add(int(found.group(2), 16))
    passed = open_msrs(page)
    assert passed <= told["r"] & told["w"]
    exits = machine.command("exits g1")
    counts = {
        name: int(count) for name, count in (re.split(r"\s{2,}", line.strip()) for line in exits if line.startswith("  ") and "exit " not in line)
    }
    assert counts["MSR"] + 2 * len(below) == TRIED - 2 * len(passed)
    quit_machine(machine)
