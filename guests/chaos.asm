; chaos: executes instructions made at random, with registers made at random, in ring 0, one after the
; other, for ever:
;
;     chaos mem=24M rom=1M+4K hole=8M+4K share=chaos:4K@1G reset=restart -- 1
;
; or, where the command line ends with "faults", nothing but instructions that fault. They are made 64
; at a time, of the first step's number and of the number that the command line ends with, so that they
; can be had again. How many there were is in the shared page, which outlives the guest: it goes on from
; there when it begins anew, since sooner or later an instruction destroys what it stands on.
;
;     step:   at times a number -> a page of instructions, 0xCC behind each, and registers;
;             always IRETQ to the next of them
;     after:  whatever exception or interrupt ends that, on a stack of its own -> the next step
;     resume: where Quire sends it when it has refused an access (QUIRE_HC_EXPECT_FAULT)
;
; Memory is full of 0xCC, so that what jumps away comes back by #BP; what does not come back at all is
; ended by a timer's interrupt. This code is ROM to itself.

%include "abi.inc"

MULTIBOOT_MAGIC equ 0x1BADB002
FLAGS           equ 1 << 0 | 1 << 1
INFO_CMDLINE    equ 16                  ; struct multiboot_info of multiboot1.h

CODE64          equ 8
DATA            equ 16
TASK            equ 24

CR0_PG          equ 1 << 31
CR0_WP          equ 1 << 16
CR4_SET         equ 1 << 5 | 1 << 9     ; PAE, OSFXSR
IA32_EFER       equ 0xC0000080
EFER_LME        equ 1 << 8

MIB             equ 1 << 20
ROM             equ 1 * MIB
HOLE            equ 8 * MIB             ; a page, right behind that of the instructions
CODE            equ HOLE - 4096
SCRATCH         equ 9 * MIB
SCRATCH_MASK    equ 1 * MIB - 1
NOWHERE         equ 0x50000000
STEPS           equ 0x40000000          ; the shared page: steps, and how often it began
LIVES           equ STEPS + 8
LAPIC           equ 0xfee00000
LAPIC_EOI       equ 0xb0
LAPIC_SVR       equ 0xf0
LAPIC_TIMER     equ 0x320
LAPIC_INITIAL   equ 0x380
VECTOR_TIMER    equ 0x40
TIMER_PERIODIC  equ 1 << 17
TIMER_TICKS     equ 100000          ; of a clock that may be a sixteenth of the TSC
BATCH           equ 64                  ; steps whose instructions are made at once
ARMED_FOR       equ 4096                ; steps between two looks at the timer

global _start

section .multiboot align=4
        dd MULTIBOOT_MAGIC, FLAGS, -(MULTIBOOT_MAGIC + FLAGS)

section .text

        bits 32
_start: mov     esp, stack_top
        cld
        call    read_command_line
        mov     edi, 0x1000             ; the loader's words are read: 0xCC everywhere
        mov     ecx, 0x9e000
        call    fill
        mov     edi, CODE - 4096
        mov     ecx, 2 * 4096
        call    fill
        mov     edi, SCRATCH
        mov     ecx, SCRATCH_MASK + 1 + 4096
        call    fill
        ; The first 4 GiB one to one, in pages of 2 MiB.
        mov     edi, directories
        mov     eax, 0xe3               ; present, writable, A, D, large
        mov     ecx, 2048
.page:  mov     [edi], eax
        mov     dword [edi + 4], 0
        add     eax, 0x200000
        add     edi, 8
        loop    .page
        mov     edi, pdpt
        mov     eax, directories + 0x23
        mov     ecx, 4
.next:  mov     [edi], eax
        mov     dword [edi + 4], 0
        add     eax, 0x1000
        add     edi, 8
        loop    .next
        mov     dword [pml4], pdpt + 0x23
        mov     eax, CR4_SET
        mov     cr4, eax
        mov     eax, pml4
        mov     cr3, eax
        mov     ecx, IA32_EFER
        rdmsr
        or      eax, EFER_LME
        wrmsr
        mov     eax, cr0
        or      eax, CR0_PG | CR0_WP
        mov     cr0, eax
        lgdt    [gdt_pointer]
        jmp     CODE64:long_mode

fill:   mov     al, 0xcc                ; the same bytes in 64-bit code
        rep     stosb
        ret

