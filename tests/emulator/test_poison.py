"""The build for debugging (make POISON=1): a machine that is well does not notice it, and one in which somebody
writes to memory that is not his any more is stopped."""

import os

import pytest

import image
from machines import demo_guests, demo_modules, facts, guest, quit_machine
from quire_machine import Machine
from quire_machine.engines import Qemu
from support import BUILD

pytestmark = pytest.mark.one_vendor("frames and their checks, which know no vendor; names its engine")

POISON_ELF = os.path.join(BUILD, "poison", "quire.elf")


@pytest.fixture
def boot_poisoned(tmp_path):
    machines = []

    def boot(modules, cmdline="", cpus=1):
        iso = str(tmp_path / f"{len(machines)}.iso")
        image.build_image(iso, POISON_ELF, cmdline, modules)
        machines.append(Machine(Qemu(cpus=cpus), iso))
        return machines[-1]

    yield boot
    for machine in machines:
        machine.stop()


def test_a_machine_that_is_well_runs_as_ever(boot_poisoned):
    machine = boot_poisoned(demo_modules(), "stress=8M")
    names = demo_guests()
    machine.expect("The allocator is as it was before, bit for bit")
    machine.expect(f"guests: {len(names)} of {len(names)} as expected")
    machine.wait_prompt()
    assert machine.ask("stress 8M 3").ok
    assert machine.ask("audit selftest").ok
    assert machine.command("check")[-1].endswith("hold.")
    quit_machine(machine)


def test_locks_are_taken_in_their_order(boot_poisoned):
    """Each CPU keeps what it holds here, and would panic; guests run on four, and all of them change tables."""
    machine = boot_poisoned(demo_modules(), cpus=4)
    names = demo_guests()
    machine.expect(f"guests: {len(names)} of {len(names)} as expected", 120)
    machine.wait_prompt(120)
    machine.command("cpus trial 3; start g1; snapshot g1; reset g1; fork g1; merge; start g4; wait", 120)
    assert machine.command("check")[-1].endswith("hold.")
    quit_machine(machine)


def test_a_late_write_is_found_when_the_frame_is_taken(boot_poisoned):
    machine = boot_poisoned([(guest("hello.elf"), "hello mem=4M paused")])
    machine.wait_prompt()
    frame = int(facts(machine.command("walk g1 gpa 0x200000"))["hpa"], 16)
    machine.command("kill g1")
    assert facts(machine.command(f"who {frame:#x}"))["state"] in ("free", "cached")
    assert machine.ask(f"poke hpa {frame + 0x128:#x} 0x1122334455667788 8 force").ok
    machine.send("start g1\r")
    found = machine.expect(r"panic: .*frame (0x\w+) was written to after it was freed: 0x(\w+) at offset 0x128")
    assert int(found[1], 16) == frame & ~0xfff and found[2] == "1122334455667788"
    machine.wait_end()
    assert not machine.powered_off()
