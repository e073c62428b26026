; realmode: a flat 16-bit image, entered as a boot sector is: real mode, CS:IP 0:7c00. It checks
; segmented addressing, the interrupt vector table and the stack, goes to protected mode and comes back.

%include "abi.inc"

        bits 16
        org 0x7c00

CR0_PE  equ 1

%macro verify 2                 ; condition under which it holds, text
        mov     si, %%text
        j%1     %%holds
        jmp     failed
%%holds:
        call    ok
        jmp     %%over
%%text: db %2, 10, 0
%%over:
%endmacro

        jmp     0:start

        times 510 - ($ - $$) db 0
        dw 0xaa55

start:
        cli
        cld
        xor     ax, ax
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     sp, 0x7c00

        smsw    ax
        test    al, CR0_PE
        verify  z, "16-bit real mode"
        cmp     word [0x7dfe], 0xaa55
        verify  e, "the boot signature is where it belongs"

        ; 1234:5 and 1000:2345 are the same byte.
        mov     ax, 0x1234
        mov     es, ax
        mov     byte [es:5], 0x5a
        mov     ax, 0x1000
        mov     es, ax
        cmp     byte [es:0x2345], 0x5a
        verify  e, "segment times sixteen plus offset"

        ; A software interrupt through the table at 0.
        mov     word [0x60 * 4], handler
        mov     word [0x60 * 4 + 2], 0
        mov     dx, 41
        mov     bx, sp
        int     0x60
        cmp     dx, 42
        verify  e, "INT goes through the vector table"
        cmp     bx, sp
        verify  e, "and IRET comes back with the stack as it was"

        ; Division by zero is vector 0, taken by the CPU itself.
        mov     word [0], divide_handler
        mov     word [2], 0
        mov     byte [divided], 0
        xor     cx, cx
        mov     ax, 1
        div     cl
after_divide:
        cmp     byte [divided], 1
        verify  e, "a divide error arrives at its vector"

        ; To protected mode with paging off, one access far beyond a segment's 64 KiB, and back.
        lgdt    [gdt_pointer]
        mov     eax, cr0
        or      al, CR0_PE
        mov     cr0, eax
        jmp     8:.protected
        bits 32
.protected:
        mov     ax, 16
        mov     ds, ax
        mov     dword [0x9f000], 0x51554952
        jmp     24:.leaving
        bits 16
.leaving:
        mov     ax, 32
        mov     ds, ax
        mov     eax, cr0
        and     al, ~CR0_PE
        mov     cr0, eax
        jmp     0:.back
.back:
        xor     ax, ax
        mov     ds, ax
        mov     ax, 0x9f00
        mov     es, ax
        cmp     dword [es:0], 0x51554952
        verify  e, "protected mode and back"

        xor     eax, eax                        ; pass
        jmp     verdict

failed:
        mov     di, si
        mov     si, text_failed
        call    say
        mov     si, di
        call    say
        mov     eax, 1
verdict:
        mov     dx, QUIRE_PORT_RESULT
        out     dx, eax
.stop:  hlt
        jmp     .stop

; "ok: " and the text at SI.
ok:
        push    si
        mov     si, text_ok
        call    say
        pop     si
say:
        lodsb
        test    al, al
        jz      .end
        mov     dx, QUIRE_PORT_DEBUG
        out     dx, al
        jmp     say
.end:   ret

handler:
        inc     dx
        iret

divide_handler:
        mov     byte [divided], 1
        push    bp
        mov     bp, sp
        mov     word [bp + 2], after_divide     ; the return address: DIV would fault again
        pop     bp
        iret

text_ok:     db "ok: ", 0
text_failed: db "FAILED: ", 0
divided:     db 0

        align 8
gdt:
        dq 0
        dq 0x00cf9b000000ffff                   ; 8: 32-bit code
        dq 0x00cf93000000ffff                   ; 16: data, 4 GiB
        dq 0x00009b000000ffff                   ; 24: 16-bit code
        dq 0x000093000000ffff                   ; 32: data as real mode has it
gdt_pointer:
        dw gdt_pointer - gdt - 1
        dd gdt

        times -($ - $$) & 511 db 0               ; whole sectors