; The last word: "faults", or a number.
read_command_line:
        mov     esi, [ebx + INFO_CMDLINE]
        mov     edi, esi
        xor     eax, eax
        mov     ecx, 4096
        repne   scasb
        cmp     dword [edi - 7], "faul"
        jne     .digits
        mov     byte [faults_alone], 1
.digits:
        xor     edx, edx
.digit: lodsb
        test    al, al
        jz      .done
        sub     al, "0"
        cmp     al, 10
        jae     .digits
        movzx   eax, al
        imul    edx, edx, 10
        add     edx, eax
        jmp     .digit
.done:  mov     [seed], edx
        ret

        bits 64
long_mode:
        mov     eax, DATA
        mov     ss, eax
        ; One gate like the other, on the stack of IST1, but for the timer's.
        mov     edi, idt
        xor     ecx, ecx
.gate:  mov     eax, after
        mov     edx, timer
        cmp     ecx, VECTOR_TIMER
        cmove   eax, edx
        mov     [rdi], ax
        mov     word [rdi + 2], CODE64
        mov     word [rdi + 4], 0x8e01
        shr     eax, 16
        mov     [rdi + 6], ax
        mov     qword [rdi + 8], 0
        add     edi, 16
        inc     ecx
        cmp     ecx, 256
        jb      .gate
        mov     eax, task
        mov     qword [task + 36], stack_top
        mov     [gdt + TASK + 2], ax
        shr     eax, 16
        mov     [gdt + TASK + 4], al
        mov     [gdt + TASK + 7], ah
        mov     ax, TASK
        ltr     ax
        lidt    [idt_pointer]
        inc     qword [abs LIVES]
        jmp     step

timer:  mov     edi, LAPIC
        mov     dword [rdi + LAPIC_EOI], 0
        jmp     after

; An interrupt, or a single step, may come right there.
after:  cmp     qword [rsp], resume
        jne     again
resume: mov     byte [abs armed], 0
again:  mov     esp, stack_top
        cld
        mov     eax, DATA
        mov     ds, eax
        mov     es, eax
        mov     ss, eax
        ; What a step has changed of the machine.
        mov     rax, cr4
        cmp     rax, CR4_SET
        je      .cr3
        mov     eax, CR4_SET
        mov     cr4, rax
.cr3:   mov     rax, cr3
        cmp     rax, pml4
        je      .idt
        mov     eax, pml4
        mov     cr3, rax
.idt:   sidt    [abs found]
        cmp     qword [abs found + 2], idt
        je      .gdt
        lidt    [abs idt_pointer]
.gdt:   sgdt    [abs found]
        cmp     qword [abs found + 2], gdt
        je      step
        lgdt    [abs gdt_pointer]

step:   mov     rax, [abs STEPS]
        inc     rax
        mov     [abs STEPS], rax
        mov     r15, rax
        test    eax, ARMED_FOR - 1
        jz      .arm
        cmp     byte [abs started], 0
        je      .arm
        test    eax, BATCH - 1
        jz      .batch
        jmp     .expect
.arm:   mov     byte [abs started], 1
        mov     edi, LAPIC
        mov     dword [rdi + LAPIC_SVR], 0x1ff
        mov     dword [rdi + LAPIC_TIMER], TIMER_PERIODIC | VECTOR_TIMER
        mov     dword [rdi + LAPIC_INITIAL], TIMER_TICKS
        mov     dword [rdi + LAPIC_EOI], 0
.batch: call    make_batch
.expect:
        cmp     byte [abs armed], 0
        jne     .next
        mov     eax, QUIRE_HC_EXPECT_FAULT
        xor     ebx, ebx
        mov     rcx, -1
        mov     edx, resume
        xor     esi, esi
        vmcall
        mov     byte [abs armed], 1
.next:  mov     ecx, r15d
        and     ecx, BATCH - 1
        mov     ebx, [abs places_made + rcx * 4]
        mov     rdx, [abs state]
        rol     rdx, cl
        mov     eax, edx
        and     edx, 0x240cd5           ; ID, AC, DF and the six of arithmetic
        or      edx, 0x202
        test    eax, 31 << 25
        jnz     .values
        or      edx, 0x100              ; TF, now and then
