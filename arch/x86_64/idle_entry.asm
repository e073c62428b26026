; What COM1's interrupt does (arch/x86_64/idle.c): end it, and so wake the CPU from HLT. Interrupt
; gates of ring 0; all registers are kept.

        bits 64

PIC_COMMAND     equ 0x20
PIC_EOI         equ 0x20

global idle_interrupt
global idle_spurious
extern idle_interrupts

section .text exec align=16

idle_interrupt:
        push    rax
        mov     al, PIC_EOI
        out     PIC_COMMAND, al
        inc     dword [rel idle_interrupts]
        pop     rax
        iretq

; The PIC's line 7, when the line that interrupted has fallen again: nothing is in service.
idle_spurious:
        iretq
