; modes: a flat 16-bit image that goes through every mode of the CPU and back: real mode, protected
; mode, 32-bit paging, PAE paging, 64-bit mode. Each change of paging is made twice: by a move to
; CR0 that concerns this guest alone, and by one that changes CR0.NE too, which the hypervisor has
; to carry out.
;
; Memory: 0x7c00 this image, up to 0x7c00 its stack, tables from 0x20000, two marked pages at
; 0x30000.

%include "abi.inc"

        bits 16
        org 0x7c00

CR0_PE  equ 1
CR0_TS  equ 1 << 3
CR0_ET  equ 1 << 4
CR0_NE  equ 1 << 5
CR0_CD  equ 1 << 30
CR0_PG  equ 1 << 31
CR4_PSE equ 1 << 4
CR4_PAE equ 1 << 5
CR4_MCE equ 1 << 6
CR4_PGE equ 1 << 7
EFER    equ 0xc0000080
EFER_LME equ 1 << 8
EFER_LMA equ 1 << 10

CODE32  equ 0x08
DATA    equ 0x10
CODE16  equ 0x18
DATA16  equ 0x20
CODE64  equ 0x28

ROOT    equ 0x20000
DIRECTORY equ 0x21000
TABLE   equ 0x22000
SECOND_DIRECTORY equ 0x23000
PDPT    equ 0x24000
FIRST   equ 0x30000             ; holds 'one!'
SECOND  equ 0x31000             ; holds 'two!'
ALIAS   equ 0x400000            ; mapped to the one or the other

; Says the text and goes on when the condition holds. In 16-bit code.
%macro verify 2
        j%1     %%holds
        mov     si, %%text
        jmp     0:failed16
%%holds:
        mov     si, %%text
        call    say16
        jmp     %%over
%%text: db %2, 10, 0
%%over:
%endmacro

; The same in 32-bit and 64-bit code; clobbers ESI, EAX.
%macro verify32 2
        j%1     %%holds
        mov     esi, %%text
        jmp     failed32
%%holds:
        mov     esi, %%text
        call    say32
        jmp     %%over
%%text: db %2, 10, 0
%%over:
%endmacro

%macro verify64 2
        j%1     %%holds
        mov     esi, %%text
        jmp     failed64
%%holds:
        mov     esi, %%text
        call    say64
        jmp     %%over
%%text: db %2, 10, 0
%%over:
%endmacro

        jmp     0:start

        times 510 - ($ - $$) db 0
        dw 0xaa55

say16:
        lodsb
        test    al, al
        jz      .end
        out     QUIRE_PORT_DEBUG, al
        jmp     say16
.end:   ret

failed16:
        call    say16
        mov     eax, 1
        mov     dx, QUIRE_PORT_RESULT
        out     dx, eax
        hlt

; ---- Real mode ----------------------------------------------------------------------------------

start:
        cli
        cld
        xor     ax, ax
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     sp, 0x7c00

        mov     eax, cr0
        mov     ebx, eax
        xor     eax, CR0_NE | CR0_CD
        mov     cr0, eax
        mov     ecx, cr0
        cmp     eax, ecx
        verify  e, "real mode: NE and CD change in CR0"
        mov     cr0, ebx
        mov     ax, bx
        or      ax, CR0_TS
        lmsw    ax
        smsw    ax
        test    al, CR0_TS
        verify  nz, "real mode: LMSW sets TS"
        clts
        smsw    ax
        test    al, CR0_TS
        verify  z, "real mode: CLTS clears it"

        lgdt    [gdt_pointer]
        lidt    [idt_pointer]
        smsw    ax
        or      al, CR0_PE
        lmsw    ax              ; to protected mode the old way
        jmp     dword CODE32:protected

; ---- Protected mode -----------------------------------------------------------------------------

        bits 32
say32:
        lodsb
        test    al, al
        jz      .end
        out     QUIRE_PORT_DEBUG, al
        jmp     say32
.end:   ret

failed32:
        call    say32
        mov     eax, 1
        mov     dx, QUIRE_PORT_RESULT
        out     dx, eax
        hlt

; #GP: counts, and goes on behind the instruction, a MOV to CR of three bytes.
general_protection:
        inc     dword [faults]
        add     dword [esp + 4], 3
        add     esp, 4
        iret

unexpected:
        mov     esi, .text
        jmp     failed32
.text:  db "an exception that was not provoked", 10, 0

; EBX: 0 for a CR0 that only this guest knows of, CR0_NE for one that exits. Sets paging.
paging_on:
        mov     eax, cr0
        or      eax, CR0_PG
        xor     eax, ebx
        mov     cr0, eax
        ret
