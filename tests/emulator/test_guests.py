"""Guests that live together: their time, their memory, what they may not do, what they leave."""

import re
import time

import pytest

from machines import (
    COMPLETE_CPUS,
    SPIN,
    demo_guests,
    demo_modules,
    facts,
    guest,
    quit_machine,
    rows,
)
from quire_machine.engines import Bochs, Qemu


pytestmark = pytest.mark.both_vendors


def free_frames(machine):
    return facts(machine.command("mem"))["free frames"]


def restart_all(machine):
    """Starts every guest again and waits until all have ended, and have given back what they held: that takes
    turns of theirs."""
    names = demo_guests()
    for number, _ in enumerate(names, 1):
        machine.command(f"start g{number}")
    end = time.monotonic() + 60
    while time.monotonic() < end:
        guests = rows(machine.command("guests"), "guest")
        states = [row["state"] for row in guests]
        held = [row["frames"] for row in guests if row["frames"] != "0"]
        if "running" not in states and "halted" not in states and not held:
            return
    raise AssertionError(f"guests that do not end: {states}")


def test_every_frame_comes_back(boot):
    """Free memory before the first guest and after the last one is the same, to the frame."""
    # The same modules, each guest with an option that has it refused before it holds anything.
    refused = [
        (file, words if words.startswith("user:") else f"{words.split()[0]} no-such-option")
        for file, words in demo_modules()
    ]
    before = boot(modules=refused)
    before.wait_prompt()
    states = [row["state"] for row in rows(before.command("guests"), "guest")]
    assert set(states) == {"refused"}

    after = boot(modules=demo_modules())
    after.wait_prompt()
    names = demo_guests()
    assert f"quire: guests: {len(names)} of {len(names)} as expected" in after.lines
    assert free_frames(after) == free_frames(before)

    # Nor is it held by another, and the same after each guest has lived a second time.
    first = after.command("mem")
    restart_all(after)
    again = after.command("mem")
    assert facts(again)["free frames"] == facts(first)["free frames"]
    assert rows(again, "purpose") == rows(first, "purpose")
    assert rows(again, "owner") == rows(first, "owner")
    assert facts(again)["allocations"] != facts(first)["allocations"]
    assert after.command("check")[-1].endswith("hold.")


def test_each_guest_says_that_it_gave_all_back(boot):
    machine = boot()
    machine.wait_prompt()
    for number, name in enumerate(demo_guests(), 1):
        line = next(each for each in machine.lines if f"g{number} {name}: gave back" in each)
        given, held = re.search(r"gave back (\d+) frames of (\d+)", line).groups()
        assert int(given) == int(held) > 0


@pytest.mark.one_vendor("names its engines")
@pytest.mark.parametrize("engine", [*map(Bochs, COMPLETE_CPUS), Qemu()], ids=lambda engine: engine.cpu)
def test_rogue_is_refused_and_reported_at_each_attempt(boot, engine):
    modules = [each for each in demo_modules() if each[1].split()[0] in ("hello", "touch", "rogue")]
    machine = boot(modules=modules, engine=engine)
    machine.wait_prompt()
    assert "quire: guests: 3 of 3 as expected" in machine.lines, machine.tail()
    number = next(i for i, (_, words) in enumerate(modules, 1) if words.startswith("rogue"))
    said = [line for line in machine.lines if line.startswith(f"quire: g{number} rogue: ")]
    text = "\n".join(said)
    for access in ("read", "write", "execute|fetch"):
        assert re.search(access, text), f"no {access} in\n{text}"
    assert re.search("rom", text, re.I), text
    count = facts(machine.command(f"exits g{number}"))
    assert int(count["faults reported"]) >= 5
    assert machine.command("check")[-1].endswith("hold.")
    quit_machine(machine)


# How its exit is called.
REFUSED = {"vmx": "EPT violation", "svm": "nested page fault"}


def test_a_guest_that_reaches_out_unannounced_is_stopped_with_a_full_report(boot, vendor):
    modules = [each for each in demo_modules() if "expect=stopped" in each[1]]
    machine = boot(modules=[*modules, (guest("hello.elf"), "neighbour mem=4M")])
    machine.wait_prompt()
    name = modules[0][1].split()[0]
    reason = machine.expect(rf"^quire: g1 {name}: stopped: (.+)").group(1)
    assert "quire: g2 neighbour: passed" in machine.lines
    report = "\n".join(machine.command("report g1"))
    assert reason in report
    for part in ["gpa|guest-physical", "rip", "cr3", "PML4", REFUSED[vendor]]:
        assert re.search(part, report, re.I), f"no {part} in\n{report}"


def test_guests_share_the_cpu(boot):
    """Guests that never give it up are interrupted, in turn, and the others come to their end."""
    modules = [(SPIN, "one mem=1M"), (SPIN, "two mem=1M"), (guest("hello.elf"), "three mem=4M")]
    machine = boot(modules=modules)
    machine.expect("g3 three: passed")
    machine.press("\r")  # a key brings the console while guests run
    machine.wait_prompt()

    def slices(number):
        counts = rows(machine.command(f"exits g{number}"), "exit")
        return sum(int(row["count"]) for row in counts)

    first = [slices(1), slices(2)]
    machine.command("guests")
    second = [slices(1), slices(2)]
    assert all(later > earlier > 0 for earlier, later in zip(first, second))
    for number in (1, 2):
        machine.command(f"kill g{number}")
    states = [row["state"] for row in rows(machine.command("guests"), "guest")]
    assert states == ["killed", "killed", "passed"]
    assert machine.command("check")[-1].endswith("hold.")
    quit_machine(machine)


def test_many_guests_at_once(boot):
    machine = boot(modules=[(guest("hello.elf"), f"hello{i} mem=2M") for i in range(12)])
    machine.wait_prompt()
    assert "quire: guests: 12 of 12 as expected" in machine.lines, machine.tail()
    quit_machine(machine)


def test_lazy_memory_arrives_page_by_page_and_eager_at_once(boot):
    modules = [(SPIN, "lazy mem=32M lazy paused"), (SPIN, "eager mem=32M paused")]
    machine = boot(modules=modules)
    machine.wait_prompt()
    lazy, eager = [int(row["frames"]) for row in rows(machine.command("guests"), "guest")]
    assert lazy < 100
    assert eager > 32 * 256 - 96  # all but the hole below 1 MiB
    machine.command("resume g1")
    filled = int(facts(machine.command("exits g1"))["lazy frames given"])
    assert filled < 100


@pytest.mark.parametrize(
    "options, most", [("", 8 * 256), ("around=64K", 8 * 16 + 9), ("pages=2M", 3 + 2 * 256)],
    ids=["page by page", "with what is around", "in large pages"],
)
def test_how_much_a_first_touch_brings(boot, options, most):
    """The guest finds what it has written, in memory that comes in pieces of each size."""
    machine = boot(modules=[(guest("touch.elf"), f"touch mem=8M lazy {options}")])
    machine.expect("g1 touch: passed")
    machine.wait_prompt()
    told = facts(machine.command("exits g1"))
    assert int(told["lazy frames given"]) >= 5 * 256 - 32  # the loader has brought some
    assert int(told["first touches of lazy memory"]) <= most
    assert machine.command("check")[-1].endswith("hold.")
    quit_machine(machine)


def test_a_guest_that_ended_runs_again(boot):
    machine = boot(modules=[(guest("hello.elf"), "hello mem=4M")])
    machine.expect("g1 hello: passed")
    printed = machine.command("output g1")
    machine.command("start g1")
    machine.expect("g1 hello: passed")
    assert len(machine.command("output g1")) >= len(printed) > 1
