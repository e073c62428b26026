; Code in a large page: a RET at 6M is called, and memory at 8M is written and read.
        default rel
        bits 64

DEBUG_PORT equ 0xe9
RESULT_PORT equ 0x510

        section .text
        global _start
_start: lea rsp, [stack]
        mov eax, 0x600000
        mov byte [rax], 0xc3
        call rax
        mov ecx, 0x800000
        mov [rcx], rax
        cmp [rcx], rax
        jne .bad
        mov al, 'c'
        out DEBUG_PORT, al
        mov al, 10
        out DEBUG_PORT, al
.stay:  jmp short .stay
.bad:   mov dx, RESULT_PORT
        mov eax, 1
        out dx, eax
        hlt

        section .bss
        resb 4096
stack:
