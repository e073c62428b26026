; The Multiboot 2 header, by which GRUB recognises the image and learns what it wants.
; (Multiboot2 Specification 2.0, 3.1 "OS image format".) The linker script puts it first.

MAGIC        equ 0xe85250d6
ARCH_I386    equ 0            ; entered in 32-bit protected mode
TAG_END      equ 0
TAG_REQUEST  equ 1
TAG_ALIGN    equ 6            ; modules begin on page boundaries
TAG_OPTIONAL equ 1            ; flag: a loader that does not know this may go on

; Types of boot information tags (3.6 "Boot information").
INFO_CMDLINE   equ 1
INFO_MODULE    equ 3
INFO_MMAP      equ 6
INFO_ACPI_OLD  equ 14
INFO_ACPI_NEW  equ 15
INFO_LOAD_BASE equ 21

section .multiboot align=8

header:
        dd MAGIC, ARCH_I386, header_end - header
        dd 0x100000000 - (MAGIC + ARCH_I386 + (header_end - header))

        align 8
.request:
        dw TAG_REQUEST, 0
        dd .request_end - .request
        dd INFO_MMAP, INFO_MODULE, INFO_CMDLINE
.request_end:

        align 8
.wish:
        dw TAG_REQUEST, TAG_OPTIONAL
        dd .wish_end - .wish
        dd INFO_ACPI_OLD, INFO_ACPI_NEW, INFO_LOAD_BASE
.wish_end:

        align 8
        dw TAG_ALIGN, 0
        dd 8

        align 8
        dw TAG_END, 0
        dd 8
header_end:
