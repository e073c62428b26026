; What lies behind the operands of INS and OUTS: lazy memory, under data and under tables; ROM and
; holes, announced and not. To be run with `mem=16M lazy rom=0x300000+64K`; it ends by a write to
; ROM that is not announced.

%include "check64.inc"

EXPECT_FAULT equ 0x51520005
ROM  equ 0x300000
HOLE equ 0x40000000
VIEW equ 0x20000000             ; where tables in lazy memory are tried

lazy_next: dq 0x800000          ; memory that nobody has touched, from here on

; A new page of it: RAX
lazy_page:
        mov rax, [lazy_next]
        add qword [lazy_next], 0x1000
        ret

; Linear addresses up to 1 GiB beyond the first 6 MiB are shown by pages of 2 MiB.
show:   mov edi, PD + 3 * 8
        mov eax, 0x600000 | P | W | U | PS
        mov ecx, 509
.next:  stosq
        add eax, 0x200000
        loop .next
        mov qword [PD + 8], 0x200000 | P | W | PS
        ret

%macro TABLE_IN 2               ; name, code that leaves the table's address in RAX
%1:     %2
        or eax, P | W | U
        mov [PD + (VIEW >> 21) * 8], rax
        mov rax, VIEW | 0x10
        mov [p_rsi], rax
        mov [p_rdi], rax
        mov qword [p_rcx], 3
        ret
%endmacro
TABLE_IN lazy_table, {call lazy_page}

; A page of the 4 KiB table that leads to lazy memory, and another.
lazy_pages:
        mov qword [watch0], PT + 0x80 * 8
        mov qword [watch1], PT + 0x81 * 8
        call lazy_page
        or eax, P | W
        mov [PT + 0x80 * 8], rax
        call lazy_page
        or eax, P | W
        mov [PT + 0x81 * 8], rax
        mov rax, 0x80ffe
        mov [p_rsi], rax
        mov [p_rdi], rax
        mov qword [p_rcx], 5
        ret

; ANNOUNCED "text", address, size, <instruction>, RAX wanted, RCX wanted: RCX is 5 before, RSI and
; RDI 3 bytes before the address
%macro ANNOUNCED 6
        jmp %%go
%%text: db %1, 0
%%go:   mov eax, EXPECT_FAULT
        mov rbx, %2
        mov ecx, %3
        mov edx, %%resumed
        xor esi, esi
        vmcall
        mov ecx, 5
        mov rsi, %2 - 3
        mov rdi, %2 - 3
        mov edx, DELAY_PORT
        %4
        EXPECT {%1, ": went through"}, 0, 1
        jmp %%over
%%resumed:
        mov r13, rcx
        mov r12, rax
        EXPECT {%1, ": RAX"}, r12, %5
        EXPECT {%1, ": RCX"}, r13, %6
%%over:
%endmacro

view_rom:
        mov rax, ROM | P | W | U
        mov [PD + (VIEW >> 21) * 8], rax
        invlpg [VIEW]
        ret
view_hole:
        mov rax, HOLE | P | W | U
        mov [PD + (VIEW >> 21) * 8], rax
        invlpg [VIEW]
        ret

; The same access by two instructions: RAX of the one is that of the other. A walk reads in any
; case; Bochs tells of one that counts as a write only that.
%macro ANNOUNCED_PAIR 5         ; text, address announced, linear address, <control>, <tried>
        mov r13, %3
        ANNOUNCE_ONE %2, {%4}
        mov r15, rax
        or r15, 1
        mov r13, %3
        ANNOUNCE_ONE %2, {%5}
        mov r12, rax
        EXPECT %1, r12, r15
%endmacro
%macro ANNOUNCE_ONE 2
        mov eax, EXPECT_FAULT
        mov rbx, %1
        mov ecx, 0x1000
        mov edx, %%resumed
        xor esi, esi
        vmcall
        mov rsi, r13
        mov rdi, r13
        mov edx, DELAY_PORT
        mov eax, 0x99           ; it did not go through
        %2
        mov eax, 0x98
%%resumed:
%endmacro

main:   call show
        CASE "a table in lazy memory, OUTSB", lazy_table, lodsb, outsb
        CASE "a table in lazy memory, INSW", lazy_table, stosw, insw
        CASE "a table in lazy memory, REP INSD", lazy_table, rep stosd, rep insd
        CASE "lazy memory, INSB", lazy_pages, stosb, insb
        CASE "lazy memory, OUTSD across", lazy_pages, lodsd, outsd
        CASE "lazy memory, INSD across", lazy_pages, stosd, insd
        CASE "lazy memory, REP OUTSB", lazy_pages, rep lodsb, rep outsb
        CASE "lazy memory, REP INSW", lazy_pages, rep stosw, rep insw
        call lazy_page
        mov rdi, rax
        mov edx, DEBUG_PORT
        mov r12, rax
        insb
        movzx eax, byte [r12]
        mov r12, rax
        EXPECT "what INSB read", r12, DEBUG_PORT
        ; A long one over many untouched pages.
        mov edi, 0xc00000
        mov ecx, 0x4123
        mov edx, DEBUG_PORT
        rep insb
        mov r12, rcx
        mov r13, rdi
        EXPECT "a long REP INSB, RCX", r12, 0
        EXPECT "a long REP INSB, RDI", r13, 0xc04123
        mov r12d, [0xc04120]
        EXPECT "a long REP INSB, its end", r12, 0x00e9e9e9
        ANNOUNCED "INSB to ROM", ROM, 0x1000, {rep insb}, 2, 2
        ANNOUNCED "INSW to ROM, across", ROM, 0x1000, {rep insw}, 2, 4
        ANNOUNCED "STOSB to ROM", ROM, 0x1000, {rep stosb}, 2, 2
        ANNOUNCED "OUTSB from a hole", HOLE - 0x3f000000, 0x1000, {rep outsb}, 1, 2
        ANNOUNCED "LODSB from a hole", HOLE - 0x3f000000, 0x1000, {rep lodsb}, 1, 2
        call view_hole
        ANNOUNCED_PAIR "a table in a hole, OUTSB", HOLE, VIEW, lodsb, outsb
        ANNOUNCED_PAIR "a table in a hole, INSB", HOLE, VIEW, stosb, insb
        call view_rom
        mov eax, 0x51520006     ; the hypervisor's answers are the same after all that
        mov ebx, ROM
        vmcall
        mov r12, rax
        EXPECT "ROM is there still", r12, 3
        mov esi, the_end        ; whatever was BAD, which has been said
        call puts
        mov edi, ROM + 0xfff
        mov edx, DEBUG_PORT
        insb                    ; unannounced: the end
        jmp finish
the_end: db "the end", 10, 0
