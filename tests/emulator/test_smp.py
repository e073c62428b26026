"""Guests with several virtual CPUs (guests/cpus.c), on machines with one CPU and with several."""

import pytest

from machines import guest, quit_machine, rows
from quire_machine.engines import Bochs, Qemu

pytestmark = pytest.mark.one_vendor("names its engines, of both")

PATIENCE = 200
CPUS = guest("cpus.elf")


def all_hold(machine):
    assert machine.command("audit", PATIENCE)[-1].endswith("hold.")
    assert machine.command("check", PATIENCE)[-1].endswith("hold.")


def machine_of(boot, words, engine, options="", cpus=4):
    return boot(modules=[(CPUS, f"c mem=8M pc cpus={cpus} {options} -- {words}")], engine=engine)


@pytest.mark.parametrize("words", ["ring 400", "x2apic 400"])
@pytest.mark.parametrize("engine", [Qemu(cpus=1), Qemu(cpus=2), Qemu(cpus=4), Bochs(cpus=2)], ids=repr)
def test_interrupts_go_round(boot, engine, words):
    """INIT, SIPI, and every kind of destination, by the window and by MSRs."""
    machine = machine_of(boot, words, engine)
    machine.expect("g1 c: passed", PATIENCE)
    for line in ["each was started once", "each has its number, and one has booted", "no interrupt was lost or doubled"]:
        assert f"[g1 c] ok: {line}" in machine.lines
    machine.wait_prompt(PATIENCE)
    all_hold(machine)
    quit_machine(machine)


@pytest.mark.parametrize("engine", [Qemu(cpus=1), Qemu(cpus=2), Qemu(cpus=4), Bochs(cpus=2)], ids=repr)
def test_no_write_comes_after_a_page_was_given_back(boot, engine):
    machine = machine_of(boot, "stale 300", engine, cpus=3)
    machine.expect("g1 c: passed", PATIENCE)
    assert "[g1 c] ok: no write has come to a frame after it was given back" in machine.lines
    machine.wait_prompt(PATIENCE)
    all_hold(machine)
    quit_machine(machine)
