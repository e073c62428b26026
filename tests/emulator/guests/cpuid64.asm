; Whether what CPUID tells is consistent in itself, and with what the CPU then does.

%include "check64.inc"

LEGACY equ 576                  ; x87, SSE and the header of an XSAVE area

; VECTOR "text", <instruction>, vector (-1: none)
%macro VECTOR 3
        jmp %%go
%%code: %2
        int DONE_VECTOR
%%go:   call defaults
        mov ebx, %%code
        call run
        mov r12, [s_vector]
        EXPECT {%1}, r12, %3
%endmacro

%macro SET_CR4 0
        mov rax, [cr4_value]
        mov cr4, rax
%endmacro

; CR4 takes a bit if CPUID offers what it stands for, and only then.
; CR4_BIT "text", bit, leaf, register that has the feature's bit, its number
%macro CR4_BIT 5
        mov eax, %3
        xor ecx, ecx
        cpuid
        mov r13, -1             ; it is taken
        bt %4, %5
        jc %%offered
        mov r13d, 13
%%offered:
        mov rax, cr4
        bts rax, %2
        mov [cr4_value], rax
        mov rax, cr4
        mov [cr4_before], rax
        VECTOR {"CR4: ", %1}, SET_CR4, r13
        mov rax, [cr4_before]
        mov cr4, rax
%endmacro
cr4_value: dq 0
cr4_before: dq 0

; The sizes of an XSAVE area for XCR0 = R14, as the sub-leaves of its components tell: R10 standard,
; R11 compacted
area_sizes:
        mov r10d, LEGACY
        mov r11d, LEGACY
        mov r9d, 2
.component:
        bt r14, r9
        jnc .next
        mov eax, 0xd
        mov ecx, r9d
        cpuid
        add ebx, eax
        cmp ebx, r10d
        cmova r10d, ebx
        test ecx, 2             ; aligned to 64 bytes
        jz .packed
        add r11d, 63
        and r11d, ~63
.packed:
        add r11d, eax
.next:  inc r9d
        cmp r9d, 63
        jb .component
        ret

; XCR0 = %1, if the guest may have it.
%macro COMPONENTS 1
        mov r14d, %1
        mov eax, 0xd
        xor ecx, ecx
        cpuid
        mov r15d, eax           ; all that are offered
        mov eax, r14d
        and eax, r15d
        cmp eax, r14d
        jne %%not_offered
        mov eax, r14d
        xor edx, edx
        xor ecx, ecx
        xsetbv
        call area_sizes
        mov [standard], r10
        mov [compacted], r11
        mov eax, 0xd
        xor ecx, ecx
        cpuid
        mov r12d, ebx
        EXPECT {"XSAVE area, XCR0 = ", %str(%1)}, r12, [standard]
        mov eax, 0xd
        mov ecx, 1
        cpuid
        mov r12d, ebx
        test eax, 2
        jnz %%compacts
        mov qword [compacted], 0
%%compacts:
        EXPECT {"compacted area, XCR0 = ", %str(%1)}, r12, [compacted]
%%not_offered:
%endmacro
standard: dq 0
compacted: dq 0

main:   CR4_BIT "DE", 3, 1, edx, 2
        CR4_BIT "TSD", 2, 1, edx, 4
        CR4_BIT "PGE", 7, 1, edx, 13
        CR4_BIT "UMIP", 11, 7, ecx, 2
        CR4_BIT "LA57", 12, 7, ecx, 16
        CR4_BIT "VMXE", 13, 1, ecx, 5
        CR4_BIT "SMXE", 14, 1, ecx, 6
        CR4_BIT "FSGSBASE", 16, 7, ebx, 0
        CR4_BIT "PCIDE", 17, 1, ecx, 17
        CR4_BIT "OSXSAVE", 18, 1, ecx, 26
        CR4_BIT "SMEP", 20, 7, ebx, 7
        CR4_BIT "SMAP", 21, 7, ebx, 20
        CR4_BIT "PKE", 22, 7, ecx, 3
        CR4_BIT "CET", 23, 7, ecx, 7
        CR4_BIT "PKS", 24, 7, ecx, 31

        ; Physical addresses end where leaf 0x80000008 says.
        mov eax, 0x80000008
        cpuid
        movzx ecx, al
        mov eax, 1
        shl rax, cl
        or rax, P | W
        mov [PT + 0x80 * 8], rax
        invlpg [0x80000]
        VECTOR "a page beyond the physical width", {mov al, [0x80000]}, 14
        mov r12, [s_code]
        EXPECT "its error code", r12, 9
        mov eax, 1
        cpuid
        mov r12d, edx
        shr r12d, 28            ; one CPU: no count of them
        and r12d, 1
        EXPECT "HTT", r12, 0
        mov eax, 0x80000001
        cpuid
        mov r12d, edx
        shr r12d, 11
        and r12d, 1
        EXPECT "SYSCALL in 64-bit mode", r12, 1

        mov eax, 1
        xor ecx, ecx
        cpuid
        mov r13d, ecx
        bt r13d, 26
        jnc .no_xsave
        mov rax, cr4
        or eax, CR4_OSXSAVE
        mov cr4, rax
        mov eax, 1
        cpuid
        mov r12d, ecx
        shr r12d, 27
        and r12d, 1
        EXPECT "OSXSAVE follows CR4", r12, 1
        mov eax, 0xd
        xor ecx, ecx
        cpuid
        mov r14d, eax
        mov r15d, ecx
        mov r12d, eax
        shr r12d, 2
        and r12d, 1
        shr r13d, 28
        and r13d, 1
        EXPECT "AVX has its component", r12, r13
        mov eax, 7
        xor ecx, ecx
        cpuid
        mov r13d, ebx
        shr r13d, 16
        and r13d, 1
        mov r12d, r14d
        shr r12d, 5
        and r12d, 1
        EXPECT "AVX-512 has its components", r12, r13
        call area_sizes
        mov r12d, r10d
        mov r13d, r15d
        EXPECT "the largest XSAVE area", r12, r13
        COMPONENTS 1
        COMPONENTS 3
        COMPONENTS 7
        COMPONENTS 0xe7
        jmp finish

.no_xsave:
        mov eax, 0xd
        xor ecx, ecx
        cpuid
        or eax, ebx
        or eax, ecx
        or eax, edx
        mov r12d, eax
        EXPECT "no XSAVE, no sizes", r12, 0
        jmp finish
