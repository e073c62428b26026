; Start of a ring-3 program and its system calls (guests/user_abi.h).

        bits 64

SYSTEM_CALL     equ 0x80                ; QUIRE_USER_VECTOR
USER_EXIT       equ 1
USER_WRITE      equ 2

global user_start
global user_exit
global user_write
extern user_main

section .text exec align=16

; RSP is 16-byte aligned, as a call wants it. user_main's result is the program's.
user_start:
        call    user_main
        mov     edi, eax

; _Noreturn void user_exit(int result)
user_exit:
        movsxd  rdi, edi
        mov     eax, USER_EXIT
        int     SYSTEM_CALL
        ud2

; long user_write(const void *bytes, unsigned long size)
user_write:
        mov     eax, USER_WRITE
        int     SYSTEM_CALL
        ret

section .note.GNU-stack noalloc noexec nowrite progbits
