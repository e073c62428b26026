"""Where QEMU 7.2's own half of a case is not the manual's, by what the guests of tests/emulator/guests say.

Nothing else may differ there, and each of these must: test_operands.py sees to both, and that docs/SVM.md has it.
Each was traced: the hypervisor's half is the same as under VMX, where Bochs's CPU agrees with it; what a CPU does
by itself (tasks32) is the same on QEMU without a hypervisor."""

import re
from typing import NamedTuple

NO_FAULT = r"(?:f{8}|f{16}|00)"  # how a guest writes that its case ended without an exception
OPERANDS = ("operands64", "operands32", "windows64", "memory64")


class Deviation(NamedTuple):
    guests: tuple
    said: str  # a pattern: all of a line behind "BAD "
    documented: str  # words of the row in docs/SVM.md, "What QEMU leaves out"


DEVIATIONS = [
    Deviation(OPERANDS, r".*: rf +0+ 0*1", "faults push RFLAGS with RF clear"),
    Deviation(("operands64", "operands32"), r"(?:(?:a large page's )?reserved bit|paged|NX).*: code +0*(?:8 0*9|a 0*b)",
              "a page fault for a reserved bit lacks bit 0"),
    Deviation(("cpuid64",), "its error code 8 9", "a page fault for a reserved bit lacks bit 0"),
    Deviation(("operands64",), rf"compatibility mode, .*: vector +{NO_FAULT} d", "no segment has a limit or a type"),
    Deviation(("operands32",), rf".*: vector +{NO_FAULT} ?0*[cd]", "no segment has a limit or a type"),
    Deviation(("operands64",), rf"(?:odd|even)\b.*: vector +(?:{NO_FAULT}|e) 11", "no access is checked for alignment"),
    Deviation(("operands32",), rf"v86, .*: vector +{NO_FAULT} 0*11", "no access is checked for alignment"),
    Deviation(("operands64",), "(?:last|two) below the hole, .*: vector +e d", "an operand that begins below the hole"),
    Deviation(("windows64",), r"CALL to what is no address: rip +[0-9a-f]+ 0", "CALL goes to an address that is not canonical"),
    Deviation(("steps64",), r"breakpoint (?:on|on a long|and step,) REP OUTSB [0-9a-f]+ [0-9a-f]+ [0-9a-f]+",
              "a breakpoint on a REP instruction"),
    Deviation(("tasks32",), "JMP: DR7 000005aa 000004aa", "a task switch leaves DR7.LE"),
    Deviation(("tasks32",), "the accessed bit of DS's descriptor 0+ 0*1", "the accessed bit of descriptors that a task switch"),
    Deviation(("tasks32",), "T: .*", "the T bit of a TSS"),
    Deviation(("tasks32",), "SS not present: vector 0*b 0*c", "a stack segment that is not present"),
]

# Cases in which both halves are alike there, and yet not what they are elsewhere, for QEMU has a part in both.
ALIKE = {
    ("windows64", "a write to a read-only page"): "faults push RFLAGS with RF clear",
    ("windows64", "a supervisor's page from ring 3"): "faults push RFLAGS with RF clear",
    ("windows64", "an XCHG with a read-only page"): "XCHG reads before it asks",
    ("steps64", "MOV SS watched, CPUID"): "traps right behind MOV SS",
}

# A guest's last words on cases that show nothing there.
CANNOT = {"steps64": {"cannot: this CPU holds no trap back over MOV SS": "traps right behind MOV SS"}}


def of(guest):
    return [deviation for deviation in DEVIATIONS if guest in deviation.guests]


def explain(guest, said):
    """The deviation that a line of BAD tells of, or None."""
    return next((deviation for deviation in of(guest) if re.fullmatch(deviation.said, said)), None)


def documented():
    """The words of all that must be in docs/SVM.md."""
    return {deviation.documented for deviation in DEVIATIONS} | set(ALIKE.values()) | {
        words for cases in CANNOT.values() for words in cases.values()
    }
