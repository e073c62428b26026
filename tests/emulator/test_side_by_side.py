"""Three guests that no one here wrote at once: two Linux and memtest86+, each with its own machine, on one CPU."""

import os
import re
import sys

import pytest

from machines import memtest86plus, quit_machine
from quire_machine.debian import DebianError
from quire_machine.engines import Qemu
from support import BUILD, ROOT

pytestmark = pytest.mark.one_vendor("minutes of Linux, in Bochs far more; names its engine")

sys.path.insert(0, os.path.join(ROOT, "tools"))
import linux  # noqa: E402

LINUX = "mem=96M mods=1 expect=stopped -- console=ttyS0 quiet once"


def linux_files():
    root = linux.packages(os.path.join(BUILD, "linux"))
    return linux.kernel_of(root), linux.initramfs(root)


@pytest.mark.seconds(600)
def test_two_linux_and_memtest86plus(boot):
    try:
        kernel, initrd = linux_files()
    except DebianError as error:
        pytest.skip(f"Debian's packages cannot be had: {error}")
    machine = boot(
        modules=[
            (memtest86plus(), "memtest mem=8M -- console=none"),
            (kernel, f"one {LINUX}"),
            (initrd, "initrd"),
            (kernel, f"two {LINUX}"),
            (initrd, "initrd"),
        ],
        engine=Qemu(memory=512),
    )
    machine.expect("g3 two: Linux bzImage", 60)
    machine.press("\r")
    machine.wait_prompt(60)
    machine.command("type g1 \\n")
    for number, name in ((2, "one"), (3, "two")):
        machine.wait_for(
            lambda tag=f"[g{number} {name}] digest: ": any(line.startswith(tag) for line in machine.lines),
            f"what {name} has to say", 300)
        digest = next(line for line in machine.lines if line.startswith(f"[g{number} {name}] digest: "))
        first, second = re.search(r"(\w{32})  - (\w{32})", digest).groups()
        assert first == second
        machine.wait_for(
            lambda words=f"quire: g{number} {name}: gave back": any(line.startswith(words) for line in machine.lines),
            f"the end of {name}", 120)

    def screen():
        return "\n".join(row["text"] for row in machine.ask("screen g1").records("screen row"))

    machine.wait_for(lambda: re.search(r"Test #[2-9]", screen()), "memtest86+ at work", 200)
    assert re.search(r"Errors: 0$", screen(), re.M)
    machine.command("kill g1")
    assert machine.command("check")[-1].endswith("hold.")
    assert machine.command("audit")
    quit_machine(machine)
