; INS and OUTS to memory that the CPU itself never touches, for the accessed and dirty bits of the
; EPT. Run it with mem=16M: it writes at 8 MiB, reads at 10 MiB, and halts.

%include "check64.inc"

main:   mov qword [PD + 4 * 8], 0x800000 | P | W | PS
        mov qword [PD + 5 * 8], 0xa00000 | P | W | PS
        mov edi, 0x800000
        mov ecx, 16
        mov edx, DEBUG_PORT
        rep insb
        mov esi, 0xa00000
        mov edx, DELAY_PORT
        outsb
        mov eax, PD             ; and its own tables say so, too
        mov r12, [rax + 4 * 8]
        and r12d, 0xff
        EXPECT "the writing page's entry", r12, P | W | PS | A | D
        mov eax, PD
        mov r12, [rax + 5 * 8]
        and r12d, 0xff
        EXPECT "the reading page's entry", r12, P | W | PS | A
        hlt
