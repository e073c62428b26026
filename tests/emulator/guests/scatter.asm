; A flat guest that ends the same on every CPU: from the seed in its image it draws addresses between
; 1 and 4 MiB, writes to one and reads from the next, by 4 KiB pages of its own; says "scattered" and
; halts for good. Run it with mem=4M lazy. Assemble it with -DSEED=N.

PML4 equ 0x10000
PDPT equ 0x11000
PD   equ 0x12000
PT   equ 0x13000                ; two of them, for 4 MiB

PRESENT  equ 1
WRITE    equ 2
ROUNDS   equ 200

IA32_EFER equ 0xc0000080
EFER_LME  equ 1 << 8
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
        mov dword [PDPT - PML4], PD | PRESENT | WRITE
        mov dword [PD - PML4], PT | PRESENT | WRITE
        mov dword [PD - PML4 + 8], (PT + 0x1000) | PRESENT | WRITE
        mov di, PT - PML4
        mov eax, PRESENT | WRITE
fill:   mov [di], eax
        add eax, 0x1000
        add di, 8
        cmp eax, 4 << 20
        jb fill
        xor ax, ax
        mov ds, ax

        mov eax, PML4
        mov cr3, eax
        mov eax, cr4
        or eax, CR4_PAE
        mov cr4, eax
        mov ecx, IA32_EFER
        rdmsr
        or eax, EFER_LME
        wrmsr
        lgdt [gdt_pointer]
        mov eax, cr0
        or eax, CR0_PE | CR0_PG
        mov cr0, eax
        jmp 8:long_mode

; RAX: the next number; EDI: an address of 8 bytes within [1, 4) MiB, drawn by it.
%macro DRAW 0
        mul rbx
        add rax, 1442695040888963407 & 0x7fffffff
        mov rcx, rax
        shr rcx, 33
        push rax
        mov eax, ecx
        xor edx, edx
        mov ecx, (3 << 20) / 8
        div ecx
        lea edi, [edx * 8 + (1 << 20)]
        pop rax
%endmacro

        bits 64
long_mode:
        mov esp, 0x7c00
        mov rbx, 6364136223846793005
        mov rax, SEED
        mov ebp, ROUNDS
round:  DRAW
        mov [rdi], rax
        DRAW
        add r8, [rdi]
        dec ebp
        jnz round
        mov [0x8000], r8        ; what the reads found
        mov esi, text
        mov ecx, text_end - text
        mov dx, DEBUG_PORT
        rep outsb
stay:   hlt
        jmp stay

        align 8
gdt:    dq 0
        dq 0x00209b0000000000   ; 64-bit code
gdt_pointer:
        dw gdt_pointer - gdt - 1
        dd gdt
text:   db "scattered", 10
text_end:

        times 510 - ($ - $$) db 0
        dw 0xaa55
