; A Multiboot 2 kernel that is linked at 1M and wants to be at 4M: it knows nothing of where it is but
; what it is told, and ends as passed if that is true.
        section .multiboot alloc noexec nowrite align=8
header: dd 0xe85250d6, 0, header_end - header, -(0xe85250d6 + header_end - header)
        dw 10, 0                ; from 4M to 8M, to 2M, as low as possible
        dd 24, 0x400000, 0x7fffff, 0x200000, 1
        dw 0, 0
        dd 8
header_end:

        section .text
        bits 32
        global _start
_start: lea esi, [ebx + 8]
.next:  cmp dword [esi], 21
        je .found
        mov eax, [esi + 4]
        add eax, 7
        and eax, ~7
        add esi, eax
        jmp .next
.found: mov eax, [esi + 8]
        sub eax, 0x400000       ; the base, and ...
        lea esp, [ebx + 4096]   ; the information's page has room
        call .here
.here:  pop ecx
        sub ecx, .here - _start
        and ecx, ~0xfff         ; the header before it is short
        sub ecx, 0x400000
        or eax, ecx             ; ... where this runs
        mov dx, 0x510
        out dx, eax
        hlt
