"""Memory that a guest gives back and asks for again: what it finds itself, and what the machine counts."""

import pytest

from copies_guest import PATIENCE, audit, press
from machines import facts, guest, quit_machine, rows

pytestmark = pytest.mark.both_vendors

ALL = "all mem=16M rom=1536K+64K -- 0"
LAZY = "lazy mem=64M rom=1536K+64K lazy quota=12M -- 64"
GIVEN = 5 * 256 - 4  # pages: the middle of its memory


def frames(machine, number):
    return int(rows(machine.command("guests"), "guest")[number - 1]["frames"])


def free(machine):
    return int(facts(machine.command("mem"))["free frames"].split()[0])


def start(boot):
    machine = boot(modules=[(guest("balloon.elf"), line) for line in (ALL, LAZY)])
    ready = {f"[{name}] all holds, the middle is there" for name in ("g1 all", "g2 lazy")}
    machine.wait_for(lambda: ready <= set(machine.lines), "both to be ready, in any order", PATIENCE)
    machine.press("\r")
    machine.wait_prompt(PATIENCE)
    return machine


def test_what_is_given_back_is_free(boot):
    machine = start(boot)
    audit(machine)
    for number in (1, 2):
        before, whole = frames(machine, number), free(machine)
        press(machine, number, "g", rf"\[g{number} \w+\] done")
        assert before - GIVEN - 4 <= frames(machine, number) <= before - GIVEN + 4
        assert free(machine) >= whole + GIVEN - 4
        audit(machine)
        press(machine, number, "t", rf"\[g{number} \w+\] done")
        assert before - 4 <= frames(machine, number) <= before + 4
        press(machine, number, "v", rf"\[g{number} \w+\] all holds, the middle is given back")
        audit(machine)
    assert int(facts(machine.command("exits g1"))["pages given back by the guest"]) > GIVEN
    for number in (1, 2):
        press(machine, number, "w", rf"\[g{number} \w+\] all holds, the middle is there")
        press(machine, number, "q", rf"quire: g{number} \w+: passed")
    assert machine.command("check")[-1].endswith("hold.")
    quit_machine(machine)


def test_copies_keep_what_one_gives_back(boot):
    machine = start(boot)
    machine.command("dirty g1; snapshot g1; fork g1")
    press(machine, 1, "g", r"\[g1 all\] done")
    audit(machine)
    press(machine, 3, "v", r"\[g3 all\] all holds, the middle is there")
    press(machine, 1, "v", r"\[g1 all\] all holds, the middle is given back")
    assert "put back; running" in machine.command("reset g1")[-1]
    audit(machine)
    press(machine, 1, "v", r"\[g1 all\] all holds, the middle is there")
    press(machine, 3, "g", r"\[g3 all\] done")
    press(machine, 1, "w", r"\[g1 all\] all holds, the middle is there")
    press(machine, 3, "v", r"\[g3 all\] all holds, the middle is given back")
    machine.command("dirty g1 off; kill g1")
    press(machine, 3, "q", "quire: g3 all: passed")
    audit(machine)
    machine.command("kill g2")
    assert machine.command("check")[-1].endswith("hold.")
    quit_machine(machine)
