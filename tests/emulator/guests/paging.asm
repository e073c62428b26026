; A flat guest for the console's tests: it enters 64-bit mode on tables of its own, puts marks into its
; registers, says "ready" and stays where it is. Its mappings, beside 0..2 MiB onto themselves:
;
;   0x200000  read-only     onto 0x7000       0x202000  read-write  onto where it has no memory
;   0x201000  no-execute    onto 0x8000       0x203000  nothing
;
; and all of it once more at 0xffff800000000000.

PML4 equ 0x10000
PDPT equ 0x11000
PD   equ 0x12000
PT   equ 0x13000

PRESENT  equ 1
WRITE    equ 2
LARGE    equ 0x80
NX_HIGH  equ 0x80000000         ; bit 63, in the upper half of an entry
NOWHERE  equ 0x40000000

IA32_EFER equ 0xc0000080
EFER_LME  equ 1 << 8
EFER_NXE  equ 1 << 11
CR0_PE    equ 1 << 0
CR0_PG    equ 1 << 31
CR4_PAE   equ 1 << 5

DEBUG_PORT equ 0xe9

        bits 16
        org 0x7c00

        cli
        mov ax, PML4 >> 4       ; memory begins as zeroes; the tables are below this segment + 64K
        mov ds, ax
        mov dword [0], PDPT | PRESENT | WRITE
        mov dword [256 * 8], PDPT | PRESENT | WRITE
        mov dword [PDPT - PML4], PD | PRESENT | WRITE
        mov dword [PD - PML4], PRESENT | WRITE | LARGE
        mov dword [PD - PML4 + 8], PT | PRESENT | WRITE
        mov dword [PT - PML4], 0x7000 | PRESENT
        mov dword [PT - PML4 + 8], 0x8000 | PRESENT | WRITE
        mov dword [PT - PML4 + 12], NX_HIGH
        mov dword [PT - PML4 + 16], NOWHERE | PRESENT | WRITE
        xor ax, ax
        mov ds, ax

        mov eax, PML4
        mov cr3, eax
        mov eax, cr4
        or eax, CR4_PAE
        mov cr4, eax
        mov ecx, IA32_EFER
        rdmsr
        or eax, EFER_LME | EFER_NXE
        wrmsr
        lgdt [gdt_pointer]
        mov eax, cr0
        or eax, CR0_PE | CR0_PG
        mov cr0, eax
        jmp 8:long_mode

        bits 64
long_mode:
        mov esi, text
        mov ecx, text_end - text
        mov dx, DEBUG_PORT
        rep outsb
        mov rax, 0x1122334455667788
        mov r8, 0x8888888888888888
        mov r15, 0x0f0f0f0f0f0f0f0f
        mov rsp, 0xffff800000007c00
stay:   jmp stay

        align 8
gdt:    dq 0
        dq 0x00209b0000000000   ; 64-bit code
gdt_pointer:
        dw gdt_pointer - gdt - 1
        dd gdt
text:   db "ready", 10
text_end:

        times 510 - ($ - $$) db 0
        dw 0xaa55
