; The way of another CPU from a start-up IPI to C (SDM Vol. 3, 9.4.4 "MP Initialization Example").
;
; It begins in real mode at the start of the page below 1 MiB that ap_trampoline was copied to. From
; there it takes the tables of boot/entry.asm, which map the first 4 GiB as they are and the image at
; its place, and then the kernel's own. No stack is used before the CPU has one of its own.

%include "x86/control.inc"

IMAGE_BASE      equ 0xffffffff80000000
PERCPU_KERNEL_RSP equ 8                 ; arch/x86_64/percpu.h

CODE32          equ 0x08
DATA            equ 0x10
CODE64          equ 0x18

%define phys(label) ((label) - IMAGE_BASE)

global ap_trampoline
global ap_trampoline_end
global ap_taken
global ap_root
extern boot_pml4
extern ap_main

section .rodata align=16

; Copied. CS is the page's number * 256, IP 0.
        bits 16
ap_trampoline:
        cli
        cld
        mov     ax, cs
        mov     ds, ax
        xor     ebx, ebx
        mov     bx, ax
        shl     ebx, 4                          ; the page's address
        add     ebx, gdt - ap_trampoline
        mov     [gdt_pointer + 2 - ap_trampoline], ebx
        o32 lgdt [gdt_pointer - ap_trampoline]
        mov     eax, cr0
        or      eax, CR0_PE
        mov     cr0, eax
        jmp     dword CODE32:phys(ap_protected)

        align 8
gdt:    dq 0
        dq 0x00cf9b000000ffff                   ; code: 32-bit, ring 0, accessed
        dq 0x00cf93000000ffff                   ; data
        dq 0x00af9b000000ffff                   ; code: 64-bit
gdt_pointer:
        dw gdt_pointer - gdt - 1
        dd 0
ap_trampoline_end:

section .boot.text exec align=16

        bits 32
ap_protected:
        mov     eax, DATA
        mov     ds, eax
        mov     es, eax
        mov     ss, eax
        mov     eax, CR4_PAE
        mov     cr4, eax
        mov     eax, phys(boot_pml4)
        mov     cr3, eax
        mov     ecx, IA32_EFER
        rdmsr
        or      eax, EFER_LME | EFER_NXE
        wrmsr
        mov     eax, cr0
        and     eax, ~(CR0_EM | CR0_TS | CR0_AM | CR0_NW | CR0_CD)
        or      eax, CR0_PG | CR0_WP | CR0_NE | CR0_MP | CR0_PE
        mov     cr0, eax
        jmp     CODE64:phys(ap_low)

        bits 64
ap_low: mov     rax, ap_high
        jmp     rax                             ; leave the identity map

section .text exec align=16

ap_high:
        xor     eax, eax
        mov     ds, eax
        mov     es, eax
        mov     fs, eax
        mov     gs, eax
        mov     rax, [rel ap_root]
        mov     cr3, rax
        ; Who comes when nobody is expected any more finds nothing to take.
        xor     edi, edi
        xchg    rdi, [rel ap_taken]
        test    rdi, rdi
        jz      .stop
        mov     rsp, [rdi + PERCPU_KERNEL_RSP]
        xor     ebp, ebp                        ; backtraces end here
        call    ap_main                         ; ap_main(struct percpu *), does not return
.stop:  cli
        hlt
        jmp     .stop

section .data align=8

; The struct percpu of the CPU that is expected, and the kernel's CR3.
ap_taken:
        dq 0
ap_root:
        dq 0

section .note.GNU-stack noalloc noexec nowrite progbits
