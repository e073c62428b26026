; VM entry and exit, and the return from an NMI that was taken as an exit. SDM Vol. 3, chapters 27
; "VM entries" and 28 "VM exits": everything in the VMCS is switched by the CPU, the general
; registers and CR2 by the code below, the rest by resident.c.

bits 64
default rel

%include "arch/x86_64/stuff_returns.inc"

VMCS_HOST_RSP equ 0x6c14

; Offsets in the array of general registers: enum gpr of vm/backend.h, eight bytes each.
%define GPR(n) 8 * n
G_RAX equ 0
G_RCX equ 1
G_RDX equ 2
G_RBX equ 3
G_RBP equ 5
G_RSI equ 6
G_RDI equ 7

; struct vmx_live of vcpu.h.
LIVE_CR2 equ 0
LIVE_HOST_RSP equ 8

ENTERED equ 0
FAIL_VALID equ 1
FAIL_INVALID equ 2

section .text

; enum vmx_enter vmx_enter(uint64_t gpr[GPR_COUNT], struct vmx_live *live, bool launched)
;   rdi  the guest's general registers, loaded now and stored at the exit; RSP's slot is not used
;   rsi  its CR2, likewise, and what the VMCS holds as the host's RSP
;   dl   0: VMLAUNCH, else VMRESUME
; Expects the guest's VMCS current, its host RIP being vmx_exited, and interrupts masked. Returns
; after the next exit with 0, or with 1 (VMfailValid) or 2 (VMfailInvalid) when the guest was not
; entered. Keeps what the calling convention wants kept and leaves nothing of the guest in the other
; general registers.
global vmx_enter
vmx_enter:
        push rbp
        push rbx
        push r12
        push r13
        push r14
        push r15
        push rsi
        push rdi

        ; A VMWRITE may itself be an exit to a hypervisor below: only when the stack is another one.
        cmp rsp, [rsi + LIVE_HOST_RSP]
        je .stack_known
        mov eax, VMCS_HOST_RSP
        vmwrite rax, rsp
        jbe .failed
        mov [rsi + LIVE_HOST_RSP], rsp
.stack_known:
        mov rax, [rsi + LIVE_CR2]
        mov cr2, rax
        test dl, dl                     ; no MOV below changes the flags
        mov rax, [rdi + GPR(G_RAX)]
        mov rcx, [rdi + GPR(G_RCX)]
        mov rdx, [rdi + GPR(G_RDX)]
        mov rbx, [rdi + GPR(G_RBX)]
        mov rsi, [rdi + GPR(G_RSI)]
        mov r8, [rdi + GPR(8)]
        mov r9, [rdi + GPR(9)]
        mov r10, [rdi + GPR(10)]
        mov r11, [rdi + GPR(11)]
        mov r12, [rdi + GPR(12)]
        mov r13, [rdi + GPR(13)]
        mov r14, [rdi + GPR(14)]
        mov r15, [rdi + GPR(15)]
        mov rbp, [rdi + GPR(G_RBP)]
        mov rdi, [rdi + GPR(G_RDI)]
        jnz .resume
        vmlaunch
        jmp .failed
.resume:
        vmresume
.failed:
        ; CF: VMfailInvalid, ZF: VMfailValid. The guest's registers in the CPU are copies.
        mov eax, FAIL_VALID
        mov ecx, FAIL_INVALID
        cmovc eax, ecx
        add rsp, 16
        jmp leave_guest

; The host RIP of every VMCS. The CPU comes here with RSP as vmx_enter left it and RFLAGS cleared.
global vmx_exited
vmx_exited:
        push rdi
        mov rdi, [rsp + 8]
        mov [rdi + GPR(G_RBP)], rbp
        lea rbp, [rsp + 8 * 8]          ; our frame: by it an NMI finds who called
        mov [rdi + GPR(G_RAX)], rax
        mov [rdi + GPR(G_RCX)], rcx
        mov [rdi + GPR(G_RDX)], rdx
        mov [rdi + GPR(G_RBX)], rbx
        mov [rdi + GPR(G_RSI)], rsi
        pop qword [rdi + GPR(G_RDI)]
        mov [rdi + GPR(8)], r8
        mov [rdi + GPR(9)], r9
        mov [rdi + GPR(10)], r10
        mov [rdi + GPR(11)], r11
        mov [rdi + GPR(12)], r12
        mov [rdi + GPR(13)], r13
        mov [rdi + GPR(14)], r14
        mov [rdi + GPR(15)], r15
        pop rdi
        pop rsi
        mov rax, cr2
        mov [rsi + LIVE_CR2], rax
        xor eax, eax                    ; ENTERED
leave_guest:
        STUFF_RETURNS
        xor ecx, ecx
        xor edx, edx
        xor esi, esi
        xor edi, edi
        xor r8d, r8d
        xor r9d, r9d
        xor r10d, r10d
        xor r11d, r11d
        pop r15
        pop r14
        pop r13
        pop r12
        pop rbx
        pop rbp
        ret

; void vmx_unblock_nmi(void)
; After an exit by NMI further ones stay blocked until an IRET (28.5.5 "Updating Non-Register
; State", 6.7.1 "Handling Multiple NMIs"): return by one to the caller. Clobbers rax, rcx.
global vmx_unblock_nmi
vmx_unblock_nmi:
        mov rcx, rsp
        mov eax, ss
        push rax
        push rcx
        pushfq
        mov eax, cs
        push rax
        lea rax, [.unblocked]
        push rax
        iretq
.unblocked:
        ret

section .note.GNU-stack noalloc noexec nowrite progbits
