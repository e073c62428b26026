; A PVH kernel: looks at what EBX leads to. Made as an ELF file of either class.
%include "start32.inc"

        section .note.Xen note alloc noexec nowrite align=4
        dd 4, NOTE_SIZE, 18
        db "Xen", 0
%if NOTE_SIZE == 8
        dq enter
%else
        dd enter
%endif

        section .text
        global _start
_start: ud2                     ; the note counts, not the ELF header
enter:  mov esp, stack
        cld
        EXPECT "the magic number", [ebx], 0x336ec578
        EXPECT "the version", [ebx + 4], 1
        call check_machine
        EXPECT_TEXT "the command line", [ebx + 24], "words for pvh"
        EXPECT "one module", [ebx + 12], 1
        mov ebp, [ebx + 16]
        EXPECT "its size", [ebp + 8], 8
        mov ecx, [ebp]
        and ecx, 0xfff
        EXPECT "its alignment", ecx, 0
        mov ecx, [ebp]
        EXPECT "its first bytes", [ecx], "payl"
        EXPECT_TEXT "its words", [ebp + 16], "payload of mine"
        mov edi, [ebx + 40]
        mov ecx, [ebx + 48]
        mov edx, 24
        mov eax, 0x100000
        call type_in_map
        mov ebp, eax
        EXPECT "RAM from 1M up", ebp, 1
        mov edi, [ebx + 40]
        mov ecx, [ebx + 48]
        mov edx, 24
        mov eax, 0x9fc00
        call type_in_map
        mov ebp, eax
        EXPECT "the extended BIOS data are reserved", ebp, 2
        END
