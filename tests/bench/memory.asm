; What a guest's memory costs it, in ticks of the TSC (cost.inc). To be run with `lazy pages=4K` and
; 64M or more. It touches pages for the first time, waits for a key, writes to the same pages again
; (the console has taken a snapshot meanwhile), and then dirties pages over and over: as many as the
; word at COUNT says, one in each 64K.

%include "check64.inc"
%include "cost.inc"

COUNT equ 0x6000
PAGES equ 0x800000              ; touched, and copied
ZEROED equ 0x5000
COPIED equ 0x4000
DIRTIED equ 0x1000000           ; ... from here on
APART equ 0x10000
YIELD equ 0x51520004
DONE equ 0x51520007
KEY_STATUS equ 0x64
KEY_DATA equ 0x60

; Linear addresses from 6 MiB to 1 GiB are their own, by pages of 2 MiB.
show:   mov edi, PD + 3 * 8
        mov eax, 0x600000 | P | W | PS
        mov ecx, 509
.next:  stosq
        add eax, 0x200000
        loop .next
        ret

; ROUNDS pages from PAGES on are written to, one after the other, and the cost of each is kept.
touch:  call begin
        mov r14d, PAGES
.next:  CLOCK
        mov r13, rax
        mov byte [r14], 1
        CLOCK
        sub rax, r13
        sub rax, [empty]
        call record
        add r14, 0x1000
        dec r12d
        jnz .next
        ret

; What is a page's worth of REP STOSQ, and of REP MOVSQ, as the hypervisor zeroes and copies.
zero:   call begin
.next:  mov edi, ZEROED
        mov r9d, 512
        CLOCK
        mov r13, rax
        xor eax, eax
        mov ecx, r9d
        rep stosq
        CLOCK
        sub rax, r13
        sub rax, [empty]
        call record
        dec r12d
        jnz .next
        mov esi, .text
        jmp report
.text:  db "a page zeroed", 0

copy:   call begin
.next:  mov esi, ZEROED
        mov edi, COPIED
        CLOCK
        mov r13, rax
        mov ecx, 512
        rep movsq
        CLOCK
        sub rax, r13
        sub rax, [empty]
        call record
        dec r12d
        jnz .next
        mov esi, .text
        jmp report
.text:  db "a page copied", 0

wait_key:
        in al, KEY_STATUS
        test al, 1
        jz wait_key
        in al, KEY_DATA
        ret

ready:  db "ready", 0

main:   call show
        call calibrate
        call zero
        call copy
        call touch
        mov esi, .first
        call report
        mov esi, ready
        call puts
        call newline
        call wait_key
        call touch
        mov esi, .again
        call report
.round: mov eax, YIELD
        vmcall
        mov ecx, [COUNT]
        mov edi, DIRTIED
        jecxz .done
.page:  inc byte [rdi]
        add edi, APART
        loop .page
.done:  mov eax, DONE
        vmcall
        jmp .round
.first: db "a first touch", 0
.again: db "a write after a snapshot", 0
        align 512
