"""Ring-3 programs: they run on tables of their own, are stopped when they stray, leave nothing."""

import re

import pytest

from machines import quit_machine, user_program
from quire_machine.engines import Bochs, Qemu

pytestmark = pytest.mark.one_vendor("ring 3 on the host's own tables; no guest runs", vendor="svm")


def run(boot, name, engine=None):
    """Boots with one program; returns the machine at the prompt and the lines about the program."""
    machine = boot(modules=[(user_program(name), f"user:{name}")], engine=engine)
    machine.wait_prompt()
    said = f"quire: user {name}: "
    lines = [line[len(said) :] for line in machine.lines if line.startswith(said)]
    return machine, lines


def all_came_back(lines):
    found = [re.fullmatch(r"all (\d+) frames came back", line) for line in lines]
    return any(each and int(each.group(1)) > 0 for each in found)


ENGINES = [Bochs(), Bochs("core2_penryn_t9600"), Qemu()]


@pytest.mark.one_vendor("names its engines")
@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.cpu)
def test_hello_exits_by_a_system_call(boot, engine):
    machine, lines = run(boot, "hello", engine)
    assert "exited with 0" in lines, lines
    assert all_came_back(lines), lines
    quit_machine(machine)


def test_stray_is_stopped_with_a_report(boot):
    machine, lines = run(boot, "stray")
    assert any(line.startswith("stopped: ") for line in lines), lines
    assert not any("could be read" in line for line in lines), lines
    assert all_came_back(lines), lines
    text = "\n".join(machine.lines)
    fault = "page fault, read of 0xffffffff80200000: that is the hypervisor's"
    assert f"stopped: {fault}" in lines, lines
    for part in [rf"{fault}\n", r"  RIP    0x40\w+", r"  walk of 0xffffffff80200000 in the \w+ table"]:
        assert re.search(part, text), f"no {part!r} in\n{text}"
    quit_machine(machine)


def test_runaway_loses_the_cpu(boot):
    machine, lines = run(boot, "runaway")
    assert any(line.startswith("stopped: ") for line in lines), lines
    assert all_came_back(lines), lines
    quit_machine(machine)


def test_programs_one_after_the_other(boot):
    names = ["hello", "stray", "hello"]
    machine = boot(modules=[(user_program(name), f"user:{name}") for name in names])
    machine.expect("user hello: exited with 0")
    machine.expect("user stray: stopped: ")
    machine.expect("user hello: exited with 0")
    assert machine.command("check")[-1].endswith("hold.")
    quit_machine(machine)


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"\x7fELF" + bytes(3), "cut off"),
        (b"no program at all" * 10, "not an ELF image"),
    ],
)
def test_a_broken_program_is_refused_and_the_others_run(boot, content, reason):
    machine = boot(modules=[(content, "user:broken"), (user_program("hello"), "user:hello")])
    machine.expect(f"user broken: refused: .*{reason}")
    machine.expect("user hello: exited with 0")
    machine.wait_prompt()
