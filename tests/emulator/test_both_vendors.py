"""A guest cannot tell by its memory whose CPU it runs on: the same image ends with the same bytes, and has
written to the same pages, under EPT and under nested paging."""

import pytest

from machines import assemble, facts, quit_machine, rows
from quire_machine.engines import Bochs, Qemu

pytestmark = pytest.mark.one_vendor("names its engines, of both")

MEMORY = 4 << 20
PAGE = 4096
WALKS_AT_ONCE = 10  # as many as a line holds


def marks(machine, pages):
    """The second level's accessed and dirty bits of guest-physical pages: those with A, those with D."""
    accessed, dirty = [], []
    for first in range(0, len(pages), WALKS_AT_ONCE):
        some = pages[first : first + WALKS_AT_ONCE]
        lines = machine.command(";".join(f"walk g1 gpa {page:#x}" for page in some))
        ends = [at for at, line in enumerate(lines) if line.startswith("dirty: ")]
        assert len(ends) == len(some), lines
        for page, end, begin in zip(some, ends, [0, *ends]):
            said = facts(lines[begin : end + 1])
            assert (said["verdict"], int(said["gpa"], 16)) == ("mapped", page)
            accessed += [page] if said["accessed"] == "yes" else []
            dirty += [page] if said["dirty"] == "yes" else []
    return accessed, dirty


def end_of(boot, engine, seed):
    """What the guest leaves behind, run to its end: its memory's digest, and its pages with A and with D."""
    image = assemble("scatter.asm", [f"-DSEED={seed}"])
    machine = boot(modules=[(image, "scatter mem=4M lazy")], engine=engine)
    machine.expect(r"^\[g1 scatter\] scattered", 90)
    machine.press("\r")
    machine.wait_prompt()
    machine.command("pause g1")
    runs = rows(machine.command("map g1"), "first")
    assert {run["page"] for run in runs} == {"4K"}
    pages = [page for run in runs for page in range(int(run["first"], 16), int(run["last"], 16), PAGE)]
    answer = machine.command("digest g1")
    slots = [(row["first"], row["size"], row["digest"]) for row in rows(answer, "first")]
    left = (facts(answer)["digest"], slots, pages, *marks(machine, pages))
    quit_machine(machine)
    return left


@pytest.mark.seconds(400)
def test_the_same_seed_ends_the_same(boot):
    amd = end_of(boot, Qemu(), 7)
    intel = end_of(boot, Bochs(), 7)
    assert amd == intel
    digest, _, pages, accessed, dirty = amd
    assert 150 < len(dirty) < len(accessed) <= len(pages) < MEMORY // PAGE
    # Another seed is another memory, and other pages.
    other = end_of(boot, Qemu(), 8)
    assert other[0] != digest and other[4] != dirty
