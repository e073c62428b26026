"""Quire on what KVM offers, with one feature after the other taken away: QEMU's `vmx-...=off`."""

import pytest

import suite
from machines import quit_machine

# What QEMU switches off, and what `cpu` must then not show.
WITHOUT = {
    "everything": ("", None),
    "no preemption timer, no TRUE MSRs": (
        "vmx-preemption-timer=off vmx-true-ctls=off",
        "+ activate VMX-preemption timer",
    ),
    "no VPID, no A/D, no PML": ("vmx-vpid=off vmx-eptad=off vmx-pml=off", "execute-only A/D"),
}


@pytest.mark.seconds(1500)
@pytest.mark.parametrize("name", WITHOUT)
def test_without_a_feature(boot, name):
    cpu, absent = WITHOUT[name]
    machine = boot("all", cpu)
    machine.wait_prompt()
    suite.judge_guests(machine)
    shown = "\n".join(machine.command("cpu"))
    assert "runs under: KVMKVMKVM" in shown
    if absent:
        assert absent not in shown
    # A missed INVEPT shows in one of some thousand predictions.
    suite.judge_machine(machine, 1000 if absent else 5000)
    quit_machine(machine)
