; A Multiboot 1 kernel: looks at what EBX leads to. Made as an ELF file of either class, with virtual
; addresses 2G above those that it is loaded at, and an entry point that is one of these.
%include "start32.inc"

        section .multiboot alloc noexec nowrite align=4
        dd 0x1badb002, 7, -(0x1badb002 + 7) ; modules aligned, memory sizes, a video mode

        section .text
        global _start
_start: mov esp, stack
        cld
        mov ecx, eax
        EXPECT "EAX", ecx, 0x2badb002
        call check_machine
        mov ecx, [ebx]
        EXPECT "what there is", ecx, 1 << 0 | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 9 | 1 << 12
        EXPECT "lower memory", [ebx + 4], 639
        EXPECT_TEXT "the command line", [ebx + 16], "words for multiboot 1"
        EXPECT_TEXT "the loader's name", [ebx + 64], "Quire"
        EXPECT "one module", [ebx + 20], 1
        mov ebp, [ebx + 24]
        mov ecx, [ebp]
        EXPECT "its first bytes", [ecx], "payl"
        EXPECT_TEXT "its words", [ebp + 8], "payload of mine"
        EXPECT "the screen", [ebx + 88], SCREEN
        mov edi, [ebx + 48]
        add edi, 4
        mov ecx, [ebx + 44]
        shr ecx, 3
        mov edx, 24
        mov eax, 0x9fc00
        call type_in_map
        mov ebp, eax
        EXPECT "the extended BIOS data are reserved", ebp, 2
        mov eax, [ebx + 40]
        mul dword [ebx + 32]
        add eax, [ebx + 36]
        mov ebp, [eax + SECTION_ADDRESS]
        EXPECT "the names of sections are in memory", [ebp + 1], ".sym"
        END
