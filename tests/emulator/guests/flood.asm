; A flat guest that prints for ever, as fast as it can.

DEBUG_PORT equ 0xe9

        bits 16
        org 0x7c00

        cld
again:  mov si, text
        mov cx, text_end - text
        mov dx, DEBUG_PORT
        rep outsb
        jmp again

text:   db "on and on", 10
text_end:

        times 510 - ($ - $$) db 0
        dw 0xaa55
