; Hardware task switches: by JMP, CALL and IRET, by task gates of exceptions and INT, in both
; formats of TSS; what is saved and loaded, who is busy, steps and the T bit, and what faults. Run
; it `lazy`.

IDT  equ 0x78000
TSS_A equ 0x79000               ; the first task
TSS_B equ 0x101000              ; the others, in memory that is touched late
TSS_16 equ 0x103ff0             ; across a page's end
TSS_H equ 0x105000              ; of the handler behind task gates
PD_A equ 0x60000
PD_B equ 0x61000
VIEW equ 0x20000000
STACK_A equ 0x7c00
STACK_B equ 0x7000
STACK_H equ 0x108000             ; untouched, too

CR0_PE equ 1
CR0_TS equ 8
TF  equ 1 << 8
NT  equ 1 << 14
RF  equ 1 << 16

DEBUG_PORT equ 0xe9
RESULT_PORT equ 0x510

; Offsets in a TSS
LINK equ 0
CR3_ equ 0x1c
EIP  equ 0x20
EFLAGS equ 0x24
EAX_ equ 0x28
ESP_ equ 0x38
ES_  equ 0x48
CS_  equ 0x4c
SS_  equ 0x50
DS_  equ 0x54
FS_  equ 0x58
GS_  equ 0x5c
LDT_ equ 0x60
TRAP equ 0x64

        bits 16
        org 0x7c00
        cli
        xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, STACK_A
        lgdt [gdt_pointer]
        mov eax, cr0
        or eax, CR0_PE
        mov cr0, eax
        jmp 8:protected
        times 510 - ($ - $$) db 0
        dw 0xaa55

%macro TASK 2                   ; base, type
        dq 0x0000800000000067 | (%1 & 0xffff) << 16 | (%1 >> 16 & 0xff) << 32 | (%2) << 40
%endmacro
        align 8
gdt:    dq 0
        dq 0x00cf9b000000ffff   ; 08 code
        dq 0x00cf93000000ffff   ; 10 data
        TASK TSS_A, 9           ; 18
gdt_b:  TASK TSS_B, 9           ; 20
gdt_16: TASK TSS_16, 1          ; 28, 16-bit
        TASK TSS_H, 9           ; 30
        dq 0x00cf13000000ffff   ; 38 data, not present
        dq 0x000000000000ffff   ; 40 nothing
gdt_ldt: dq 0x0000820000000fff ; 48 LDT; its base is filled in
        dq 0x00cf92000000ffff   ; 50 data, not accessed yet
gdt_short: dq 0x0000890000000066 | (TSS_B & 0xffff) << 16 | (TSS_B >> 16) << 32 ; 58 too short
gdt_pointer:
        dw gdt_pointer - gdt - 1
        dd gdt
ldt:    dq 0
        dq 0x00cf93000000ffff   ; 0c data
idt_pointer:
        dw 64 * 8 - 1
        dd IDT

        bits 32
%macro GATE 1
        align 16
  %if %1 == 8 || (%1 >= 10 && %1 <= 14) || %1 == 17
        push dword %1
  %else
        push dword 0
        push dword %1
  %endif
        jmp exception
%endmacro
        align 16
stubs:
%assign vector 0
%rep 64
        GATE vector
  %assign vector vector + 1
%endrep

; What the last exception was, by the task that was on; it goes on at [resume].
got_vector: dd -1
got_code: dd 0
got_eip: dd 0
got_tr: dd 0
got_dr6: dd 0
got_count: dd 0
resume: dd 0
exception:
        push eax
        mov eax, 0x10
        mov ds, eax
        mov es, eax
        mov eax, [esp + 4]
        mov [got_vector], eax
        mov eax, [esp + 8]
        mov [got_code], eax
        mov eax, [esp + 12]
        mov [got_eip], eax
        str eax
        mov [got_tr], eax
        mov eax, dr6
        mov [got_dr6], eax
        inc dword [got_count]
        mov eax, 0xffff0ff0
        mov dr6, eax
        cmp dword [got_vector], 1
        je .trap
        mov eax, [resume]
        mov [esp + 12], eax
.trap:  and dword [esp + 20], ~TF
        mov dword [esp + 16], 8 ; a task may have come with another CS
        pop eax
        add esp, 8
        iretd

bad:    dd 0
ok:     db "ok ", 0
not_ok: db "BAD ", 0

puts:   push eax
        push edx
.next:  lodsb
        test al, al
        jz .out
        mov edx, DEBUG_PORT
        out dx, al
        jmp .next
.out:   pop edx
        pop eax
        ret

hex:    push ecx
        push edx
        push edi
        mov edi, eax
        mov edx, DEBUG_PORT
        mov al, ' '
        out dx, al
        mov ecx, 8
