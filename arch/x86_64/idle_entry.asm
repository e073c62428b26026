; What an interrupt does to an idle CPU (arch/x86_64/idle.c): COM1's wakes it from HLT, others are
; ended. Interrupt gates of ring 0; all registers are kept.

        bits 64

PIC_COMMAND     equ 0x20
PIC_EOI         equ 0x20

global idle_interrupt
global idle_timer
global idle_spurious
extern idle_interrupts
extern lapic_end_of_interrupt

section .text exec align=16

idle_interrupt:
        push    rax
        mov     al, PIC_EOI
        out     PIC_COMMAND, al
        inc     dword [rel idle_interrupts]
        pop     rax
        iretq

; The local APIC's timer, raised while a guest's slice or a program's budget was being stopped; and
; VECTOR_WAKE, which has done all that it is for when HLT is over.
idle_timer:
        push    rax
        push    rcx
        push    rdx
        push    rsi
        push    rdi
        push    r8
        push    r9
        push    r10
        push    r11
        call    lapic_end_of_interrupt  ; with five words of the frame, the stack is aligned to 16
        pop     r11
        pop     r10
        pop     r9
        pop     r8
        pop     rdi
        pop     rsi
        pop     rdx
        pop     rcx
        pop     rax
        iretq

; The local APIC's own spurious vector; and the PIC's line 7, when the line that interrupted has fallen again: nothing is in service.
idle_spurious:
        iretq
