"""The console in a guest's own words: symbols of its ELF image or of a map, and its backtrace."""

import os
import re

import pytest

import linux
from machines import SPIN, demo_modules, facts, guest, quit_machine, rows
from quire_machine.debian import DebianError
from quire_machine.engines import Bochs, Qemu
from support import BUILD

pytestmark = pytest.mark.one_vendor("names its engines")

PATIENCE = 120


@pytest.fixture(params=["qemu", "bochs"])
def engine(request):
    return Qemu() if request.param == "qemu" else Bochs()


def names(frames):
    return [row["symbol"].split("+")[0] for row in frames]


def test_the_report_of_a_stop_says_who_called(boot, engine):
    stray = [module for module in demo_modules() if module[1].startswith("stray ")]
    machine = boot(modules=stray, engine=engine)
    machine.wait_prompt(PATIENCE)
    report = "\n".join(machine.command("report g1"))
    frame = r" +0x\w+ +{}\+0x\w+\n"
    called = ["guest_try", "guest_main", "_start"]
    assert re.search(" +".join(f"#{i}{frame.format(name)}" for i, name in enumerate(called)), report), report
    assert "the chain of frame pointers ends with 0" in report
    # What the report calls it is what a question finds, and the other way round.
    at = re.search(r"#1 +(0x\w+) +(\S+)", report)
    asked = facts(machine.command(f"print g1 {at[2]}"))
    assert (asked["value"], asked["symbol"]) == (at[1], at[2])
    quit_machine(machine)


def test_a_guest_that_is_held_has_a_backtrace(boot):
    modules = [
        (guest("longmode.elf"), "long paused"),
        (guest("hello.elf"), "hello paused"),
        (guest("spin.elf"), "spin"),
    ]
    machine = boot(modules=modules, engine=Qemu())
    machine.wait_for(lambda: any("spin: Multiboot" in line for line in machine.lines), "the last guest")
    machine.press("\r")
    machine.wait_prompt(PATIENCE)
    for name in ("g1", "g2"):
        frames = machine.ask(f"bt {name}").records("stack frame")
        assert [row["symbol"] for row in frames] == ["_start"]
        assert machine.ask(f"regs {name}").records("mode")[0]["at"] == "_start"
        walked = machine.ask(f"walk {name} gva guest_main").records("verdict")[0]
        assert walked["symbol"] == "guest_main"
    machine.command("pause g3")
    frames = machine.ask("bt g3").records("stack frame")
    assert names(frames)[-2:] == ["guest_main", "_start"]
    assert machine.ask("bt g3").records("backtrace")[0]["ended"] == "the chain of frame pointers ends with 0"
    quit_machine(machine)


def test_a_map_is_for_the_console_alone(boot):
    """The flat format takes no modules: the map is none."""
    modules = [(SPIN, "flat mem=1M mods=1 paused"), (b"7c00 T boot\n7c80 T later\n", "System.map")]
    machine = boot(modules=modules, engine=Qemu())
    machine.wait_prompt(PATIENCE)
    assert [row["state"] for row in rows(machine.command("guests"), "guest")] == ["paused"]
    assert facts(machine.command("regs g1"))["at"] == "boot"
    assert facts(machine.command("walk g1 gva later+4"))["gva"] == "0x7c84"
    quit_machine(machine)


# What Linux is at when it has nothing to do, and who has it there.
INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
grep -E ' [Tt] [a-z_]*(idle|halt|startup|start_kernel)[a-z_]*$' /proc/kallsyms
echo that is all
exec sleep 100000
"""


def test_linux_by_its_system_map(boot):
    """Its symbols are asked of itself first. The map follows the initrd, and is no part of that."""
    try:
        root = linux.packages(os.path.join(BUILD, "linux"))
    except DebianError as error:
        pytest.skip(f"Debian's packages cannot be had: {error}")
    kernel = linux.kernel_of(root)
    initrd = (linux.initramfs(root, INIT), "initrd")
    words = "mem=128M mods={} -- console=ttyS0 quiet nokaslr"

    def idle(*more):
        modules = [(kernel, f"linux {words.format(1 + len(more))}"), initrd, *more]
        machine = boot(modules=modules, engine=Qemu(memory=512))
        machine.expect("that is all", timeout=PATIENCE)
        machine.press("\r")
        machine.wait_prompt(PATIENCE)
        machine.command("pause g1")
        return machine

    machine = idle()
    assert "g1 linux has no symbols" in machine.command("print g1 start_kernel")[-1]
    text = "\n".join(machine.lines)
    quit_machine(machine)
    symbols = dict(re.findall(r"\[g1 linux\] (ffffffff\w{8}) [Tt] (\w+)$", text, re.M))
    assert len(symbols) > 10, text
    text = "".join(f"{address} T {symbols[address]}\n" for address in sorted(symbols))

    machine = idle((text.encode(), "System.map"))
    for _ in range(20):  # mostly it idles, but it has a clock to tend, and programs
        at = machine.ask("regs g1").records("mode")[0]["at"]
        if at:
            break
        machine.command("resume g1")
        machine.command("pause g1")
    assert at.split("+")[0] in symbols.values(), at
    address = next(address for address, name in symbols.items() if name == "start_kernel")
    verdict = machine.ask("walk g1 gva start_kernel").records("verdict")
    assert (verdict[0]["gva"], verdict[0]["symbol"]) == (f"0x{address}", "start_kernel")
    assert machine.ask("bt g1").records("backtrace")[0]["frames"] >= 1
    quit_machine(machine)
