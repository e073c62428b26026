"""Quire on hosts that people have: parameters of kvm_intel, sizes of memory, QEMU's other board."""

import pytest

import suite
from machines import facts, quit_machine


@pytest.mark.seconds(1500)
@pytest.mark.parametrize(
    "memory, options, cpu",
    [
        (192, (), ""),
        (4352, ("-machine", "q35"), "vmx-ept-2mb=off vmx-ept-1gb=off vmx-vnmi=off"),
    ],
    ids=["192 MiB", "above 4 GiB on q35, 4 KiB EPT pages, no virtual NMIs"],
)
def test_a_size_of_memory(boot, memory, options, cpu):
    machine = boot("all", cpu, memory=memory, options=options)
    machine.wait_prompt()
    suite.judge_guests(machine)
    suite.judge_machine(machine, 1000)
    quit_machine(machine)


@pytest.mark.seconds(1500)
@pytest.mark.module_parameters
def test_kvm_that_is_strict_and_slow(boot):
    machine = boot("all", parameters=("nested_early_check=1", "pml=0", "eptad=0", "vpid=0"))
    machine.wait_prompt()
    suite.judge_guests(machine)
    suite.judge_machine(machine, 1000)
    quit_machine(machine)


@pytest.mark.seconds(900)
@pytest.mark.module_parameters
@pytest.mark.parametrize(
    "parameter, sentence",
    [("unrestricted_guest=0", "unrestricted guest"), ("ept=0", "EPT")],
)
def test_kvm_that_has_it_switched_off(boot, parameter, sentence):
    machine = boot("none", parameters=(parameter,))
    machine.wait_prompt()
    shown = facts(machine.command("cpu"))["guests run by"]
    assert sentence in shown
    quit_machine(machine)


@pytest.mark.seconds(1500)
def test_guests_of_thousands_of_cases(boot):
    machine = boot("long")
    machine.wait_prompt()
    suite.judge_guests(machine)
    quit_machine(machine)
