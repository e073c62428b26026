; Instructions that reach a device, against themselves on memory: at one linear page there is first
; memory and then the HPET, whose comparators keep what is written to them. To be run with `pc`.

%define PC
%include "check64.inc"

HPET equ 0xfed00000
RAM  equ 0x60000                ; what the page shows the first time
VIEW equ 0x90000                ; linear; its neighbour behind is absent
SLOT equ PT + (VIEW >> 12) * 8
REG  equ VIEW + 0x108           ; the first comparator
WILD equ 0x3e3e3e3e12345678     ; what it holds before each run
TARGET equ 0x5000               ; code to be called

turn:   dd 0                    ; 0: memory is next
value:  dq WILD
entry_bits: dq P | W

; The page with what is next behind it, the same content in both.
view:   mov rax, HPET | P | W
        mov [SLOT], rax
        invlpg [VIEW]
        mov rax, [value]
        mov dword [VIEW + 0x100], 0     ; one-shot, without interrupts
        mov [REG], rax
        mov [RAM + 0x108], rax
        xor dword [turn], 1
        mov eax, RAM
        jnz .memory
        mov eax, HPET
.memory:
        or rax, [entry_bits]
        mov [SLOT], rax
        mov qword [SLOT + 8], 0
        mov qword [watch0], SLOT
        mov eax, REG
        mov [p_rsi], rax
        mov [p_rdi], rax
        mov rax, 0x1122334455667788
        mov [p_rcx], rax
        ret

view_twice:                     ; for REP: both halves
        call view
        mov qword [p_rcx], 2
        ret
view_compatible:
        call view
        mov qword [p_cs], 0x38
        ret
view_compatible_twice:
        call view_twice
        mov qword [p_cs], 0x38
        ret
view_none:
        call view
        mov qword [p_rcx], 0
        ret
view_to_memory:
        call view
        mov qword [p_rdi], RAM + 0x800
        mov qword [p_rcx], 1
        ret
view_from_memory:
        call view
        mov qword [p_rsi], WORDS
        mov qword [p_rcx], 2
        ret
view_down:
        call view_twice
        add qword [p_rsi], 4
        add qword [p_rdi], 4
        or qword [p_rflags], DF
        ret
view_read_only:
        mov qword [entry_bits], P
        call view
        mov qword [entry_bits], P | W
        ret
view_ring3:
        call view
        mov qword [p_ring], 3
        ret
view_users:
        mov qword [entry_bits], P | W | U
        call view_ring3
        mov qword [entry_bits], P | W
        ret
view_end:                       ; the last bytes of the page
        call view
        mov eax, VIEW + 0xffe
        mov [p_rsi], rax
        mov [p_rdi], rax
        ret
view_code:
        mov qword [value], TARGET
        call view
        mov rax, WILD
        mov [value], rax
        ret
view_equal:                     ; RAX of a CMPXCHG is 0x2e2e2e2e
        mov qword [value], 0x2e2e2e2e
        call view
        mov rax, WILD
        mov [value], rax
        ret

; SAME "text", prepare, <instruction>: run twice. LEFT also tells what is in the register afterwards, by
; RCX, and the flags, by RDI. Several instructions stand between BEGIN and SAME_END or LEFT_END.
%macro BEGIN 2
  %push case
        jmp %$go
%$text: db %1, 0
  %define %$prepare %2
%$stub:
%endmacro
%macro SAME_END 0
        int DONE_VECTOR
%$go:   mov ebx, %$stub
        mov r15d, %$prepare
        call case_run
        mov esi, seen
        mov edi, control
        mov ecx, SEEN
        rep movsq
        mov ebx, %$stub
        mov r15d, %$prepare
        call case_run
        mov esi, %$text
        call compare
  %pop
%endmacro
%macro LEFT_END 0
        pushfq
        pop rdi
        mov rcx, [REG]
        SAME_END
%endmacro
%macro SAME 3
        BEGIN %1, %2
        %3
        SAME_END
%endmacro
%macro LEFT 3
        BEGIN %1, %2
        %3
        LEFT_END
%endmacro

; The same with TF set: how many #DB there were, where the first two, with which DR6.
%macro STEPPED 3
        BEGIN %1, %2
        pushfq
        or dword [rsp], TF
        popfq
        %3
        pushfq
        and dword [rsp], ~TF
        popfq
        mov eax, [turn]         ; 1: this was memory
        xor eax, 1
        mov ecx, [debug_count]
        mov [steps + rax * 8], rcx
        mov rcx, [debug_rip]
        mov rsi, [debug_rip + 8]
        mov rdi, [debug_dr6 + 8]
        SAME_END
        mov r12, [steps]
        mov r13, [steps + 8]
        EXPECT {%1, ": steps"}, r13, r12
%endmacro
steps:  dq 0, 0
stepping:
        call view
step_from:
        mov dword [debug_count], 0
        mov dword [debug_more], 100
        ret
stepping_twice:
        call view_twice
        jmp step_from
        align 8
WORDS:  dq 0x1020304050607080

main:   mov byte [TARGET], 0xc3 ; RET
        ; Every size, both ways.
        LEFT "MOV from a register, 4 bytes", view, {mov [REG], ecx}
        LEFT "MOV from a register, 8 bytes", view, {mov [REG], rcx}
        LEFT "MOV to the upper half", view, {mov [rsi + 4], ecx}
        LEFT "MOV of an immediate", view, {mov dword [rdi], 0x55667788}
        LEFT "MOV of a wide immediate", view, {mov qword [rdi], -5}
        SAME "MOV to a register, 1 byte", view, {mov cl, [rsi + 3]}
        BEGIN "MOV to AH", view
        mov ah, [rsi + 1]
        movzx ecx, ah
        SAME_END
        SAME "MOV to a register, 2 bytes", view, {mov cx, [rsi + 2]}
        SAME "MOV to a register, 4 bytes", view, {mov ecx, [rsi]}
        SAME "MOV to a register, 8 bytes", view, {mov rcx, [rsi]}
        BEGIN "MOV to R9", view
        mov r9, [rsi]
        mov rcx, r9
        SAME_END
        BEGIN "MOV by an offset of 8 bytes", view
        mov eax, [qword REG]
        mov ecx, eax
        SAME_END
        LEFT "MOV to an offset of 8 bytes", view, {mov [qword REG], eax}
        BEGIN "MOV by base and index", view
        mov edi, 0x108 / 4
        mov ecx, [rdi * 4 + VIEW]
        SAME_END
        BEGIN "MOV relative to RIP", view
        db 0x48, 0x8b, 0x0d     ; MOV RCX, [RIP + disp32]
        dd REG - ($ + 4)
        SAME_END
        SAME "MOV by a 32-bit address", view, {mov ecx, [esi]}
        SAME "MOVZX of a byte", view, {movzx rcx, byte [rsi + 7]}
        SAME "MOVZX of a word", view, {movzx ecx, word [rsi + 6]}
        SAME "MOVSX of a byte", view, {movsx ecx, byte [rsi]}
        SAME "MOVSX of a word", view, {movsx rcx, word [rsi + 2]}
        SAME "MOVSXD", view, {movsxd rcx, dword [rsi + 4]}
        LEFT "MOVNTI", view, {movnti [rdi], rcx}
        BEGIN "CMOVNZ", view
        test esi, esi
        cmovnz ecx, [rsi]
        SAME_END
        BEGIN "CMOVZ that does not", view
        test esi, esi
        cmovz ecx, [rsi]
        SAME_END
        ; Read, compute, write, with flags.
        LEFT "ADD", view, {add [rdi], ecx}
        BEGIN "ADC", view
        stc
        adc [rdi], rcx
        LEFT_END
        LEFT "SUB", view, {sub dword [rdi], 0x7f}
        BEGIN "SBB", view
        stc
        sbb [rdi], ecx
        LEFT_END
        LEFT "AND", view, {and dword [rdi], 0x0f0f0f0f}
        LEFT "OR", view, {or qword [rdi], 0x101}
        LEFT "XOR", view, {xor [rdi], rcx}
        LEFT "CMP", view, {cmp [rdi], ecx}
        LEFT "CMP the other way", view, {cmp ecx, [rdi]}
        LEFT "TEST", view, {test dword [rdi], 0x80}
        LEFT "ADD to a register", view, {add ecx, [rdi]}
        LEFT "INC", view, {inc dword [rdi]}
        LEFT "DEC, locked", view, {lock dec qword [rdi]}
        LEFT "NOT", view, {not qword [rdi]}
        LEFT "NEG", view, {neg dword [rdi]}
        LEFT "SHL", view, {shl dword [rdi], 5}
        LEFT "SAR by CL", view, {sar qword [rdi], cl}
        LEFT "ROR", view, {ror dword [rdi], 1}
        LEFT "SHLD", view, {shld [rdi], ecx, 1} ; by more OF is undefined
        LEFT "BTS", view, {bts dword [rdi], 31}
        BEGIN "BTR by a register", view
        mov ecx, 40
        btr [rdi], ecx
        LEFT_END
        LEFT "BTC, locked", view, {lock btc dword [rdi], 3}
        LEFT "BT", view, {bt qword [rdi], 61}
        LEFT "XCHG", view, {xchg [rdi], rcx}
        LEFT "XADD, locked", view, {lock xadd [rdi], ecx}
        LEFT "CMPXCHG that does not", view, {lock cmpxchg [rdi], ecx}
        LEFT "CMPXCHG that does", view_equal, {lock cmpxchg [rdi], ecx}
        ; Strings.
        BEGIN "MOVSD from it", view_to_memory
        movsd
        mov ecx, [RAM + 0x800]
        SAME_END
        LEFT "MOVSQ to it", view_from_memory, {movsq}
        LEFT "REP MOVSD to it", view_from_memory, {rep movsd}
        LEFT "STOSD", view, {stosd}
        LEFT "REP STOSD", view_twice, {rep stosd}
        LEFT "REP STOSD, down", view_down, {rep stosd}
        LEFT "REP STOSD of nothing", view_none, {rep stosd}
        BEGIN "LODSQ", view
        lodsq
        mov rcx, rax
        SAME_END
        SAME "REP LODSD", view_twice, {rep lodsd}
        SAME "SCASD", view, {scasd}
        SAME "REPNE SCASD", view_twice, {repne scasd}
        SAME "REPE CMPSD with itself", view_twice, {repe cmpsd}
        ; The stack, and where to go.
        BEGIN "PUSH", view
        push qword [rsi]
        pop rcx
        SAME_END
        BEGIN "POP", view
        push rcx
        pop qword [rdi]
        LEFT_END
        BEGIN "CALL", view_code
        call [rsi]
        mov ecx, 1
        SAME_END
        BEGIN "JMP", view_code
        lea rcx, [rel %$back]
        push rcx
        jmp [rsi]
%$back: nop
        SAME_END
        ; Refusals: nothing is touched.
        SAME "a write to a read-only page", view_read_only, {mov [rdi], ecx}
        SAME "a read of a read-only page", view_read_only, {mov ecx, [rsi]}
        SAME "an XCHG with a read-only page", view_read_only, {xchg [rdi], ecx}
        SAME "a supervisor's page from ring 3", view_ring3, {mov ecx, [rsi]}
        SAME "a user's page from ring 3", view_users, {mov rcx, [rsi]}
        BEGIN "a write to a user's page from ring 3", view_users
        mov [rdi], ecx
        mov rcx, [rdi]
        SAME_END
        SAME "a read across into an absent page", view_end, {mov ecx, [rsi]}
        SAME "a write across into an absent page", view_end, {mov [rdi], rcx}
        SAME "MOVSD across into an absent page", view_end, {movsd}
        BEGIN "PUSH onto nothing from ring 3", view_users
        mov esp, VIEW + 0x1008
        push qword [rsi]
        SAME_END
        SAME "CALL to what is no address", view, {call [rsi]}
        ; 32-bit code.
%macro SAME32 3
        BEGIN %1, %2
        bits 32
        %3
        bits 64
        SAME_END
%endmacro
        SAME32 "32-bit: MOV", view_compatible, {mov ecx, [esi]}
        SAME32 "32-bit: MOV by an offset", view_compatible, {mov eax, [REG + 4]}
        SAME32 "32-bit: ADD", view_compatible, {add [edi], ecx}
        SAME32 "32-bit: ADC to a register", view_compatible, {adc ecx, [esi + 4]}
        SAME32 "32-bit: REP STOSD", view_compatible_twice, {rep stosd}
        BEGIN "32-bit: PUSH and POP", view_compatible
        bits 32
        push dword [esi]
        pop ecx
        push dword 0x12345678
        pop dword [edi]
        mov esi, [edi]
        bits 64
        SAME_END
        ; Steps.
        STEPPED "MOV, stepped", stepping, {mov [rdi], ecx}
        STEPPED "XCHG, stepped", stepping, {xchg [rdi], ecx}
        STEPPED "CALL, stepped", view_code_stepped, {call [rsi]}
        STEPPED "REP STOSD, stepped", stepping_twice, {rep stosd}
        STEPPED "REP LODSD, stepped", stepping_twice, {rep lodsd}
        jmp finish

view_code_stepped:
        call view_code
        jmp step_from
        IMAGE_END
