; A flat guest that is a PC: it says each scan code that IRQ 1 brings, puts those of makes onto its screen,
; and passes at Enter. Between keys it halts.

DEBUG_PORT  equ 0xe9
RESULT_PORT equ 0x510
VECTOR      equ 0x09            ; of IRQ 1, as a PC's firmware leaves the controllers
KEY_ENTER   equ 0x1c

        bits 16
        org 0x7c00

start:  xor ax, ax
        mov ds, ax
        mov ss, ax
        mov sp, 0x7c00
        mov word [VECTOR * 4], key
        mov word [VECTOR * 4 + 2], ax
        mov ax, 0xb800
        mov es, ax
        xor di, di
        cld
        mov al, 0xfd            ; IRQ 1 alone
        out 0x21, al
        mov si, ready
.say:   lodsb
        out DEBUG_PORT, al
        cmp al, 10
        jne .say
        sti
.rest:  hlt
        jmp .rest

ready:  db "ready", 10

key:    in al, 0x60
        mov bl, al
        shr al, 4
        call digit
        mov al, bl
        and al, 0x0f
        call digit
        mov al, 10
        out DEBUG_PORT, al
        mov al, bl
        test al, 0x80
        jnz .done
        mov ah, 0x1e            ; yellow on blue
        stosw
        mov ax, di              ; the cursor behind it
        shr ax, 1
        mov dx, 0x3d4
        mov ah, al
        mov al, 0x0f
        out dx, ax
.done:  mov al, 0x20
        out 0x20, al
        cmp bl, KEY_ENTER
        je pass
        iret

pass:   xor eax, eax
        mov dx, RESULT_PORT
        out dx, eax
        hlt

digit:  add al, '0'
        cmp al, '9'
        jbe .is
        add al, 'a' - '9' - 1
.is:    out DEBUG_PORT, al
        ret

        times 510 - ($ - $$) db 0
        dw 0xaa55
