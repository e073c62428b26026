; The beginning of a 64-bit test guest: entered in 32-bit mode by Multiboot 1, builds 4-level tables
; that map the first 4 GiB one to one in 2 MiB pages, enters 64-bit mode, sets up an IDT, and goes to
; guest_main(info).

MULTIBOOT_MAGIC equ 0x1BADB002
MULTIBOOT_LOADED equ 0x2BADB002
FLAG_ALIGN      equ 1 << 0
FLAG_MEMORY     equ 1 << 1
FLAGS           equ FLAG_ALIGN | FLAG_MEMORY

CR0_PG          equ 1 << 31
CR0_WP          equ 1 << 16
CR4_PAE         equ 1 << 5
IA32_EFER       equ 0xC0000080
EFER_LME        equ 1 << 8
EFER_NXE        equ 1 << 11

ACCESS_READ     equ 1                   ; as QUIRE_FAULT_*
ACCESS_WRITE    equ 2
ACCESS_EXEC     equ 4
EXCEPTION       equ 0x100               ; GUEST_EXCEPTION
EXCEPTIONS      equ 32

extern guest_main
extern guest_unexpected
global _start
global guest_try
global guest_try_resume
global guest_fault_code
global guest_fault_address

section .multiboot align=4
        dd MULTIBOOT_MAGIC, FLAGS, -(MULTIBOOT_MAGIC + FLAGS)

section .text

        bits 32
_start:
        mov     esp, stack_top
        cmp     eax, MULTIBOOT_LOADED
        je      .by_multiboot
        xor     ebx, ebx
.by_multiboot:
        ; Four page directories in a row, 2048 large pages.
        mov     edi, directories
        mov     eax, 0x83               ; present, writable, large
        mov     ecx, 2048
.page:  mov     [edi], eax
        mov     dword [edi + 4], 0
        add     eax, 0x200000
        add     edi, 8
        loop    .page
        mov     edi, pdpt
        mov     eax, directories + 3
        mov     ecx, 4
.directory:
        mov     [edi], eax
        mov     dword [edi + 4], 0
        add     eax, 0x1000
        add     edi, 8
        loop    .directory
        mov     dword [pml4], pdpt + 3

        mov     eax, CR4_PAE
        mov     cr4, eax
        mov     eax, pml4
        mov     cr3, eax
        mov     ecx, IA32_EFER
        rdmsr
        or      eax, EFER_LME | EFER_NXE
        wrmsr
        mov     eax, cr0
        or      eax, CR0_PG | CR0_WP
        mov     cr0, eax
        lgdt    [gdt_pointer]
        jmp     8:.long

        bits 64
.long:
        mov     eax, 16
        mov     ss, eax
        mov     ds, eax
        mov     es, eax
        xor     eax, eax
        mov     fs, eax
        mov     gs, eax

        ; An interrupt gate for each exception, to stubs of equal size.
        mov     rdi, idt
        mov     eax, stubs
        mov     ecx, EXCEPTIONS
.gate:  mov     [rdi], ax
        mov     word [rdi + 2], 8
        mov     word [rdi + 4], 0x8e00
        mov     edx, eax
        shr     edx, 16
        mov     [rdi + 6], dx
        mov     qword [rdi + 8], 0
        add     eax, STUB_SIZE
        add     rdi, 16
        loop    .gate
        lidt    [idt_pointer]

        mov     edi, ebx
        xor     ebp, ebp                ; the outermost frame
        call    guest_main
.stop:  cli
        hlt
        jmp     .stop

; uint64_t guest_try(unsigned access, uint64_t address): see guest.h. RBP brings back the stack,
; wherever the access ended.
guest_try:
        push    rbp
        mov     rbp, rsp
        mov     byte [trying], 1
        cmp     edi, ACCESS_READ
        je      .read
        cmp     edi, ACCESS_WRITE
        je      .write
        call    rsi
        jmp     .through
.read:  mov     rdx, [rsi]
        jmp     .through
.write: mov     rdx, 0x5155495245303031
        mov     [rsi], rdx
.through:
        xor     eax, eax
guest_try_resume:
        mov     rsp, rbp
        mov     byte [trying], 0
        pop     rbp
        ret

; One stub for each exception: vector in EAX, error code (0 where there is none) on the stack.
STUB_SIZE equ 16
%macro stub 1
        align   STUB_SIZE
  %if %1 == 8 || (%1 >= 10 && %1 <= 14) || %1 == 17 || %1 == 21
        push    rax
        mov     eax, %1
        jmp     raised_with_code
  %else
        push    0
        push    rax
        mov     eax, %1
        jmp     raised_with_code
  %endif
%endmacro

        align   STUB_SIZE
stubs:
%assign vector 0
%rep EXCEPTIONS
        stub vector
%assign vector vector + 1
%endrep

; Stack: RAX, error code, RIP, CS, RFLAGS, RSP, SS. RAX is not restored: guest_try returns it.
raised_with_code:
        cmp     byte [trying], 0
        je      .unexpected
        push    rax
        mov     rax, [rsp + 16]
        mov     [guest_fault_code], rax
        mov     rax, cr2
        mov     [guest_fault_address], rax
        mov     rax, guest_try_resume
        mov     [rsp + 24], rax
        btr     dword [rsp + 40], 8     ; RFLAGS.TF: no further step
        pop     rax
        add     eax, EXCEPTION
        add     rsp, 16
        iretq
.unexpected:
        mov     edi, eax
        mov     rsi, [rsp + 16]         ; RIP
        mov     rdx, cr2
        and     rsp, -16
        call    guest_unexpected
        ud2

section .rodata
        align 8
gdt:
        dq 0
        dq 0x00af9b000000ffff           ; code, 64-bit
        dq 0x00cf93000000ffff           ; data
gdt_pointer:
        dw gdt_pointer - gdt - 1
        dd gdt
        align 8
idt_pointer:
        dw EXCEPTIONS * 16 - 1
        dq idt

section .bss align=4096
pml4:   resb 4096
pdpt:   resb 4096
directories: resb 4 * 4096
idt:    resb EXCEPTIONS * 16
guest_fault_code: resq 1
guest_fault_address: resq 1
trying: resq 1
        resb 16384
stack_top:
