"""The guests of the suites, in few images, and how each must end: the same on whatever has VMX.

A guest's `expect=` word says how it must end; ENDS, what is said of it then. A line of a guest's with
BAD or FAILED in it is a failure, however the guest ended.
"""

import os
import re
import subprocess
import tempfile

import test_vmx
from machines import SPIN, assemble, demo_modules, guest, rows
from quire_machine.linux_host import NestedQuire


def flat(source):
    with tempfile.TemporaryDirectory() as folder:
        text, made = os.path.join(folder, "guest.asm"), os.path.join(folder, "guest.bin")
        with open(text, "w", encoding="ascii") as out:
            out.write(test_vmx.flat_source(source))
        subprocess.run(["nasm", "-fbin", text, "-o", made], check=True)
        with open(made, "rb") as image:
            return image.read()


def quiet(name):
    """One of the guests that try many cases, which then tells of those alone that are wrong."""
    return assemble(name, ["-DQUIET"])


def vmx_modules():
    """Those that look at VMX from within."""
    return [
        (guest("privileged.elf"), "privileged lazy"),
        (guest("modes.bin"), "modes mem=2M lazy"),
        (guest("devices.elf"), "devices mods=1"),
        (b"initrd" * 10, "initrd"),
        (flat(test_vmx.TRIPLE_FAULT), "triple mem=1M expect=stopped"),
        (flat(test_vmx.TASK_SWITCH), "task mem=1M expect=stopped"),
        (flat(f"CD equ 1 << 30\n{test_vmx.PAE_PAGING}"), "xo mem=1M xo=0x7000+4K expect=stopped"),
        (quiet("steps64.asm"), "steps64 mem=8M lazy"),
        (quiet("tasks32.asm"), "tasks32 mem=4M lazy"),
        (quiet("memory64.asm"), "memory64 mem=16M lazy rom=0x300000+64K expect=stopped"),
        (quiet("cpuid64.asm"), "cpuid64 mem=8M"),
        (quiet("cpuid64.asm"), "beyond mem=2T lazy expect=refused"),
    ]


def case_modules():
    """Guests of thousands of cases, and what is left of the suites."""
    return [
        (quiet("operands64.asm"), "operands64 mem=8M"),
        (quiet("operands32.asm"), "operands32 mem=8M"),
        (assemble("romtables.asm"), "romtables mem=2M rom=0x10000+16K expect=stopped"),
        (flat(f"CD equ 0\n{test_vmx.PAE_PAGING}"), "pdptes mem=1M xo=0x7000+4K expect=stopped"),
    ]


def all_modules():
    """What each variant runs."""
    return demo_modules() + vmx_modules() + case_modules()


def spin_modules():
    """Two that never give up the CPU, and one that must get its share."""
    return [(SPIN, "one mem=1M"), (SPIN, "two mem=1M"), (guest("hello.elf"), "three mem=4M")]


# In Bochs a single step comes an instruction early where KVM by itself deals with an exit of INS or
# OUTS: docs/VMX.md, "Under KVM". Nothing of the kind is expected of hardware.
STEPPED = re.compile(r"\[g\d+ steps64\] BAD (MOV SS, )?(untouched, )?(REP )?(INS|OUTS)[BWD] ")
NOTHING = re.compile(r"(?!)")

ENDS = {
    "triple": r"triple fault at RIP 0x7c",
    "task": r"task switch",
    "xo": r"read of GPA 0x7c[0-9a-f]+: execute-only at 0x7000\+4K",
    "memory64": r"write to GPA 0x300fff: ROM at 0x300000\+64K, at RIP 0x9",
    "stray": r"read of GPA 0x1001000: no memory",
    "beyond": r"this CPU's physical addresses have \d+ bits",
    # Without CD, KVM reads the PDPTEs itself, and answers by #GP, whose frame cannot be pushed there.
    "pdptes": r"(read of GPA 0x7c[0-9a-f]+|write to GPA 0x7b[0-9a-f]+): execute-only",
    "romtables": r"write to GPA 0x10000: ROM at 0x10000\+16K",
}


def whole(lines):
    """Without those that a line further on begins with: they were shown before they were finished."""
    kept = []
    for line in reversed(lines):
        if not any(later != line and later.startswith(line) for later in kept):
            kept.append(line)
    return kept[::-1]


def judge_guests(machine, may_end={}):
    """Each guest has ended as expected, with the words that belong to it, or as `may_end` has it: name -> reason."""
    table = rows(machine.command("guests"), "guest")
    said = machine.lines
    bad = whole([line for line in said if re.match(r"\[g\d+ \w+\] .*(BAD|FAILED)", line)])
    tolerated = STEPPED if isinstance(machine, NestedQuire) else NOTHING
    assert [line for line in bad if not tolerated.match(line)] == []
    known = ["steps64"] if bad else []
    if "A/D" not in "\n".join(machine.command("cpu")):
        # Nothing is written to its tables in ROM then: docs/BRING-YOUR-OWN-GUEST.md.
        assert next(row["state"] for row in table if row["name"] == "romtables") == "passed"
        known.append("romtables")
    known += [row["name"] for row in table if re.search(may_end.get(row["name"], NOTHING), row["reason"])]
    wrong = [row for row in table if row["state"] != row["expected"] and row["name"] not in known]
    assert not wrong, f"{wrong}\n{machine.tail()}"
    for row in table:
        if row["name"] in ENDS and row["name"] not in known:
            ended = re.compile(rf"quire: g\d+ {row['name']}: {row['state']}: .*{ENDS[row['name']]}")
            assert any(ended.match(line) for line in said), machine.tail()
    return table


def judge_machine(machine, pairs, selftest=True, spaces=3):
    """The machine's own judges hold; the hypervisor predicts what the CPU does: in two kinds of address
    space where there are no guests, else in three."""
    assert machine.command("check")[-1].endswith("hold.")
    assert re.fullmatch(r"All \d+ rules hold\.", machine.command("audit")[-1])
    answer = machine.command(f"oracle {pairs} 3")
    assert answer[-1] == f"The CPU agrees with all {spaces * pairs} predictions (seed 3).", answer
    if selftest:
        answer = machine.command("audit selftest")
        assert re.match(r"All [6-9]\d were named", answer[-1]), answer
