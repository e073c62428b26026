"""The inspector against the CPU: what `explain` foretells is what guests saw and what exits reported."""

import re

import pytest

from machines import COMPLETE_CPUS, NO_ACCESSED_DIRTY_CPU, facts, guest, quit_machine

PROBE_OPTIONS = "mem=8M rom=0x2000000+64K nox=0x2100000+64K"
CONTROL_BITS = ["wp", "nowp", "nonx", "smep smap", "smap ac"]


def probes_of(machine, number, name):
    """What the guest printed of each probe: (address, access, who, outcome, code)."""
    pattern = re.compile(
        rf"^\[g{number} {name}\] probe (0x[0-9a-f]+) ([rwx])( user)?: (allowed|#PF|#GP|refused) ?(0x[0-9a-f]+)?$"
    )
    return [match.groups() for match in map(pattern.match, machine.lines) if match]


def refusals_of(machine, number, name):
    """The exit qualifications of the refused accesses, in their order."""
    pattern = re.compile(rf"^quire: g{number} {name}: \| tried .*, qualification (0x[0-9a-f]+)$")
    return [int(match.group(1), 16) for match in map(pattern.match, machine.lines) if match]


def without_walk_read(qualification):
    """With accessed and dirty flags for EPT a violation in the walk of the guest's tables is read and write,
    says the manual; Bochs says write alone."""
    in_walk = qualification & 0x180 == 0x80 and qualification & 2
    return qualification & ~1 if in_walk else qualification


@pytest.mark.parametrize("cpu,bits", [(COMPLETE_CPUS[0], CONTROL_BITS), (NO_ACCESSED_DIRTY_CPU, ["wp"])])
def test_explain_foretells_what_the_cpu_does(boot, cpu, bits):
    modules = [(guest("probe64.elf"), f"probe{i} {PROBE_OPTIONS} -- {words}") for i, words in enumerate(bits)]
    machine = boot(modules=modules, cpu=cpu)
    for number in range(1, len(modules) + 1):
        machine.expect(rf"^\[g{number} probe{number - 1}\] probes made")
    machine.send("\r")
    machine.wait_prompt()
    kinds = set()
    for number in range(1, len(modules) + 1):
        name = f"probe{number - 1}"
        machine.command(f"pause g{number}")
        probes = probes_of(machine, number, name)
        refusals = refusals_of(machine, number, name)
        assert len(probes) > 80 and len(refusals) == sum(p[3] == "refused" for p in probes)
        wrong = []
        for address, access, user, outcome, code in probes:
            said = facts(machine.command(f"explain g{number} gva {address} {access}{user or ''}"))
            if outcome == "refused":
                seen = ("EPT violation", without_walk_read(refusals.pop(0)))
                told = (said["verdict"], without_walk_read(int(said.get("qualification", "0"), 16)))
            elif outcome == "#PF":
                seen = (outcome, int(code, 16))
                told = (said["verdict"], int(said.get("error code", "0"), 16))
            else:
                seen, told = (outcome,), (said["verdict"],)
            kinds.add((seen[0], said["rule"]))
            if seen != told:
                wrong.append((bits[number - 1], address, access, user, seen, told, said["rule"]))
        assert not wrong, "\n".join(map(str, wrong))
    assert len({rule for _, rule in kinds}) >= (12 if len(bits) > 1 else 8), kinds
    quit_machine(machine)
