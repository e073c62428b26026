; From GRUB's 32-bit protected mode to quire_main in 64-bit mode.
;
; GRUB leaves: EAX the magic number, EBX the physical address of the boot information, flat 32-bit
; segments, paging off, interrupts off, no stack. (Multiboot2 Specification 2.0, 3.3 "I386 machine
; state".) The tables made here serve only until the kernel's own stand:
;
;   0                    .. 4 GiB   identity, for the instructions right here
;   0xffff800000000000   .. + 4 GiB the same frames: the beginning of the direct map
;   0xffffffff80000000   .. + 1 GiB the first GiB: the image
;
; all in 2 MiB pages, readable, writable and executable.

IMAGE_BASE      equ 0xffffffff80000000
BOOT_GIBS       equ 4           ; how much of physical memory is mapped

MULTIBOOT2_MAGIC equ 0x36d76289
COM1            equ 0x3f8
LSR             equ 5           ; line status: offset, and its bit "holding register empty"
LSR_THRE        equ 0x20

%include "x86/control.inc"
CPUID_EXT       equ 0x80000001
EXT_EDX_NX      equ 20
EXT_EDX_LM      equ 29
RFLAGS_ID       equ 1 << 21

ENTRY_P         equ 1 << 0
ENTRY_W         equ 1 << 1
ENTRY_PS        equ 1 << 7
PAGE_2M         equ 0x200000

KERNEL_CODE     equ 0x08
KERNEL_DATA     equ 0x10

%define phys(label) ((label) - IMAGE_BASE)

global boot_entry
global boot_entry_tsc
global boot_pml4
global boot_stack_guard
global boot_stack
global boot_stack_top
global stack_continue
extern quire_main

section .boot.text exec align=16

        bits 32
boot_entry:
        cld
        mov     esp, phys(boot_stack_top)
        mov     esi, eax                        ; the magic number
        mov     edi, ebx                        ; the boot information

        mov     ebp, phys(text_not_multiboot)
        cmp     esi, MULTIBOOT2_MAGIC
        jne     refuse32

        ; CPUID exists where the ID flag can be changed.
        mov     ebp, phys(text_no_long_mode)
        pushfd
        pop     eax
        mov     ecx, eax
        xor     eax, RFLAGS_ID
        push    eax
        popfd
        pushfd
        pop     eax
        xor     eax, ecx
        test    eax, RFLAGS_ID
        jz      refuse32

        mov     eax, 0x80000000
        cpuid
        cmp     eax, CPUID_EXT
        jb      refuse32
        mov     eax, CPUID_EXT
        cpuid
        bt      edx, EXT_EDX_LM
        jnc     refuse32
        mov     ebp, phys(text_no_nx)
        bt      edx, EXT_EDX_NX
        jnc     refuse32

        rdtsc
        mov     [phys(boot_entry_tsc)], eax
        mov     [phys(boot_entry_tsc) + 4], edx

        ; Four page directories, one after the other, map 4 GiB as 2048 large pages.
        mov     ebx, phys(boot_pd)
        mov     eax, ENTRY_P | ENTRY_W | ENTRY_PS
        mov     ecx, BOOT_GIBS * 512
.page:  mov     [ebx], eax
        mov     dword [ebx + 4], 0
        add     eax, PAGE_2M
        add     ebx, 8
        loop    .page

        mov     ebx, phys(boot_pdpt)
        mov     eax, phys(boot_pd) + (ENTRY_P | ENTRY_W)
        mov     ecx, BOOT_GIBS
.directory:
        mov     [ebx], eax
        mov     dword [ebx + 4], 0
        add     eax, 0x1000
        add     ebx, 8
        loop    .directory

        ; The image's GiB: entry 510 of the PDPT under the last PML4 entry.
        mov     dword [phys(boot_pdpt_image) + 510 * 8], phys(boot_pd) + (ENTRY_P | ENTRY_W)
        mov     dword [phys(boot_pml4)], phys(boot_pdpt) + (ENTRY_P | ENTRY_W)
        mov     dword [phys(boot_pml4) + 256 * 8], phys(boot_pdpt) + (ENTRY_P | ENTRY_W)
        mov     dword [phys(boot_pml4) + 511 * 8], phys(boot_pdpt_image) + (ENTRY_P | ENTRY_W)

        ; SDM Vol. 3, 9.8.5 "Initializing IA-32e mode".
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

        lgdt    [phys(boot_gdt_pointer)]
        jmp     KERNEL_CODE:phys(long_low)

; EBP: the physical address of a text that ends in 0. Says it on COM1 and stops.
refuse32:
        mov     ebx, ebp
        mov     dx, COM1 + 3                    ; line control: the divisor latch
        mov     al, 0x80
        out     dx, al
        mov     dx, COM1
        mov     al, 1                           ; 115200
        out     dx, al
        inc     dx
        xor     eax, eax
        out     dx, al
        mov     dx, COM1 + 3
        mov     al, 3                           ; 8N1
        out     dx, al
.next:  mov     ecx, 1000000                    ; a port that is not there must not hang us
        mov     dx, COM1 + LSR
.wait:  in      al, dx
        test    al, LSR_THRE
        loopz   .wait
        mov     al, [ebx]
        test    al, al
        jz      .stop
        mov     dx, COM1
        out     dx, al
        inc     ebx
        jmp     .next
.stop:  cli
        hlt
        jmp     .stop

        bits 64
long_low:
        mov     rax, long_high
        jmp     rax                             ; leave the identity map

section .text exec align=16

long_high:
        mov     eax, KERNEL_DATA
        mov     ss, eax
        mov     ds, eax
        mov     es, eax
        xor     eax, eax
        mov     fs, eax
        mov     gs, eax
        mov     rsp, boot_stack_top
        xor     ebp, ebp                        ; backtraces end here
        mov     eax, esi                        ; quire_main(magic, information)
        mov     esi, edi
        mov     edi, eax
        call    quire_main                      ; does not return
        ud2

; _Noreturn void stack_continue(uint64_t top, void (*next)(void)): leaves the current stack for
; good and goes on at `next` on the one that ends at `top` (16-byte aligned).
stack_continue:
        mov     rsp, rdi
        xor     ebp, ebp
        call    rsi
        ud2

section .rodata

text_not_multiboot:
        db "quire: not started by a Multiboot 2 loader; use GRUB 2 with `multiboot2`", 13, 10, 0
text_no_long_mode:
        db "quire: this CPU has no 64-bit mode; Quire needs an x86-64 CPU", 13, 10, 0
text_no_nx:
        db "quire: this CPU has no execute-disable (NX), or the firmware has it switched off", 13, 10, 0

        align 8
boot_gdt:
        dq 0
        dq 0x00af9b000000ffff                   ; code: 64-bit, ring 0, accessed
        dq 0x00cf93000000ffff                   ; data
boot_gdt_end:
boot_gdt_pointer:
        dw boot_gdt_end - boot_gdt - 1
        dq phys(boot_gdt)                       ; LGDT in 32-bit mode reads four bytes of it

section .data

        align 8
boot_entry_tsc:
        dq 0

section .bss align=4096

boot_pml4:              resb 4096
boot_pdpt:              resb 4096
boot_pdpt_image:        resb 4096
boot_pd:                resb 4096 * BOOT_GIBS
boot_stack_guard:       resb 4096               ; the kernel's table leaves this page absent
boot_stack:             resb 16384
boot_stack_top:
