; Into ring 3 and back: entry, the gates that ring 3 comes in by, and the way out of it for good.
;
;   user_enter -- IRETQ --> ring 3 -- INT 80h, timer --> user_gate -- user_trap() -- IRETQ --> ring 3
;                                  \- fault --> trap_entry.asm, trap_user_hook
;   user_trap() or the hook may point the frame at user_leave instead: that is the return of user_enter.
;
; The stack: user_enter makes its own stack pointer RSP0, so a trap from ring 3 starts right below what
; user_enter saved, and user_leave finds it there.

        bits 64

VECTOR_SYSTEM_CALL equ 0x80             ; guests/user_abi.h
VECTOR_TIMER    equ 0xf0                ; arch/x86_64/lapic.h
USER_DATA       equ 0x18 | 3            ; arch/x86_64/descriptors.h
USER_CODE       equ 0x20 | 3
FRAME_CS        equ 18 * 8              ; offset in struct trap_frame
RFLAGS_FIXED    equ 2

global user_enter
global user_leave
global user_gate_system_call
global user_gate_timer
global user_gate_spurious
extern user_trap
extern tss_set_rsp0

section .text exec align=16

; void user_enter(uint64_t rip, uint64_t rsp, uint64_t rflags): runs ring 3 from `rip` with every
; other register 0. Expects the program's table in CR3, IF = 0, our GS. Returns by user_leave.
user_enter:
        push    rbp
        push    rbx
        push    r12
        push    r13
        push    r14
        push    r15
        sub     rsp, 8                          ; 16-byte aligned, as RSP0 is best
        mov     rbx, rdi
        mov     r12, rsi
        mov     r13, rdx
        mov     rdi, rsp
        call    tss_set_rsp0

        push    USER_DATA
        push    r12
        push    r13
        push    USER_CODE
        push    rbx
        xor     eax, eax
        xor     ecx, ecx
        xor     edx, edx
        xor     ebx, ebx
        xor     ebp, ebp
        xor     esi, esi
        xor     edi, edi
        xor     r8d, r8d
        xor     r9d, r9d
        xor     r10d, r10d
        xor     r11d, r11d
        xor     r12d, r12d
        xor     r13d, r13d
        xor     r14d, r14d
        xor     r15d, r15d
        swapgs
        iretq

; Reached by IRETQ from a trap frame that was pointed here, with RSP = RSP0 and our GS. Clears the
; selectors that the program may have loaded; GS by way of the other base, because to load the
; selector clears the base.
user_leave:
        xor     eax, eax
        mov     ds, eax
        mov     es, eax
        mov     fs, eax
        swapgs
        mov     gs, eax
        swapgs
        add     rsp, 8
        pop     r15
        pop     r14
        pop     r13
        pop     r12
        pop     rbx
        pop     rbp
        ret

; Interrupt gates: IF is 0. The CPU aligned the stack when it left ring 3. user_trap(frame) sees a
; struct trap_frame and may change it. All registers go back as the frame has them, so that ring 3
; gets its own values and none of ours.
user_gate_system_call:
        push    0
        push    VECTOR_SYSTEM_CALL
        jmp     user_gate

user_gate_timer:
        push    0
        push    VECTOR_TIMER

user_gate:
        push    rax
        push    rcx
        push    rdx
        push    rbx
        push    rbp
        push    rsi
        push    rdi
        push    r8
        push    r9
        push    r10
        push    r11
        push    r12
        push    r13
        push    r14
        push    r15
        push    RFLAGS_FIXED                    ; DF, AC (SMAP) and NT are still the program's
        popfq
        test    byte [rsp + FRAME_CS], 3
        jz      .ours                           ; the timer, late, in the window of user_drain
        swapgs
.ours:
        mov     rdi, rsp
        mov     rbp, rsp
        and     rsp, -16
        call    user_trap
        mov     rsp, rbp
        test    byte [rsp + FRAME_CS], 3        ; judge by where the frame leads now
        jz      .restore
        swapgs
.restore:
        pop     r15
        pop     r14
        pop     r13
        pop     r12
        pop     r11
        pop     r10
        pop     r9
        pop     r8
        pop     rdi
        pop     rsi
        pop     rbp
        pop     rbx
        pop     rdx
        pop     rcx
        pop     rax
        add     rsp, 16                         ; vector, error code
        iretq

; A spurious interrupt asks for nothing, not even an end of interrupt (SDM Vol. 3, 11.9).
user_gate_spurious:
        iretq
