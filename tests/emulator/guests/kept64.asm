; A guest to be saved while it waits for a key: afterwards every register, MSR and device that it has set has to be as
; it was, and its clock has to have gone on. To be run with `pc`.

%ifndef BARE
%define PC
%endif
%include "check64.inc"

STAR equ 0xc0000081
LSTAR equ 0xc0000082
CSTAR equ 0xc0000083
FMASK equ 0xc0000084
KERNEL_GS equ 0xc0000102
SYSENTER_CS equ 0x174
SYSENTER_ESP equ 0x175
SYSENTER_EIP equ 0x176
PATTERN equ 0x0123456789abcdef
KEY_STATUS equ 0x64
KEY_DATA equ 0x60
PIT_CHANNEL2 equ 0x42
PIT_COMMAND equ 0x43
PIC_MASK equ 0x21
CMOS_INDEX equ 0x70
CMOS_DATA equ 0x71

%macro SET_MSR 2
        mov ecx, %1
        mov rax, %2
        mov rdx, rax
        shr rdx, 32
        wrmsr
%endmacro

%macro EXPECT_MSR 3
        mov ecx, %1
        rdmsr
        shl rdx, 32
        or rax, rdx
        mov r15, rax
        EXPECT %3, r15, %2
%endmacro

        align 16
pattern: dq PATTERN, ~PATTERN
found:  dq 0, 0
before: dq 0
pi:     dq 0
x87_control: dq 0x0c7f

main:   SET_MSR STAR, 0x0023001000000000
        SET_MSR LSTAR, 0xffff800012345678
        SET_MSR CSTAR, 0x7fff12345678
        SET_MSR FMASK, 0x47700
        SET_MSR KERNEL_GS, 0x123456789a
        SET_MSR SYSENTER_CS, 0x10
        SET_MSR SYSENTER_ESP, 0x7000
        SET_MSR SYSENTER_EIP, 0x8000
        mov rax, PATTERN
        mov dr0, rax
        not rax
        mov dr3, rax
        movdqa xmm7, [pattern]
        fninit
%ifdef UNUSED                           ; x87, but for its control word
        fldcw [x87_control]
%else
        fld1
        fldpi
%endif
        mov al, 0xb8            ; the third counter: 16 bits, mode 4, never loaded whole
        out PIT_COMMAND, al
        mov al, 0x5a
        out PIC_MASK, al
        mov al, 0x40
        out CMOS_INDEX, al
        mov al, 0xa7
        out CMOS_DATA, al
        rdtsc
        shl rdx, 32
        or rax, rdx
        mov [before], rax
        mov esi, waiting
        call puts
        call newline
        mov r8, PATTERN
        mov r14, ~PATTERN
wait_key:
        in al, KEY_STATUS
        test al, 1
        jz wait_key
        in al, KEY_DATA
        mov r12, r8
        mov r13, r14
        movdqa [found], xmm7
%ifdef UNUSED
        fnstcw [x87_control]
        fnstsw [x87_control + 2]
        EXPECT "x87's control and status", [x87_control], 0x0c7f
%else
        fstp qword [pi]
        EXPECT "pi", [pi], 0x400921fb54442d18
%endif
        EXPECT "R8", r12, PATTERN
        EXPECT "R14", r13, ~PATTERN
        EXPECT "XMM7, low", [found], PATTERN
        EXPECT "XMM7, high", [found + 8], ~PATTERN
        mov r12, dr0
        EXPECT "DR0", r12, PATTERN
        mov r12, dr3
        EXPECT "DR3", r12, ~PATTERN
        EXPECT_MSR STAR, 0x0023001000000000, "STAR"
        EXPECT_MSR LSTAR, 0xffff800012345678, "LSTAR"
        EXPECT_MSR CSTAR, 0x7fff12345678, "CSTAR"
        EXPECT_MSR FMASK, 0x47700, "FMASK"
        EXPECT_MSR KERNEL_GS, 0x123456789a, "KERNEL_GS"
        EXPECT_MSR SYSENTER_CS, 0x10, "SYSENTER_CS"
        EXPECT_MSR SYSENTER_ESP, 0x7000, "SYSENTER_ESP"
        EXPECT_MSR SYSENTER_EIP, 0x8000, "SYSENTER_EIP"
        xor eax, eax
        in al, PIC_MASK
        mov r12, rax
        EXPECT "the 8259's mask", r12, 0x5a
        xor eax, eax
        in al, CMOS_DATA
        mov r12, rax
        EXPECT "the CMOS's byte", r12, 0xa7
        rdtsc
        shl rdx, 32
        or rax, rdx
        sub rax, [before]
        shr rax, 40             ; it went on from there: no gap of hours, and not back
        mov r12, rax
        EXPECT "the clock", r12, 0
        jmp finish
waiting: db "waiting", 0
        IMAGE_END