paging_off:
        mov     eax, cr0
        and     eax, ~CR0_PG
        xor     eax, ebx
        mov     cr0, eax
        ret

protected:
        mov     ax, DATA
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     fs, ax
        mov     gs, ax
        mov     esp, 0x7c00
        mov     eax, cr0
        test    al, CR0_PE
        verify32 nz, "protected mode: LMSW brought us here"

        ; An IDT whose #GP goes on and whose other exceptions end the guest.
        mov     edi, idt
        mov     ecx, 32
.gate:  mov     eax, unexpected
        cmp     ecx, 32 - 13
        jne     .not_gp
        mov     eax, general_protection
.not_gp:
        mov     [edi], ax
        mov     word [edi + 2], CODE32
        mov     word [edi + 4], 0x8e00
        shr     eax, 16
        mov     [edi + 6], ax
        add     edi, 8
        loop    .gate
        mov     dword [faults], 0

        mov     dword [FIRST], 'one!'
        mov     dword [SECOND], 'two!'

        mov     eax, cr0
        and     eax, ~CR0_PE
        or      eax, CR0_PG
        mov     cr0, eax
        cmp     dword [faults], 1
        verify32 e, "paging without protection is refused"

; ---- 32-bit paging ------------------------------------------------------------------------------

        mov     edi, ROOT
        xor     eax, eax
        mov     ecx, 0x5000 / 4
        rep     stosd
        mov     eax, cr4
        or      eax, CR4_PSE
        mov     cr4, eax
        mov     dword [ROOT], 0x83                      ; 4 MiB at 0
        mov     dword [ROOT + 4], TABLE + 3
        mov     dword [TABLE], FIRST + 3                ; ALIAS is FIRST
        mov     eax, ROOT
        mov     cr3, eax

        xor     ebx, ebx
.twice32:
        call    paging_on
        cmp     dword [ALIAS], 'one!'
        verify32 e, "32-bit paging: on"
        mov     dword [TABLE], SECOND + 3
        invlpg  [ALIAS]
        cmp     dword [ALIAS], 'two!'
        verify32 e, "32-bit paging: another frame after INVLPG"
        mov     dword [TABLE], FIRST + 3
        call    paging_off
        mov     eax, cr0
        test    eax, CR0_PG
        verify32 z, "32-bit paging: off"
        xor     ebx, CR0_NE
        jnz     .twice32

; ---- PAE paging ---------------------------------------------------------------------------------

        mov     dword [PDPT], DIRECTORY + 1
        mov     dword [PDPT + 4], 0
        mov     dword [DIRECTORY], 0x83                 ; 2 MiB at 0
        mov     dword [DIRECTORY + 16], TABLE + 3       ; at 4 MiB
        mov     dword [DIRECTORY + 20], 0
        mov     dword [TABLE + 4], 0
        mov     dword [SECOND_DIRECTORY], 0x83
        mov     eax, cr4
        or      eax, CR4_PAE
        mov     cr4, eax
        mov     eax, PDPT
        mov     cr3, eax

        xor     ebx, ebx
.twice_pae:
        call    paging_on
        cmp     dword [ALIAS], 'one!'
        verify32 e, "PAE paging: on"
        mov     dword [TABLE], SECOND + 3
        invlpg  [ALIAS]
        cmp     dword [ALIAS], 'two!'
        verify32 e, "PAE paging: another frame after INVLPG"
        mov     dword [TABLE], FIRST + 3
        call    paging_off
        xor     ebx, CR0_NE
        jnz     .twice_pae

        ; The four PDPTEs are registers: a change in memory counts from the next load on, which a
        ; change of CR4.PGE is. With MCE in the same move the hypervisor has to load them.
        call    paging_on
        mov     dword [SECOND_DIRECTORY + 16], SECOND_TABLE + 3
        mov     dword [SECOND_TABLE], SECOND + 3
        mov     dword [SECOND_TABLE + 4], 0
        mov     dword [PDPT], SECOND_DIRECTORY + 1
        mov     eax, cr4
        xor     eax, CR4_PGE | CR4_MCE
        mov     cr4, eax
        cmp     dword [ALIAS], 'two!'
        verify32 e, "PAE paging: a move to CR4 loads the PDPTEs anew"
        mov     eax, cr4
        test    eax, CR4_MCE
        verify32 nz, "CR4.MCE reads as it was set"
        mov     eax, cr4
        xor     eax, CR4_PGE | CR4_MCE
        mov     dword [PDPT], DIRECTORY + 1
        mov     cr4, eax
        cmp     dword [ALIAS], 'one!'
        verify32 e, "PAE paging: and once more"
        call    paging_off

        ; A reserved bit in a PDPTE makes the load fault, whoever does it.
        mov     dword [PDPT + 8], SECOND_DIRECTORY + 3
        xor     ebx, ebx
