"""RAM that guests share by a name: what one writes the others see, and it outlives each of them but the last."""

import pytest

from copies_guest import PATIENCE, audit, press
from machines import facts, guest, quit_machine, rows

pytestmark = pytest.mark.both_vendors

WRITER = "writer bare mem=2M share=ring:64K@1G share=back:4K:r@1088M"
READER = "reader bare mem=2M share=ring:64K:r@1G share=back:4K@1088M"
OTHER = "other bare mem=2M share=ring:1M@1G expect=refused"


def test_what_one_writes_the_others_see(boot):
    machine = boot(modules=[(guest("ring.elf"), line) for line in (WRITER, READER, OTHER)])
    machine.expect("share=ring: it has 64K, not 1M: who named it first has said so", PATIENCE)
    machine.expect("ok: every message came as it was sent", PATIENCE)
    machine.press("\r")
    machine.wait_prompt(PATIENCE)
    audit(machine)
    assert [row["name"] for row in rows(machine.command("slot g2"), "first") if row["name"] != "-"] == ["ring", "back"]
    machine.command("fork g2; snapshot g1")
    press(machine, 1, "w", "g1 writer. written")
    press(machine, 2, "v", "g2 reader. 101 is as it was sent")
    press(machine, 4, "v", "g4 reader. 101 is as it was sent")
    # A reset does not take back what others have seen.
    assert "put back; running" in machine.command("reset g1")[-1]
    press(machine, 4, "v", "g4 reader. 101 is as it was sent")
    audit(machine)
    press(machine, 1, "w", "g1 writer. written")
    # A guest that may only read is stopped when it writes; the others go on.
    press(machine, 2, "w", r"write to GPA 0x4000.*: shared RAM at 0x40000000\+64K, now r")
    press(machine, 4, "v", "g4 reader. 102 is as it was sent")
    machine.command("kill g1")
    audit(machine)
    press(machine, 4, "v", "g4 reader. 102 is as it was sent")
    machine.command("kill g4")
    assert machine.command("check")[-1].endswith("hold.")
    # It begins anew with the first that names it again.
    before = facts(machine.command("mem"))["free frames"]
    machine.command("start g1 paused; kill g1")
    assert facts(machine.command("mem"))["free frames"] == before
    quit_machine(machine)


def test_it_is_given_to_guests_that_are_there(boot):
    """As the options would, by the console; and taken away again."""
    lines = ("writer bare mem=2M paused", "reader bare mem=2M paused")
    machine = boot(modules=[(guest("ring.elf"), line) for line in lines])
    machine.wait_prompt(PATIENCE)
    free = facts(machine.command("mem"))["free frames"]
    machine.command("slot g1 add share=ring:64K@1G; slot g1 add share=back:4K:r@1088M")
    assert "share=ring: it has 64K, not 1M" in machine.command("slot g2 add share=ring:1M:r@1G")[-1]
    assert "write share=NAME:SIZE@ADDRESS" in machine.command("slot g2 add share=ring@1G")[-1]
    machine.command("slot g2 add share=ring:64K:r@1G; slot g2 add share=back:4K@1088M")
    audit(machine)
    machine.send("resume g1; resume g2\r")
    machine.expect("ok: every message came as it was sent", PATIENCE)
    machine.press("\r")
    machine.wait_prompt(PATIENCE)
    audit(machine)
    # Who has it no more finds nothing; the other goes on.
    assert "nothing is at 0x40000000+64K any more" in machine.command("slot g1 remove 0x40000000")[-1]
    press(machine, 2, "v", "g2 reader. 100 is as it was sent")
    press(machine, 1, "v", r"read of GPA 0x40000000: no memory")
    audit(machine)
    machine.command("slot g2 add hole 1G 128M; kill g2")
    audit(machine)
    machine.command("start g1 paused; start g2 paused")
    assert facts(machine.command("mem"))["free frames"] == free
    quit_machine(machine)
