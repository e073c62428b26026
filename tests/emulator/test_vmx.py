"""What VMX does for a guest, on every CPU model that can: a CPU that behaves as the manual says, registers
that are its own, and an end with a name for what it cannot have."""

import re
import subprocess

import pytest

from machines import COMPLETE_CPUS, NO_ACCESSED_DIRTY_CPU, guest, quit_machine

pytestmark = pytest.mark.one_vendor("of VMX alone", vendor="vmx")

# Real mode, no interrupt vectors left: the exception that follows cannot be delivered, nor the next two.
TRIPLE_FAULT = """
        lidt    [none]
        int3
none:   dw 0
        dd 0
"""

# Protected mode, and a jump to a task: the CPU leaves the switch to the hypervisor.
# A task switch that cannot be ended: the new task's page directory lies in a hole, and by then the old task's state
# has been left.
TASK_SWITCH = """
        mov     dword [0x9000 + 0x1c], 0xa0000
        mov     word [0x9000 + 0x4c], 8
        mov     word [0x9000 + 0x50], 16
        mov     ax, 0x1000
        mov     es, ax
        mov     dword [es:0], 0x87
        lgdt    [pointer]
        mov     eax, cr0
        or      al, 1
        mov     cr0, eax
        jmp     8:protected
        bits 32
protected:
        mov     ax, 16
        mov     ds, ax
        mov     eax, cr4
        or      al, 1 << 4
        mov     cr4, eax
        mov     eax, 0x10000
        mov     cr3, eax
        mov     eax, cr0
        or      eax, 1 << 31
        mov     cr0, eax
        jmp     24:0
        align 8
gdt:    dq 0
        dq 0x00cf9b000000ffff
        dq 0x00cf93000000ffff
        dq 0x0000890090000067
pointer: dw pointer - gdt - 1
        dd gdt
"""

# PAE paging, the four topmost entries in the page that this runs in. With CD, which is kept from guests, the
# hypervisor loads them in the CPU's place.
PAE_PAGING = """
        mov     eax, cr4
        or      al, 1 << 5
        mov     cr4, eax
        mov     eax, pdptes
        mov     cr3, eax
        mov     eax, cr0
        or      eax, 1 << 31 | CD | 1
        mov     cr0, eax
stay:   jmp     stay
        align 32
pdptes: dq 0x1001, 0, 0, 0
"""


def flat_source(source):
    """Of a flat 16-bit image that runs `source` at 0x7c00 with DS 0."""
    return (
        "bits 16\norg 0x7c00\njmp 0:start\nstart: cli\nxor ax, ax\nmov ds, ax\nmov ss, ax\n"
        f"mov sp, 0x7c00\n{source}\ntimes 510 - ($ - $$) db 0\ndw 0xaa55\n"
    )


@pytest.fixture
def flat(tmp_path):
    """Assembles such an image."""

    def assemble(source):
        text = tmp_path / "guest.asm"
        image = tmp_path / "guest.bin"
        text.write_text(flat_source(source))
        subprocess.run(["nasm", "-fbin", str(text), "-o", str(image)], check=True)
        return image.read_bytes()

    return assemble


@pytest.mark.parametrize("cpu", [*COMPLETE_CPUS, NO_ACCESSED_DIRTY_CPU])
def test_a_guest_finds_its_cpu_as_the_manual_says(boot, cpu):
    """Several at once, each with other values in its registers, with memory lazy and eager."""
    machine = boot(
        cpu=cpu,
        modules=[
            (guest("privileged.elf"), "one lazy"),
            (guest("privileged.elf"), "two lazy"),
            (guest("modes.bin"), "three mem=1M"),
            (guest("privileged.elf"), "four"),
            (guest("modes.bin"), "five mem=2M lazy"),
        ],
    )
    machine.wait_prompt()
    assert "quire: guests: 5 of 5 as expected" in machine.lines, machine.tail()
    # A guest that skipped its checks would pass as well.
    said = "\n".join(machine.lines)
    assert len(re.findall(r"^\[g1 one\] ok: ", said, re.M)) > 60
    assert len(re.findall(r"^\[g5 five\] ", said, re.M)) > 30
    assert "FAILED" not in said
    quit_machine(machine)


def test_a_triple_fault_ends_the_guest_and_no_other(boot, flat):
    machine = boot(modules=[(flat(TRIPLE_FAULT), "bad mem=1M"), (guest("hello.elf"), "good mem=4M")])
    machine.expect(r"quire: g1 bad: stopped: triple fault at RIP 0x7c")
    machine.expect("quire: g2 good: passed")
    machine.wait_prompt()
    quit_machine(machine)


@pytest.mark.parametrize("cd", ["0", "1 << 30"])
def test_what_a_guest_may_not_read_is_not_read_for_it(boot, flat, cd):
    """Execute-only memory is no place for page tables, whoever reads them."""
    image = flat(f"CD equ {cd}\n{PAE_PAGING}")
    machine = boot(modules=[(image, "xo mem=1M xo=0x7000+4K")])
    machine.expect(r"quire: g1 xo: stopped: read of GPA 0x7c[0-9a-f]+: execute-only at 0x7000\+4K")
    machine.wait_prompt()
    report = "\n".join(machine.command("report g1"))
    assert re.search(r"tried r--.*, allowed --x.*, qualification 0x21\b", report), report
    assert ("in the CPU's place" in report) == (cd != "0"), report
    quit_machine(machine)


def test_an_exit_that_nothing_handles_is_named_with_the_full_state(boot, flat):
    machine = boot(modules=[(flat(TASK_SWITCH), "task mem=1M"), (guest("hello.elf"), "good mem=4M")])
    reason = machine.expect(r"quire: g1 task: stopped: (.*task switch.*)").group(1)
    machine.expect("quire: g2 good: passed")
    machine.wait_prompt()
    report = "\n".join(machine.command("report g1"))
    for part in [reason, "RIP", "CR0", "TR", "EPT pointer", "exit qualification"]:
        assert part in report, report
    quit_machine(machine)


def test_the_console_shows_what_vmx_offers_and_what_is_used(boot):
    machine = boot(cpu=NO_ACCESSED_DIRTY_CPU, modules=[(guest("hello.elf"), "hello mem=4M")])
    machine.wait_prompt()
    shown = "\n".join(machine.command("cpu"))
    assert "VMX: on, revision" in shown
    assert re.search(r"EPT: 4-level 2M .*execute-only", shown)
    assert not re.search(r"EPT: .*(1G|A/D)", shown)
    for control in ["unrestricted guest", "enable EPT", "enable VPID", "activate VMX-preemption timer"]:
        assert f"+ {control}" in shown, shown
    quit_machine(machine)
