"""A guest that is saved in the middle of its work, over the serial line, and goes on in another machine."""

import re

import pytest

from machines import assemble, guest, quit_machine
from quire_machine import saved
from quire_machine.engines import Bochs, Qemu
from test_chaos import expected_digest

PATIENCE = 240
VENDORS = {"SVM": Qemu, "VMX": Bochs}
# Every how many rounds the guest speaks: often enough, and no flood on the quick one.
SPEAKS = {"SVM": 512, "VMX": 8}


def save(machine, number=1):
    machine.press("\r")
    machine.wait_prompt(PATIENCE)
    machine.command(f"pause g{number}")
    return saved.take(machine, f"g{number}")


def save_reckon(boot, engine, speaks):
    """The file, and the rounds that the guest has said until then."""
    machine = boot(modules=[(guest("reckon.elf"), f"reckon mem=4M -- {speaks}")], engine=engine)
    machine.expect(rf"\[g1 reckon\] round {2 * speaks}: ", PATIENCE)
    taken, pages = save(machine)
    assert 16 < pages < 64 and len(taken) < pages * 4200 + 20000  # of 1024: the others are zeroes
    said = [int(n) for n in re.findall(r"\[g1 reckon\] round (\d+):", "\n".join(machine.lines))]
    # It is not changed by it.
    machine.command("resume g1", PATIENCE)
    machine.expect(rf"\[g1 reckon\] round {said[-1] + speaks}: {expected_digest()}", PATIENCE)
    machine.press("\r")
    machine.wait_prompt(PATIENCE)
    machine.command("kill g1")
    assert machine.command("check")[-1].endswith("hold.")
    quit_machine(machine)
    return taken, said[-1]


@pytest.mark.one_vendor("names its engines, of both")
@pytest.mark.parametrize("vendor", VENDORS)
def test_it_goes_on_where_it_was(boot, vendor):
    speaks = SPEAKS[vendor]
    taken, last = save_reckon(boot, VENDORS[vendor](), speaks)
    machine = boot(modules=[(taken, "again")], engine=VENDORS[vendor]())
    machine.expect(r"g1 again: saved guest, memory to 4M", PATIENCE)
    machine.expect(rf"\[g1 again\] round {last + speaks}: {expected_digest()}", PATIENCE)
    assert not re.search(rf"\[g1 again\] round {speaks}:", "\n".join(machine.lines))
    machine.press("\r")
    machine.wait_prompt(PATIENCE)
    machine.command("pause g1")
    assert machine.command("audit")[-1].endswith("hold.")
    # Saved again it is as good; so is a new start of the module.
    again, _ = saved.take(machine, "g1")
    assert len(again) > 65536
    machine.command("kill g1; start g1")
    machine.expect(rf"\[g1 again\] round {last + speaks}: {expected_digest()}", PATIENCE)
    machine.press("\r")
    machine.wait_prompt(PATIENCE)
    machine.command("kill g1")
    assert machine.command("check")[-1].endswith("hold.")
    quit_machine(machine)


@pytest.mark.one_vendor("names its engines, of both")
@pytest.mark.parametrize("vendor", VENDORS)
def test_registers_and_devices(boot, vendor):
    unused = assemble("kept64.asm", ["-DUNUSED"])  # of x87 nothing but the control word
    machine = boot(modules=[(unused, "kept mem=4M flat pc")], engine=VENDORS[vendor]())
    machine.expect(r"\[g1 kept\] waiting", PATIENCE)
    machine.press("\r")
    machine.wait_prompt(PATIENCE)
    # Its image is a disk that the BIOS reads from.
    assert "its image is its disk" in "\n".join(machine.command("save g1", timeout=PATIENCE))
    assert "its image is its disk" in "; ".join(machine.ask("save g1").errors)
    machine.command("fork g1")
    for number in (2, 1):  # in between each has had its turns
        machine.command(f"type g{number} x")
        machine.expect(f"quire: g{number} kept: (passed|failed|stopped)", PATIENCE)
        assert f"quire: g{number} kept: passed" in machine.lines
    quit_machine(machine)
    machine = boot(modules=[(assemble("kept64.asm", ["-DBARE"]), "kept mem=4M flat")], engine=VENDORS[vendor]())
    machine.expect(r"\[g1 kept\] waiting", PATIENCE)
    taken, _ = save(machine)
    said = "\n".join(machine.command("save g1", timeout=PATIENCE))
    assert "tools/quire save g1 -o FILE" in said
    quit_machine(machine)
    damaged = bytearray(taken)
    damaged[len(taken) // 2] ^= 1
    other = bytearray(taken)
    other[8] = 3
    machine = boot(
        modules=[
            (taken, "kept paused"),
            (bytes(damaged), "damaged expect=refused"),
            (bytes(other), "later expect=refused"),
            (taken, "sized mem=8M expect=refused"),
            (taken[:-40], "cut expect=refused"),
        ],
        engine=VENDORS[vendor](),
    )
    machine.wait_prompt(PATIENCE)
    told = "\n".join(machine.lines)
    assert re.search(r"g2 damaged: refused: the saved guest is not as it was saved: its SHA-256", told)
    assert re.search(r"g3 later: refused: the saved guest is of version 3, and this reads 1 to 2", told)
    assert re.search(r"g4 sized: refused: a saved guest brings its memory and its machine", told)
    assert re.search(r"g5 cut: refused: the saved guest is not as it was saved", told)
    machine.command("type g1 x; resume g1", PATIENCE)
    machine.expect(r"g1 kept: (passed|failed|stopped)", PATIENCE)
    told = [line for line in machine.lines if line.startswith("[g1 kept]")]
    assert not any("BAD" in line for line in told), told
    assert len([line for line in told if " ok " in line]) == 18, told
    machine.press("\r")
    machine.wait_prompt(PATIENCE)
    assert machine.command("check")[-1].endswith("hold.")
    quit_machine(machine)


# So many questions of each CPU to the others: enough to be in the midst of them.
QUESTIONS = {"SVM": 300, "VMX": 20}


@pytest.mark.seconds(480)
@pytest.mark.one_vendor("names its engines, of both")
@pytest.mark.parametrize("vendor", VENDORS)
def test_all_cpus_of_a_guest_go_on(boot, vendor):
    """With interrupts on their way from one to another, and timers that tick."""
    words = f"c mem=8M pc cpus=3 -- mesh {QUESTIONS[vendor]}"
    machine = boot(modules=[(guest("cpus.elf"), words)], engine=VENDORS[vendor](cpus=2))
    machine.expect("g1 c. ok: each has its number, and one has booted", PATIENCE)
    taken, _ = save(machine)
    assert not any("each question was answered" in line for line in machine.lines)
    machine.command("kill g1")
    quit_machine(machine)
    machine = boot(modules=[(taken, "again")], engine=VENDORS[vendor](cpus=2))
    machine.expect("g1 again. ok: each question was answered, and time has passed", PATIENCE)
    machine.expect("g1 again: passed", PATIENCE)
    machine.wait_prompt(PATIENCE)
    assert machine.command("audit")[-1].endswith("hold.")
    quit_machine(machine)


@pytest.mark.one_vendor("names its engines, of both")
def test_the_other_vendor_refuses_it(boot):
    machine = boot(modules=[(guest("hello.elf"), "hello mem=4M paused")], engine=Qemu())
    machine.wait_prompt(PATIENCE)
    taken, _ = saved.take(machine, "g1")
    quit_machine(machine)
    machine = boot(modules=[(taken, "moved expect=refused")], engine=Bochs())
    machine.expect(r"g1 moved: refused: it was saved by SVM, and this CPU runs guests by VMX", PATIENCE)
    machine.wait_prompt(PATIENCE)
    assert machine.command("check")[-1].endswith("hold.")
    quit_machine(machine)
