; A flat guest that watches its time: for each byte it hears on COM1 it says how many interrupts of the
; 8254 it took (one for PERIOD counts), its TSC, and the longest time between two of its looks at the TSC, all
; in hexadecimal and since it spoke last; at its start, where its TSC stands.

COM1 equ 0x3f8
DATA_READY equ 1
%ifndef PERIOD
%define PERIOD 1193
%endif

        bits 16
        org 0x7c00

        cli
        xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, 0x7000
        cld
        mov word [8 * 4], tick
        mov word [8 * 4 + 2], ax
        mov al, 0x11                    ; the first 8259: vectors 8 to 15, line 0 alone
        out 0x20, al
        mov al, 8
        out 0x21, al
        mov al, 4
        out 0x21, al
        mov al, 1
        out 0x21, al
        mov al, 0xfe
        out 0x21, al
        mov al, 0x34                    ; counter 0, both bytes, mode 2
        out 0x43, al
        mov al, PERIOD & 0xff
        out 0x40, al
        mov al, PERIOD >> 8
        out 0x40, al
        call look
        mov si, begins
        call text
        mov eax, [last + 4]
        call hex
        mov eax, [last]
        call hex
        call line
        call anew
        sti

again:  call look
        mov dx, COM1 + 5
        in al, dx
        test al, DATA_READY
        jz again
        mov dx, COM1
        in al, dx

        mov si, ticks_are
        call text
        mov eax, [ticks]
        call hex
        mov si, time_is
        call text
        mov eax, [last]
        mov edx, [last + 4]
        sub eax, [base]
        sbb edx, [base + 4]
        push eax
        mov eax, edx
        call hex
        pop eax
        call hex
        mov si, gap_is
        call text
        mov eax, [gap + 4]
        call hex
        mov eax, [gap]
        call hex
        call line
        cli
        call look
        call anew
        sti
        jmp again

; The TSC to `last`; `gap` becomes what passed, if that is longer.
look:   rdtsc
        mov ebx, eax
        mov ecx, edx
        sub eax, [last]
        sbb edx, [last + 4]
        mov [last], ebx
        mov [last + 4], ecx
        cmp edx, [gap + 4]
        ja .longer
        jb .not
        cmp eax, [gap]
        jbe .not
.longer:
        mov [gap], eax
        mov [gap + 4], edx
.not:   ret

anew:   mov eax, [last]
        mov [base], eax
        mov eax, [last + 4]
        mov [base + 4], eax
        xor eax, eax
        mov [gap], eax
        mov [gap + 4], eax
        mov [ticks], eax
        ret

tick:   push ax
        inc dword [cs:ticks]
        mov al, 0x20
        out 0x20, al
        pop ax
        iret

text:   mov dx, COM1
.next:  lodsb
        test al, al
        jz .done
        out dx, al
        jmp .next
.done:  ret

; EAX
hex:    mov dx, COM1
        mov cx, 8
        mov ebx, eax
.next:  rol ebx, 4
        mov al, bl
        and al, 15
        add al, '0'
        cmp al, '9'
        jbe .shown
        add al, 'a' - '9' - 1
.shown: out dx, al
        loop .next
        ret

line:   mov dx, COM1
        mov al, 10
        out dx, al
        ret

begins: db "begins at ", 0
ticks_are: db "ticks ", 0
time_is: db " time ", 0
gap_is: db " gap ", 0
        align 4
ticks:  dd 0
last:   dq 0
base:   dq 0
gap:    dq 0

        times 510 - ($ - $$) db 0
        dw 0xaa55
