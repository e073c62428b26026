; A flat guest that says for ever what it hears on its serial port: "heard XX", a byte in hexadecimal.

COM1 equ 0x3f8
DATA_READY equ 1

        bits 16
        org 0x7c00

        xor ax, ax
        mov ds, ax
        cld
again:  mov dx, COM1 + 5
        in al, dx
        test al, DATA_READY
        jz again
        mov dx, COM1
        in al, dx
        mov cl, al
        mov si, text
say:    lodsb
        test al, al
        jz byte_heard
        out dx, al
        jmp say
byte_heard:
        mov al, cl
        shr al, 4
        call digit
        mov al, cl
        and al, 15
        call digit
        mov al, 10
        out dx, al
        jmp again

digit:  add al, '0'
        cmp al, '9'
        jbe shown
        add al, 'a' - '9' - 1
shown:  out dx, al
        ret

text:   db "heard ", 0

        times 510 - ($ - $$) db 0
        dw 0xaa55
