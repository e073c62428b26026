"""What the hypervisor carries out for a guest is what the CPU would have done: memory operands of
INS and OUTS, faults, single steps and breakpoints, ports by width, the CPU's width, CPUID.

Most guests here run each case twice, once by an instruction of the CPU's own, and compare what can
be seen."""

import pytest

from machines import NO_ACCESSED_DIRTY_CPU, assemble, quit_machine
from quire_machine.engines import Bochs, Qemu

ENGINES = [Bochs("corei7_skylake_x"), Bochs(NO_ACCESSED_DIRTY_CPU), Qemu()]

pytestmark = pytest.mark.one_vendor("names its engines")


def said(machine, name):
    return [line.split("] ", 1)[1] for line in machine.lines if line.startswith(f"[g1 {name}] ")]


def run_cases(boot, engine, name, options, at_least):
    """Runs a guest of cases to its end. None is bad, and there are as many as there should be."""
    machine = boot(engine=engine, modules=[(assemble(f"{name}.asm"), f"{name} {options}")])
    machine.wait_prompt(timeout=280)
    lines = said(machine, name)
    assert [line for line in lines if line.startswith("BAD")] == [], machine.tail()
    assert len([line for line in lines if line.startswith("ok ")]) >= at_least, machine.tail()
    return machine


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.cpu)
@pytest.mark.parametrize("name, at_least", [("operands64", 490), ("operands32", 1100)])
def test_operands_as_the_cpu_takes_them(boot, engine, name, at_least):
    machine = run_cases(boot, engine, name, "mem=8M", at_least)
    assert f"quire: g1 {name}: passed" in machine.lines
    quit_machine(machine)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.cpu)
def test_steps_and_breakpoints(boot, engine):
    machine = run_cases(boot, engine, "steps64", "mem=8M lazy", 105)
    assert "quire: g1 steps64: passed" in machine.lines


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.cpu)
def test_task_switches(boot, engine):
    machine = run_cases(boot, engine, "tasks32", "mem=4M lazy", 68)
    assert "quire: g1 tasks32: passed" in machine.lines


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.cpu)
def test_devices_as_memory(boot, engine):
    """Each instruction runs on memory first and then on registers of a device that keep what is written."""
    machine = run_cases(boot, engine, "windows64", "mem=8M pc", 94)
    assert "quire: g1 windows64: passed" in machine.lines
    quit_machine(machine)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.cpu)
def test_lazy_memory_rom_and_holes(boot, engine):
    """At the end it writes to ROM unannounced: the report is like that of any other such write."""
    machine = run_cases(boot, engine, "memory64", "mem=16M lazy rom=0x300000+64K expect=stopped", 24)
    machine.expect(r"g1 memory64: stopped: write to GPA 0x300fff: ROM at 0x300000\+64K, at RIP 0x9")
    report = machine.command("report g1")
    for text in ("write to GPA 0x300fff (GVA 0x300fff) at RIP", "target: ROM at 0x300000+64K",
                 "the hypervisor made this access in the CPU's place (I/O instruction)"):
        assert any(text in line for line in report), report


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.cpu)
def test_accessed_and_dirty_in_the_second_level(boot, engine):
    """Of memory that only INS and OUTS have used; where the second level keeps A and D."""
    machine = run_cases(boot, engine, "untouched", "mem=16M", 2)
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


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.cpu)
def test_every_port_by_every_width(boot, engine):
    """Nothing ends the guest but what the document names, which the guest leaves out."""
    machine = boot(engine=engine, modules=[(assemble("ports.asm"), "ports mem=1M")])
    machine.wait_prompt(timeout=280)
    assert "[g1 ports] all ports done" in machine.lines, machine.tail()
    assert not any("BAD" in line for line in said(machine, "ports")), machine.tail()
    assert "quire: g1 ports: passed" in machine.lines


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.cpu)
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
        assert f"quire: g{number} {name}: passed" in machine.lines, machine.tail()


@pytest.mark.parametrize(
    "engine", [*ENGINES, Bochs("corei7_icelake_u"), Bochs("corei7_sandy_bridge_2600k")], ids=lambda engine: engine.cpu
)
def test_cpuid_is_consistent(boot, engine):
    machine = run_cases(boot, engine, "cpuid64", "mem=8M", 17)
    assert "quire: g1 cpuid64: passed" in machine.lines