.values:
        and     ecx, 15
        lea     esi, [registers + rcx * 8]
        mov     edi, registers_now
        mov     ecx, 16
        rep     movsq
        test    r15b, 15
        jz      .enter
        and     qword [abs registers_now + 8], 0x3ff ; RCX: string instructions come to an end
.enter: push    DATA
        push    qword [abs registers_now + 4 * 8]
        push    rdx
        push    CODE64
        push    rbx
        mov     rcx, [abs registers_now + 1 * 8]
        mov     rdx, [abs registers_now + 2 * 8]
        mov     rbx, [abs registers_now + 3 * 8]
        mov     rbp, [abs registers_now + 5 * 8]
        mov     rsi, [abs registers_now + 6 * 8]
        mov     rdi, [abs registers_now + 7 * 8]
        mov     r8, [abs registers_now + 8 * 8]
        mov     r9, [abs registers_now + 9 * 8]
        mov     r10, [abs registers_now + 10 * 8]
        mov     r11, [abs registers_now + 11 * 8]
        mov     r12, [abs registers_now + 12 * 8]
        mov     r13, [abs registers_now + 13 * 8]
        mov     r14, [abs registers_now + 14 * 8]
        mov     r15, [abs registers_now + 15 * 8]
        mov     rax, [abs registers_now]
        iretq

; A page of instructions, and more registers than one of them has. The last lies before the hole.
make_batch:
        mov     rax, [abs seed]
        shl     rax, 40
        xor     rax, r15
        mov     [abs state], rax
        mov     edi, CODE
        mov     ecx, 4096
        call    fill
        xor     r14d, r14d
.one:   call    make_instruction
        mov     [abs places_made + r14 * 4], ebx
        inc     r14d
        cmp     r14d, BATCH
        jb      .one
        mov     edi, registers
        mov     ebp, 31
.value: call    random_value
        stosq
        dec     ebp
        jnz     .value
        ret

; The R14th, at RBX: a few bytes, at times sixteen, and 0xCC around them. Where there are few, what
; closes interrupts and then never ends is seldom.
make_instruction:
        call    random
        mov     r8, rax
        mov     ebx, eax
        cmp     r14d, BATCH - 1
        je      .last
        and     ebx, 31
        mov     ecx, r14d
        shl     ecx, 6
        lea     ebx, [rbx + rcx + CODE + 16]
        jmp     .what
.last:  and     ebx, 15
        neg     ebx
        add     ebx, HOLE - 1
.what:
        cmp     byte [abs faults_alone], 0
        jne     .fault
        call    random
        mov     [abs bytes], rax
        call    random
        mov     [abs bytes + 8], rax
        ; HLT with interrupts closed would be the end: seldom.
        test    r8d, 0x1f << 16
        jz      .begin
        mov     ecx, 16
.halts: cmp     byte [abs bytes + rcx - 1], 0xf4
        jne     .other
        mov     byte [abs bytes + rcx - 1], 0xf5
.other: loop    .halts
.begin: ; Most of what is random is no instruction: half of them get a beginning.
        mov     edi, bytes
        test    r8d, 1 << 20
        jz      .copy
        test    r8d, 3 << 21
        jnz     .rex
        mov     edx, r8d
        shr     edx, 24
        and     edx, 7
        mov     al, [abs prefixes + rdx]
        stosb
.rex:   test    r8d, 1 << 28
        jz      .two
        mov     edx, r8d
        shr     edx, 29
        lea     eax, [rdx + 0x48]
        stosb
.two:   bt      r8, 40
        jc      .copy
        mov     al, 0x0f
        stosb
        jmp     .copy
.fault: mov     edx, r8d
        shr     edx, 24
        and     edx, 15
        shl     edx, 4
        mov     rax, [abs faults + rdx]
        mov     [abs bytes], rax
        mov     rax, [abs faults + rdx + 8]
        mov     [abs bytes + 8], rax
.copy:  mov     esi, bytes
        mov     edi, ebx
        mov     edx, 16
        test    r8d, 15 << 4
        jz      .room
        cmp     byte [abs faults_alone], 0
        jne     .room
        mov     edx, r8d
        and     edx, 3
        add     edx, 2
.room:  mov     ecx, HOLE
        sub     ecx, ebx
        cmp     ecx, edx
        cmova   ecx, edx
        rep     movsb
        ret

