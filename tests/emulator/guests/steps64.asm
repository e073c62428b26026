; Single steps and breakpoints over instructions that the hypervisor carries out, against
; instructions of the same length that the CPU carries out: how many #DB there are, where, with
; which DR6 and RF.

%include "check64.inc"

MEMORY equ 0x80000
TRAPS equ 1 + 3 * DEBUGS

; What one run left: the count, then RIPs (from the stub's beginning), DR6s and RFs.
        align 8
trace:  times TRAPS dq 0
control_trace: times TRAPS dq 0

p_more: dd 0                    ; traps after which TF goes
p_rax:  dq 0
p_rdx:  dq 0
p_tf:   dq 0
p_dr0:  dq 0                    ; an address, or with p_code an offset into the stub
p_code: dd 0
p_rep:  dd 0                    ; a REP instruction of several iterations
p_dr7:  dq 0
back:   dq 0

step_defaults:
        xor eax, eax
        mov [p_rcx], rax
        mov [p_rax], rax
        mov [p_dr7], rax
        mov [p_code], eax
        mov [p_rep], eax
        mov qword [p_rsi], MEMORY
        mov qword [p_rdi], MEMORY
        mov qword [p_rdx], DELAY_PORT
        mov qword [p_tf], TF
        mov dword [p_more], 1
        ret

; RBX: the stub, which begins by POPFQ and ends by a jump to [back]; R15: prepare
step_run:
        call step_defaults
        call r15
        mov rax, [p_dr0]
        cmp dword [p_code], 0
        je .data
        add rax, rbx
.data:  mov dr0, rax
        mov rax, [p_dr7]
        or eax, 0x400
        mov dr7, rax
        mov dword [debug_count], 0
        mov edi, debug_rip
        mov ecx, 3 * DEBUGS
        xor eax, eax
        rep stosq
        mov eax, [p_more]
        mov [debug_more], eax
        mov [stub], rbx
        mov [run_rsp], rsp
        mov qword [back], .end
        mov rax, [p_rax]
        mov rcx, [p_rcx]
        mov rdx, [p_rdx]
        mov rsi, [p_rsi]
        mov rdi, [p_rdi]
        pushfq
        mov r11, [p_tf]
        or [rsp], r11
        jmp rbx
.end:   mov rsp, [run_rsp]
        push 2
        popfq
        mov eax, 0x400
        mov dr7, rax
        ret

; EDI: where the trace goes
keep_trace:
        mov eax, [debug_count]
        stosq
        mov esi, debug_rip
        mov ecx, DEBUGS
.rip:   lodsq
        test rax, rax
        jz .none
        sub rax, [stub]
.none:  stosq
        dec ecx
        jnz .rip
        mov ecx, 2 * DEBUGS
        rep movsq
        ret

; STEPS "text", prepare, <control>, <tried>
%macro STEPS 4
        jmp %%go
%%text: db %1, 0
%%one:  popfq
        %3
        nop
        nop
        nop
        jmp [back]
%%two:  popfq
        %4
        nop
        nop
        nop
        jmp [back]
%%go:   mov ebx, %%one
        mov r15d, %2
        call step_run
        mov edi, control_trace
        call keep_trace
        mov ebx, %%two
        mov r15d, %2
        call step_run
        mov edi, trace
        call keep_trace
        mov esi, %%text
        call compare_traces
%endmacro

; RAX: the RF that the control had in trap RBX. Between the iterations of a REP instruction the
; manual wants 1 (18.3.1.1) whatever this CPU does; a breakpoint on the instruction itself comes
; before the first.
rf_wanted:
        cmp dword [p_rep], 0
        je .out
        lea ecx, [rbx - 1 - 2 * DEBUGS]
        cmp ecx, [trace]
        jae .out
        cmp dword [p_code], 0
        je .between
        test ecx, ecx
        jz .out
.between:
        mov rdx, [control_trace + 8 + rcx * 8]
        cmp rdx, [control_trace + 8]
        jne .out
        mov eax, 1
.out:   ret

compare_traces:
        mov r8d, esi
        xor ebx, ebx
        xor r9d, r9d
.next:  mov rax, [control_trace + rbx * 8]
        cmp ebx, 1 + 2 * DEBUGS
        jb .wanted
        call rf_wanted
.wanted:
        mov r12, rax
        cmp rax, [trace + rbx * 8]
        je .same
        inc r9d
        call say_bad
        mov esi, r8d
        call puts
        mov rax, rbx
        call hex
        mov rax, r12
        call hex
        mov rax, [trace + rbx * 8]
        call hex
        call newline
.same:  inc ebx
        cmp ebx, TRAPS
        jb .next
        mov esi, ok
        test r9d, r9d
        jz .say
        mov esi, so
.say:   call puts
        mov esi, r8d
        call puts
        mov rax, [trace]
        call hex
        mov rax, [trace + 8]
        call hex
        mov rax, [trace + 8 + 8 * DEBUGS]
        call hex
        jmp newline

; Instructions of the CPU's own, by length.
%macro NOP2 0
        db 0x66, 0x90
%endmacro
%macro NOP3 0
        db 0x0f, 0x1f, 0x00
%endmacro
%macro NOP4 0
        db 0x0f, 0x1f, 0x40, 0x00
%endmacro
%macro WITH_SS 1+               ; in the shadow of MOV SS
        mov ss, [shadow_ss]
        %1
%endmacro
shadow_ss: dw KERNEL_DATA
BEHIND_MOV_SS equ 1 + 7         ; from the stub's beginning, which is POPFQ
; A CPU that traps right behind MOV SS shows nothing of what the cases are for.
not_held: db "cannot: this CPU holds no trap back over MOV SS", 10, 0

as_is:  ret
rdmsr_prepare:
        mov qword [p_rcx], 0x10
        ret
wrmsr_prepare:
        mov qword [p_rcx], 0x8b
        ret
pat_prepare:
        mov ecx, 0x277
        rdmsr
        mov [p_rax], rax
        mov [p_rdx], rdx
        mov [p_rcx], rcx
        ret
cr0_prepare:
        mov rax, cr0
        mov [p_rax], rax
        ret
cr0_change:
        mov rax, cr0
        xor eax, CR0_AM
        mov [p_rax], rax
        ret
cr4_prepare:
        mov rax, cr4
        mov [p_rax], rax
        ret
cr4_change:
        mov rax, cr4
        xor eax, 1 << 2         ; TSD
        mov [p_rax], rax
        ret
xcr_prepare:
        mov qword [p_rax], 3
        mov qword [p_rdx], 0
        ret
backing_prepare:
        mov qword [p_rax], 0x51520006
        ret
hidden: mov qword [p_rcx], 0x480        ; an MSR that guests do not have: a fault, and no step
        ret
hidden_break:
        call hidden
        jmp break_here
; What MOV SS itself reads is watched: the trap waits until the next instruction is done.
held:   mov qword [p_dr7], 2 | 3 << 16 | 1 << 18
        mov qword [p_dr0], shadow_ss
        mov qword [p_tf], 0
        mov dword [p_more], 4
        ret
held_step:
        call held
        mov qword [p_tf], TF
        mov dword [p_more], 2
        ret
held_backing:
        call held
        jmp backing_prepare
held_fault:
        call held
        jmp hidden
held_three:
        call held
        mov dword [p_rep], 1
        mov qword [p_rcx], 3
        ret
; Memory that nobody has touched, run `lazy`: its frame arrives on the way.
untouched:
        add qword [untouched_next], 0x1000
        mov rax, [untouched_next]
        mov [p_rsi], rax
        mov [p_rdi], rax
        ret
untouched_next: dq 0x100000
untouched_three:
        call untouched
        add qword [untouched_next], 0x1000
        add qword [p_rsi], 0xffe
        add qword [p_rdi], 0xffe
three:  mov qword [p_rcx], 3
        mov dword [p_rep], 1
        mov dword [p_more], 5
        ret
none:   mov qword [p_rcx], 0
        ret
many:   mov dword [p_rep], 1
        mov qword [p_rcx], 3000         ; more than are done at once
        mov dword [p_more], 5
        mov qword [p_tf], 0
        jmp break_here

; A breakpoint on the instruction itself (after the one byte of POPFQ), and on the next.
break_here:
        mov qword [p_dr0], 1
        jmp code_break
break_next1:
        mov qword [p_dr0], 2
        jmp code_break
break_next2:
        mov qword [p_dr0], 3
        jmp code_break
break_next3:
        mov qword [p_dr0], 4
code_break:
        mov dword [p_code], 1
        mov qword [p_dr7], 2
        ret
break_here_tf:
        call break_here
        ret
break_here_only:
        mov qword [p_tf], 0
        jmp break_here
break_next1_only:
        mov qword [p_tf], 0
        jmp break_next1
break_next2_only:
        mov qword [p_tf], 0
        jmp break_next2
break_next3_only:
        mov qword [p_tf], 0
        jmp break_next3
break_behind_cr0:
        call cr0_prepare
        jmp break_next3_only
rep_break:
        mov dword [p_rep], 1
        mov qword [p_rcx], 3
        mov dword [p_more], 6
        jmp break_here
rep_break_only:
        call rep_break
        mov qword [p_tf], 0
        ret

; Breakpoints on the memory: R/W 1 or 3, length 1 to 8.
%macro WATCH 4-5+               ; name, DR7, address, count
%1:     mov qword [p_dr7], %2
        mov qword [p_dr0], %3
        mov qword [p_rcx], %4
        mov dword [p_rep], %4 > 1
        mov dword [p_more], 6
        mov qword [p_tf], 0
        %5
        ret
%endmacro
WATCH watch_write, 2 | 1 << 16, MEMORY, 1
WATCH watch_any, 2 | 3 << 16, MEMORY, 1
WATCH watch_second, 2 | 1 << 16, MEMORY + 1, 3
WATCH watch_four, 2 | 3 << 16 | 3 << 18, MEMORY + 4, 12
WATCH watch_eight, 2 | 3 << 16 | 2 << 18, MEMORY + 8, 12
WATCH watch_beside, 2 | 3 << 16, MEMORY + 0x100, 3
WATCH watch_off, 3 << 16, MEMORY, 3
WATCH watch_tf, 2 | 3 << 16, MEMORY + 1, 3, {call step_four}
step_four:
        mov qword [p_tf], TF
        mov dword [p_more], 4
        ret

; The number of #DB, the first one's place and DR6, said by hand: there is no other way to an I/O
; breakpoint.
%macro TRAPPED 5                ; text, prepare, <instruction>, count, DR6
        jmp %%go
%%text: db %1, 0
%%two:  popfq
%%ins:  %3
%%next: nop
        nop
        jmp [back]
%%go:   mov ebx, %%two
        mov r15d, %2
        call step_run
        mov r12d, [debug_count]
        EXPECT {%1, ": #DBs"}, r12, %4
  %if %4
        EXPECT {%1, ": DR6"}, {[debug_dr6]}, 0xffff0ff0 | %5
        EXPECT {%1, ": RIP"}, {[debug_rip + 8 * (%4 - 1)]}, %%next
  %endif
%endmacro

%macro IO_BREAK 4-5+            ; name, CR4.DE or 0, DR7, port
%1:     mov qword [p_dr7], %3
        mov qword [p_dr0], %4
        mov qword [p_tf], 0
        mov dword [p_more], 6
        mov rax, cr4
        and eax, ~CR4_DE
        or eax, %2
        mov cr4, rax
        %5
        ret
%endmacro
IO_BREAK io_one, CR4_DE, 2 | 2 << 16, DELAY_PORT
IO_BREAK io_one_local, CR4_DE, 1 | 2 << 16, DELAY_PORT
IO_BREAK io_other, CR4_DE, 2 | 2 << 16, DELAY_PORT + 1
IO_BREAK io_wide, CR4_DE, 2 | 2 << 16 | 3 << 18, DELAY_PORT + 2
IO_BREAK io_no_de, 0, 2 | 2 << 16, DELAY_PORT
IO_BREAK io_step, CR4_DE, 2 | 2 << 16, DELAY_PORT, {call step_once}
step_once:
        mov qword [p_tf], TF
        mov dword [p_more], 0
        ret
IO_BREAK io_rep, CR4_DE, 2 | 2 << 16, DELAY_PORT, {mov qword [p_rcx], 3}
IO_BREAK io_none, CR4_DE, 2 | 2 << 16, DELAY_PORT, {mov qword [p_rcx], 0}

main:   STEPS "CPUID", as_is, NOP2, cpuid
        STEPS "RDMSR", rdmsr_prepare, NOP2, rdmsr
        STEPS "WRMSR", wrmsr_prepare, NOP2, wrmsr
        STEPS "WRMSR, PAT", pat_prepare, NOP2, wrmsr
        STEPS "RDMSR, PAT", pat_prepare, NOP2, rdmsr
        STEPS "MOV CR0", cr0_prepare, NOP3, {mov cr0, rax}
        STEPS "MOV CR0, a change", cr0_change, NOP3, {mov cr0, rax}
        STEPS "MOV CR4", cr4_prepare, NOP3, {mov cr4, rax}
        STEPS "MOV CR4, a change", cr4_change, NOP3, {mov cr4, rax}
        STEPS "MOV CR8", as_is, NOP4, {mov cr8, rax}
        STEPS "MOV from CR8", as_is, NOP4, {mov rax, cr8}
        STEPS "CLTS", as_is, NOP2, clts
        STEPS "LMSW", cr0_prepare, NOP3, lmsw ax
        STEPS "WBINVD", as_is, NOP2, wbinvd
        STEPS "INVLPG", as_is, NOP3, {invlpg [rax]}
        STEPS "HLT", as_is, nop, hlt
        STEPS "VMCALL", backing_prepare, NOP3, vmcall
        STEPS "IN AL", as_is, nop, {in al, dx}
        STEPS "OUT AL", as_is, nop, {out dx, al}
        STEPS "IN AX", as_is, NOP2, {in ax, dx}
        STEPS "IN AL, 80", as_is, NOP2, {in al, 0x80}
        STEPS "OUTSB", as_is, lodsb, outsb
        STEPS "INSB", as_is, stosb, insb
        STEPS "REP OUTSB", three, rep lodsb, rep outsb
        STEPS "REP INSB", three, rep stosb, rep insb
        STEPS "REP OUTSD", three, rep lodsd, rep outsd
        STEPS "REP OUTSB, none", none, rep lodsb, rep outsb
        STEPS "MOV SS, CPUID", as_is, WITH_SS NOP2, WITH_SS cpuid
        STEPS "MOV SS, IN", as_is, {WITH_SS nop}, {WITH_SS in al, dx}
        STEPS "MOV SS, OUTSB", as_is, WITH_SS lodsb, WITH_SS outsb
        STEPS "MOV SS, REP OUTSB", three, WITH_SS rep lodsb, WITH_SS rep outsb
        STEPS "untouched, OUTSB", untouched, lodsb, outsb
        STEPS "untouched, INSB", untouched, stosb, insb
        STEPS "untouched, REP OUTSB", untouched_three, rep lodsb, rep outsb
        STEPS "untouched, REP INSW", untouched_three, rep stosw, rep insw
        STEPS "MOV SS, untouched, OUTSB", untouched, WITH_SS lodsb, WITH_SS outsb
        STEPS "MOV SS, untouched, INSB", untouched, WITH_SS stosb, WITH_SS insb
        STEPS "MOV SS, untouched, REP INSB", untouched_three, WITH_SS rep stosb, WITH_SS rep insb
        STEPS "MOV SS watched, CPUID", held, WITH_SS NOP2, WITH_SS cpuid
        mov rax, [control_trace + 8]
        cmp rax, BEHIND_MOV_SS
        jne .holds
        mov esi, not_held
        call puts
        jmp .not_held
.holds: STEPS "MOV SS watched, step, CPUID", held_step, WITH_SS NOP2, WITH_SS cpuid
        STEPS "MOV SS watched, OUT", held, {WITH_SS nop}, {WITH_SS out dx, al}
        STEPS "MOV SS watched, step, OUT", held_step, {WITH_SS nop}, {WITH_SS out dx, al}
        STEPS "MOV SS watched, OUTSB", held, WITH_SS lodsb, WITH_SS outsb
        STEPS "MOV SS watched, REP OUTSB", held_three, WITH_SS rep lodsb, WITH_SS rep outsb
        STEPS "MOV SS watched, VMCALL", held_backing, WITH_SS NOP3, WITH_SS vmcall
        STEPS "MOV SS watched, HLT", held, WITH_SS nop, WITH_SS hlt
        STEPS "MOV SS watched, a fault", held_fault, WITH_SS ud2, WITH_SS rdmsr
.not_held:
        STEPS "a fault, RDMSR", hidden, ud2, rdmsr
        STEPS "a fault, WRMSR", hidden, ud2, wrmsr
        STEPS "MOV SS, a fault", hidden, WITH_SS ud2, WITH_SS rdmsr
        STEPS "breakpoint on a fault", hidden_break, ud2, rdmsr
        STEPS "MOV SS, HLT", as_is, WITH_SS nop, WITH_SS hlt
        STEPS "MOV SS, VMCALL", backing_prepare, WITH_SS NOP3, WITH_SS vmcall
        STEPS "MOV SS, WRMSR", wrmsr_prepare, WITH_SS NOP2, WITH_SS wrmsr
        STEPS "MOV SS, MOV CR4", cr4_change, {WITH_SS NOP3}, {WITH_SS mov cr4, rax}
        STEPS "breakpoint on CPUID", break_here_only, NOP2, cpuid
        STEPS "breakpoint on OUT", break_here_only, nop, {out dx, al}
        STEPS "breakpoint and step, CPUID", break_here_tf, NOP2, cpuid
        STEPS "breakpoint behind CPUID", break_next2_only, NOP2, cpuid
        STEPS "breakpoint behind OUT", break_next1_only, nop, {out dx, al}
        STEPS "breakpoint behind HLT", break_next1, nop, hlt
        STEPS "breakpoint behind VMCALL", break_next3_only, NOP3, vmcall
        STEPS "breakpoint behind MOV CR0", break_behind_cr0, NOP3, {mov cr0, rax}
        STEPS "step and breakpoint behind CPUID", break_next2, NOP2, cpuid
        STEPS "step and breakpoint behind OUT", break_next1, nop, {out dx, al}
        STEPS "breakpoint on REP OUTSB", rep_break_only, rep lodsb, rep outsb
        STEPS "breakpoint and step, REP OUTSB", rep_break, rep lodsb, rep outsb
        STEPS "breakpoint on a long REP OUTSB", many, rep lodsb, rep outsb
        STEPS "watched write, INSB", watch_write, stosb, insb
        STEPS "watched write, OUTSB", watch_write, lodsb, outsb
        STEPS "watched, OUTSB", watch_any, lodsb, outsb
        STEPS "watched, INSB", watch_any, stosb, insb
        STEPS "watched second, REP INSB", watch_second, rep stosb, rep insb
        STEPS "watched four, REP OUTSB", watch_four, rep lodsb, rep outsb
        STEPS "watched four, REP OUTSW", watch_four, rep lodsw, rep outsw
        STEPS "watched eight, REP INSD", watch_eight, rep stosd, rep insd
        STEPS "watched beside", watch_beside, rep lodsb, rep outsb
        STEPS "watched, not enabled", watch_off, rep lodsb, rep outsb
        STEPS "watched and stepped", watch_tf, rep lodsb, rep outsb
        TRAPPED "I/O breakpoint, IN", io_one, {in al, dx}, 1, 1
        TRAPPED "I/O breakpoint, OUT", io_one, {out dx, al}, 1, 1
        TRAPPED "I/O breakpoint, local", io_one_local, {out 0x80, al}, 1, 1
        TRAPPED "I/O breakpoint beside", io_other, {out dx, al}, 0, 0
        TRAPPED "I/O breakpoint, word across", io_other, {out dx, ax}, 1, 1
        TRAPPED "I/O breakpoint of four", io_wide, {in al, dx}, 1, 1
        TRAPPED "I/O breakpoint without DE", io_no_de, {in al, dx}, 0, 0
        TRAPPED "I/O breakpoint and step, IN", io_step, {in al, dx}, 1, 0x4001
        TRAPPED "I/O breakpoint, OUTSB", io_one, outsb, 1, 1
        TRAPPED "I/O breakpoint, REP OUTSB", io_rep, rep outsb, 3, 1
        TRAPPED "I/O breakpoint, REP INSW", io_rep, rep insw, 3, 1
        TRAPPED "I/O breakpoint, REP OUTSB, none", io_none, rep outsb, 0, 0
        mov rax, cr4            ; last: nothing before it has changed XCR0
        test eax, CR4_OSXSAVE
        jnz .xsetbv
        mov eax, 1
        xor ecx, ecx
        cpuid
        bt ecx, 26
        jnc finish
        mov rax, cr4
        or eax, CR4_OSXSAVE
        mov cr4, rax
.xsetbv:
        STEPS "XSETBV", xcr_prepare, NOP3, xsetbv
        jmp finish
