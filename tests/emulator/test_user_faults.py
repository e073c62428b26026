"""What a ring-3 program may not do, one program for each: every attempt ends that program with its
reason, what is allowed goes on undisturbed, and the machine is as before.

The programs are assembled here, all of them booted at once on each engine.
"""

import re
import struct
import subprocess

import pytest

from machines import quit_machine
from quire_machine.engines import Bochs, Qemu

pytestmark = pytest.mark.one_vendor("names its engines")

TEXT = 0x400000
STACK_BOTTOM = 0x7FFFFFFEF000
KERNEL_TEXT = 0xFFFFFFFF80200000
NOT_CANONICAL = 0x800000000000

EXIT = """
        mov     eax, 1
        int     0x80
"""

WRITE = """
        mov     eax, 2
        lea     rdi, [rel start]
        mov     esi, 0
        int     0x80
"""

# Every register that a program has holds a value of its own across a system call.
PRESERVED = (
    "\n".join(
        f"mov {r}, 0x1234567800000000 + {i}"
        for i, r in enumerate("rbx rcx rdx rbp r8 r9 r10 r11 r12 r13 r14 r15".split())
    )
    + WRITE
    + "\n".join(
        f"mov rax, 0x1234567800000000 + {i}\ncmp {r}, rax\njne bad"
        for i, r in enumerate("rbx rcx rdx rbp r8 r9 r10 r11 r12 r13 r14 r15".split())
    )
    + "\nxor edi, edi"
    + EXIT
    + "\nbad: mov edi, 1"
    + EXIT
)

GP = r"stopped: #GP general protection at 0x40\w+, error code %s$"
PROTECTED = r"stopped: #GP "
OK = r"exited with 0"


# TCG lets XSAVE pass where CR0.TS is set (SDM Vol. 2, "XSAVE": #NM). Then no register must hold a bit: neither
# ST0 to XMM15 nor what follows the header, as far as a component of those is in use.
XSAVE = f"""
        sub     rsp, 8192
        and     rsp, -64
        mov     eax, 7
        xor     edx, edx
        xsave   [rsp]
        xor     edx, edx
        mov     ecx, 32
next:   or      rdx, [rsp + rcx]
        add     ecx, 8
        cmp     ecx, 512
        jne     skip
        mov     ecx, 576
skip:   cmp     ecx, 576 + 256
        jne     next
        xor     edi, edi
        test    rdx, rdx
        setnz   dil
{EXIT}"""


# TCG gives INT n another error code, reads the stack of IRET and RETF as the supervisor would (which
# SMAP forbids), does not know INT1, and from 8.0 on has a page fault where an address is not canonical.
# That the program is stopped must be so there as well.
QEMU_DIFFERS = {
    "jump-far-off",
    "write-far-off",
    "int-timer",
    "int-spurious",
    "int-page-fault",
    "int-absent",
    "iret",
    "far-return",
    "icebp",
}


def at_start(registers):
    """A program that finds every one of these 0 when it starts."""
    tests = "\n".join(f"test {r}, {r}\njnz bad" for r in registers.split())
    return f"{tests}\nxor edi, edi{EXIT}\nbad: mov edi, 1{EXIT}"