; RAX: an address, of every kind that there is, or any number.
random_value:
        call    random
        mov     rdx, rax
        shr     rdx, 8
        mov     ecx, eax
        and     ecx, 63
        cmp     ecx, 48
        jae     .special
        mov     eax, edx
        and     eax, SCRATCH_MASK
        add     eax, SCRATCH
        ret
.special:
        mov     eax, edx
        and     eax, 0xfff
        sub     ecx, 48
        cmp     ecx, 10
        jae     .any
        cmp     ecx, 4
        jae     .small
        mov     ecx, [abs places + rcx * 4]
        add     rax, rcx
        ret
.small: mov     eax, edx
        and     eax, 0x1ff
        ret
.any:   rol     rdx, 17
        mov     rax, rdx
        ret

; RAX; clobbers RCX and RDX. splitmix64.
random: mov     rdx, 0x9e3779b97f4a7c15
        mov     rax, [abs state]
        add     rax, rdx
        mov     [abs state], rax
        mov     rdx, 0xbf58476d1ce4e5b9
        mov     rcx, rax
        shr     rcx, 30
        xor     rax, rcx
        imul    rax, rdx
        mov     rdx, 0x94d049bb133111eb
        mov     rcx, rax
        shr     rcx, 27
        xor     rax, rcx
        imul    rax, rdx
        mov     rcx, rax
        shr     rcx, 31
        xor     rax, rcx
        ret

        align 4
places: dd HOLE - 2048, NOWHERE, ROM, 0xa0000
prefixes:
        db 0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x64, 0x65, 0x2e

%macro FAULT 1+
%%at:   %1
        times 16 - ($ - %%at) db 0xcc
%endmacro
        align 16
faults: FAULT db 0x0f, 0x0b             ; #UD: ud2
        FAULT db 0xf0, 0x90             ; lock nop
        FAULT db 0x0f, 0xff             ; ud0
        FAULT db 0x31, 0xc9, 0xf7, 0xf1 ; #DE: xor ecx, ecx; div ecx
        FAULT db 0x66, 0xb8, 0x33, 0, 0x8e, 0xd8 ; #GP: mov ax, 0x33; mov ds, ax
        FAULT db 0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x8b, 0 ; mov eax, [a non-canonical address]
        FAULT db 0x48, 0xbd, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x8b, 0x45, 0 ; #SS: by RBP
        FAULT db 0x48, 0xb8, 0, 0x90, 0x78, 0x56, 0x34, 0x12, 0, 0, 0x8b, 0 ; #PF: not present
        FAULT db 0x48, 0xc7, 0xc0, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x22, 0xe0 ; #GP: mov cr4, -1
        FAULT db 0xb9, 0xff, 0xff, 0, 0, 0x0f, 0x32 ; #GP: rdmsr of none
        FAULT db 0xcc                   ; #BP
        FAULT db 0xf1                   ; #DB
        FAULT db 0xc7, 0x04, 0x25, 0, 0, 0x10, 0, 1, 2, 3, 4 ; refused: a write to ROM
        FAULT db 0x8b, 0x04, 0x25, 0, 0, 0, 0x50 ; a read of nothing
        FAULT db 0xb8, 0, 0, 0, 0x50, 0xff, 0xe0 ; a jump to nothing
        FAULT db 0xf0, 0xff, 0x04, 0x25, 0, 0, 0x80, 0 ; a locked increment of the hole

        times 4096 - ($ - $$) - 16 db 0xcc ; the page that is ROM

section .data align=4096
        align 8
gdt:    dq 0
        dq 0x00af9b000000ffff           ; 64-bit code, accessed
        dq 0x00cf93000000ffff           ; data
        dq 0x0000890000000067, 0        ; the task
gdt_pointer:
        dw gdt_pointer - gdt - 1
        dq gdt
idt_pointer:
        dw 256 * 16 - 1
        dq idt
seed:   dq 0
armed:  db 0
started:
        db 0
faults_alone:
        db 0

section .bss nobits alloc write align=4096
pml4:   resb 4096
pdpt:   resb 4096
directories:
        resb 4 * 4096
idt:    resb 256 * 16
task:   resb 104
        alignb 16
state:  resq 1
found:  resb 16
bytes:  resb 32
places_made:
        resd BATCH
registers:
        resq 31
registers_now:
        resq 16
        resb 8192
        alignb 16
stack_top:
