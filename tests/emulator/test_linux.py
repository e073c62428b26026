"""A kernel that no one here wrote: Debian's Linux, unmodified, with a busybox, from the packages as they are."""

import os
import re
import subprocess
import sys

import pytest

from support import BUILD, ROOT

pytestmark = pytest.mark.one_vendor("names its engine; by VMX Linux boots in test_pc.py")

sys.path.insert(0, os.path.join(ROOT, "tools"))
import linux  # noqa: E402
from quire_machine.debian import DebianError  # noqa: E402


# By the Linux boot protocol's two entries, and by PVH: how the image is made, what it is recognised as, and its
# memory. By VMX it boots in test_pc.py.
WAYS = {
    "bzImage": ({}, "Linux bzImage", "128M"),
    "16-bit": ({"entry": "linux16"}, "Linux 16-bit", "128M"),
    "vmlinux": ({"pvh": True}, "PVH ELF64", "160M"),
}


@pytest.fixture(scope="module", params=WAYS)
def way(request, tmp_path_factory):
    options, kind, memory = WAYS[request.param]
    output = str(tmp_path_factory.mktemp("linux") / "linux.iso")
    try:
        linux.build(output, os.path.join(BUILD, "quire.elf"), memory, "once", **options)
    except DebianError as error:
        pytest.skip(f"Debian's packages cannot be had: {error}")
    return output, kind, memory


def say(image, commands, *machine):
    """What Linux and the console say, to the end, which has to be a good one."""
    said = subprocess.run(
        [sys.executable, os.path.join(ROOT, "tools", "launch.py"), "--engine", "qemu", "--memory", "384", *machine]
        + ["--seconds", "900", "--patience", "600", "--cmds", commands, image],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1000,
        check=False,
    )
    text = said.stdout
    assert said.returncode == 0, text
    first, second = re.search(r"digest: (\w{32})  - (\w{32})", text).groups()
    assert first == second
    assert "Kernel panic" not in text and "lockup" not in text
    gave, held = re.search(r"g1 linux: gave back (\d+) frames of (\d+)", text).groups()
    assert gave == held
    assert "quire: guests: 1 of 1 as expected" in text
    return text


def test_debians_linux_runs_busybox(way):
    """Its timer ticks, its memory holds what is written, its reset ends it, and every frame comes back."""
    image, kind, memory = way
    text = say(image, "guests; check; audit; quit")
    assert f"quire: g1 linux: {kind}, memory to {memory}" in text
    assert re.search(r"\[g1 linux\] busybox on Linux \d+\.\d+\.\S+, MemTotal: \d+ kB", text), text
    assert int(re.search(r"timer: (\d+) interrupts", text)[1]) >= 5, text


def test_debians_linux_on_two_cpus(tmp_path):
    """It finds the other CPU in the MADT, starts it, works on both, and ends with every frame given back."""
    output = str(tmp_path / "linux.iso")
    try:
        linux.build(output, os.path.join(BUILD, "quire.elf"), "128M", "once", cpus=2)
    except DebianError as error:
        pytest.skip(f"Debian's packages cannot be had: {error}")
    text = say(output, "top; check; audit; quit", "--cpus", "2")
    assert "smp: Brought up 1 node, 2 CPUs" in text
    assert re.search(r"\n  g1\.1 +linux +stopped +\d +no ", text), text
