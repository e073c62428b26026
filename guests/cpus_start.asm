; Where the other CPUs of the guest `cpus` begin: real mode, at the page of the start-up IPI's vector,
; where cpus.c has put what is from cpus_trampoline to its end. And the handlers of its interrupts.

        bits 16

global cpus_trampoline, cpus_trampoline_end
global cpus_fixed, cpus_all, cpus_nmi, cpus_mesh, cpus_tick
extern cpus_ap, cpus_on_fixed, cpus_on_all, cpus_on_nmi, cpus_on_mesh, cpus_on_tick

APIC_ID equ 0xfee00020

section .text
cpus_trampoline:
        cli
        o32 lgdt [cs:gdt_pointer - cpus_trampoline]
        mov     eax, cr0
        or      al, 1
        mov     cr0, eax
        jmp     dword 8:in32
gdt_pointer:
        dw gdt_end - gdt - 1
        dd gdt
cpus_trampoline_end:

        bits 32
in32:   mov     ecx, 16
        mov     ds, ecx
        mov     es, ecx
        mov     ss, ecx
        mov     fs, ecx
        mov     gs, ecx
        mov     eax, [APIC_ID]
        shr     eax, 24
        mov     ecx, eax
        inc     ecx
        shl     ecx, 12
        lea     esp, [stacks + ecx - 16]
        xor     ebp, ebp
        mov     [esp], eax
        call    cpus_ap
.stop:  cli
        hlt
        jmp     .stop

%macro handler 2
%1:     pusha
        cld
        call    %2
        popa
        iret
%endmacro

handler cpus_fixed, cpus_on_fixed
handler cpus_all, cpus_on_all
handler cpus_nmi, cpus_on_nmi
handler cpus_mesh, cpus_on_mesh
handler cpus_tick, cpus_on_tick

section .rodata
        align 8
gdt:    dq 0
        dq 0x00cf9b000000ffff           ; code, 4 GiB
        dq 0x00cf93000000ffff           ; data
gdt_end:

section .bss align=4096
stacks: resb 8 * 4096
