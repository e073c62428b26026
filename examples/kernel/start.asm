; From GRUB's 32-bit protected mode (Multiboot2 Specification 2.0, 3.3) to kernel_main() in 64-bit
; mode.
;
; The tables here map the first GiB three times: where it is, for the jump; at the direct map's
; address, for the allocator and the mapper; and where the kernel is linked. The mapper's own table
; replaces them.

KERNEL_BASE     equ 0xffffffff80000000
P_W             equ 3                           ; present, writable
P_W_PS          equ 0x83                        ; and a 2 MiB page

%define phys(label) ((label) - KERNEL_BASE)

extern kernel_main

section .multiboot
header: dd 0xe85250d6, 0, header_end - header
        dd -(0xe85250d6 + header_end - header)
        dd 0, 8                                 ; the end of the tags
header_end:

section .boot exec
        bits 32
global start
start:
        mov     esp, phys(stack_top)
        mov     esi, ebx                        ; the boot information
        mov     edi, eax                        ; the magic number
        mov     dword [phys(pml4)], phys(pdpt) + P_W
        mov     dword [phys(pml4) + 256 * 8], phys(pdpt) + P_W
        mov     dword [phys(pml4) + 511 * 8], phys(pdpt) + P_W
        mov     dword [phys(pdpt)], phys(pd) + P_W
        mov     dword [phys(pdpt) + 510 * 8], phys(pd) + P_W
        xor     ecx, ecx
.page:  mov     eax, ecx
        shl     eax, 21
        or      eax, P_W_PS
        mov     [phys(pd) + ecx * 8], eax
        inc     ecx
        cmp     ecx, 512
        jb      .page

        mov     eax, 1 << 5                     ; CR4.PAE
        mov     cr4, eax
        mov     eax, phys(pml4)
        mov     cr3, eax
        mov     ecx, 0xc0000080                 ; IA32_EFER: LME, NXE
        rdmsr
        or      eax, 1 << 8 | 1 << 11
        wrmsr
        mov     eax, cr0
        or      eax, 1 << 31 | 1 << 16          ; PG, WP
        mov     cr0, eax
        lgdt    [phys(gdt_pointer)]
        jmp     8:phys(long_mode)

        bits 64
long_mode:
        mov     eax, 16
        mov     ss, eax
        mov     ds, eax
        mov     es, eax
        mov     rsp, stack_top
        xor     ebp, ebp
        mov     rax, kernel_main                ; (magic, information)
        call    rax
        ud2

section .rodata
        align 8
gdt:    dq 0, 0x00af9b000000ffff, 0x00cf93000000ffff
gdt_pointer:
        dw gdt_pointer - gdt - 1
        dq phys(gdt)

section .bss
        align 4096
pml4:   resb 4096
pdpt:   resb 4096
pd:     resb 4096
stack:  resb 16384
stack_top:
