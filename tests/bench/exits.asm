; What exits cost a guest, in ticks of the TSC: in an emulator that counts instructions, the
; instructions of the hypervisor from the guest's and back. Each is taken many times, and printed are
; the lowest and the mean. To be run with `pc`.

%define PC
%include "check64.inc"

VIEW equ 0x90000
LAPIC equ VIEW
IOAPIC equ VIEW + 0x1000
TICK_VECTOR equ 0x31            ; of check64.inc's stubs; its gate is made anew below

%include "cost.inc"

expiry: dq 0
ticks:  dd 0

; COST "text", <instruction>: RAX, RCX and RDX are as R8, R9 and R10 say
%macro COST 2
        jmp %%go
%%text: db %1, 0
%%go:   call begin
%%next: CLOCK
        mov r13, rax
        mov rax, r8
        mov rcx, r9
        mov rdx, r10
        %2
        CLOCK
        sub rax, r13
        sub rax, [empty]
        call record
        dec r12d
        jnz %%next
        mov esi, %%text
        call report
%endmacro

map:    mov eax, 0xfee00000 | P | W
        mov [PT + (VIEW >> 12) * 8], rax
        mov eax, 0xfec00000 | P | W
        mov [PT + (VIEW >> 12) * 8 + 8], rax
        mov rax, cr3
        mov cr3, rax
        ret

; An interrupt gate of our own.
set_gate:
        mov edi, IDT + TICK_VECTOR * 16
        mov eax, tick
        mov [rdi], ax
        mov word [rdi + 2], KERNEL_CODE
        mov word [rdi + 4], 0x8e00
        mov dword [rdi + 6], 0
        mov dword [rdi + 10], 0
        ret

tick:   CLOCK
        sub rax, [expiry]
        call record
        mov ecx, 0x80b          ; x2APIC: EOI
        xor eax, eax
        xor edx, edx
        wrmsr
        inc dword [ticks]
        iretq

; From a deadline to the first instruction of its handler.
deadlines:
        mov ecx, 0x832          ; the timer's entry: TSC-deadline mode
        mov eax, TICK_VECTOR | 1 << 18
        xor edx, edx
        wrmsr
        call begin
.next:  mov ebx, [ticks]
        CLOCK
        add rax, 20000
        mov [expiry], rax
        mov rdx, rax
        shr rdx, 32
        mov ecx, 0x6e0
        wrmsr
        sti
.wait:  cmp ebx, [ticks]
        je .wait
        cli
        dec r12d
        jnz .next
        mov esi, .text
        jmp report
.text:  db "a deadline, to its handler", 0

main:   call map
        call set_gate
        call calibrate
        xor r8d, r8d
        xor r9d, r9d
        xor r10d, r10d
        COST "CPUID", cpuid
        mov r8d, 0x51520006
        push rbx
        COST "VMCALL", vmcall
        pop rbx
        xor r8d, r8d
        COST "OUT to a port of no device", {out 0x80, al}
        COST "IN from the clock", {in al, 0x71}
        COST "OUT to the 8259", {out 0x21, al}
        mov r9d, 0x10
        COST "RDMSR of the TSC", rdmsr
        mov r9d, 0
        COST "local APIC: EOI by the window", {mov dword [LAPIC + 0xb0], 0}
        COST "local APIC: a read by the window", {mov eax, [LAPIC + 0x80]}
        COST "I/O APIC: a read by the window", {mov eax, [IOAPIC + 0x10]}
        mov ecx, 0x1b           ; to x2APIC mode
        rdmsr
        or eax, 0xc00
        wrmsr
        mov r9d, 0x80b
        COST "local APIC: EOI by x2APIC", wrmsr
        call deadlines
        mov dword [bad], 0
        jmp finish
        IMAGE_END
