"""Machines that Quire cannot run on, and too little memory to run in: each gets its own sentence on
the serial port, and none a crash."""

import pytest

from quire_machine.engines import Qemu

pytestmark = pytest.mark.one_vendor("what is left out of QEMU's CPUs; names its engines")

FREE_FRAMES = r"buddy has (\d+) frames free"


@pytest.mark.parametrize(
    "cpu, sentence",
    [
        ("qemu32", r"this CPU has no 64-bit mode"),
        ("qemu64,-nx", r"this CPU has no execute-disable"),
    ],
)
def test_a_cpu_that_is_not_enough(boot, cpu, sentence):
    machine = boot(modules=[], engine=Qemu(cpu))
    machine.expect(sentence, timeout=60)
    assert not any("Quire, a hypervisor" in line for line in machine.lines)


@pytest.mark.parametrize(
    "memory, sentence",
    [
        ("0", r"too little for the hypervisor's own page tables"),
        ("512K", r"too little for the hypervisor's own page tables"),
        ("1300K", r"no room for the frame database"),
    ],
)
def test_too_little_memory_is_said(boot, memory, sentence):
    machine = boot(modules=[], cmdline=f"memory={memory}", engine=Qemu())
    machine.expect(sentence, timeout=60)
    status = machine.wait_end()
    assert status not in machine.engine.good_exits, machine.tail()
    assert not any("#PF" in line or "panic" in line for line in machine.lines)


def test_memory_that_is_left_alone(boot):
    machine = boot(modules=[], cmdline="memory=16M", engine=Qemu())
    frames = int(machine.expect(FREE_FRAMES, timeout=60).group(1))
    assert 3000 < frames < 4096
    assert any("All 4 hold." in line for line in machine.command("check"))
