; A boot sector that uses its BIOS: loads the rest of itself, waits for the timer's interrupts, looks
; at memory and keys, and ends as passed.
        bits 16
        org 0x7c00
start:  xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, 0x7c00
        mov [drive], dl
        mov si, hello
        call print
        mov ax, 0x0202          ; two sectors, behind this one
        mov bx, 0x7e00
        mov cx, 2
        xor dh, dh
        int 0x13
        jc failed
        jmp second

failed: mov eax, 1
        jmp end

print:  lodsb
        test al, al
        jz .end
        mov ah, 0x0e
        mov bx, 7
        int 0x10
        jmp print
.end:   ret

drive:  db 0
hello:  db "read by the BIOS: ", 0
        times 510 - ($ - $$) db 0
        dw 0xaa55

second: mov si, 0x8000          ; in the last of the sectors
        call print
        cmp byte [drive], 0x80
        jne failed
%ifndef UNDER_MEMDISK           ; which keeps some for itself and its disk
        int 0x12
        cmp ax, 639
        jne failed
        mov ah, 0x88
        int 0x15
        cmp ax, 7 * 1024
        jne failed
%else
        sti
%endif
        mov word [0x1c * 4], hook
        mov word [0x1c * 4 + 2], 0
        mov ah, 0
        int 0x1a
        mov si, dx
.wait:  hlt                     ; interrupts are on
        mov ah, 0
        int 0x1a
        sub dx, si
        cmp dx, 3
        jb .wait
        cmp word [hooked], 3
        jb failed
        mov cx, 0x1e61          ; a key from nowhere, taken twice
        mov ah, 5
        int 0x16
        mov ah, 1
        int 0x16
        jz failed
        mov ah, 0
        int 0x16
        cmp ax, 0x1e61
        jne failed
        mov ah, 1
        int 0x16
        jnz failed
        mov word [4 * 0x1c], press
        mov ah, 0               ; waits, until the hook above presses one
        int 0x16
        cmp ax, 0x3062
        jne failed
%ifndef UNDER_MEMDISK           ; which has printed before
        mov ax, 0xb800
        mov es, ax
        cmp word [es:0], 0x0772 ; what was printed
        jne failed
%endif
        xor eax, eax
end:    mov dx, 0x510
        out dx, eax
        hlt

hook:   inc word [cs:hooked]
        iret
press:  push ax
        push cx
        mov cx, 0x3062
        mov ah, 5
        int 0x16
        pop cx
        pop ax
        iret
hooked: dw 0
        times 1024 - ($ - $$) db 0
        db "the third sector", 13, 10, 0
