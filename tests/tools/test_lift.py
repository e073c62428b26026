"""The memory manager outside this tree: installed, found by pkg-config, built into a program that
is not Quire. (tests/emulator/test_lifted_kernel.py does the same with a kernel.)"""

import os
import re
import shlex

import pytest

import lift
from support import ROOT

PAGE = os.path.join(ROOT, "docs", "LIFT-MM.md")


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    folder = tmp_path_factory.mktemp("installed")
    lift.install(folder)
    return folder


def flags(prefix, which, package="quire-mm"):
    return lift.run("pkg-config", which, package, env=lift.environment(prefix)).split()


def test_the_hosted_example(prefix, tmp_path):
    said = lift.make_example("hosted", prefix, tmp_path, "run").splitlines()
    assert "translate of 0x40007123: frame as mapped" in said
    levels = [line.split()[0] for line in said if re.match(r"  P\w+ +\[", line)]
    assert levels[:4] == ["PML4", "PDPT", "PD", "PT"]
    # One page of 4 KiB lost its rights, and the page of 2 MiB around it was split.
    runs = [line.split() for line in said if ".." in line]
    assert ["0x5000..0x5fff", "r----"] in [[run[0], run[-1]] for run in runs]
    assert ["0x6000..0x1fffff", "rwx--"] in [[run[0], run[-1]] for run in runs]
    before, after = re.fullmatch(r"frames free: before (\d+), after (\d+)", said[-1]).groups()
    assert before == after


def test_the_hosted_example_is_as_short_as_promised():
    with open(os.path.join(lift.EXAMPLES, "hosted", "main.c"), encoding="utf-8") as source:
        assert len(source.readlines()) <= 150


def test_a_kind_of_ones_own(prefix, tmp_path):
    said = lift.make_example("kind", prefix, tmp_path, "run").splitlines()
    assert said[:2] == [
        "executable: illegal table entry",
        "beyond 39 bits: address or size out of range",
    ]
    # The entries by the manual: R, W and, for 1 GiB, the leaf bit.
    assert said[2].endswith("rw--- by PDPT: 0x100000083")
    assert said[3].endswith("r---- by PT: 0x123001")


def test_a_host_supplies_panic_and_the_string_functions_alone(prefix, tmp_path):
    """What all archives together leave open."""
    whole = tmp_path / "whole.o"
    lift.run("ld", "-r", "-o", whole, "--whole-archive", *flags(prefix, "--libs"))
    left_open = {line.split()[-1] for line in lift.run("nm", "-u", whole).splitlines()}
    strings = lift.run("nm", "--defined-only", prefix / "lib" / "libquire-string.a").splitlines()
    supplied = {line.split()[2] for line in strings if " T " in line}
    assert {"memcpy", "memset"} <= supplied
    assert left_open - supplied == {"panic"}


def test_each_installed_header_needs_one_include_path(prefix):
    (include,) = flags(prefix, "--cflags")
    root = include.removeprefix("-I")
    found = [os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names]
    headers = [os.path.relpath(path, root) for path in found]
    assert "mm/paging/table.h" in headers
    every = "".join(f'#include "{header}"\n' for header in sorted(headers))
    strict = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
    # The parts of the template are for some kind, and of use to one that is complete.
    strict += ["-DKIND=kernel_kind", "-DKIND_NAME=kernel", "-Wno-unused-function"]
    lift.run("gcc", *strict, include, "-x", "c", "-", text=every)


def test_a_staged_copy_says_where_it_will_be(tmp_path):
    lift.install("/opt/quire", f"DESTDIR={tmp_path}")
    file = tmp_path / "opt" / "quire" / "lib" / "pkgconfig" / "quire-mm.pc"
    assert "prefix=/opt/quire\n" in file.read_text(encoding="utf-8")


def sources():
    """What docs/LIFT-MM.md may quote: the examples, and the kinds."""
    folders = [os.path.join(lift.EXAMPLES, name) for name in os.listdir(lift.EXAMPLES)]
    for folder in [*folders, os.path.join(ROOT, "arch", "x86_64", "mm")]:
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                with open(path, encoding="utf-8") as source:
                    yield source.read()


def test_what_the_page_shows_stands_in_the_sources():
    with open(PAGE, encoding="utf-8") as page:
        blocks = re.findall(r"^```(?:c|make)\n(.*?)^```$", page.read(), re.M | re.S)
    texts = list(sources())
    assert blocks
    for block in blocks:
        assert any(block in text for text in texts), f"in no source:\n{block}"


def test_what_the_hypervisor_does_not_use_is_offered_and_not_used(prefix):
    with open(PAGE, encoding="utf-8") as page:
        part = page.read().split("## What Quire itself does not use")[1]
    names = re.findall(r"`(\w+)\(\)`", part)
    assert "table_copy" in names
    headers = lift.run("cat", *(prefix / "include/quire/mm").rglob("*.h"))
    folders = [os.path.join(ROOT, folder) for folder in ("arch", "boot", "monitor", "vm")]
    for name in names:
        assert re.search(rf"\b{name}\(", headers), f"{name}() is not offered"
        used = lift.run("sh", "-c", f"grep -rw {name} {shlex.join(folders)} || true")
        assert used == "", f"{name}() is used:\n{used}"
