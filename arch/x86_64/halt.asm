; See arch/x86_64/halt.h.

        bits 64

global cpu_halt
global cpu_halt_hlt

section .text exec align=16

cpu_halt:
        push    rbp                     ; a frame: by it an NMI finds who called
        mov     rbp, rsp
        sti
cpu_halt_hlt:
        hlt
        cli
        pop     rbp
        ret
