; A Multiboot 2 kernel: looks at what EBX leads to. Made as an ELF file of either class.
%include "start32.inc"

TAG_CMDLINE equ 1
TAG_LOADER equ 2
TAG_MODULE equ 3
TAG_MEMORY equ 4
TAG_MAP equ 6
TAG_SCREEN equ 8
TAG_SECTIONS equ 9

        section .multiboot alloc noexec nowrite align=8
header: dd 0xe85250d6, 0, header_end - header, -(0xe85250d6 + header_end - header)
        align 8
        dw 1, 0                 ; information that has to be there
        dd 24, TAG_CMDLINE, TAG_MODULE, TAG_MAP, TAG_SECTIONS
        align 8
        dw 4, 0                 ; a console, and text will do
        dd 12, 3
        align 8
        dw 5, 1                 ; graphics, if there are any
        dd 20, 1024, 768, 32
        align 8
        dw 6, 0                 ; modules to a page's start
        dd 8
        align 8
        dw 7, 1                 ; EFI, if there is any
        dd 8
        align 8
        dw 0, 0
        dd 8
header_end:

; The address of tag %1's content in EBP, 0 for none.
%macro FIND 1
        mov ecx, %1
        call find
%endmacro

        section .text
        global _start
_start:
        mov esp, stack
        cld
        mov ecx, eax
        EXPECT "EAX", ecx, 0x36d76289
        mov ecx, ebx
        and ecx, 7
        EXPECT "EBX is aligned", ecx, 0
        call check_machine
        FIND TAG_CMDLINE
        EXPECT_TEXT "the command line", ebp, "words for multiboot 2"
        FIND TAG_LOADER
        EXPECT_TEXT "the loader's name", ebp, "Quire"
        FIND TAG_MODULE
        mov ecx, [ebp]
        EXPECT "a module's first bytes", [ecx], "payl"
        mov ecx, [ebp + 4]
        sub ecx, [ebp]
        EXPECT "its size", ecx, 8
        lea ecx, [ebp + 8]
        EXPECT_TEXT "its words", ecx, "payload of mine"
        FIND TAG_MEMORY
        EXPECT "lower memory", [ebp], 639
        EXPECT "upper memory", [ebp + 4], 7 * 1024
        FIND TAG_SCREEN
        EXPECT "the screen", [ebp], SCREEN
        movzx ecx, byte [ebp + 21]
        EXPECT "is text", ecx, 2
        FIND TAG_MAP
        EXPECT "the size of the map's entries", [ebp], 24
        mov ecx, [ebp - 4]
        sub ecx, 16
        shr ecx, 3              ; more than there are, but all within
        lea edi, [ebp + 8]
        mov edx, 24
        mov eax, 0x100000
        call type_in_map
        mov ebp, eax
        EXPECT "RAM from 1M up", ebp, 1
        FIND TAG_SECTIONS
        ; The names' section lies in memory and begins with an empty name.
        mov eax, [ebp + 8]
        mul dword [ebp + 4]
        lea ecx, [ebp + 12]
        add ecx, eax
        mov ecx, [ecx + SECTION_ADDRESS]
        test ecx, ecx
        setnz al
        movzx edx, al
        mov ebp, ecx
        mov ecx, edx
        EXPECT "the names of sections are in memory", ecx, 1
        movzx ecx, byte [ebp]
        EXPECT "and begin with a zero", ecx, 0
        EXPECT "then a dot", [ebp + 1], ".sym"
        END

find:   lea ebp, [ebx + 8]
.next:  cmp [ebp], ecx
        je .found
        cmp dword [ebp], 0
        je .none
        mov eax, [ebp + 4]
        add eax, 7
        and eax, ~7
        add ebp, eax
        jmp .next
.none:  mov ebp, -8
.found: add ebp, 8
        ret
