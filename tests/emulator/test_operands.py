"""What the hypervisor carries out for a guest is what the CPU would have done: memory operands of
INS and OUTS, faults, single steps and breakpoints, ports by width, the CPU's width, CPUID.

Most guests here run each case twice, once by an instruction of the CPU's own, and compare what can
be seen. Where QEMU's own half is not the manual's qemu_differs.py names it; the other half, which is the
hypervisor's, is then held against the same half under VMX, where Bochs's CPU agrees with it."""

import os
import re
import subprocess
import time

import pytest

import qemu_differs
from machines import NO_ACCESSED_DIRTY_CPU, assemble, quit_machine
from quire_machine.engines import Bochs, Qemu
from support import ROOT

pytestmark = pytest.mark.one_vendor("names its engines, of both")

VMX, SVM = Bochs("corei7_skylake_x"), Qemu()
WITHOUT_BITS = Bochs(NO_ACCESSED_DIRTY_CPU)
ENGINES = [VMX, WITHOUT_BITS, SVM]


def said(machine, name):
    return [line.split("] ", 1)[1] for line in machine.lines if line.startswith(f"[g1 {name}] ")]


def told(lines, word):
    return [line.split(" ", 1)[1] for line in lines if line.startswith(f"{word} ")]


def judge_differences(name, lines):
    """On QEMU: each BAD has its deviation, each deviation its BAD, and nothing is passed over but what is named."""
    bad = told(lines, "BAD")
    assert [line for line in bad if not qemu_differs.explain(name, line)] == []
    seen = {qemu_differs.explain(name, line) for line in bad}
    assert [deviation for deviation in qemu_differs.of(name) if deviation not in seen] == []
    assert [line for line in lines if line.startswith("cannot")] == list(qemu_differs.CANNOT.get(name, []))


def judge(machine, engine, name, at_least, end="passed"):
    """Waits for a guest of cases to end. None is bad, and there are as many as there should be."""
    machine.wait_prompt(timeout=280)
    lines = said(machine, name)
    assert len(told(lines, "ok")) + len(told(lines, "so")) >= at_least, machine.tail()
    if isinstance(engine, Qemu):
        judge_differences(name, lines)
        bad = len(told(lines, "BAD"))
        if bad and end == "passed":
            end = f"failed, expected: passed; the guest wrote {bad} to its result port"
    else:
        assert [line for line in lines if line.startswith(("BAD", "cannot"))] == [], machine.tail()
    assert any(line.startswith(f"quire: g1 {name}: {end}") for line in machine.lines), machine.tail()
    return machine


def start(boot, engine, name, options):
    return boot(engine=engine, modules=[(assemble(f"{name}.asm"), f"{name} {options}")])


def run_cases(boot, engine, name, options, at_least, end="passed"):
    return judge(start(boot, engine, name, options), engine, name, at_least, end)


def outcomes(name, machine):
    """What the hypervisor's half of each case came to, but for cases in which QEMU has a part of it."""
    lines = (line.split(" ", 1) for line in said(machine, name))
    cases = [words[1] for words in lines if words[0] in ("ok", "so")]
    alike = [case for guest, case in qemu_differs.ALIKE if guest == name]
    return [case for case in cases if not case.startswith(tuple(f"{text} " for text in alike))]


def run_on_both(boot, name, options, at_least, end="passed"):
    """By VMX and by SVM at once. All that the hypervisor does is the same to the last bit that a guest sees."""
    engines = [VMX, SVM]
    machines = [start(boot, engine, name, options) for engine in engines]
    for machine, engine in zip(machines, engines):
        judge(machine, engine, name, at_least, end)
    by_vmx, by_svm = (outcomes(name, machine) for machine in machines)
    if name in qemu_differs.CANNOT:  # what was passed over there
        by_vmx = [case for case in by_vmx if case in by_svm or not case.startswith("MOV SS watched, ")]
    assert by_svm == by_vmx
    return machines


def test_what_differs_is_documented():
    with open(os.path.join(ROOT, "docs", "SVM.md"), encoding="utf-8") as page:
        table = page.read().partition("## What QEMU leaves out")[2]
    text = " ".join(table.split())
    assert [words for words in sorted(qemu_differs.documented()) if words not in text] == []


@pytest.mark.parametrize("name, at_least", [("operands64", 490), ("operands32", 1100)])
def test_operands_as_the_cpu_takes_them(boot, name, at_least):
    for machine in run_on_both(boot, name, "mem=8M", at_least):
        quit_machine(machine)


@pytest.mark.parametrize("name, at_least", [("operands64", 490), ("operands32", 1100)])
def test_operands_without_accessed_and_dirty(boot, name, at_least):
    run_cases(boot, WITHOUT_BITS, name, "mem=8M", at_least)


def test_steps_and_breakpoints(boot):
    run_on_both(boot, "steps64", "mem=8M lazy", 97)


def test_task_switches(boot):
    """By VMX the hypervisor switches tasks, by SVM the CPU."""
    run_cases(boot, VMX, "tasks32", "mem=4M lazy", 68)


def bare(name, folder, last):
    """What a flat image says on QEMU without a hypervisor, until its line `last`. That RF is clear is told apart."""
    image = assemble(f"{name}.asm")
    sectors = -(-len(image) // 512)
    disk, spoken = (os.path.join(folder, file) for file in ("disk", "said"))
    with open(disk, "wb") as file:
        file.write(assemble("bare.asm", [f"-DSECTORS={sectors}"]) + image.ljust(sectors * 512, b"\0"))
    command = [
        "qemu-system-x86_64", "-accel", "tcg", "-cpu", SVM.cpu, "-m", "16", "-nodefaults", "-no-user-config", "-display",
        "none", "-vga", "none", "-drive", f"file={disk},format=raw", "-debugcon", f"file:{spoken}"
    ]  # fmt: skip
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as qemu:
        try:
            for _ in range(600):
                time.sleep(0.1)
                if os.path.exists(spoken):
                    with open(spoken, encoding="latin-1") as file:
                        lines = file.read().splitlines()
                    if any(re.fullmatch(last, line) for line in lines):
                        return lines
        finally:
            qemu.kill()
    raise AssertionError(f"no line {last!r} in a minute")


def test_task_switches_are_qemus_own(boot, tmp_path):
    """What differs there differs without a hypervisor as well; under one #UD pushes RF, for it comes by the hypervisor."""
    machine = start(boot, SVM, "tasks32", "mem=4M lazy")
    alone = bare("tasks32", str(tmp_path), "(?:ok|BAD) CR3 without it: in the new task.*")
    judge(machine, SVM, "tasks32", 61)
    differs = [line for line in told(alone, "BAD") if ": RF " not in line]
    assert told(said(machine, "tasks32"), "BAD") == differs
    assert "#UD by a task gate: RF" in told(said(machine, "tasks32"), "ok")


def test_devices_as_memory(boot):
    """Each instruction runs on memory first and then on registers of a device that keep what is written."""
    for machine in run_on_both(boot, "windows64", "mem=8M pc", 94):
        quit_machine(machine)


def test_lazy_memory_rom_and_holes(boot):
    """At the end it writes to ROM unannounced: the report is like that of any other such write."""
    options = "mem=16M lazy rom=0x300000+64K expect=stopped"
    stopped = r"stopped: write to GPA 0x300fff: ROM at 0x300000+64K, at RIP 0x9"
    for machine in run_on_both(boot, "memory64", options, 24, stopped):
        report = machine.command("report g1")
        for text in ("write to GPA 0x300fff (GVA 0x300fff) at RIP", "target: ROM at 0x300000+64K",
                     "the hypervisor made this access in the CPU's place (I/O instruction)"):
            assert any(text in line for line in report), report


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.cpu)
def test_accessed_and_dirty_in_the_second_level(boot, engine):
    """Of memory that only INS and OUTS have used; where the second level keeps A and D."""
    machine = run_cases(boot, engine, "untouched", "mem=16M", 2, "halted")
    kept = engine.cpu != NO_ACCESSED_DIRTY_CPU
    for gpa, dirty in (("0x800000", True), ("0xa00000", False)):
        walk = machine.command(f"walk g1 gpa {gpa}")
        leaf = next(line for line in walk if " leaf " in line)
        wanted = ["yes" if kept else "no", "yes" if kept and dirty else "no"]
        assert leaf.split()[-2:] == wanted, walk


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.cpu)
def test_page_tables_in_rom(boot, engine):
    """With A/D in the EPT, and always with AMD-V, each walk counts as a write (docs/BRING-YOUR-OWN-GUEST.md)."""
    image = assemble("romtables.asm")
    machine = boot(engine=engine, modules=[(image, "romtables mem=2M rom=0x10000+16K")])
    machine.wait_prompt()
    if engine.cpu == NO_ACCESSED_DIRTY_CPU:
        assert "[g1 romtables] walked" in machine.lines, machine.tail()
        assert "quire: g1 romtables: passed" in machine.lines
    else:
        machine.expect(r"g1 romtables: stopped: write to GPA 0x10000: ROM at 0x10000\+16K")


