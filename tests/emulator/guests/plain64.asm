; An ELF file without any header, started by entry=elf64: in 64-bit mode at once.
        default rel
        bits 64

        section .text
        global _start
_start: lea rsp, [stack]
        mov r15d, 1
        mov ecx, 0xc0000080     ; IA32_EFER
        rdmsr
        test eax, 1 << 10       ; LMA
        jz end
        inc r15d
        cmp rdi, rbx
        jne end
        inc r15d
        cmp dword [rdi], 0x336ec578
        jne end
        inc r15d
        mov rsi, [rdi + 24]
        mov rax, "words fo"
        cmp [rsi], rax
        jne end
        inc r15d
        mov rax, 0x123456789abcdef0     ; at the end of what is mapped and backed
        mov [0x7ffff8], rax
        cmp [abs dword 0x7ffff8], rax
        jne end
        inc r15d
        push qword 0x10
        push rsp                ; an IRET by the GDT that is there
        pushfq
        push qword 8
        lea rax, [.loaded]
        push rax
        iretq
.loaded:
        mov rax, cr3
        mov rcx, [rax]          ; the tables lie in memory that is mapped
        test cl, 1
        jz end
        xor r15d, r15d
end:    mov eax, r15d
        mov dx, 0x510
        out dx, eax
        hlt

        section .bss
        resb 4096
stack:
