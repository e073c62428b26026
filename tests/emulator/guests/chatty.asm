; A flat guest that says something every few million instructions, for ever.

DEBUG_PORT equ 0xe9

        bits 16
        org 0x7c00

        cld
again:  mov ecx, 4000000
delay:  dec ecx
        jnz delay
        mov si, text
        mov cx, text_end - text
        mov dx, DEBUG_PORT
        rep outsb
        jmp again

text:   db "still here", 10
text_end:

        times 510 - ($ - $$) db 0
        dw 0xaa55