@pytest.mark.parametrize("engine, options", [(SVM, []), (VMX, ["-DEND=0x1000"])], ids=["svm", "vmx"])
def test_ports_by_every_width(boot, engine, options):
    """Nothing ends the guest but what the document names, which the guest leaves out. By VMX it is the ports that
    devices have: what answers is the same for both."""
    machine = boot(engine=engine, modules=[(assemble("ports.asm", options), "ports mem=1M")])
    machine.wait_prompt(timeout=280)
    assert "[g1 ports] all ports done" in machine.lines, machine.tail()
    assert not any("BAD" in line for line in said(machine, "ports")), machine.tail()
    assert "quire: g1 ports: passed" in machine.lines


@pytest.mark.parametrize("engine", [VMX, SVM], ids=["vmx", "svm"])
def test_memory_ends_with_the_cpus_width(boot, engine):
    """These CPUs have 40 bits; what CPUID says of them holds for every option."""
    image = assemble("cpuid64.asm")
    beyond = "this CPU's physical addresses have 40 bits, they end at 1T"
    machine = boot(engine=engine, modules=[
        (image, "memory mem=2T lazy expect=refused"),
        (image, "rom mem=8M rom=0x10000000000+64K expect=refused"),
        (image, "ram mem=8M ram=0xfffffff000+8K expect=refused"),
        (image, "hole mem=8M hole=0x20000000000+4K expect=refused"),
        (image, "nox mem=8M nox=0x10000000000+4K expect=refused"),
        (image, "last mem=8M ram=0xfffffff000+4K"),
        (image, "whole mem=1T lazy"),
    ])
    machine.wait_prompt()
    for number, name, what in ((1, "memory", "mem 0x0+0x20000000000"),
                               (2, "rom", "rom 0x10000000000+0x10000"),
                               (3, "ram", "ram 0xfffffff000+0x2000"),
                               (4, "hole", "hole 0x20000000000+0x1000"),
                               (5, "nox", "nox 0x10000000000+0x1000")):
        refusal = f"quire: g{number} {name}: refused: {what}: {beyond}"
        assert refusal in machine.lines, machine.tail()
    for number, name in ((6, "last"), (7, "whole")):
        said_here = [line.split("] ", 1)[1] for line in machine.lines if line.startswith(f"[g{number} {name}] ")]
        assert "ok a page beyond the physical width" in said_here
        bad = told(said_here, "BAD")
        assert engine is SVM or not bad
        assert [line for line in bad if not qemu_differs.explain("cpuid64", line)] == []


@pytest.mark.parametrize(
    "engine", [*ENGINES, Bochs("corei7_icelake_u"), Bochs("corei7_sandy_bridge_2600k")], ids=lambda engine: engine.cpu
)
def test_cpuid_is_consistent(boot, engine):
    run_cases(boot, engine, "cpuid64", "mem=8M", 17)
