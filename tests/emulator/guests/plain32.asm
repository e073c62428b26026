; An ELF file without any header, started by entry=elf32.
%include "start32.inc"

        section .text
        global _start
_start: mov esp, stack
        cld
        mov ecx, cr0
        and ecx, CR0_PE | CR0_PG
        EXPECT "protected mode without paging", ecx, CR0_PE
        EXPECT "the start information", [ebx], 0x336ec578
        EXPECT_TEXT "the command line", [ebx + 24], "words for elf"
        jmp 8:.loaded           ; the GDT is there
.loaded:
        mov ecx, 0x10
        mov ds, ecx
        mov ss, ecx
        EXPECT "its segments can be loaded", ecx, 0x10
        END
