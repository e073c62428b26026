; A boot sector that writes its disk: a key is put into the third sector by the BIOS, but for a digit;
; then what is in that sector is said, as it is read again.
        bits 16
        org 0x7c00
start:  xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, 0x7c00
        mov [drive], dl
.next:  xor ah, ah
        int 0x16
        cmp al, '0'
        jb .write
        cmp al, '9'
        jbe .read
.write: mov [buffer], al
        mov [buffer + 511], al
        mov ax, 0x0301
        call transfer
.read:  mov word [buffer], 0
        mov ax, 0x0201
        call transfer
        mov si, said
.print: lodsb
        test al, al
        jz .key
        call put
        jmp .print
.key:   mov al, [buffer]
        cmp al, [buffer + 511]
        jne failed
        call put
        mov al, 13
        call put
        mov al, 10
        call put
        jmp .next

put:    mov ah, 0x0e
        mov bx, 7
        int 0x10
        ret

transfer:
        mov bx, buffer
        mov cx, 3
        xor dh, dh
        mov dl, [drive]
        int 0x13
        jc failed
        ret

failed: mov eax, 1
        mov dx, 0x510
        out dx, eax
        jmp $

drive:  db 0
said:   db "on the disk: ", 0
        times 510 - ($ - $$) db 0
        dw 0xaa55
        times 512 db '-'
        db '='
        times 510 db ' '
        db '='
buffer  equ 0x8000
