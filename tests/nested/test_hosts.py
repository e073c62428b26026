"""Quire on hosts that people have: parameters of kvm_intel, sizes of memory, QEMU's other board, and CPUs without
what guests need."""

import re

import pytest

import suite
from machines import facts, quit_machine


@pytest.mark.seconds(1500)
def test_memory_above_4g_on_q35_by_small_pages_without_virtual_nmis(boot):
    cpu = "vmx-ept-2mb=off vmx-ept-1gb=off vmx-vnmi=off"
    machine = boot("all", cpu, memory=4352, options=("-machine", "q35"))
    machine.wait_prompt()
    suite.judge_guests(machine)
    suite.judge_machine(machine, 1000)
    quit_machine(machine)


@pytest.mark.seconds(1500)
@pytest.mark.module_parameters
def test_kvm_that_is_strict_and_slow_in_192_mib(boot):
    parameters = ("nested_early_check=1", "pml=0", "eptad=0", "vpid=0")
    machine = boot("all", memory=192, parameters=parameters)
    machine.wait_prompt()
    # The early check is of a VMCS that still has the CR0 of the guest before: docs/VMX.md, "Under KVM".
    suite.judge_guests(machine, {"operands32": "VM entry with invalid control fields, with event 0x8000030d"})
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


@pytest.mark.seconds(900)
@pytest.mark.parametrize(
    "cpu, sentence",
    [
        ("vmx-unrestricted-guest=off", "EPT without unrestricted guest"),
        ("vmx-ept=off vmx-unrestricted-guest=off", "VMX without EPT"),
        ("-vmx", "this CPU has no VMX"),
    ],
)
def test_a_cpu_that_cannot_run_guests(boot, cpu, sentence):
    machine = boot("none", cpu)
    machine.wait_prompt()
    shown = [line for line in machine.command("cpu") if line.startswith("guests run by: ")]
    assert shown != ["guests run by: VMX"]
    assert re.search(sentence, shown[0]), machine.tail()
    suite.judge_machine(machine, 200, selftest=False, spaces=2)
    quit_machine(machine)
