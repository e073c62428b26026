; Reads and writes every MSR that the bitmaps know: 0 to 0x1fff and 0xc0000000 to 0xc0001fff. Each is
; written as it was read, or with 0 where it cannot be read. Says the number of each that can be read
; ("r") and written ("w").
%include "start32.inc"

CODE equ 8
DATA equ 16

        section .multiboot alloc noexec nowrite align=4
        dd 0x1badb002, 3, -(0x1badb002 + 3)

        section .text
        global _start
_start: mov esp, stack
        cld
        lgdt [gdt_pointer]
        jmp CODE:.own
.own:   mov eax, DATA
        mov ds, eax
        mov es, eax
        mov ss, eax
        mov eax, protection
        mov edx, eax
        and edx, 0xffff
        or edx, CODE << 16
        mov [idt + 13 * 8], edx
        and eax, 0xffff0000
        or eax, 0x8e00
        mov [idt + 13 * 8 + 4], eax
        lidt [idt_pointer]
        xor ecx, ecx
.next:  xor eax, eax
        xor edx, edx
        mov byte [faulted], 0
        rdmsr
        mov bl, 'r'
        call tell
        mov byte [faulted], 0
        wrmsr
        mov bl, 'w'
        call tell
        inc ecx
        cmp ecx, 0xc0002000
        je .end
        cmp ecx, 0x2000
        jne .next
        mov ecx, 0xc0000000
        jmp .next
.end:   END

; What has just been done to MSR ECX, if it went through. All registers are kept.
tell:   cmp byte [faulted], 0
        jne .end
        pushad
        mov al, bl
        out DEBUG_PORT, al
        mov al, ' '
        out DEBUG_PORT, al
        mov edx, ecx
        mov ecx, 8
.digit: rol edx, 4
        mov al, dl
        and al, 15
        add al, '0'
        cmp al, '9'
        jbe .out
        add al, 'a' - '0' - 10
.out:   out DEBUG_PORT, al
        loop .digit
        mov al, 10
        out DEBUG_PORT, al
        popad
.end:   ret

; #GP: passes over RDMSR or WRMSR, two bytes each.
protection:
        mov byte [faulted], 1
        add dword [esp + 4], 2
        add esp, 4
        iretd

        section .data
        align 8
gdt:    dq 0
        dq 0x00cf9b000000ffff
        dq 0x00cf93000000ffff
gdt_pointer:
        dw gdt_pointer - gdt - 1
        dd gdt
idt_pointer:
        dw 32 * 8 - 1
        dd idt
faulted: db 0

        section .bss
        alignb 8
idt:    resq 32
