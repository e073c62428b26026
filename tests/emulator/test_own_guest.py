"""The first guest of somebody who reads docs/BRING-YOUR-OWN-GUEST.md: what the page shows is what is built
and run here; and an image with its header too far back is told the mend."""

import os
import re
import shutil
import subprocess

import pytest

from support import QUIRE_ELF, ROOT, TOOLS

pytestmark = pytest.mark.one_vendor("the page that is followed, which shows neither vendor", vendor="svm")

EXAMPLE = os.path.join(ROOT, "examples", "guest")
PAGE = os.path.join(ROOT, "docs", "BRING-YOUR-OWN-GUEST.md")


def run(folder, *command):
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "CPU", "MEMORY", "PATIENCE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ENGINE", "qemu")
    monkeypatch.setenv("CMDS", "guests")
    return shutil.copytree(EXAMPLE, tmp_path / "mine", ignore=shutil.ignore_patterns("build"))


@pytest.mark.skipif(
    QUIRE_ELF != os.path.join(ROOT, "build", "quire.elf"), reason="the page says build/quire.elf"
)
def test_the_pages_guest(folder):
    with open(PAGE, encoding="utf-8") as page:
        text = page.read()
    for name in ("hello.c", "hello.ld"):
        with open(os.path.join(EXAMPLE, name), encoding="utf-8") as source:
            assert source.read() in text, f"{name} is not as the page shows it"
    assert "make -C examples/guest run" in text
    status, said = run(folder, "make", "run", f"TOOLS={TOOLS}")
    assert status == 0, said
    for line in ("[g1 hello] hello from my own guest", "quire: g1 hello: passed"):
        assert line in said.splitlines() and line in text


def test_a_header_too_far_back(folder, boot):
    script = folder / "hello.ld"
    moved = re.sub(r"\{ \*\(\.multiboot\) (.*) \}", r"{ . += 0x3000; \1 *(.multiboot) }", script.read_text())
    assert moved != script.read_text()
    script.write_text(moved)
    status, said = run(folder, "make", "build/hello.elf")
    assert status == 0, said
    machine = boot(modules=[(str(folder / "build" / "hello.elf"), "hello mem=2M")])
    machine.expect(
        r"g1 hello: refused: the Multiboot header at 0x3\w+ lies beyond the first 8 KiB: link with ld -n"
    )
