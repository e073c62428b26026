; The first sector of a disk whose others hold a flat 16-bit image: reads that to where it is at home, and begins
; it there. SECTORS: how many. So an image for guests runs on a machine without a hypervisor.

HOME equ 0x7c00
AWAY equ 0x600                  ; where this sector makes room

        bits 16
        org AWAY
        cli
        xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, HOME
        mov si, HOME
        mov di, AWAY
        mov cx, 256
        rep movsw
        jmp 0:moved
moved:  mov ah, 0x42            ; DL: the disk, by the BIOS
        mov si, packet
        int 0x13
        jc $
        jmp 0:HOME
packet: db 16, 0
        dw SECTORS, HOME, 0
        dq 1
        times 510 - ($ - $$) db 0
        dw 0xaa55
