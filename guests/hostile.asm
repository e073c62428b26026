; hostile: does one thing as often as it can, of those that cost the hypervisor most, for ever. Which
; one says the last word of its command line (`hostile -- outsd`); without one that it knows it fails
; with 1.
;
; In 32-bit mode without paging, and with nothing of the runtime that the others share.

%include "abi.inc"

        bits 32

MULTIBOOT_MAGIC equ 0x1BADB002
FLAGS           equ 1 << 0 | 1 << 1
INFO_CMDLINE    equ 16                  ; struct multiboot_info of multiboot1.h

CODE            equ 8
DATA            equ 16

UNCLAIMED_PORT  equ 0x1234
LAPIC           equ 0xfee00000
LAPIC_EOI       equ 0xb0
LAPIC_SVR       equ 0xf0
LAPIC_TIMER     equ 0x320
LAPIC_INITIAL   equ 0x380
LAPIC_DIVIDE    equ 0x3e0
SVR_ENABLED     equ 1 << 8
TIMER_PERIODIC  equ 1 << 17
DIVIDE_BY_1     equ 0xb
VECTOR_TIMER    equ 0x40
HPET            equ 0xfed00000
COUNTER         equ 0xf0                ; the HPET's

IA32_APIC_BASE  equ 0x1b
CR0_WP          equ 1 << 16
CR4_PSE         equ 1 << 4
TF              equ 1 << 8
LAZY            equ 2 << 20             ; where its memory is touched from, to the end of `mem=`
LAZY_END        equ 64 << 20

global _start

section .multiboot align=4
        dd MULTIBOOT_MAGIC, FLAGS, -(MULTIBOOT_MAGIC + FLAGS)

section .text
_start: mov esp, stack
        cld
        lgdt [gdt_pointer]
        jmp CODE:.own
.own:   mov eax, DATA
        mov ds, eax
        mov es, eax
        mov ss, eax
        mov esi, [ebx + INFO_CMDLINE]
        call fill_idt
        lidt [idt_pointer]
        call find_mode
        mov eax, [ebp + 4]
        jmp eax

; EBP: the row of `modes` whose name the text at ESI ends with.
find_mode:
        mov edi, esi
        xor eax, eax
        mov ecx, 4096
        repne scasb
        lea edx, [edi - 1]              ; its end
        mov ebp, modes
.row:   mov esi, [ebp]
        test esi, esi
        jz .none
        mov edi, esi
        mov ecx, 4096
        repne scasb
        mov ecx, edi
        sub ecx, esi
        dec ecx                         ; length of the name
        mov edi, edx
        sub edi, ecx
        repe cmpsb
        je .found
        add ebp, 8
        jmp .row
.none:  mov dx, QUIRE_PORT_RESULT
        mov eax, 1
        out dx, eax
        hlt
.found: ret

; Interrupts end in the local APIC and return; exceptions return at once.
fill_idt:
        mov edi, idt
        xor ecx, ecx
.gate:  mov eax, exception
        cmp ecx, 32
        jb .put
        mov eax, interrupt
.put:   mov edx, eax
        and edx, 0xffff
        or edx, CODE << 16
        mov [edi], edx
        and eax, 0xffff0000
        or eax, 0x8e00
        mov [edi + 4], eax
        add edi, 8
        inc ecx
        cmp ecx, 256
        jb .gate
        ret

exception:
        iretd

interrupt:
        mov dword [LAPIC + LAPIC_EOI], 0
        iretd

; Text with COUNT in ECX from ESI, to port DX.
%macro OUT_FOR_EVER 3
%%again: mov esi, %1
        mov edx, %2
        mov ecx, 0xffff
        rep %3
        jmp %%again
%endmacro

outsd:  OUT_FOR_EVER 0x100000, QUIRE_PORT_DEBUG - 1, outsd
outsb:  OUT_FOR_EVER newlines, QUIRE_PORT_DEBUG, outsb
serial: OUT_FOR_EVER letters, 0x3f8, outsb

; Whether or not the transmitter has room; a newline now and then.
letters_slow:
        mov dx, 0x3fd
        in al, dx
        mov dx, 0x3f8
        mov al, 10
        out dx, al
        jmp letters_slow

puts:   mov eax, QUIRE_HC_PUTS
        mov ebx, newlines
        mov ecx, 4096
        vmcall
        jmp puts

cpuid_: xor eax, eax
        cpuid
        jmp cpuid_

