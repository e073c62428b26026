"""The inspector against the CPU: what `explain` foretells is what guests saw and what exits reported."""

import re

import pytest

from machines import COMPLETE_CPUS, NO_ACCESSED_DIRTY_CPU, TABLES, facts, guest, quit_machine, rows
from quire_machine.engines import Bochs, Qemu

PROBE_OPTIONS = "bare mem=8M rom=0x2000000+64K nox=0x2100000+64K"
WITHOUT_BITS = ["wp"]
# What is decided outside the tables is tried in one or two of the formats.
PROBES = {
    "probe64.elf": ["wp", "nowp", "nonx", "smep smap"],
    "probepae.elf": ["wp", "smep smap", "smap ac", "nonx smep"],
    "probe32.elf": ["wp", "nowp", "nopse", "smep smap"],
}

# What must have decided some access or other, by the beginning of the rule's words.
RULES_OF_ALL = {
    "every level lets it through",
    "the entry is not present",
    "user mode may not reach a supervisor-mode address",
    "a write where R/W is 0",
    "with CR4.SMEP",
    "with CR4.SMAP",
    "the EPT entry is not present",
    "a write that the EPT does not allow",
    "an instruction fetch that the EPT does not allow",
    "the CPU's walk counts as a write",
    "a large page whose address is no multiple of its size",
}
RULES_OF_64_BITS = {
    "an instruction fetch where XD is 1",
    "the no-execute bit while EFER.NXE is 0",
    "the address exceeds the CPU's physical address width",
}
RULES = {
    "probe64.elf": RULES_OF_ALL | RULES_OF_64_BITS | {"the address is not canonical"},
    "probepae.elf": RULES_OF_ALL | RULES_OF_64_BITS | {"a reserved bit is set"},
    "probe32.elf": RULES_OF_ALL,
}


def probes_of(machine, number, name):
    """What the guest printed of each probe: (address, access, who, outcome, code)."""
    pattern = re.compile(
        rf"^\[g{number} {name}\] probe (0x[0-9a-f]+) ([rwx])( user)?: "
        r"(allowed|(?:#GP|#PF|refused) 0x[0-9a-f]+) ?$"
    )
    found = [match.groups() for match in map(pattern.match, machine.lines) if match]
    return [(*probe, *(outcome.split() + [None])[:2]) for *probe, outcome in found]


def refusals_of(machine, number, name):
    """What the CPU told with the refused accesses' exits, in their order."""
    pattern = re.compile(rf"^quire: g{number} {name}: \| tried .*, (?:qualification|EXITINFO1) (0x[0-9a-f]+)$")
    return [int(match.group(1), 16) for match in map(pattern.match, machine.lines) if match]


def present_if_reserved(code):
    """QEMU leaves bit 0 out of a page fault's code where a reserved bit is set (SDM Vol. 3, 4.7 sets it)."""
    return code | 1 if code & 8 else code


def without_walk_read(qualification):
    """With accessed and dirty flags for EPT a violation in the walk of the guest's tables is read and write,
    says the manual; Bochs says write alone."""
    in_walk = qualification & 0x180 == 0x80 and qualification & 2
    return qualification & ~1 if in_walk else qualification


EXPLAINED_AT_ONCE = 6  # as many commands as a line holds


def explained(machine, number, probes):
    """What `explain` says of each probe, as facts."""
    said = []
    for first in range(0, len(probes), EXPLAINED_AT_ONCE):
        some = probes[first : first + EXPLAINED_AT_ONCE]
        asked = [f"explain g{number} gva {address} {access}{user or ''}" for address, access, user, *_ in some]
        lines = machine.command(";".join(asked))
        starts = [at for at, line in enumerate(lines) if re.match(rf"\S+ paging of g{number} ", line)]
        assert len(starts) == len(some), lines
        said += [facts(lines[at:end]) for at, end in zip(starts, starts[1:] + [len(lines)])]
    return said


# Fewer, on an engine to which the console is slow: enough for every rule.
PROBES_NESTED = {
    "probe64.elf": ["wp", "nonx", "smep smap"],
    "probepae.elf": ["wp", "nonx", "smep smap"],
    "probe32.elf": ["wp", "smep smap"],
}
PROBED = [
    *((image, Bochs(COMPLETE_CPUS[0]), bits) for image, bits in PROBES.items()),
    *((image, Bochs(NO_ACCESSED_DIRTY_CPU), WITHOUT_BITS) for image in PROBES),
    *((image, Qemu(), bits) for image, bits in PROBES_NESTED.items()),
]


def seen_and_told(probe, said, refusals):
    """What the guest or the exit told of a probe, and what was foretold, in terms to be compared."""
    *_, outcome, code = probe
    verdict, code_told = said["verdict"], int(said.get("error code", "0"), 16)
    if outcome == "refused" and verdict == "nested page fault":
        return (verdict, refusals.pop(0)), (verdict, code_told)
    if outcome == "refused":
        told = without_walk_read(int(said.get("qualification", "0"), 16))
        return ("EPT violation", without_walk_read(refusals.pop(0))), (verdict, told)
    if outcome == "#PF":
        return (outcome, present_if_reserved(int(code, 16))), (verdict, code_told)
    return (outcome,), (verdict,)


@pytest.mark.one_vendor("names its engines, of both")
@pytest.mark.parametrize(
    "image, engine, bits", PROBED, ids=[f"{image}-{engine.cpu}" for image, engine, _ in PROBED]
)
@pytest.mark.seconds(400)
def test_explain_foretells_what_the_cpu_does(boot, image, engine, bits):
    modules = [(guest(image), f"probe{i} {PROBE_OPTIONS} -- {words}") for i, words in enumerate(bits)]
    machine = boot(modules=modules, engine=engine)
    # They run in turn, and end in any order.
    ends = {f"[g{number} probe{number - 1}] probes made" for number in range(1, len(modules) + 1)}
    machine.wait_for(lambda: ends <= set(machine.lines), "all probes to be made")
    machine.press("\r")
    machine.wait_prompt()
    for number in range(1, len(modules) + 1):
        machine.command(f"pause g{number}")
    rules = set()
    for number in range(1, len(modules) + 1):
        name = f"probe{number - 1}"
        probes = probes_of(machine, number, name)
        refusals = refusals_of(machine, number, name)
        assert len(probes) > 80 and len(refusals) == sum(p[3] == "refused" for p in probes)
        wrong = []
        for probe, said in zip(probes, explained(machine, number, probes)):
            seen, told = seen_and_told(probe, said, refusals)
            rules.add(said["rule"])
            if seen != told:
                wrong.append((bits[number - 1], *probe[:3], seen, told, said["rule"]))
        assert not wrong, "\n".join(map(str, wrong))
    if bits != WITHOUT_BITS:
        name = "EPT" if engine.name == "bochs" else "NPT"
        expected = {rule.replace("EPT", name) for rule in RULES[image]}
        missing = {rule for rule in expected if not any(each.startswith(rule) for each in rules)}
        assert not missing, rules
    quit_machine(machine)


@pytest.fixture(scope="module")
def machine(boot_for_module):
    """Guests that have ended, and one that waits before its first instruction."""
    machine = boot_for_module(modules=[(guest("hello.elf"), "hello mem=4M"), (guest("probe64.elf"), f"held {PROBE_OPTIONS} paused")])
    machine.wait_prompt()
    machine.expect("g1 hello: passed")
    return machine


@pytest.mark.both_vendors
def test_who_finds_every_way_to_a_frame(machine, vendor):
    peeked = facts(machine.command("peek g2 gpa 0x123456 1"))
    frame = int(peeked["hpa"], 16) & ~0xFFF
    answer = machine.command(f"who {frame:#x}")
    said = facts(answer)
    assert (said["owner"], said["purpose"]) == ("g2 held", "guest memory")
    ways = {(row["table"], row["address"]) for row in rows(answer, "table")}
    assert ways == {("g2 held", "0x123000"), ("host", hex(0xFFFF800000000000 + frame))}
    root = facts(machine.command("root g2"))["root"]
    said = facts(machine.command(f"who {root}"))
    assert (said["purpose"], said["table level"]) == (f"{TABLES[vendor]} tables", "PML4")
    text = facts(machine.command("walk host 0xffffffff80200000"))["hpa"]
    answer = machine.command(f"who {text}")
    assert facts(answer)["purpose"] == "image"
    assert {row["rights"] for row in rows(answer, "table")} == {"r-x-g", "r---g"}


@pytest.mark.both_vendors
def test_frames_count_what_mem_counts(machine):
    used = rows(machine.command("frames"), "purpose")
    counted = {}
    for row in used:
        counted[row["purpose"]] = counted.get(row["purpose"], 0) + int(row["frames"])
    told = {row["purpose"]: int(row["frames"]) for row in rows(machine.command("mem"), "purpose")}
    assert counted == told


@pytest.mark.both_vendors
def test_bytes_by_all_four_addresses(machine):
    found = rows(machine.command("find g2 gpa 1M 64K 0x1badb002"), "address")
    assert len(found) >= 1
    at = found[0]["address"]
    values = {
        facts(machine.command(f"peek {place} 4"))["value"]
        for place in (f"g2 gpa {at}", f"g2 gva {at}", f"hpa {found[0]['hpa']}", f"hva {0xFFFF800000000000 + int(found[0]['hpa'], 16):#x}")
    }
    assert values == {"0x1badb002"}
    assert rows(machine.command(f"dump g2 gpa {at} 16"), "address")[0]["bytes"].startswith("02 b0 ad 1b")
    machine.command("poke g2 gpa 0x700000 0x1122334455667788")
    assert facts(machine.command("peek g2 gpa 0x700004 2"))["value"] == "0x3344"
    # The hypervisor's own text: by force alone, and it is the text that changes.
    text = "0xffffffff80200000"
    before = facts(machine.command(f"peek hva {text}"))["value"]
    assert "error: poke" in "\n".join(machine.command(f"poke hva {text} {before}"))
    assert facts(machine.command(f"poke hva {text} {before} force"))["was"] == before
    # Devices and holes are not touched.
    for place in ("hpa 0xfee00000", "hpa 0xfffffff0", "hpa 0xa0000", "hva 0xffffffffff000000", "g2 gpa 0xa0000"):
        assert "error: peek" in "\n".join(machine.command(f"peek {place} 4 force"))


NPT_SUPERVISOR = "every access of a guest is a user access to the NPT, and U/S is 0"
BROKEN = [
    # engine, bits cleared, bits set, verdict, rule of explain, rule of the report
    (Bochs(), 0x3F, 0b010, "EPT misconfiguration", "writable but not readable", None),
    (Bochs(), 0x3F, 0b111 | 2 << 3, "EPT misconfiguration", "a reserved memory type", None),
    (Qemu(), 0b100, 0, "nested page fault", NPT_SUPERVISOR, "a bit that must be 1 is clear"),
]


@pytest.mark.one_vendor("names its engines, of both")
@pytest.mark.parametrize("engine, cleared, set_bits, verdict, rule, reported", BROKEN)
def test_a_broken_entry_is_foretold_and_told_the_same(boot, engine, cleared, set_bits, verdict, rule, reported):
    """An entry of the second level made illegal from the console: explain, the CPU's exit and the report agree."""
    machine = boot(modules=[(guest("hello.elf"), "hello mem=4M paused")], engine=engine)
    machine.wait_prompt()
    steps = rows(machine.command("explain g1 gpa 0x100000 x"), "reference")
    entry = int(steps[-1]["raw"], 16) & ~cleared | set_bits
    machine.command(f"poke hpa {steps[-1]['hpa']} {entry:#x} force")
    said = facts(machine.command("explain g1 gpa 0x100000 x"))
    assert (said["verdict"], said["rule"]) == (verdict, rule)
    machine.command("resume g1")
    machine.expect(rf"g1 hello: stopped: illegal entry in the table for GPA 0x10.*{reported or rule}")
    report = "\n".join(machine.command("report g1"))
    assert verdict in report and rule in re.sub(r"\s+", " ", report)
    assert "the CPU told the same" in report


@pytest.mark.one_vendor("how far a guest comes between two commands is certain only where time is counted in instructions", vendor="vmx")
def test_maps_of_both_levels_and_what_changes(boot):
    modules = [(guest("probe64.elf"), f"probe {PROBE_OPTIONS} -- wp"), (guest("touch.elf"), "touch mem=8M lazy paused")]
    machine = boot(modules=modules)
    machine.expect(r"^\[g1 probe\] probes made")
    machine.press("\r")
    machine.wait_prompt()
    machine.command("pause g1")
    # What the guest built is what is found: the pages of probe64's PML4 slot.
    own = rows(machine.command("map g1 gva from=0xffffc00000000000"), "first")
    assert {"first": "0xffffc00000001000", "page": "4K", "rights": "r-x--"}.items() <= own[0].items()
    large = next(row for row in own if row["first"] == "0xffffc00000200000")
    assert (large["page"], large["size"], large["rights"]) == ("2M", "2M", "rwxu-")
    assert next(row for row in own if row["first"] == "0xffffc00040000000")["page"] == "1G"
    only = rows(machine.command("map g1 gva from=0xffffc00000000000 page=2M"), "first")
    assert {row["page"] for row in only} == {"2M"} and only[0] == large
    # And the other way round: the frame behind one of them is reached by all that lead there.
    target = facts(machine.command(f"walk g1 gva {own[0]['first']}")[-12:])
    ways = [row for row in rows(machine.command(f"who {target['hpa']}"), "table") if row["table"] == "g1's own"]
    same = [row["first"] for row in own if row["to"] == own[0]["to"]]
    assert len(same) > 5 and set(same) < {row["address"] for row in ways}
    assert {"1G", "2M", "4K"} == {row["page"] for row in ways}

    assert "runs are kept" in machine.command("map g2 save")[-1]
    assert facts(machine.command("map g2 diff")) == {"new": "0B", "gone": "0B", "changed": "0B"}
    machine.command("trace on alloc exit flush")
    machine.command("resume g2")
    machine.command("pause g2")
    changes = rows(machine.command("map g2 diff"), "change")
    assert changes and {row["change"] for row in changes} == {"new"}
    # Each of those frames was allocated after an exit, and the trace has both.
    machine.command("trace off")
    events = rows(machine.command("trace show 8 g2 alloc exit"), "event")
    assert {row["what"] for row in events} == {"alloc", "exit"}
    assert all("+0x" in row["caller"] for row in events if row["what"] == "alloc"), events
    ticks = [int(row["ticks"]) for row in events]
    assert ticks == sorted(ticks)
    written = facts(machine.command("trace"))["written"]
    machine.command("map g2; mem; check")
    assert facts(machine.command("trace"))["written"] == written
    counters = rows(machine.command("trace counters"), "table")
    assert {row["table"] for row in counters} == {"host", "g1 probe", "g2 touch"}
    quit_machine(machine)
