; Entry stubs of the 32 exceptions, and the way back.
;
; A stub makes the stack look like struct trap_frame (trap.h) and calls trap_dispatch. On entry the
; CPU has pushed SS, RSP, RFLAGS, CS, RIP and, for some vectors, an error code; the others push 0 in
; its place. Every gate is an interrupt gate, so IF is 0.
;
; GS: ring 0 runs with the base of GS at its struct percpu. A trap out of ring 3 swaps. A trap out of
; ring 0 may have come in between (an NMI right after SYSCALL, a fault at the IRETQ that leaves for
; ring 3), so it looks: our base lies in the upper half, one of ring 3 never does. Traps out of ring
; 0 are rare enough for an RDMSR.

        bits 64

IA32_GS_BASE    equ 0xc0000101
FRAME_CS        equ 18 * 8              ; offset in struct trap_frame
RFLAGS_FIXED    equ 2

global trap_stubs
global trap_capture
extern trap_dispatch

; Vectors with an error code: #DF #TS #NP #SS #GP #PF #AC #CP #VC #SX (SDM Vol. 3, 6.13 and AMD's two).
HAS_ERROR       equ 1 << 8 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 17 | 1 << 21 | 1 << 29 | 1 << 30

section .text exec align=16

%assign vector 0
%rep 32
trap_stub_ %+ vector:
%if (HAS_ERROR >> vector & 1) == 0
        push    0
%endif
        push    vector
        jmp     trap_common
%assign vector vector + 1
%endrep

trap_common:
        push    rax
        push    rcx
        push    rdx
        push    rbx
        push    rbp
        push    rsi
        push    rdi
        push    r8
        push    r9
        push    r10
        push    r11
        push    r12
        push    r13
        push    r14
        push    r15

        ; Clear DF, AC and NT: C wants the first, SMAP the second.
        push    RFLAGS_FIXED
        popfq

        xor     ebx, ebx                ; 1: ring 0 was interrupted with the other GS
        test    byte [rsp + FRAME_CS], 3
        jnz     .swap
        mov     ecx, IA32_GS_BASE
        rdmsr
        test    edx, edx
        js      .ours
        inc     ebx
.swap:  swapgs
.ours:
        ; The CPU aligned RSP to 16 before it pushed, and the frame keeps it so. RBP stays as it was:
        ; a backtrace out of trap_dispatch goes on in the code that trapped.
        mov     rdi, rsp
        call    trap_dispatch

        ; The hook for ring 3 may have changed where the frame leads: judge by where it leads now.
        test    byte [rsp + FRAME_CS], 3
        jnz     .swap_back
        test    ebx, ebx
        jz      .restore
.swap_back:
        swapgs
.restore:
        pop     r15
        pop     r14
        pop     r13
        pop     r12
        pop     r11
        pop     r10
        pop     r9
        pop     r8
        pop     rdi
        pop     rsi
        pop     rbp
        pop     rbx
        pop     rdx
        pop     rcx
        pop     rax
        add     rsp, 16                 ; vector, error code
        iretq

; void trap_capture(struct trap_frame *frame): the caller's registers, as if it had trapped right
; after this call. Clobbers RAX.
trap_capture:
        mov     [rdi + 0 * 8], r15
        mov     [rdi + 1 * 8], r14
        mov     [rdi + 2 * 8], r13
        mov     [rdi + 3 * 8], r12
        mov     [rdi + 4 * 8], r11
        mov     [rdi + 5 * 8], r10
        mov     [rdi + 6 * 8], r9
        mov     [rdi + 7 * 8], r8
        mov     [rdi + 8 * 8], rdi
        mov     [rdi + 9 * 8], rsi
        mov     [rdi + 10 * 8], rbp
        mov     [rdi + 11 * 8], rbx
        mov     [rdi + 12 * 8], rdx
        mov     [rdi + 13 * 8], rcx
        mov     [rdi + 14 * 8], rax
        xor     eax, eax
        mov     [rdi + 15 * 8], rax     ; vector
        mov     [rdi + 16 * 8], rax     ; error code
        mov     rax, [rsp]
        mov     [rdi + 17 * 8], rax     ; RIP
        mov     eax, cs
        mov     [rdi + 18 * 8], rax
        pushfq
        pop     rax
        mov     [rdi + 19 * 8], rax
        lea     rax, [rsp + 8]
        mov     [rdi + 20 * 8], rax     ; RSP as it is after the return
        mov     eax, ss
        mov     [rdi + 21 * 8], rax
        ret

section .rodata align=8

trap_stubs:
%assign vector 0
%rep 32
        dq      trap_stub_ %+ vector
%assign vector vector + 1
%endrep