ports:  mov dx, UNCLAIMED_PORT
        in eax, dx
        jmp ports

insb:   mov edi, 0x300000
        mov edx, UNCLAIMED_PORT
        mov ecx, 0xffff
        rep insb
        jmp insb

msrs:   mov ecx, IA32_APIC_BASE
        rdmsr
        jmp msrs

; Each page of lazy memory once; then somebody has to start it anew.
lazy:   mov edi, LAZY
.page:  mov [edi], edi
        add edi, 4096
        cmp edi, LAZY_END
        jb .page
        mov al, 0xfe                    ; reset by the keyboard controller
        out 0x64, al
        jmp lazy

start_apic:
        mov dword [LAPIC + LAPIC_SVR], SVR_ENABLED | 0xff
        mov dword [LAPIC + LAPIC_DIVIDE], DIVIDE_BY_1
        ret

; The shortest period that there is, and interrupts open.
timer:  call start_apic
        mov dword [LAPIC + LAPIC_TIMER], TIMER_PERIODIC | VECTOR_TIMER
        mov dword [LAPIC + LAPIC_INITIAL], 1
        sti
.spin:  jmp .spin

; A timer that has run out each time that it is set, and nobody who takes the interrupt.
timer0: call start_apic
        mov dword [LAPIC + LAPIC_TIMER], VECTOR_TIMER
.set:   mov dword [LAPIC + LAPIC_INITIAL], 1
        jmp .set

eoi:    call start_apic
.again: mov dword [LAPIC + LAPIC_EOI], 0
        jmp .again

; A window's bytes to itself, and back into memory.
movs:   mov esi, HPET
        mov edi, HPET
        mov ecx, 0x100
        rep movsd
        mov esi, HPET + COUNTER
        mov edi, 0x300000
        mov ecx, 0x40
        rep movsd
        jmp movs

; Sleeps until the timer's next tick, which is there already.
hlts:   call start_apic
        mov dword [LAPIC + LAPIC_TIMER], TIMER_PERIODIC | VECTOR_TIMER
        mov dword [LAPIC + LAPIC_INITIAL], 1
.sleep: sti
        hlt
        jmp .sleep

invlpg_:
        invlpg [0x100000]
        mov eax, cr3
        mov cr3, eax
        mov eax, cr4
        xor eax, CR4_PSE
        mov cr4, eax
        mov eax, cr0
        xor eax, CR0_WP
        mov cr0, eax
        jmp invlpg_

exceptions:
        int 3
        int 0x20 - 1                    ; a gate of the first 32
        jmp exceptions

steps:  pushfd
        or dword [esp], TF
        popfd
.step:  nop
        cpuid
        jmp .step

icebp:  db 0xf1                         ; INT1
        jmp icebp

yields: mov eax, QUIRE_HC_YIELD
        vmcall
        jmp yields

wbinvds:
        wbinvd
        jmp wbinvds

spin:   cli
.spin:  jmp .spin

section .rodata
        align 8
gdt:    dq 0
        dq 0x00cf9b000000ffff           ; code, 4 GiB
        dq 0x00cf93000000ffff           ; data
gdt_pointer:
        dw gdt_pointer - gdt - 1
        dd gdt
idt_pointer:
        dw 256 * 8 - 1
        dd idt

%macro MODE 2
        [section .rodata.names progbits alloc noexec nowrite align=1]
%%name: db %1, 0
        __SECT__
        dd %%name, %2
%endmacro
        align 4
modes:  MODE "outsd", outsd
        MODE "outsb", outsb
        MODE "serial", serial
        MODE "uart", letters_slow
        MODE "puts", puts
        MODE "cpuid", cpuid_
        MODE "ports", ports
        MODE "insb", insb
        MODE "msrs", msrs
        MODE "lazy", lazy
        MODE "timer", timer
        MODE "timer0", timer0
        MODE "eoi", eoi
        MODE "movs", movs
        MODE "hlt", hlts
        MODE "invlpg", invlpg_
        MODE "exceptions", exceptions
        MODE "steps", steps
        MODE "icebp", icebp
        MODE "yields", yields
        MODE "wbinvd", wbinvds
        MODE "spin", spin
        dd 0


section .data
        align 4096
newlines:
        times 0x10000 db 10
letters:
        times 0x10000 db "q"

section .bss nobits alloc write align=16
idt:    resq 256
        resb 4096
stack:
