; VM entry and exit. APM Vol. 2, 15.5 "VMRUN Instruction", 15.6 "#VMEXIT", 15.17 "Global Interrupt
; Flag". VMRUN switches what decides about control; VMLOAD and VMSAVE switch FS, GS, TR, LDTR and
; the MSRs of SYSCALL and SYSENTER; the code below the general registers; resident.c the rest.

bits 64
default rel

%include "arch/x86_64/stuff_returns.inc"

%define GPR(n) 8 * n                    ; enum gpr of vm/backend.h
G_RCX equ 1
G_RDX equ 2
G_RBX equ 3
G_RBP equ 5
G_RSI equ 6
G_RDI equ 7

section .text

; void svm_enter(uint64_t gpr[GPR_COUNT], uint64_t guest, uint64_t host, bool shadow)
;   rdi  the guest's general registers, loaded now and stored at the exit; but for RAX and RSP,
;        which the VMCB has
;   rsi  the physical address of its VMCB
;   rdx  that of the one that keeps the host's FS, GS, TR, ...
;   cl   is the guest in an interrupt shadow? The VMCB says so to the CPU; QEMU does not look there, and
;        has the guest begin in the shadow of the host's STI, if that is right before (docs/SVM.md).
; Expects interrupts masked. From CLGI to STGI nothing interrupts the host; STI in between has a
; pending interrupt end the guest's run, whatever the guest's own flag says (15.21.1, V_INTR_MASKING).
; Keeps what the calling convention wants kept and leaves nothing of the guest in other registers.
global svm_enter
svm_enter:
        push rbp
        push rbx
        push r12
        push r13
        push r14
        push r15
        push rdx
        push rdi

        clgi
        mov rax, rdx
        vmsave
        mov rax, rsi
        vmload
        test cl, cl                     ; no MOV changes flags
        mov rcx, [rdi + GPR(G_RCX)]
        mov rdx, [rdi + GPR(G_RDX)]
        mov rbx, [rdi + GPR(G_RBX)]
        mov rbp, [rdi + GPR(G_RBP)]
        mov rsi, [rdi + GPR(G_RSI)]
        mov r8, [rdi + GPR(8)]
        mov r9, [rdi + GPR(9)]
        mov r10, [rdi + GPR(10)]
        mov r11, [rdi + GPR(11)]
        mov r12, [rdi + GPR(12)]
        mov r13, [rdi + GPR(13)]
        mov r14, [rdi + GPR(14)]
        mov r15, [rdi + GPR(15)]
        mov rdi, [rdi + GPR(G_RDI)]
        jnz .shadow
        sti                             ; with GIF 0 nothing comes yet
        jmp .run                        ; STI's shadow ends here
.shadow:
        sti
.run:   vmrun                           ; the exit comes back here, with the RAX from before
        cli
        vmsave

        push rdi
        mov rdi, [rsp + 8]
        mov [rdi + GPR(G_RCX)], rcx
        mov [rdi + GPR(G_RDX)], rdx
        mov [rdi + GPR(G_RBX)], rbx
        mov [rdi + GPR(G_RBP)], rbp
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
        pop rax
        vmload                          ; GS is the host's again
        lea rbp, [rsp + 5 * 8]          ; our frame: by it an NMI that waited finds who called
        stgi
        STUFF_RETURNS

        xor eax, eax
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

section .note.GNU-stack noalloc noexec nowrite progbits