.digit: rol edi, 4
        mov eax, edi
        and eax, 15
        add al, '0'
        cmp al, '9'
        jbe .out
        add al, 'a' - '0' - 10
.out:   out dx, al
        loop .digit
        pop edi
        pop edx
        pop ecx
        ret

; EXPECT "text", what (a memory operand or a number), wanted
%macro EXPECT 3
        pushad
        mov eax, %2
        mov ebx, %3
        mov esi, %%text
        call expect
        popad
        jmp %%out
%%text: db %1, 0
%%out:
%endmacro
expect: cmp eax, ebx
%ifdef QUIET                    ; as in check64.inc
        je .quiet
%endif
        push esi
        mov esi, ok
        je .say
        inc dword [bad]
        mov esi, not_ok
.say:   call puts
        pop esi
        call puts
        cmp eax, ebx
        je .out
        call hex
        mov eax, ebx
        call hex
.out:   mov al, 10
        mov edx, DEBUG_PORT
        out dx, al
.quiet: ret

; A fresh TSS at EDI for a task that begins at EAX with its stack at EBX.
new_task:
        push edi
        push eax
        mov ecx, 26
        xor eax, eax
        rep stosd
        pop eax
        pop edi
        mov [edi + EIP], eax
        mov dword [edi + EFLAGS], 2
        mov [edi + ESP_], ebx
        mov dword [edi + CS_], 8
        mov dword [edi + SS_], 0x10
        mov dword [edi + DS_], 0x50
        mov dword [edi + ES_], 0x10
        mov dword [edi + FS_], 0
        mov dword [edi + GS_], 0x0c
        mov dword [edi + LDT_], 0x48
        ret
%macro NEW_B 1
        mov edi, TSS_B
        mov eax, %1
        mov ebx, STACK_B
        call new_task
%endmacro

; The busy bit of a descriptor of the GDT, as 0 or 1
%macro BUSY 1
        mov eax, [gdt + %1 + 4]
        shr eax, 9
        and eax, 1
%endmacro

%macro FAULTS 4-5 0x18          ; text, selector, vector, code, TR
        mov dword [got_vector], -1
        mov dword [resume], %%back
        jmp %2:0
%%back: mov esp, STACK_A
        EXPECT {%1, ": vector"}, [got_vector], %3
        EXPECT {%1, ": code"}, [got_code], %4
        EXPECT {%1, ": TR"}, [got_tr], %5
%endmacro

protected:
        mov eax, 0x10
        mov ds, eax
        mov es, eax
        mov ss, eax
        mov fs, eax
        mov gs, eax
        mov esp, STACK_A
        mov edi, IDT
        mov ebx, stubs
        mov ecx, 64
.gate:  mov [edi], bx
        mov word [edi + 2], 8
        mov word [edi + 4], 0x8e00
        mov eax, ebx
        shr eax, 16
        mov [edi + 6], ax
        add edi, 8
        add ebx, 16
        loop .gate
        lidt [idt_pointer]
        mov eax, ldt
        mov [gdt_ldt + 2], ax
        mov eax, 0x18
        ltr ax

        ; JMP there and back.
        NEW_B jumped
        mov dword [edi + EAX_], 0x11223344
        mov dword [edi + EAX_ + 4], 0xccddeeff
        mov eax, 0x1ff          ; all breakpoints that are the task's own are switched off
        or eax, 0x400
        mov dr7, eax
        clts
        mov eax, 0x5a5a5a5a
        mov ebx, 0xb5b5b5b5
        jmp 0x20:0
came_back:
        EXPECT "JMP back: EAX", eax, 0x5a5a5a5a
        EXPECT "JMP back: EBX", ebx, 0xb5b5b5b5
        mov ecx, esp
        EXPECT "JMP back: ESP", ecx, STACK_A
        EXPECT "JMP: the old EIP", [seen_eip], came_back
        EXPECT "JMP: the new EAX", [seen_eax], 0x11223344
        EXPECT "JMP: the new ECX", [seen_ecx], 0xccddeeff
        EXPECT "JMP: the new ESP", [seen_esp], STACK_B
        EXPECT "JMP: the new TR", [seen_tr], 0x20
        EXPECT "JMP: the new LDTR", [seen_ldt], 0x48
        EXPECT "JMP: the new GS", [seen_gs], 0x0c
        EXPECT "JMP: CR0.TS", [seen_cr0], CR0_TS
        EXPECT "JMP: DR7", [seen_dr7], 0x4aa
        EXPECT "JMP: NT", [seen_flags], 0
        EXPECT "JMP: the old is not busy", [seen_busy_a], 0
        EXPECT "JMP: the new is busy", [seen_busy_b], 1
        BUSY 0x18
        EXPECT "back: this one is busy", eax, 1
        BUSY 0x20
        EXPECT "back: that one is not", eax, 0
        mov eax, [gdt + 0x50 + 4]
        shr eax, 8
        and eax, 1
        EXPECT "the accessed bit of DS's descriptor", eax, 1
        xor eax, eax
        mov dr7, eax

        ; CALL and IRET.
        NEW_B called
        mov eax, 0x77
        call 0x20:0
        EXPECT "CALL and back: EAX", eax, 0x77
        EXPECT "CALL: NT", [seen_flags], NT
        EXPECT "CALL: the link", [seen_link], 0x18
        EXPECT "CALL: both are busy", [seen_busy_a], 1
        BUSY 0x20
        EXPECT "IRET: that one is not busy", eax, 0
        mov eax, [TSS_B + EFLAGS]
        and eax, NT
        EXPECT "IRET: NT is not saved", eax, 0
        ; ... and once more, where it has stopped.
        mov eax, 0x78
        call 0x20:0
        EXPECT "CALL again: EAX", eax, 0x78
        EXPECT "CALL again: how often", [called_count], 2

        ; The 16-bit format.
        mov edi, TSS_16
        mov ecx, 22
        xor eax, eax
        rep stosw
        mov word [TSS_16 + 0x0e], small
        mov word [TSS_16 + 0x10], 2
        mov word [TSS_16 + 0x12], 0x4321
        mov word [TSS_16 + 0x1a], STACK_B
        mov word [TSS_16 + 0x22], 0x10
        mov word [TSS_16 + 0x24], 8
        mov word [TSS_16 + 0x26], 0x10
        mov word [TSS_16 + 0x28], 0x10
        mov word [TSS_16 + 0x2a], 0
        mov eax, 0x99
        call 0x28:0
        EXPECT "16-bit: EAX", eax, 0x99
        mov eax, [seen_eax]
        and eax, 0xffff
        EXPECT "16-bit: AX", eax, 0x4321
        EXPECT "16-bit: TR", [seen_tr], 0x28
        movzx eax, word [TSS_16 + 0x0e]
        EXPECT "16-bit: IP as saved", eax, small_end

        ; Task gates: an interrupt, an exception with an error code, one without.
        mov edi, TSS_H
        mov eax, handler
        mov ebx, STACK_H
        call new_task
        mov dword [IDT + 0x31 * 8], 0x30 << 16
        mov dword [IDT + 0x31 * 8 + 4], 0x8500
        mov dword [IDT + 13 * 8], 0x30 << 16
        mov dword [IDT + 13 * 8 + 4], 0x8500
        mov dword [IDT + 6 * 8], 0x30 << 16
        mov dword [IDT + 6 * 8 + 4], 0x8500
        mov dword [handler_skip], 0
        mov dword [handler_code], 0
        int 0x31
after_int:
        EXPECT "INT by a task gate: EIP", [seen_eip], after_int
        EXPECT "INT by a task gate: TR", [seen_tr], 0x30
        mov eax, [seen_eflags]
        and eax, RF
        EXPECT "INT by a task gate: RF", eax, 0
        mov dword [handler_skip], 2
        ud2
        EXPECT "#UD by a task gate: handled", [handler_count], 2
        mov eax, [seen_eflags]
        and eax, RF
        EXPECT "#UD by a task gate: RF", eax, RF
        mov dword [handler_skip], 5
        mov dword [handler_code], 1
        mov dword [seen_code], -1
bad_load:
        mov eax, 0x88
        mov fs, eax             ; beyond the GDT; the handler passes it
        nop
        nop
        nop
        EXPECT "#GP by a task gate: its code", [seen_code], 0x88
        EXPECT "#GP by a task gate: EIP", [seen_eip], bad_load + 5
        EXPECT "#GP by a task gate: handled", [handler_count], 3
        mov dword [IDT + 13 * 8], stubs + 13 * 16 + 0x80000     ; below 64 KiB: offset and selector
        mov dword [IDT + 13 * 8 + 4], 0x8e00

        ; The T bit, and a step over a switch.
        NEW_B called
        mov word [edi + TRAP], 1
        mov dword [got_count], 0
        call 0x20:0
        EXPECT "T: #DBs", [got_count], 1
        EXPECT "T: DR6", [got_dr6], 0xffff8ff0
        EXPECT "T: before the first instruction", [got_eip], called
        EXPECT "T: in the new task", [got_tr], 0x20
        NEW_B called
        mov dword [got_count], 0
        pushfd
        or dword [esp], TF
        popfd
        call 0x20:0
        EXPECT "step: #DBs", [got_count], 2     ; TF is in the old task's EFLAGS, which come back
        mov dword [got_count], 0

        ; What faults before the switch does so here, what faults after it, there.
        NEW_B called
        FAULTS "too short", 0x58, 10, 0x58
        BUSY 0x18
        EXPECT "too short: nothing is changed", eax, 1
        NEW_B called
        mov dword [edi + DS_], 0x38
        FAULTS "DS not present", 0x20, 11, 0x38, 0x20
        BUSY 0x18
        EXPECT "DS not present: the switch has been", eax, 0
        call back_to_a
        NEW_B called
        mov dword [edi + SS_], 0x38
        FAULTS "SS not present", 0x20, 12, 0x38, 0x20
        call back_to_a
        NEW_B called
        mov dword [edi + CS_], 0x10
        FAULTS "CS is data", 0x20, 10, 0x10, 0x20
        call back_to_a
        NEW_B called
        mov dword [edi + LDT_], 0x10
        FAULTS "the LDT is none", 0x20, 10, 0x10, 0x20
        call back_to_a
        NEW_B called
        mov dword [edi + ES_], 0x40
        FAULTS "ES is nothing", 0x20, 10, 0x40, 0x20
        call back_to_a

        ; With paging each task has its directory: the second shows the first 4 MiB once more.
        mov dword [PD_A], 0x87
        mov dword [PD_B], 0x87
        mov dword [PD_B + (VIEW >> 22) * 4], 0x87
        mov dword [TSS_A + CR3_], PD_A
        mov eax, cr4
        or eax, 1 << 4
        mov cr4, eax
        mov eax, PD_A
        mov cr3, eax
        mov eax, cr0
        or eax, 1 << 31
        mov cr0, eax
        NEW_B viewer
        mov dword [edi + CR3_], PD_B
        call 0x20:0
        EXPECT "CR3: the new task's", [seen_eax], PD_B
        EXPECT "CR3: what it shows", [seen_ecx], [bad_load]
        mov eax, cr3
        EXPECT "CR3: this one's again", eax, PD_A
        NEW_B viewer
        mov dword [edi + CR3_], PD_A
        mov dword [got_vector], -1
        mov dword [resume], .viewed
        call 0x20:0
.viewed:
        mov esp, STACK_A
        EXPECT "CR3 without it: vector", [got_vector], 14
        EXPECT "CR3 without it: in the new task", [got_tr], 0x20

        mov eax, [bad]
        mov edx, RESULT_PORT
        out dx, eax

viewer: mov eax, cr3
        mov [seen_eax], eax
        mov eax, [VIEW + bad_load]
        mov [seen_ecx], eax
        iretd

; TR has task B; the first again, as if nothing had been.
back_to_a:
        and byte [gdt + 0x18 + 5], ~2
        and byte [gdt_b + 5], ~2
        mov eax, 0x18
        ltr ax
        mov eax, 0x10
        mov ds, eax
        mov es, eax
        mov ss, eax
        mov fs, eax
        mov gs, eax
        ret

seen_eax: dd 0
seen_ecx: dd 0
seen_esp: dd 0
seen_tr: dd 0
seen_ldt: dd 0
seen_gs: dd 0
seen_cr0: dd 0
seen_dr7: dd 0
seen_flags: dd 0
seen_eflags: dd 0
seen_eip: dd 0
seen_link: dd 0
seen_busy_a: dd 0
seen_busy_b: dd 0
seen_code: dd 0

look:   mov [seen_eax], eax
        mov [seen_ecx], ecx
        str eax
        mov [seen_tr], eax
        sldt eax
        mov [seen_ldt], eax
        mov eax, gs
        mov [seen_gs], eax
        mov eax, cr0
        and eax, CR0_TS
        mov [seen_cr0], eax
        mov eax, dr7
        mov [seen_dr7], eax
        pushfd
        pop eax
        and eax, NT
        mov [seen_flags], eax
        mov eax, [TSS_A + EIP]
        mov [seen_eip], eax
        mov eax, [TSS_A + EFLAGS]
        mov [seen_eflags], eax
        mov eax, [TSS_B + LINK]
        mov [seen_link], eax
        BUSY 0x18
        mov [seen_busy_a], eax
        BUSY 0x20
        mov [seen_busy_b], eax
        ret

jumped: mov [seen_esp], esp
        call look
        jmp 0x18:0

called_count: dd 0
called: nop
        call look
        inc dword [called_count]
        iretd
        jmp called              ; the next CALL goes on here

handler_count: dd 0
handler_skip: dd 0              ; what to pass of the instruction that faulted
handler_code: dd 0
handler:
        cmp dword [handler_code], 0
        je .none
        pop dword [seen_code]
.none:  call look
        inc dword [handler_count]
        mov eax, [handler_skip]
        add [TSS_A + EIP], eax
        iretd
        jmp handler

        bits 16
small:  mov [dword seen_eax], eax
        str eax
        mov [dword seen_tr], eax
        iret
small_end:
        bits 32
