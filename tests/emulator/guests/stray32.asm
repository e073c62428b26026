; Accesses where nothing is, and writes to ROM, as `stray=lost` has them. Started by entry=elf32 with
; mem=8M, rom=4M+64K and `bare`.
%include "start32.inc"

END_OF_RAM equ 8 << 20
ROM_AT equ 4 << 20
NOWHERE equ 0xc0000000
LAPIC_ID equ 0xfee00020         ; a local APIC has it, and `bare` has none

        section .text
        global _start
_start: mov esp, stack
        cld
        mov edi, 1 << 20        ; as kernels look for the end of their RAM
.probe: cmp edi, ROM_AT
        je .next                ; it would say no RAM
        mov ecx, [edi]
        mov dword [edi], 0x55aa55aa
        cmp dword [edi], 0x55aa55aa
        mov [edi], ecx
        jne .found
.next:  add edi, 64 << 10
        jmp .probe
.found: mov ebp, edi
        EXPECT "the end of RAM, by trying", ebp, END_OF_RAM
        EXPECT "nothing reads as ones", [NOWHERE], -1
        movzx ecx, byte [NOWHERE + 1]
        EXPECT "a byte of it", ecx, 0xff
        EXPECT "no device, either", [LAPIC_ID], -1
        add dword [NOWHERE], 1
        pushfd
        pop ecx
        and ecx, 1 | 1 << 6
        EXPECT "ones and one are zero, with a carry", ecx, 1 | 1 << 6
        EXPECT "which is lost", [NOWHERE], -1
        mov dword [END_OF_RAM - 2], 0x12345678
        EXPECT "half at RAM's end", [END_OF_RAM - 2], 0xffff5678
        mov edi, END_OF_RAM - 8
        mov ecx, 4
        mov eax, 0x01020304
        rep stosd
        mov ebp, edi
        EXPECT "a string goes beyond", ebp, END_OF_RAM + 8
        EXPECT "and is there to the end", [END_OF_RAM - 4], 0x01020304
        mov dword [ROM_AT], 5
        EXPECT "a write to ROM is lost", [ROM_AT], 0
        mov ecx, 7
        xchg [ROM_AT + 4], ecx
        EXPECT "an exchange reads it", ecx, 0
        EXPECT "and no more", [ROM_AT + 4], 0
        mov eax, [bad]
        test eax, eax
        jnz .end
        jmp NOWHERE             ; code that lies nowhere stops a guest
.end:   END
