"""The symbol table that backtraces read: what goes into it, and that it never lies."""

import os
import stat
import subprocess
import sys

from support import TOOLS

SCRIPT = os.path.join(TOOLS, "symbols.py")
BASE = 0xFFFFFFFF80000000


def run(tmp_path, listing):
    """Runs symbols.py on an image whose `nm` says `listing`: (status, its output file or None)."""
    nm = tmp_path / "nm"
    nm.write_text("#!/bin/sh\ncat <<'END'\n" + listing + "\nEND\n")
    nm.chmod(nm.stat().st_mode | stat.S_IXUSR)
    out = tmp_path / "symbols.asm"
    done = subprocess.run([sys.executable, SCRIPT, str(nm), "image", str(out)],
                          capture_output=True, text=True, check=False)
    return done, out.read_text() if out.exists() else None


def line(address, kind, name):
    return f"{address:016x} {kind} {name}"


def table(text):
    """(offset from the image's base, name) pairs as the hypervisor would read them."""
    entries = [row.split("dd")[1].split(",") for row in text.splitlines() if row.startswith("        dd ")]
    names = text.split("symbol_names:\n")[1].splitlines()
    names = [row.split('"')[1] for row in names]
    starts, at = {}, 0
    for name in names:
        starts[at] = name
        at += len(name) + 1
    return [(int(offset, 16), starts[int(name)]) for offset, name in entries]


MAIN = line(BASE + 0x300000, "T", "quire_main")


def test_sorted_by_address(tmp_path):
    done, text = run(tmp_path, "\n".join([MAIN, line(BASE + 0x200010, "t", "low"),
                                          line(BASE + 0x400000, "b", "high")]))
    assert done.returncode == 0, done.stderr
    assert table(text) == [(0x200010, "low"), (0x300000, "quire_main"), (0x400000, "high")]
    assert "symbol_count: dd 3" in text


def test_one_name_an_address_and_the_global_one(tmp_path):
    at = BASE + 0x200000
    done, text = run(tmp_path, "\n".join([line(at, "t", "a"), line(at, "T", "the_function"),
                                          line(at, "T", "kernel_text"), MAIN]))
    assert done.returncode == 0, done.stderr
    assert table(text)[0] == (0x200000, "the_function")


def test_leaves_out_what_is_no_code_or_data(tmp_path):
    done, text = run(tmp_path, "\n".join([
        MAIN,
        line(0x200000, "a", "load_address"),  # a number, not a place
        line(BASE + 0x500000, "R", "kernel_image_end"),  # moves with the table itself
        line(BASE + 0x500000, "R", "symbol_count"),
        line(BASE + 0x310000, "r", "__func__.3"),
        line(BASE + 0x300004, "t", "quire_main.label"),
        line(BASE + 0x300008, "t", "..@5.label"),
    ]))
    assert done.returncode == 0, done.stderr
    assert table(text) == [(0x300000, "quire_main")]


def test_keeps_parts_of_functions(tmp_path):
    parts = [(0x200000, "f.cold"), (0x200010, "f.part.0"), (0x200020, "f.isra.0"), (0x200030, "kept.3")]
    done, text = run(tmp_path, "\n".join([line(BASE + at, "t", name) for at, name in parts] + [MAIN]))
    assert done.returncode == 0, done.stderr
    assert table(text)[:-1] == parts


def test_refuses_another_program(tmp_path):
    done, text = run(tmp_path, line(0x401000, "T", "main"))
    assert done.returncode != 0 and text is None
    assert "not the hypervisor's image" in done.stderr
