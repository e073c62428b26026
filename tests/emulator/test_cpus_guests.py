"""Guests on several CPUs: where each runs, commands in the midst of it, and a report that stops them all."""

import re
import time

import pytest

from machines import SPIN, called, demo_guests, facts, flat_image, guest, quit_machine, reported, rows
from quire_machine.engines import Bochs, Qemu

pytestmark = pytest.mark.one_vendor("names its engines")

PATIENCE = 120
EACH = 4


def four(boot, modules, **how):
    machine = boot(modules=modules, engine=Qemu(cpus=4), **how)
    machine.expect("quire: CPUs: 4 of 4 are online", PATIENCE)
    return machine


def prompt(machine):
    machine.press("\r")
    machine.wait_prompt(PATIENCE)


def shares(machine):
    return rows(machine.command("top"), "guest")


def all_holds(machine):
    assert machine.command("check")[-1].endswith("hold.")
    audited = machine.command("audit")
    assert audited[-1].endswith("hold.")
    assert "The other 3 CPUs stood still meanwhile: nobody wrote." in audited


def demonstration(machine):
    names = demo_guests()
    machine.expect(f"quire: guests: {len(names)} of {len(names)} as expected", PATIENCE)
    machine.wait_prompt(PATIENCE)
    for row, name in zip(rows(machine.command("guests"), "guest"), names, strict=True):
        assert (row["name"], row["state"]) == (name, row["expected"] if "expected" in row else row["state"])
    assert {row["cpu"] for row in shares(machine)} == {"0", "1", "2", "3"}
    all_holds(machine)
    quit_machine(machine)


def test_the_demonstration_on_four_cpus(boot):
    demonstration(boot(engine=Qemu(cpus=4)))


@pytest.mark.one_vendor("of VMX; the others are of SVM", vendor="vmx")
def test_the_demonstration_on_four_cpus_with_vmx(boot):
    demonstration(boot(cpus=4))


def progress(machine):
    """Ticks that each guest has had, by name."""
    return {row["name"]: int(row["ticks"]) for row in shares(machine)}


def all_get_on(machine):
    """The clock is the computer's, which may do something else just now."""
    before, end = progress(machine), time.monotonic() + PATIENCE / 4
    while any(ticks == before[name] for name, ticks in progress(machine).items()):
        assert time.monotonic() < end, shares(machine)
        time.sleep(0.5)


def test_each_has_a_cpu_of_its_own(boot):
    machine = four(boot, [(SPIN, f"spin{n} mem=1M") for n in range(EACH)])
    prompt(machine)
    assert sorted(row["cpu"] for row in shares(machine)) == ["0", "1", "2", "3"]
    all_get_on(machine)
    does = [row["does"] for row in rows(machine.command("cpus"), "cpu")]
    assert does[0].endswith(", console")
    assert sorted(text.split(",")[0] for text in does) == [f"g{n + 1} spin{n}" for n in range(EACH)]
    all_holds(machine)
    quit_machine(machine)


@pytest.mark.one_vendor("of VMX; the others are of SVM", vendor="vmx")
def test_a_flood_takes_nothing_from_the_others(boot):
    """Bochs's clock stands still when Bochs does. Each that computes has all of its CPU, were it not for another that
    prints as fast as it can on a CPU of its own; with one CPU for all it would be a quarter."""
    spins = [(SPIN, f"spin{n} mem=1M pin={n}") for n in (0, 2, 3)]
    machine = boot(modules=[(guest("hostile.elf"), "flood mem=4M pin=1 -- puts"), *spins], cpus=4)
    machine.expect("g1 flood", PATIENCE)
    prompt(machine)
    machine.command("top")
    time.sleep(3)
    told = {row["name"]: int(row["percent"]) for row in shares(machine)}
    assert all(told[name] > 60 for name in ("spin2", "spin3")), told
    quit_machine(machine)


def test_pinned_guests_stay(boot):
    machine = four(boot, [(SPIN, f"spin{n} mem=1M pin=2") for n in range(3)])
    prompt(machine)
    time.sleep(0.5)
    told = shares(machine)
    assert [row["cpu"] for row in told] == ["2"] * 3
    assert {row["pinned"] for row in told} == {"yes"}
    assert "g3 spin2 is pinned to CPU 2" in machine.command("guests")
    quit_machine(machine)


def test_a_cpu_that_is_not_there_is_refused(boot):
    machine = four(boot, [(SPIN, "spin mem=1M pin=4")])
    machine.expect("g1 spin: refused: pin=4: the CPUs are 0 to 3 here", PATIENCE)
    machine.wait_prompt(PATIENCE)
    quit_machine(machine)


def test_an_idle_cpu_takes_work(boot):
    """Those that share a CPU with others move when the other CPUs have nobody any more."""
    machine = four(boot, [(SPIN, f"spin{n} mem=1M") for n in range(8)])
    prompt(machine)
    for row in shares(machine):
        if row["cpu"] != "3":
            machine.command(f"kill {row['guest']}")
    time.sleep(0.5)
    assert len({row["cpu"] for row in shares(machine) if row["state"] == "running"}) == 2
    quit_machine(machine)


def test_a_flood_holds_nobody(boot):
    """One prints as fast as it can on a CPU of its own; the others compute on, and the console answers."""
    spins = [(SPIN, f"spin{n} mem=1M pin={n}") for n in (0, 2, 3)]
    machine = four(boot, [(guest("hostile.elf"), "flood mem=4M pin=1 -- puts"), *spins])
    prompt(machine)
    all_get_on(machine)
    begin = time.monotonic()
    machine.command("guests")
    assert time.monotonic() - begin < 5
    machine.command("kill g1")
    all_holds(machine)
    quit_machine(machine)


# Counts a word of its memory up, on and on, over 64 KiB from 0x10000.
WRITER = flat_image(bytes([
    0xb8, 0x00, 0x10,        # mov ax, 0x1000
    0x8e, 0xd8,              # mov ds, ax
    0x31, 0xdb,              # xor bx, bx
    0xff, 0x07,              # again: inc word [bx]
    0x83, 0xc3, 0x40,        # add bx, 64
    0xeb, 0xf9,              # jmp again
]))  # fmt: skip


def test_commands_while_others_run(boot):
    """Snapshot, reset, fork, slots, merging and ends, of guests that write all the time on four CPUs."""
    machine = four(boot, [(WRITER, f"writer{n} mem=8M merge") for n in range(6)])
    prompt(machine)
    before = facts(machine.command("mem"))["free frames"]
    for n in (1, 2, 3):
        assert not any(line.startswith("error") for line in machine.command(f"snapshot g{n}"))
    for _ in range(3):
        for n in (1, 2, 3):
            assert not any(line.startswith("error") for line in machine.command(f"reset g{n}"))
        assert not any(line.startswith("error") for line in machine.command("fork g4"))
        machine.command("merge")
        machine.command("regs g5; bt g5; root g5; dirty g6; working g6")
        all_holds(machine)
    machine.command("slot g5 add 0x1000000 1M ram")
    machine.command("slot g5 drop 0x1000000")
    for n in range(7, 10):
        assert not any(line.startswith("error") for line in machine.command(f"kill g{n}"))
    all_holds(machine)
    for n in range(1, 7):
        machine.command(f"kill g{n}")
    for n in range(1, 7):
        machine.command(f"start g{n}")
    for n in range(1, 7):
        machine.command(f"kill g{n}")
    all_holds(machine)
    assert int(facts(machine.command("mem"))["free frames"].split()[0]) >= int(before.split()[0])
    quit_machine(machine)


def test_a_trial_of_flushes_beside_guests(boot):
    """It wants the other CPUs: their guests stand still, and go on."""
    machine = four(boot, [(SPIN, f"spin{n} mem=1M") for n in range(EACH)])
    prompt(machine)
    answer = machine.command("cpus trial 3", PATIENCE)
    assert answer[-1] == "No CPU used a translation after its flush."
    all_get_on(machine)
    quit_machine(machine)


# Who has called whom where a CPU runs a guest; what is inlined is not among them.
TO_A_GUEST = ["ap_main", "cpus_idle", "guests_run_here", "sched_round", "run"]


@pytest.mark.parametrize("engine, spins, left_by", [(Qemu(cpus=4), 2, "svm_enter"), (Bochs(cpus=2), 1, "vmx_take_nmi")])
def test_where_each_cpu_is(boot, engine, spins, left_by):
    """The console's own, those that run guests, and one that has nobody, if there is one."""
    machine = boot(modules=[(SPIN, f"spin{n} mem=1M pin={n}") for n in range(1, spins + 1)], engine=engine)
    machine.expect(f"quire: CPUs: {engine.cpus} of {engine.cpus} are online", PATIENCE)
    prompt(machine)
    all_get_on(machine)
    for cpu in range(1, spins + 1):
        end = time.monotonic() + PATIENCE / 4
        while not (answer := machine.ask(f"bt cpu{cpu}")).facts("place")["in_guest"]:
            # It has come out, and waits for the console to drop the guests' lock.
            assert called(answer)[-2:] == ["ap_main", "ap_high"]
            assert time.monotonic() < end
        assert answer.facts("place")["guest"] == f"g{cpu} spin{cpu}"
        names = called(answer)
        assert left_by in names[:3]
        assert [name for name in reversed(names) if name in TO_A_GUEST] == TO_A_GUEST
    for cpu in range(spins + 1, engine.cpus):
        answer = machine.ask(f"bt cpu{cpu}")
        assert called(answer) == ["cpu_halt", "cpus_idle", "ap_main", "ap_high"]
        assert answer.facts("place")["guest"] is None
    names = called(machine.ask("bt cpu0"))
    assert names[0] == "cpus_place" and {"monitor_execute", "finish_boot"} <= set(names)
    assert machine.command(f"bt cpu{engine.cpus}") == [
        f"error: bt: there is no CPU {engine.cpus}: this machine has CPUs 0 to {engine.cpus - 1}"
    ]
    all_get_on(machine)
    quit_machine(machine)


def test_a_report_stops_guests_on_all_cpus(boot):
    machine = four(boot, [(SPIN, f"spin{n} mem=1M") for n in range(EACH)], cmdline="selftest=midst")
    machine.expect("quire: power off", PATIENCE)
    text = "\n".join(machine.lines)
    assert "broken invariant" in text
    for other in (0, 2, 3):
        assert re.search(rf"^quire: CPU {other} stopped (at 0x\w+ \w+\+0x|in a guest)", text, re.M)
    assert "guests_round" in reported(machine.lines, 0)
    for other in (2, 3):
        assert {"ap_main", "cpus_idle"} <= set(reported(machine.lines, other))
