"""A kernel that is not Quire, built from the installed memory manager alone: GRUB boots it, the
mapper's table is its CR3, and it switches the machine off by itself."""

import pytest

import lift
from quire_machine import Machine
from quire_machine.engines import Bochs, Qemu

pytestmark = pytest.mark.no_guests("the kernel is not Quire")


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    prefix, folder = tmp_path_factory.mktemp("installed"), tmp_path_factory.mktemp("built")
    lift.install(prefix)
    lift.make_example("kernel", prefix, folder)
    return str(folder / "kernel" / "build" / "kernel.iso")


@pytest.mark.parametrize("engine", [Qemu(), Bochs()], ids=["qemu", "bochs"])
def test_a_kernel_on_the_installed_memory_manager(kernel, engine):
    machine = Machine(engine, kernel)
    try:
        machine.expect(r"CR3 is the mapper's: 0x[0-9a-f]+000")
        # The direct map by large pages, and each part of the image with its own rights.
        machine.expect(r"0xffff8000[0-9a-f]{8} \d+M rw--- to 0x[0-9a-f]+ by PD")
        machine.expect(r"0xffffffff80200000 \d+K r-x-- to 0x200000 by PT")
        machine.expect(r"0xffffffff80[0-9a-f]{6} \d+K r---- to 0x[0-9a-f]+ by PT")
        machine.expect(r"0xffffffff80[0-9a-f]{6} \d+K rw--- to 0x[0-9a-f]+ by PT")
        machine.expect("written at 0xffffa00000000000: 0x5157495245 in the direct map")
        machine.expect("unmapped: nothing is there")
        before, after = machine.expect(r"frames free: before (\d+), after (\d+)").groups()
        assert before == after
        machine.expect("kernel: done")
        machine.wait_end()
        assert machine.status in engine.good_exits, machine.tail()
    finally:
        machine.stop()
