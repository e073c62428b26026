; One access of a probe guest (guests/probe.h), at ring 0 or 3, wherever it ends. Assembled for 32 and for
; 64 bits, of which these are the registers and what else has two names:

%ifidn __OUTPUT_FORMAT__, elf64
        bits 64
  %define AX    rax
  %define CX    rcx
  %define DX    rdx
  %define SI    rsi
  %define DI    rdi
  %define SP    rsp
  %define WORD_BYTES 8
  %define pushf_all pushfq
  %define popf_all popfq
  %define return iretq
  %macro save 0                         ; what a C function must keep
        push    rbx
        push    rbp
        push    r12
        push    r13
        push    r14
        push    r15
  %endmacro
  %macro restore 0
        pop     r15
        pop     r14
        pop     r13
        pop     r12
        pop     rbp
        pop     rbx
  %endmacro
  %macro arguments 0
  %endmacro
%else
        bits 32
  %define AX    eax
  %define CX    ecx
  %define DX    edx
  %define SI    esi
  %define DI    edi
  %define SP    esp
  %define WORD_BYTES 4
  %define pushf_all pushfd
  %define popf_all popfd
  %define return iretd
  %macro save 0
        push    ebx
        push    ebp
        push    esi
        push    edi
  %endmacro
  %macro restore 0
        pop     edi
        pop     esi
        pop     ebp
        pop     ebx
  %endmacro
  %macro arguments 0                    ; to where they are in 64-bit code
        mov     edi, [esp + 20]
        mov     esi, [esp + 24]
        mov     edx, [esp + 28]
  %endmacro
%endif

CODE3           equ 0x23
DATA3           equ 0x1b
RFLAGS_AC       equ 1 << 18
VECTOR_BACK     equ 0x30

; enum outcome of guests/probe.c
THROUGH         equ 1
PAGE_FAULT      equ 2
PROTECTION      equ 3
REFUSED         equ 4

global probe_access
global probe_allow_user_access
global probe_read
global probe_write
global probe_jump
global probe_pieces_end
global probe_on_back
global probe_on_page_fault
global probe_on_protection
global probe_on_refusal
global probe_outcome
global probe_code
global probe_address

section .text

; void probe_access(uintptr_t address, const void *code, bool user): jumps to `code` with the address in
; RSI, at ring 3 if asked. Whatever happens comes back with probe_outcome set.
probe_access:
        save
        arguments
        mov     [stack], SP
        mov     AX, SI
        mov     SI, DI
        test    dl, dl
        jnz     .user
        jmp     AX
.user:  push    DATA3
        push    0
        pushf_all
        push    CODE3
        push    AX
        return

; void probe_allow_user_access(void): sets RFLAGS.AC, which no C code touches.
probe_allow_user_access:
        pushf_all
        or      dword [SP], RFLAGS_AC
        popf_all
        ret

; The accesses. A copy of them is at ring 3's disposal; those of ring 0 come back in the same way. What is
; written comes back when it is executed.
        align   16
probe_read:
        mov     AX, [SI]
        int     VECTOR_BACK
        align   16
probe_write:
        mov     eax, 0x90900000 | VECTOR_BACK << 8 | 0xcd
        mov     [SI], AX
        int     VECTOR_BACK
        align   16
probe_jump:
        jmp     SI
        align   16
probe_pieces_end:

; Gates, and where the hypervisor resumes after a refusal. What they find on the stack needs no return.
probe_on_back:
        mov     dword [probe_outcome], THROUGH
        jmp     back
probe_on_page_fault:
        mov     dword [probe_outcome], PAGE_FAULT
        pop     AX
        mov     [probe_code], AX
        mov     AX, cr2
        mov     [probe_address], AX
        jmp     back
probe_on_protection:
        mov     dword [probe_outcome], PROTECTION
        pop     AX
        mov     [probe_code], AX
        jmp     back
probe_on_refusal:
        mov     dword [probe_outcome], REFUSED
        mov     [probe_code], AX
back:
        mov     SP, [stack]
        restore
        ret

section .bss align=WORD_BYTES
stack:          resb WORD_BYTES
probe_code:     resb WORD_BYTES         ; of the last fault
probe_address:  resb WORD_BYTES         ; CR2
probe_outcome:  resd 1
