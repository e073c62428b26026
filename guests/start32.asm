; The beginning of a 32-bit test guest: Multiboot 1 header, own GDT (the specification leaves the
; loader's invalid), stack, and into guest_main(info).

        bits 32

MULTIBOOT_MAGIC equ 0x1BADB002
MULTIBOOT_LOADED equ 0x2BADB002
FLAG_ALIGN      equ 1 << 0
FLAG_MEMORY     equ 1 << 1
FLAGS           equ FLAG_ALIGN | FLAG_MEMORY

extern guest_main
global _start

section .multiboot align=4
        dd MULTIBOOT_MAGIC, FLAGS, -(MULTIBOOT_MAGIC + FLAGS)

section .text
_start:
        mov     esp, stack_top
        lgdt    [gdt_pointer]
        jmp     8:.own_segments
.own_segments:
        mov     ecx, 16
        mov     ds, ecx
        mov     es, ecx
        mov     ss, ecx
        mov     fs, ecx
        mov     gs, ecx
        cmp     eax, MULTIBOOT_LOADED
        je      .by_multiboot
        xor     ebx, ebx
.by_multiboot:
        push    0                       ; the stack as the ABI wants it at a call
        push    0
        push    0
        push    ebx
        xor     ebp, ebp                ; the outermost frame
        call    guest_main
.stop:  cli
        hlt
        jmp     .stop

section .rodata
        align 8
gdt:
        dq 0
        dq 0x00cf9b000000ffff           ; code, 4 GiB
        dq 0x00cf93000000ffff           ; data
gdt_pointer:
        dw gdt_pointer - gdt - 1
        dd gdt

section .bss align=16
stack:  resb 16384
stack_top:
