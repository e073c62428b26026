; Who shares the CPU with whom. With CLOSED: interrupts off for ever, the timer's pending. Without:
; 4000 ticks of the timer at 1 kHz, so that slices are short, and passed.
        bits 16
        org 0x7c00
%ifdef CLOSED
        cli
        jmp $
%else
TICKS equ 4000
start:  cli
        xor ax, ax
        mov ds, ax
        mov word [8 * 4], tick
        mov word [8 * 4 + 2], ax
        mov al, 0x34            ; counter 0, mode 2
        out 0x43, al
        mov ax, 1193
        out 0x40, al
        mov al, ah
        out 0x40, al
        sti
.wait:  hlt
        jmp .wait
tick:   push ax
        inc word [count]
        cmp word [count], TICKS
        je .done                ; here: no more may get its turn where ticks are made up
        mov al, 0x20
        out 0x20, al
        pop ax
        iret
.done:  xor eax, eax
        mov dx, 0x510
        out dx, eax
count:  dw 0
%endif
        times 510 - ($ - $$) db 0
        dw 0xaa55
