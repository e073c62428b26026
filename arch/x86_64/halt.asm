; See arch/x86_64/halt.h.

        bits 64

global cpu_halt
global cpu_halt_hlt

section .text exec align=16

cpu_halt:
        push    rbp                     ; a frame: by it an NMI finds who called
        mov     rbp, rsp
        sti
.hlt:   hlt
        cli
        pop     rbp
        ret

section .rodata align=8

cpu_halt_hlt:
        dq      cpu_halt.hlt
