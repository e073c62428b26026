; Instructions that `fuzz` is to stop at (until=), each once in a round of a loop: one in the middle
; of another, one in a page that is mapped only then, one while the guest has breakpoints of its own.
; A character says what the guest has come to. It waits at an instruction that jumps to itself, until
; the console puts eight others there.
        default rel
        bits 64

DEBUG_PORT equ 0xe9
HIGH equ 1 << 39                ; linear: the second entry of the PML4
P_W equ 3

%macro SAY 1
        mov al, %1
        out DEBUG_PORT, al
%endmacro

        section .text
        global _start, waits, plain, middle, rights, wrong, many
_start: lea rsp, [stack]
        lea rax, [on_debug]
        mov [idt + 16], ax
        mov word [idt + 18], 8
        mov word [idt + 20], 0x8e00
        shr rax, 16
        mov [idt + 22], ax
        lidt [idt_pointer]
        mov rbx, cr3
        lea rax, [pdpt]         ; HIGH: to the page `high`, once that is in its table
        or rax, P_W
        mov [rbx + 8], rax
        lea rax, [pd]
        or rax, P_W
        mov [pdpt], rax
        lea rax, [pt]
        or rax, P_W
        mov [pd], rax
        SAY 'r'
        SAY 10
waits:  jmp short waits
        times 6 nop
again:  SAY 'a'
plain:  nop

; First as the immediate of a MOV, then by themselves.
        xor r12d, r12d
        db 0xb8                 ; MOV EAX, imm32
middle: nop
        nop
        nop
        nop
        test r12d, r12d
        jnz mapped
        cmp eax, 0x90909090
        jne wrong
        SAY 'm'
        inc r12d
        jmp middle

mapped: lea rax, [high]
        or rax, P_W
        mov [pt], rax
        SAY 'h'
        mov rax, HIGH
        call rax                ; until=0x8000000000
        mov qword [pt], 0
        mov rax, HIGH
        invlpg [rax]

; Breakpoints of its own: DR7 and what it finds there are as it has them.
        lea rax, [own]
        mov dr0, rax
        mov eax, 0x1234
        mov dr3, rax
        mov eax, 0x401
        mov dr7, rax
own:    mov rbx, dr7
        cmp rbx, 0x401
        jne wrong
        mov rbx, dr3
        cmp rbx, 0x1234
        jne wrong
        mov rbx, dr0
        lea rcx, [own]
        cmp rbx, rcx
        jne wrong
        pushfq
        pop rbx
        test ebx, 0x10100       ; neither TF nor RF
        jnz wrong
rights: nop
        cmp byte [many], 0
        je .few
        mov eax, 0x4ff
        mov dr7, rax
        nop
.few:   mov eax, 0x400
        mov dr7, rax
        jmp again
wrong:  SAY '!'
        cli
        hlt

on_debug:
        push rax
        SAY 'b'
        pop rax
        or dword [rsp + 18], 1  ; RF: a breakpoint lets go
        iretq

        align 4096
high:   nop
        ret

        align 4096
pdpt:   times 512 dq 0
pd:     times 512 dq 0
pt:     times 512 dq 0
idt:    times 4 dq 0
idt_pointer:
        dw 31
        dq idt
many:   dq 0

        section .bss
        resb 4096
stack:
