; Registers that no VMCS and no VMCB has: x87, SSE, AVX, MXCSR, XCR0, debug registers, the MSRs of
; SYSCALL. First they have to be as after a reset, whoever had the CPU before; then it fills them
; with what is its own, and looks again after each of many turns of others. What the values are
; says OWN, given to the assembler.
%include "start32.inc"

%ifndef OWN
%define OWN 0x11
%endif
TURNS equ 200
CR4_OSFXSR equ 1 << 9
QUIRE_HC_YIELD equ 0x51520004
IA32_STAR equ 0xc0000081
PATTERN equ OWN * 0x01010101

        section .multiboot alloc noexec nowrite align=4
        dd 0x1badb002, 3, -(0x1badb002 + 3)

        section .text
        global _start
_start: mov esp, stack
        cld
        mov eax, cr4
        or eax, CR4_OSFXSR
        mov cr4, eax
        fxsave [image]
        EXPECT "MXCSR after a reset", [image + 24], 0x1f80
        movzx ecx, byte [image + 4]     ; FTW, abridged: a set bit is a register in use
        EXPECT "x87 registers are empty", ecx, 0
        mov esi, image + 32             ; ST0 .. ST7, XMM0 .. XMM7
        mov ecx, (8 * 16 + 8 * 16) / 4
        xor ebx, ebx
.or:    lodsd
        or ebx, eax
        loop .or
        EXPECT "no bit in x87 and SSE registers", ebx, 0
        mov ebx, dr0
        mov eax, dr1
        or ebx, eax
        mov eax, dr2
        or ebx, eax
        mov eax, dr3
        or ebx, eax
        EXPECT "no bit in DR0 to DR3", ebx, 0
        mov ebx, dr6
        EXPECT "DR6", ebx, 0xffff0ff0
        mov ecx, IA32_STAR
        rdmsr
        or eax, edx
        EXPECT "STAR", eax, 0

        fninit                          ; now ours
        mov dword [own], PATTERN
        fild dword [own]
        fild dword [own]
        movd xmm0, [own]
        pshufd xmm0, xmm0, 0
%assign n 1
%rep 7
        movdqa xmm %+ n, xmm0
%assign n n + 1
%endrep
        mov eax, PATTERN
        mov dr0, eax
        mov dr1, eax
        mov dr2, eax
        mov dr3, eax
        mov ecx, IA32_STAR
        xor edx, edx
        wrmsr
        fxsave [image]
        mov ebp, TURNS
.turn:  mov eax, QUIRE_HC_YIELD
        vmcall
        fxsave [after]
        mov esi, image
        mov edi, after
        mov ecx, (32 + 8 * 16 + 8 * 16) / 4
        repe cmpsd
        jne .lost
        mov eax, PATTERN
%assign n 0
%rep 4
        mov ebx, dr %+ n
        cmp ebx, eax
        jne .lost
%assign n n + 1
%endrep
        mov ecx, IA32_STAR
        rdmsr
        cmp eax, PATTERN
        jne .lost
        dec ebp
        jnz .turn
.lost:  EXPECT "turns in which a register changed", ebp, 0
        END

        section .bss
        alignb 16
image:  resb 512
after:  resb 512
own:    resd 1
