"""The guest that verifies its memory when a key tells it to (guests/copies.c), and others that wait for keys."""

from machines import guest

PATIENCE = 120


def start(boot, engine=None, options="mem=8M"):
    machine = boot(modules=[(guest("copies.elf"), f"copies {options}")], engine=engine)
    machine.expect("round 1 of g1: all holds", PATIENCE)
    machine.press("\r")
    machine.wait_prompt(PATIENCE)
    return machine


def press(machine, number, key, says):
    """Types a key to a guest, waits for the line that it answers with, and for the prompt."""
    machine.send(f"type g{number} {key}\r")
    machine.expect(says, PATIENCE)
    machine.press("\r")
    machine.wait_prompt(PATIENCE)


def audit(machine):
    assert machine.command("audit")[-1].endswith("hold.")
