"""Guests with several virtual CPUs (guests/cpus.c), on machines with one CPU and with several.

With QUIRE_LONG=1 a million pages go while a guest's other CPU writes them, on each of the machines in Bochs.
"""

import os
import re
import tty

import pytest

from machines import guest, quit_machine, rows
from quire_machine.engines import Bochs, Qemu

pytestmark = pytest.mark.one_vendor("names its engines, of both")

PATIENCE = 300
CPUS = guest("cpus.elf")
LONG = os.environ.get("QUIRE_LONG") == "1"
ONE, TWO, FOUR = "AMD-V, 1 CPU", "AMD-V, 2 CPUs", "AMD-V, 4 CPUs"
VMX, VMX_FOUR, VMX_EIGHT = "VMX, 2 CPUs", "VMX, 4 CPUs", "VMX, 8 CPUs"

ENGINES = {
    ONE: lambda: Qemu(cpus=1),
    TWO: lambda: Qemu(cpus=2),
    FOUR: lambda: Qemu(cpus=4),
    VMX: lambda: Bochs(cpus=2),
    VMX_FOUR: lambda: Bochs(cpus=4),
    VMX_EIGHT: lambda: Bochs(cpus=8),
}


def all_hold(machine):
    assert machine.command("audit", PATIENCE)[-1].endswith("hold.")
    assert machine.command("check", PATIENCE)[-1].endswith("hold.")


def machine_of(boot, engine, *modules):
    return boot(modules=[(CPUS, words) for words in modules], engine=ENGINES[engine]())


def said(machine, line):
    return f"[g1 c] ok: {line}" in machine.lines


@pytest.mark.parametrize(
    "engine, words", [(ONE, "ring 200"), (TWO, "x2apic 200"), (FOUR, "ring 200"), (VMX, "ring 60"), (VMX, "x2apic 60")]
)
def test_interrupts_go_round(boot, engine, words):
    """INIT, SIPI, and every kind of destination, by the window and by MSRs."""
    machine = machine_of(boot, engine, f"c mem=8M pc cpus=4 -- {words}")
    machine.expect("g1 c: passed", PATIENCE)
    assert said(machine, "each was started once")
    assert said(machine, "each has its number, and one has booted")
    assert said(machine, "no interrupt was lost or doubled")
    machine.wait_prompt(PATIENCE)
    all_hold(machine)
    quit_machine(machine)


@pytest.mark.parametrize("engine, rounds", [(ONE, 400), (TWO, 200), (VMX, 100)])
def test_each_question_is_answered(boot, engine, rounds):
    """As kernels ask one another: with interrupts open or in HLT, while timers tick."""
    machine = machine_of(boot, engine, f"c mem=8M pc cpus=3 -- mesh {rounds}")
    machine.expect("g1 c: passed", PATIENCE)
    assert said(machine, "each question was answered, and time has passed")
    machine.wait_prompt(PATIENCE)
    all_hold(machine)
    quit_machine(machine)


STALE = [(ONE, 3, 50), (TWO, 3, 20), (FOUR, 2, 100), (VMX, 3, 20), (VMX, 2, 300), (VMX_FOUR, 2, 300), (VMX_EIGHT, 2, 300)]


@pytest.mark.seconds(7200 if LONG else 300)
@pytest.mark.parametrize("engine, cpus, rounds", STALE)
def test_no_write_comes_after_a_page_was_given_back(boot, engine, cpus, rounds):
    """A round is 16 pages, each with a translation that the other CPUs write through."""
    if LONG and rounds == 300:
        rounds = 1_000_000 // 16
    machine = machine_of(boot, engine, f"c mem=8M pc cpus={cpus} -- stale {rounds}")
    assert machine.expect("g1 c: (passed|failed)", 7000 if LONG else PATIENCE)[1] == "passed"
    assert said(machine, "no write has come to a frame after it was given back")
    machine.wait_prompt(PATIENCE)
    all_hold(machine)
    quit_machine(machine)


