"""No register of a guest is left for the next one, nor lost while others run: those that the code switches."""

import pytest

from machines import link, quit_machine, user_program
from quire_machine.engines import Bochs, Qemu

pytestmark = pytest.mark.one_vendor("names its engines")

PATIENCE = 120


@pytest.mark.parametrize("engine", [Qemu, Bochs], ids=["svm", "vmx"])
def test_nobody_finds_what_others_left(boot, tmp_path, engine):
    modules = []
    for own in (0x11, 0x22, 0x33):
        folder = tmp_path / str(own)
        folder.mkdir()
        modules.append((link("leftovers.asm", str(folder), 32, [f"-DOWN={own}"]), f"own{own} mem=2M"))
    modules.append((user_program("hello"), "user:hello"))
    machine = boot(modules=modules, engine=engine())
    machine.wait_prompt(PATIENCE)
    assert not [line for line in machine.lines if "] BAD" in line]
    assert "quire: guests: 3 of 3 as expected" in machine.lines
    quit_machine(machine)
