; A guest whose page tables lie in ROM: rom=0x10000+16K. A is set in all of them, and no page is
; written that has D clear, so the CPU has nothing to write there by itself. It enters 64-bit mode
; and passes.

PML4 equ 0x10000
PDPT equ 0x11000
PD   equ 0x12000
FLAGS equ 0x27                  ; present, writable, user, accessed

        bits 16
        org 0x7c00
        cli
        xor ax, ax
        mov ds, ax
        mov eax, PML4
        mov cr3, eax
        mov eax, cr4
        or eax, 1 << 5
        mov cr4, eax
        mov ecx, 0xc0000080
        rdmsr
        or eax, 1 << 8
        wrmsr
        lgdt [gdt_pointer]
        mov eax, cr0
        or eax, 1 << 31 | 1
        mov cr0, eax
        jmp 8:long_mode

        bits 64
long_mode:
        mov edx, 0x80           ; the hypervisor's walk is like the CPU's
        mov esi, text
        outsb
        mov esi, text
        mov ecx, text_end - text
        mov edx, 0xe9
        rep outsb
        xor eax, eax
        mov edx, 0x510
        out dx, eax

        align 8
gdt:    dq 0
        dq 0x00209b0000000000
gdt_pointer:
        dw gdt_pointer - gdt - 1
        dd gdt
text:   db "walked", 10
text_end:
        times 510 - ($ - $$) db 0
        dw 0xaa55

        times PML4 - 0x7c00 - ($ - $$) db 0
        dq PDPT | FLAGS
        times PDPT - 0x7c00 - ($ - $$) db 0
        dq PD | FLAGS
        times PD - 0x7c00 - ($ - $$) db 0
        dq FLAGS | 0xc0         ; a dirty page of 2 MiB
