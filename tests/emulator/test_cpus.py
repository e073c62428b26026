"""Several CPUs: started, shown, taking part in flushes, and stopped before a report."""

import re
import time

import pytest

from machines import NO_SVM_CPU, called, demo_guests, facts, guest, quit_machine, reported, rows
from quire_machine import MachineError
from quire_machine.engines import Qemu

pytestmark = pytest.mark.one_vendor("names its engines")

PATIENCE = 120
HELLO = [(guest("hello.elf"), "hello mem=4M")]


def trial(machine, changes):
    """The rows of a trial in which every CPU forgot what it had to."""
    answer = machine.command(f"cpus trial {changes}", PATIENCE)
    assert answer[-1] == "No CPU used a translation after its flush."
    return {row["tables of"]: row for row in rows(answer, "tables of")}


def check_trial(machine, cpus, changes):
    told = trial(machine, changes)
    assert list(told) == ["kernel", "user", "guest", "writers"]
    for row in told.values():
        assert row["stale"] == row["disturbed"] == "0"
        assert int(row["reads"]) > 0
    assert told["kernel"]["users"] == str(cpus - 1)
    assert int(told["kernel"]["answers"]) == (cpus - 1) * changes
    # A table that was not loaded just then costs its CPU nothing.
    assert int(told["user"]["answers"]) <= cpus // 2 * changes
    assert 0 < int(told["guest"]["answers"]) <= changes
    assert int(told["writers"]["answers"]) == cpus * (cpus - 1) * changes


@pytest.mark.parametrize("cpus", [2, 4])
def test_all_cpus_of_a_machine_with_amd_v(boot, cpus):
    machine = boot(engine=Qemu(cpus=cpus))
    machine.wait_prompt(PATIENCE)
    assert f"quire: CPUs: {cpus} of {cpus} are online" in machine.lines
    names = demo_guests()
    machine.expect(f"quire: guests: {len(names)} of {len(names)} as expected", PATIENCE)
    shown = rows(machine.command("cpus"), "cpu")
    assert [row["cpu"] for row in shown] == [str(n) for n in range(cpus)]
    assert {row["state"] for row in shown} == {"online"}
    assert {row["does"] for row in shown[1:]} == {"idle"}
    free = facts(machine.command("mem"))["free frames"]
    check_trial(machine, cpus, 5)
    assert facts(machine.command("mem"))["free frames"] == free
    assert machine.command("check")[-1].endswith("hold.")
    quit_machine(machine)


@pytest.mark.one_vendor("of VMX; the others are of SVM", vendor="vmx")
def test_all_cpus_of_a_machine_with_vmx(boot):
    """Under Bochs's own firmware, since SeaBIOS tells of one CPU there."""
    machine = boot(modules=HELLO, cpus=4)
    try:
        machine.expect("quire: Quire")
    except MachineError:
        if machine.status is not None and not machine.lines:
            pytest.skip("this distribution's BIOS for Bochs faults before it boots anything")
        raise
    machine.expect("g1 hello: passed", PATIENCE)
    machine.wait_prompt(PATIENCE)
    assert "quire: CPUs: 4 of 4 are online" in machine.lines
    check_trial(machine, 4, 40)
    later = rows(machine.command("cpus"), "cpu")
    assert all(int(row["answered"]) > 40 for row in later)
    assert machine.command("check")[-1].endswith("hold.")
    quit_machine(machine)


def test_a_cpu_that_does_not_answer_is_left_out(boot):
    machine = boot(modules=HELLO, cmdline="selftest=lost", engine=Qemu(cpus=2))
    machine.expect("CPU with APIC id 254 is left out: no answer to INIT and two start-up IPIs")
    machine.expect("quire: CPUs: 2 of 3 are online")
    machine.expect("g1 hello: passed")
    machine.wait_prompt(PATIENCE)
    answer = machine.command("cpus")
    assert [row["state"] for row in rows(answer, "cpu")] == ["online", "online", "silent"]
    assert answer[-1].startswith("The CPU with APIC id 254 is left out: no answer to INIT")
    trial(machine, 3)
    assert machine.command("check")[-1].endswith("hold.")
    quit_machine(machine)


def test_a_flush_that_is_not_answered_ends_the_machine(boot):
    machine = boot(modules=[], cmdline="selftest=deaf", engine=Qemu(cpus=2))
    machine.expect("CPU 1 does not stop", PATIENCE)
    machine.expect(
        r"quire: panic: CPU 1 \(APIC id 1\) has not answered a flush of a table of kind kernel"
    )
    machine.expect("quire: power off")


def test_a_cpu_that_does_not_answer_is_said_not_to(boot):
    machine = boot(modules=[], cmdline="selftest=mute", engine=Qemu(cpus=3))
    machine.wait_prompt(PATIENCE)
    begin = time.monotonic()
    assert machine.command("bt cpu1", PATIENCE)[0].startswith("error: bt: CPU 1 does not answer: it has taken no NMI")
    assert time.monotonic() - begin < 30
    assert called(machine.ask("bt cpu2"))[-2:] == ["ap_main", "ap_high"]
    assert called(machine.ask("bt cpu0"))[0] == "cpus_place"
    quit_machine(machine)


def test_all_cpus_stop_before_a_report(boot):
    machine = boot(modules=[], cmdline="selftest=second", engine=Qemu(cpus=3))
    machine.expect("quire: power off", PATIENCE)
    text = "\n".join(machine.lines)
    for other in (0, 2):
        assert re.search(rf"^quire: CPU {other} stopped at 0x\w+ \w+\+0x", text, re.M)
    assert "broken invariant: selftest == NULL" in text
    assert "break_invariant_on_second" in text
    assert "second_cpu_ends" in reported(machine.lines, 0)
    assert reported(machine.lines, 2)[-2:] == ["ap_main", "ap_high"]


def test_without_guests(boot):
    """CPUs are started, and flushes tried but for those of guests, where no guest can run."""
    machine = boot(modules=[], engine=Qemu(NO_SVM_CPU, cpus=2))
    machine.expect("quire: no guests can run")
    machine.expect("quire: CPUs: 2 of 2 are online")
    machine.wait_prompt(PATIENCE)
    told = trial(machine, 3)
    assert told["kernel"]["changes"] == "3"
    assert told["guest"]["changes"] == "0"
    quit_machine(machine)


def test_as_many_as_asked_for(boot):
    machine = boot(modules=HELLO, cmdline="cpus=2", engine=Qemu(cpus=3))
    machine.expect("quire: CPUs: 2 of 2 are online")
    machine.wait_prompt(PATIENCE)
    quit_machine(machine)
    machine = boot(modules=HELLO, cmdline="cpus=1", engine=Qemu(cpus=3))
    machine.wait_prompt(PATIENCE)
    assert not any("are online" in line for line in machine.lines)
    assert len(rows(machine.command("cpus"), "cpu")) == 1
    refused = machine.command("cpus trial")
    assert refused == [
        "error: cpus: one CPU is online, and a trial of flushes wants two or more"
    ]
    quit_machine(machine)
