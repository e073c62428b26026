"""Who may include whom: what the check of the table in docs/ARCHITECTURE.md finds, and that it reads that table."""

import glob
import os
import re
import subprocess
import sys

from support import ROOT, TOOLS

SCRIPT = os.path.join(TOOLS, "layers.py")
PAGE = """
| folder | what | may include |
|---|---|---|
| `lib/` | strings | nothing |
| `mm/` | the mapper | `lib/*` |
| `arch/` | the CPU | `lib/*`, `mm/**` |
| `arch/vmx/` | VMX | `arch/*`, `vm/backend.h` |
| `vm/` | guests | `lib/*` |
"""
# Every allowance is used.
GOOD = {
    "lib/a.h": "",
    "mm/a.h": '#include "lib/a.h"\n#include "mm/b.h"\n#include <stdint.h>\n',
    "arch/a.h": '#include "lib/a.h"\n#include "mm/x/b.h"\n',
    "arch/vmx/a.c": '#include "arch/vmx/b.h"\n#include "arch/a.h"\n# include "vm/backend.h"\n',
    "vm/a.c": '#include "lib/a.h"\n',
}


def run(tmp_path, files, page=PAGE):
    (tmp_path / "page.md").write_text(page)
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return subprocess.run([sys.executable, SCRIPT, "page.md", *files], cwd=tmp_path,
                          capture_output=True, text=True, check=False)


def faults(tmp_path, files):
    done = run(tmp_path, GOOD | files)
    assert done.returncode == (1 if done.stdout else 0)
    return done.stdout.splitlines()


def test_what_the_table_allows(tmp_path):
    assert faults(tmp_path, {}) == []


def test_a_layer_above(tmp_path):
    assert faults(tmp_path, {"mm/b.c": '\n#include "arch/a.h"\n'}) == [
        'mm/b.c:2: includes "arch/a.h"; mm/ may include lib/*']
    assert faults(tmp_path, {"lib/b.c": '#include "mm/a.h"\n', "mm/b.c": ""}) == [
        'lib/b.c:1: includes "mm/a.h"; lib/ may include nothing']


def test_a_star_does_not_reach_below_and_two_do(tmp_path):
    assert faults(tmp_path, {"arch/b.c": '#include "mm/x/y/a.h"\n'}) == []
    assert faults(tmp_path, {"mm/b.c": '#include "lib/x/a.h"\n'}) == [
        'mm/b.c:1: includes "lib/x/a.h"; mm/ may include lib/*']


def test_one_header_alone(tmp_path):
    assert faults(tmp_path, {"arch/vmx/b.c": '#include "vm/guest.h"\n'}) == [
        'arch/vmx/b.c:1: includes "vm/guest.h"; arch/vmx/ may include arch/*, vm/backend.h']


def test_a_folder_below_is_not_its_parent(tmp_path):
    assert faults(tmp_path, {"arch/b.c": '#include "arch/vmx/a.h"\n'}) == [
        'arch/b.c:1: includes "arch/vmx/a.h"; arch/ may include lib/*, mm/**']


def test_a_folder_without_a_row(tmp_path):
    assert faults(tmp_path, {"new/a.c": ""}) == ["new/a.c: the table has no row for its folder"]


def test_a_header_without_a_folder(tmp_path):
    assert faults(tmp_path, {"mm/b.c": '#include "a.h"\n'}) == [
        'mm/b.c:1: includes "a.h"; mm/ may include lib/*']


def test_what_is_allowed_and_not_done(tmp_path):
    assert faults(tmp_path, {"vm/a.c": ""}) == ["vm/ may include lib/*, and no file of it does"]


def test_a_page_without_a_table(tmp_path):
    done = run(tmp_path, GOOD, "nothing here\n")
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == len(GOOD)


# What only one vendor's CPUs have: their words, and what is named by them.
VENDORS_WORDS = re.compile(
    r"VMX|VMCS|EPTP?|INVEPT|INVVPID|VPID|VMREAD|VMWRITE|AMD-?V|SVM|VMCB|NPT|ASID|NCR3|VMRUN"
    r"|(?:vmx|vmcs|eptp?|invept|invvpid|vpid|svm|vmcb|npt|asid|ncr3)(?:_\w+)?"
)


def vendors_words(text):
    return {word for word in re.findall(r"\w[\w-]*\w", text) if VENDORS_WORDS.fullmatch(word)}


def test_a_vendors_words_are_found():
    assert vendors_words("a call of `vmx_show`, INVEPT and \"AMD-V\" in it") == {"vmx_show", "INVEPT", "AMD-V"}
    assert not vendors_words("excepted, ACCEPT, wasids, VMXE_BIT")


def test_guests_and_the_console_name_no_vendor():
    """Comments and strings as well: what is a vendor's is said by the folders of arch/."""
    found = {}
    for folder in ("vm", "monitor"):
        for path in sorted(glob.glob(f"{ROOT}/{folder}/**/*.[ch]", recursive=True)):
            with open(path, encoding="utf-8") as text:
                found[os.path.relpath(path, ROOT)] = sorted(vendors_words(text.read()))
    assert len(found) > 100 and {name: words for name, words in found.items() if words} == {}
