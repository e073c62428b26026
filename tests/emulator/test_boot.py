"""The whole path, on every kind of CPU: from GRUB to guests on EPT where the CPU has what that takes,
and to a console that says what is missing where it has not."""

import re

import pytest

from machines import (
    COMPLETE_CPUS,
    NO_ACCESSED_DIRTY_CPU,
    NO_EPT_CPU,
    NO_SVM_CPU,
    NO_UNRESTRICTED_CPU,
    demo_guests,
    demo_modules,
    guest,
    quit_machine,
    rows,
)
from quire_machine import MachineError
from quire_machine.engines import Bochs, Qemu

pytestmark = pytest.mark.one_vendor("names its engines")


@pytest.mark.one_vendor("every CPU model that VMX is tried on; those of SVM are in test_svm.py", vendor="vmx")
@pytest.mark.parametrize("cpu", [*COMPLETE_CPUS, NO_ACCESSED_DIRTY_CPU])
def test_every_demonstration_guest_ends_as_expected(boot, cpu):
    machine = boot(cpu=cpu)
    machine.wait_prompt()
    names = demo_guests()
    assert f"quire: guests: {len(names)} of {len(names)} as expected" in machine.lines
    for row, name in zip(rows(machine.command("guests"), "guest"), names, strict=True):
        assert row["name"] == name
        assert row["state"] == row["expected"]
        assert row["frames"] == "0"
    assert machine.command("check")[-1].endswith("hold.")
    quit_machine(machine)


@pytest.mark.no_guests("the list of them is read")
def test_the_demonstration_covers_what_it_should():
    passing = {line.split()[0] for _, line in demo_modules() if "expect=" not in line}
    assert {"hello", "longmode", "realmode", "touch", "rogue"} <= passing
    assert any(" lazy" in line for _, line in demo_modules())


@pytest.mark.one_vendor("instructions are counted by Bochs alone", vendor="vmx")
def test_time_to_the_first_guest_instruction_is_said(boot):
    machine = boot(modules=[(guest("hello.elf"), "hello mem=4M")])
    said = r"quire: (\d+) instructions from entry to the first guest instruction"
    assert 0 < int(machine.expect(said).group(1)) < 100_000_000
    machine.expect("g1 hello: passed")


REFUSALS = {
    "EPT without unrestricted guest": (Bochs(NO_UNRESTRICTED_CPU), "unrestricted guest"),
    "VMX without EPT": (Bochs(NO_EPT_CPU), "EPT"),
    "no VMX": (Qemu(NO_SVM_CPU), "VMX"),
    "SVM without nested paging": (Qemu("max,-npt"), "nested paging"),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_cpu_that_cannot_run_guests_is_told_so_and_serves_the_host(boot, kind):
    engine, missing = REFUSALS[kind]
    machine = boot(engine=engine)
    why = machine.expect(r"quire: no guests can run: (.*)").group(1)
    assert missing in why
    machine.expect(re.escape(f"quire: guests: none: {why}"))
    assert machine.command("guests") == [f"There are no guests: {why}."]
    assert machine.command("map g1") == [
        f"error: map: there is no g1: there are no guests: {why}"
    ]
    assert "verdict: mapped" in machine.command("walk host 0xffffffff80200000")
    assert any("direct map" in line for line in machine.command("map host"))
    assert machine.command("check")[-1].endswith("hold.")
    quit_machine(machine)


def test_each_refusal_has_its_own_sentence(boot):
    said = set()
    for engine, _ in REFUSALS.values():
        said.add(boot(modules=[], engine=engine).expect("quire: no guests can run: (.*)").group(1))
    assert len(said) == len(REFUSALS)


def usable_memory(machine):
    """The usable regions of the memory map, as (first, last) addresses."""
    regions = rows(machine.command("mem"), "first")
    return [
        (int(row["first"], 16), int(row["last"], 16)) for row in regions if row["kind"] == "usable"
    ]


@pytest.mark.one_vendor("the memory map, which knows no vendor", vendor="svm")
@pytest.mark.parametrize("memory", [64, 2048])
def test_memory_small_and_large(boot, memory):
    machine = boot(modules=[(guest("hello.elf"), "hello mem=4M")], memory=memory)
    machine.expect("g1 hello: passed")
    usable = sum(last + 1 - first for first, last in usable_memory(machine))
    assert (memory - 2) << 20 < usable <= memory << 20
    quit_machine(machine)


def test_memory_beyond_4_gib(boot):
    # In QEMU: Bochs takes half a minute where a machine has more memory than Bochs itself keeps.
    machine = boot(modules=[], engine=Qemu(memory=6144))
    machine.wait_prompt()
    first, last = usable_memory(machine)[-1]
    assert first == 1 << 32
    for address in (first, last):
        walked = machine.command(f"walk host {0xFFFF800000000000 + address:#x}")
        assert "verdict: mapped" in walked
        assert f"hpa: {address:#x}" in walked
    quit_machine(machine)


@pytest.mark.one_vendor("under QEMU's firmware they are started: test_cpus.py", vendor="vmx")
def test_other_cpus_that_were_not_started_do_no_harm(boot):
    machine = boot(modules=[(guest("hello.elf"), "hello mem=4M")], cpus=2)
    machine.expect("g1 hello: passed")
    quit_machine(machine)


def test_under_a_firmware_that_has_locked_vmx_on(boot):
    """Bochs's own BIOS locks IA32_FEATURE_CONTROL with VMX on; SeaBIOS leaves the register 0."""
    engine = Bochs(firmware="bochs")
    machine = boot(modules=[(guest("hello.elf"), "hello mem=4M")], engine=engine)
    try:
        machine.expect("quire: Quire")
    except MachineError:
        if machine.status is not None and not machine.lines:
            pytest.skip("this distribution's BIOS for Bochs faults before it boots anything")
        raise
    machine.expect("g1 hello: passed")
    quit_machine(machine)


@pytest.mark.one_vendor("what is said without guests", vendor="svm")
def test_no_modules_at_all(boot):
    machine = boot(modules=[])
    machine.expect("quire: guests: none")
    assert machine.command("guests") == ["There are no guests."]
    quit_machine(machine)


@pytest.mark.one_vendor("the command line, which knows no vendor", vendor="svm")
def test_words_of_the_command_line_that_mean_nothing_are_said_and_passed_by(boot):
    machine = boot(modules=[], cmdline="frobnicate reserve=lots")
    machine.wait_prompt()
    for word in ("frobnicate", "reserve=lots"):
        said = f'quire: boot: option "{word}" means nothing here; known: '
        assert any(line.startswith(said) for line in machine.lines), machine.tail()