.twice_reserved:
        mov     dword [faults], 0
        call    paging_on
        cmp     dword [faults], 1
        verify32 e, "PAE paging: a reserved bit in a PDPTE is refused"
        mov     eax, cr0
        test    eax, CR0_PG
        verify32 z, "and paging stays off"
        xor     ebx, CR0_NE
        jnz     .twice_reserved
        mov     dword [PDPT + 8], 0

; ---- 64-bit mode --------------------------------------------------------------------------------

        mov     dword [ROOT], PDPT + 3                  ; a PML4 now
        mov     dword [ROOT + 4], 0
        or      dword [PDPT], 2                         ; and its PDPT is no register
        mov     eax, ROOT
        mov     cr3, eax
        mov     ecx, EFER
        rdmsr
        or      eax, EFER_LME
        wrmsr
        rdmsr
        test    eax, EFER_LMA
        verify32 z, "EFER.LME alone does not activate"

        ; Without PAE it is refused.
        mov     dword [faults], 0
        mov     eax, cr4
        and     eax, ~CR4_PAE
        mov     cr4, eax
        mov     ebx, CR0_NE
        call    paging_on
        xor     ebx, ebx
        call    paging_on
        cmp     dword [faults], 2
        verify32 e, "64-bit mode without PAE is refused"
        mov     eax, cr4
        or      eax, CR4_PAE
        mov     cr4, eax

        xor     ebx, ebx
.twice64:
        call    paging_on
        jmp     CODE64:.long

        bits 64
.long:
        mov     rax, 0x123456789abcdef0
        rol     rax, 4
        mov     rdx, 0x23456789abcdef01
        cmp     rax, rdx
        verify64 e, "64-bit mode: 64-bit arithmetic"
        mov     ecx, EFER
        rdmsr
        test    eax, EFER_LMA
        verify64 nz, "64-bit mode: EFER.LMA is set"
        mov     r8d, ALIAS
        cmp     dword [r8], 'one!'
        verify64 e, "64-bit mode: the alias is mapped"
        push    CODE32
        push    .compatibility
        db      0x48
        retf

        bits 32
.compatibility:
        call    paging_off
        mov     ecx, EFER
        rdmsr
        test    eax, EFER_LMA
        verify32 z, "64-bit mode: left through compatibility mode"
        xor     ebx, CR0_NE
        jnz     .twice64

; ---- And back -----------------------------------------------------------------------------------

        mov     ecx, EFER
        rdmsr
        and     eax, ~EFER_LME
        wrmsr
        jmp     CODE16:.protected16

        bits 16
.protected16:
        mov     ax, DATA16
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     eax, cr0
        and     al, ~CR0_PE
        mov     cr0, eax
        jmp     0:.real
.real:
        xor     ax, ax
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     sp, 0x7c00
        lidt    [real_idt_pointer]
        mov     word [0x60 * 4], handler
        mov     word [0x60 * 4 + 2], 0
        mov     dx, 41
        int     0x60
        cmp     dx, 42
        verify  e, "real mode: INT works as before"
        xor     eax, eax
        mov     dx, QUIRE_PORT_RESULT
        out     dx, eax
.end:   hlt
        jmp     .end

handler:
        inc     dx
        iret

        bits 64
say64:
        lodsb
        test    al, al
        jz      .end
        out     QUIRE_PORT_DEBUG, al
        jmp     say64
.end:   ret

failed64:
        call    say64
        mov     eax, 1
        mov     dx, QUIRE_PORT_RESULT
        out     dx, eax
        hlt

        align 8
gdt:
        dq 0
        dq 0x00cf9b000000ffff           ; CODE32
        dq 0x00cf93000000ffff           ; DATA
        dq 0x00009b000000ffff           ; CODE16
        dq 0x000093000000ffff           ; DATA16
        dq 0x00af9b000000ffff           ; CODE64
gdt_pointer:
        dw gdt_pointer - gdt - 1
        dd gdt
idt_pointer:
        dw 32 * 8 - 1
        dd idt
real_idt_pointer:
        dw 0x3ff
        dd 0
        align 8
faults: dd 0
idt     equ 0x25000
SECOND_TABLE equ 0x26000
