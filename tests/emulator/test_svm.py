"""AMD-V with nested paging, which plain QEMU emulates on any machine: what runs in VMX runs here."""

import re

import pytest

from machines import (
    NO_SVM_CPU,
    SPIN,
    assemble,
    demo_guests,
    demo_modules,
    facts,
    flat_image,
    guest,
    quit_machine,
    rows,
)
from quire_machine.engines import Qemu

pytestmark = pytest.mark.one_vendor("of SVM alone; names its engines")

PATIENCE = 120


@pytest.mark.parametrize("cpu", ["max", "EPYC"])
def test_every_demonstration_guest_ends_as_expected(boot, cpu):
    machine = boot(engine=Qemu(cpu))
    machine.wait_prompt(PATIENCE)
    names = demo_guests()
    assert f"quire: guests: {len(names)} of {len(names)} as expected" in machine.lines
    assert any(line.startswith("quire: SVM: on") for line in machine.lines)
    for row, name in zip(rows(machine.command("guests"), "guest"), names, strict=True):
        assert row["name"] == name
        assert row["state"] == row["expected"]
        assert row["frames"] == "0"
    assert machine.command("check")[-1].endswith("hold.")
    assert "guests run by: SVM" in machine.command("cpu")
    quit_machine(machine)


def test_every_frame_comes_back(boot):
    refused = [
        (file, words if words.startswith("user:") else f"{words.split()[0]} no-such-option")
        for file, words in demo_modules()
    ]
    free = []
    for modules in (refused, demo_modules()):
        machine = boot(modules=modules, engine=Qemu())
        machine.wait_prompt(PATIENCE)
        free.append(facts(machine.command("mem"))["free frames"])
        quit_machine(machine)
    assert free[0] == free[1]


def test_a_nested_page_fault_is_told_with_its_walk(boot):
    machine = boot(engine=Qemu())
    machine.wait_prompt(PATIENCE)
    report = [line for line in machine.lines if line.startswith("quire: g6 stray: |")]
    assert any("in the guest's NPT table" in line for line in report)
    assert any("exit: nested page fault (0x400)" in line for line in report)
    assert any(re.search(r"ends: nothing is there", line) for line in report)
    quit_machine(machine)


def test_the_cpus_root_is_the_tables_root(boot):
    """nCR3 as the VMCB has it, decoded, against the table; and the table's map."""
    machine = boot(modules=[(SPIN, "spin mem=1M")], engine=Qemu())
    machine.expect("g1 spin: flat")
    machine.press("\r")
    machine.wait_prompt(PATIENCE)
    assert machine.command("audit")[-1].endswith("hold.")
    machine.command("kill g1")
    assert machine.command("check")[-1].endswith("hold.")
    quit_machine(machine)


def test_a_spinning_guest_loses_its_turn(boot):
    """Interrupts closed or not, the slice ends by the host's timer, and the other guest gets on."""
    closed = flat_image(b"\xfa\xeb\xfe")  # cli; jmp $
    machine = boot(
        modules=[(closed, "closed mem=1M"), (SPIN, "open mem=1M"), (guest("hello.elf"), "hello")],
        engine=Qemu(),
    )
    machine.expect("g3 hello: passed", PATIENCE)
    machine.press("\r")
    machine.wait_prompt(PATIENCE)
    quit_machine(machine)


def test_devices_and_modules(boot):
    payload = b"initrd" * 1000
    machine = boot(
        modules=[(guest("devices.elf"), "devices mods=1"), (payload, "initrd")], engine=Qemu()
    )
    machine.expect("g1 devices: passed", PATIENCE)
    quit_machine(machine)


REFUSALS = [
    (NO_SVM_CPU, "this CPU has no VMX, and no SVM either"),
    ("max,-npt", "this CPU has SVM without nested paging"),
]


@pytest.mark.parametrize("cpu, sentence", REFUSALS)
def test_a_cpu_without_it_is_told_so(boot, cpu, sentence):
    machine = boot(engine=Qemu(cpu))
    machine.expect(f"no guests can run: {sentence}", PATIENCE)
    machine.wait_prompt(PATIENCE)
    assert machine.command("guests") == [f"There are no guests: {sentence}."]
    quit_machine(machine)


def test_one_that_never_opens_interrupts_keeps_the_cpu_from_nobody(boot):
    """Though its timer's interrupt waits for it, and the other's has slices end early."""
    closed, ticks = assemble("slices.asm", ["-DCLOSED"]), assemble("slices.asm")
    modules = [(closed, "closed pc mem=1M"), (ticks, "ticks pc mem=1M")]
    machine = boot(engine=Qemu("max"), modules=modules)
    machine.expect("quire: g2 ticks: (passed|failed|stopped)", timeout=240)
    assert "quire: g2 ticks: passed" in machine.lines
    machine.press("\r")
    machine.wait_prompt()
    assert "running" in machine.command("guests")[1]
    quit_machine(machine)