PROGRAMS = {
    # Privileged instructions.
    "hlt": ("hlt", GP % "0"),
    "cli": ("cli", GP % "0"),
    "port": ("in al, 0x60", GP % "0"),
    "com1": ("mov dx, 0x3f8\nout dx, al", GP % "0"),
    "rdmsr": ("mov ecx, 0xc0000080\nrdmsr", GP % "0"),
    "rdpmc": ("rdpmc", PROTECTED),
    "cr0": ("mov rax, cr0", GP % "0"),
    "cr3": ("mov cr3, rax", GP % "0"),
    "dr7": ("mov dr7, rax", GP % "0"),
    "lgdt": ("lgdt [rsp - 16]", GP % "0"),
    "sidt": ("sidt [rsp - 16]", GP % "0"),
    "ltr": ("mov eax, 0x28\nltr ax", GP % "0"),
    "swapgs": ("swapgs", GP % "0"),
    "invlpg": ("invlpg [rel start]", GP % "0"),
    "wbinvd": ("wbinvd", GP % "0"),
    # Ways into ring 0 that are no way.
    "int-timer": ("int 0xf0", GP % hex(0xF0 * 8 + 2)),
    "int-spurious": ("int 0xff", GP % hex(0xFF * 8 + 2)),
    "int-page-fault": ("int 14", GP % hex(14 * 8 + 2)),
    "int-absent": ("int 0x40", GP % hex(0x40 * 8 + 2)),
    "syscall": ("syscall", r"stopped: #UD "),
    "sysenter": ("sysenter", r"stopped: #(UD|GP) "),
    "vmcall": ("vmcall", r"stopped: #(UD|GP) "),
    "iret": ("push 0x10\npush rsp\npushfq\npush 0x08\nlea rax, [rel start]\npush rax\niretq", GP % "0x8"),
    "far-return": ("push 0x08\nlea rax, [rel start]\npush rax\nretfq", GP % "0x8"),
    "kernel-segment": ("mov eax, 0x10\nmov ds, eax", GP % "0x10"),
    # Exceptions.
    "divide": ("xor ecx, ecx\ndiv ecx", r"stopped: #DE "),
    "undefined": ("ud2", r"stopped: #UD "),
    "breakpoint": ("int3", r"stopped: #BP "),
    "icebp": ("db 0xf1", r"stopped: #DB "),
    "single-step": ("push 0x102\npopfq\nnop\nnop", r"stopped: #DB "),
    # Registers that guests have: what somebody left in them is in no program's reach.
    "x87": ("fninit", r"stopped: #NM "),
    "x87-state": ("fnsave [rsp - 256]", r"stopped: #NM "),
    "mmx": ("movq rax, mm0", r"stopped: #NM "),
    "sse": ("movaps xmm0, xmm1", r"stopped: #(NM|UD) "),
    "mxcsr": ("stmxcsr [rsp - 8]", r"stopped: #(NM|UD) "),
    "fxsave": ("sub rsp, 1024\nand rsp, -64\nfxsave [rsp]", r"stopped: #NM "),
    "xsave": (XSAVE, rf"stopped: #(NM|UD) |{OK}"),
    "avx": ("vmovups [rsp - 64], ymm0", r"stopped: #(NM|UD) "),
    "avx512": ("vmovups [rsp - 128], zmm31", r"stopped: #(NM|UD) "),
    "opmask": ("kmovw eax, k1", r"stopped: #(NM|UD) "),
    "dr0": ("mov rax, dr0", GP % "0"),
    "dr3": ("mov rax, dr3", GP % "0"),
    "dr6": ("mov rax, dr6", GP % "0"),
    "pkru": ("xor ecx, ecx\nrdpkru", r"stopped: #UD "),
    "fsbase": ("db 0xf3, 0x48, 0x0f, 0xae, 0xc0", r"stopped: #UD "),  # RDFSBASE RAX
    "gsbase": ("db 0xf3, 0x48, 0x0f, 0xae, 0xc8", r"stopped: #UD "),  # RDGSBASE RAX
    # Memory.
    "null": ("mov al, [0]", r"stopped: page fault, read of 0: nothing is mapped there"),
    "jump-null": ("xor eax, eax\njmp rax", r"stopped: page fault, fetch from 0: nothing is mapped"),
    "jump-kernel": (
        f"mov rax, {KERNEL_TEXT:#x}\njmp rax",
        f"stopped: page fault, fetch from {KERNEL_TEXT:#x}: that is the hypervisor's",
    ),
    "write-direct-map": (
        "mov rax, 0xffff800000100000\nmov [rax], rax",
        "stopped: page fault, write to 0xffff800000100000: that is the hypervisor's",
    ),
    "jump-far-off": (f"mov rax, {NOT_CANONICAL:#x}\njmp rax", PROTECTED),
    "write-far-off": (f"mov rax, {NOT_CANONICAL:#x}\nmov [rax], al", PROTECTED),
    "write-text": (
        "mov [rel start], al",
        f"stopped: page fault, write to {TEXT:#x}: the page forbids it",
    ),
    "run-stack": (
        "push 0x90\njmp rsp",
        r"stopped: page fault, fetch from 0x7fffffffeff8: the page forbids it",
    ),
    "overflow": (
        "again: push rax\njmp again",
        f"stopped: page fault, write to {STACK_BOTTOM - 8:#x}: nothing is mapped there",
    ),
    # What looks odd and is allowed.
    "exit-negative": ("mov rdi, -5" + EXIT, r"exited with -5"),
    "unknown-call": ("mov eax, 99\nint 0x80\nlea rdi, [rax + 1]" + EXIT, OK),
    "zero-at-start": (
        at_start("rax rbx rcx rdx rsi rdi rbp r8 r9 r10 r11 r12 r13 r14 r15"),
        OK,
    ),
    "preserved": (PRESERVED, OK),
    # Nested task, alignment check and direction flag all set: the kernel must not keep them.
    "flags": ("push 0x44402\npopfq" + WRITE + "mov rdi, rax" + EXIT, OK),
    "segments": (
        "mov eax, 0x1b\nmov ds, eax\nmov es, eax\nmov fs, eax\nmov gs, eax" + WRITE + "mov rdi, rax" + EXIT,
        OK,
    ),
    "null-segments": (
        "xor eax, eax\nmov ds, eax\nmov es, eax\nmov fs, eax\nmov gs, eax" + WRITE + "mov rdi, rax" + EXIT,
        OK,
    ),
    "kernel-stack": (f"mov rsp, {KERNEL_TEXT:#x}\nxor edi, edi" + EXIT, OK),
    "no-stack": (f"mov rsp, {NOT_CANONICAL:#x}" + WRITE + "mov rdi, rax" + EXIT, OK),
}


def elf(code):
    """A static ELF64 executable of one read-execute segment."""
    size = 64 + 56 + len(code)
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 2, 62, 1, TEXT, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 120, TEXT, TEXT, size - 120, size - 120, 4096)
    return header + segment + code


def assemble(folder, source):
    path = folder / "program.asm"
    path.write_text(f"bits 64\norg {TEXT:#x}\nstart:\n{source}\n", encoding="utf-8")
    subprocess.run(["nasm", "-fbin", "-o", folder / "program.bin", path], check=True)
    return (folder / "program.bin").read_bytes()


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    folder = tmp_path_factory.mktemp("programs")
    return [(elf(assemble(folder, source)), f"user:{name}") for name, (source, _) in PROGRAMS.items()]


@pytest.mark.parametrize("engine", [Bochs(), Qemu()], ids=lambda engine: type(engine).__name__)
def test_every_attempt_ends_as_it_must(boot, modules, engine):
    machine = boot(modules=modules, engine=engine)
    machine.wait_prompt()
    wrong = []
    for name, (_, expected) in PROGRAMS.items():
        if isinstance(engine, Qemu) and name in QEMU_DIFFERS:
            expected = "stopped: "
        said = f"quire: user {name}: "
        lines = [line[len(said) :] for line in machine.lines if line.startswith(said)]
        ends = [line for line in lines if re.match(r"(stopped|exited|refused)\b", line)]
        if len(ends) != 1 or not re.match(expected, ends[0]):
            wrong.append(f"{name}: expected {expected!r}, got {ends}")
        if not any(re.fullmatch(r"all \d+ frames came back", line) for line in lines):
            wrong.append(f"{name}: frames did not come back")
    assert not wrong, "\n".join(wrong)
    assert machine.command("check")[-1].endswith("hold.")
    quit_machine(machine)