@pytest.mark.parametrize("engine", [ONE, FOUR, VMX, VMX_EIGHT])
def test_memory_stays_one_while_it_changes_hands(boot, engine):
    """Copies on write, tracking and merging, while one CPU writes and the others look: what is said is done."""
    machine = machine_of(boot, engine, "c mem=8M pc cpus=3 merge -- order 4000000000")
    machine.expect("c. ok: each has its number, and one has booted", PATIENCE)
    machine.press("\r")
    machine.wait_prompt(PATIENCE)
    for step in range(4):
        machine.command("snapshot g1; dirty g1", PATIENCE)
        machine.command("fork g1", PATIENCE)
        machine.command("dirty g1; merge; reset g1", PATIENCE)
        machine.command(f"slot g1 protect 0x700000 r 64K; kill g{step + 2}", PATIENCE)
        machine.command("slot g1 remove 0x780000 64K; slot g1 add ram 0x780000 64K; dirty g1 off", PATIENCE)
        row = rows(machine.command("guests"), "guest")[0]
        assert row["state"] == "running", row
    all_hold(machine)
    machine.command("kill g1", PATIENCE)
    all_hold(machine)
    quit_machine(machine)


@pytest.mark.parametrize("engine", [ONE, TWO, VMX])
def test_each_of_them_can_end_the_guest(boot, engine):
    ends = {"pass 0": "passed", "pass 2": "passed", "fault 1": "stopped: triple fault", "reset 2": "stopped: the guest asked"}
    machine = machine_of(boot, engine, *[f"c mem=8M pc cpus=3 -- {words}" for words in ends])
    machine.wait_prompt(PATIENCE)
    for number, end in enumerate(ends.values(), 1):
        assert any(line.startswith(f"quire: g{number} c: {end}") for line in machine.lines)
        assert any(line.startswith(f"quire: g{number} c: gave back") for line in machine.lines)
    assert "quire: g3 c: | CPU 1 of its 3" in machine.lines
    all_hold(machine)
    quit_machine(machine)


def test_a_guest_that_is_made_anew_by_one_of_its_cpus(boot):
    machine = machine_of(boot, TWO, "c mem=8M pc cpus=3 reset=restart -- reset 1")
    machine.expect("g1 c: restarts .3 of", PATIENCE)
    machine.press("\r")
    machine.wait_prompt(PATIENCE)
    machine.command("kill g1", PATIENCE)
    all_hold(machine)
    quit_machine(machine)


def test_the_console_shows_each(boot):
    machine = machine_of(boot, TWO, "c mem=8M pc cpus=3 -- order 4000000000", "p mem=8M pc cpus=2 pin=1 -- pass 5")
    for _ in range(2):
        machine.expect("ok: each has its number, and one has booted", PATIENCE)
    machine.press("\r")
    machine.wait_prompt(PATIENCE)
    shown = rows(machine.command("top"), "guest")
    assert [row["guest"] for row in shown] == ["g1.0", "g1.1", "g1.2", "g2.0", "g2.1"]
    assert [row["cpu"] for row in shown[3:]] == ["1", "1"]
    ids = [machine.command(f"devices g1.{cpu}") for cpu in range(3)]
    assert any("LINT0 0x8700" in line for line in ids[0])
    assert not any("LINT0 0x8700" in line for line in ids[1])
    assert any(line.startswith("at: do_order") for line in machine.command("regs g1.2"))
    assert any("do_order" in line for line in machine.command("bt g1.1"))
    assert machine.command("regs g1.3") == ["error: regs: there is no CPU 3 of g1: it has 3, from 0"]
    assert machine.command("kill g1.1") == ['error: kill: "g1.1" is one CPU of a guest, and all of it is meant: g1']
    quit_machine(machine)


@pytest.mark.one_vendor("of Bochs", vendor="vmx")
def test_bochs_draws_on_nothing_that_fills(boot):
    """With several CPUs its display used to draw the cursor for ever, and stood still after minutes."""
    machine = machine_of(boot, VMX, "c mem=8M pc cpus=2 -- order 4000000000")
    machine.expect("ok: each has its number, and one has booted", PATIENCE)
    screen = re.search(r'connected to screen "([^"]+)"', machine.emulator_says(lines=None))[1]
    display = os.open(screen, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    tty.setraw(display)  # drops what was drawn at boot
    until = machine.seconds_run() + 3
    machine.wait_for(lambda: machine.seconds_run() > until, "3 seconds of its time", PATIENCE)
    with pytest.raises(BlockingIOError):
        os.read(display, 1)
    os.close(display)
    machine.press("\r")
    machine.wait_prompt(PATIENCE)
    machine.command("kill g1", PATIENCE)
    quit_machine(machine)
