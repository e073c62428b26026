; All ports below 4096, where devices are, and every fifth above, or only those below END, by 1, 2 and 4
; bytes, in and out; those that have devices with several values. Only what docs/GUEST-INTERFACE.md says may end a guest is left out; the guest passes when it has come
; through.

        bits 16
        org 0x7c00

DEBUG_PORT  equ 0xe9
RESULT_PORT equ 0x510
CONTROL_PORT equ 0x92           ; bit 0: reset
KEYBOARD_PORT equ 0x64          ; an even number from 0xf0 up: reset
RESET_PORT  equ 0xcf9           ; by itself, bit 2: reset
SERIAL      equ 0x3f8
DEVICES_END equ 0x1000
%ifndef END
  %define END 0
%endif

start:  cli
        xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, 0x7c00
        jmp 0:main
        times 510 - ($ - $$) db 0
        dw 0xaa55

; Read and write all ports below %3 (0: all) with EAX = %4, but for those that are said to end a
; guest.
%macro ALL_PORTS 4              ; width, register, end, value
        xor ebp, ebp            ; the port
%%port: mov dx, bp
        in %2, dx
  %if %1 == 4
        cmp bp, RESULT_PORT
        je %%next
  %endif
  %if (%4) & 1                  ; a byte of it at the system control port
        cmp bp, CONTROL_PORT + 1 - %1
        jb %%apart
        cmp bp, CONTROL_PORT
        jbe %%next
%%apart:
  %elif %4                      ; 0xfe at the keyboard controller
        cmp bp, KEYBOARD_PORT + 1 - %1
        jb %%apart
        cmp bp, KEYBOARD_PORT
        jbe %%next
%%apart:
  %endif
  %if %1 == 1 && %4
        cmp bp, RESET_PORT
        je %%next
  %endif
        mov eax, %4
        out dx, %2
%%next: inc bp
        cmp bp, DEVICES_END
        jbe %%more
        add bp, 5 - 1
        jc %%done
%%more: cmp bp, %3
        jne %%port
%%done:
%endmacro

; READS port, width, register, wanted: counts what is otherwise
%macro READS 4
        mov dx, %1
        mov eax, -1
        in %3, dx
        cmp eax, %4
        je %%fine
        inc ebx
        mov si, %%text
        call puts
        jmp %%fine
%%text: db "BAD read of ", %str(%1), " by ", %str(%2), 10, 0
%%fine:
%endmacro

main:   xor ebx, ebx
        ALL_PORTS 1, al, END, 0xfefefefe
        ALL_PORTS 2, ax, END, 0xfefefefe
        ALL_PORTS 4, eax, END, 0xfefefefe
        ALL_PORTS 1, al, DEVICES_END, 0
        ALL_PORTS 2, ax, DEVICES_END, 0
        ALL_PORTS 4, eax, DEVICES_END, 0
        ALL_PORTS 1, al, DEVICES_END, 0xffffffff
        ALL_PORTS 2, ax, DEVICES_END, 0xffffffff
        ALL_PORTS 4, eax, DEVICES_END, 0xffffffff
        mov dx, SERIAL + 3      ; the serial port as it was
        mov al, 3
        out dx, al
        mov dx, SERIAL + 1      ; no interrupts, no FIFO
        xor ax, ax
        out dx, ax
        mov dx, SERIAL + 4
        out dx, al
        READS 0x510, 1, al, -1
        READS 0x510, 4, eax, -1
        READS 0xe9, 1, al, 0xffffffe9
        READS 0xe8, 2, ax, 0xffffe9ff
        READS 0xe9, 2, ax, 0xffffffe9
        READS 0xe6, 4, eax, 0xe9ffffff
        READS 0x8000, 4, eax, -1
        READS 0xffff, 4, eax, -1
        READS 0xcf4, 4, eax, -1
        READS 0x3fa, 2, ax, 0xffff0301  ; nothing pending; line control
        mov si, done
        call puts
        mov eax, ebx
        mov dx, RESULT_PORT
        out dx, eax

puts:   lodsb
        test al, al
        jz .out
        mov dx, DEBUG_PORT
        out dx, al
        jmp puts
.out:   ret

done:   db 10, "all ports done", 10, 0
