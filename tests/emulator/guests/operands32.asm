; The memory operands of INS and OUTS outside 64-bit mode against those of STOS and LODS: real mode,
; segments of every type and their limits, virtual-8086 mode, 32-bit and PAE paging, ring 3. See
; check64.inc for how a case is judged; here a run has segment registers of its own.

PD   equ 0x70000                ; 32-bit paging
PT   equ 0x71000                ; 0 .. 4 MiB
PDPT equ 0x72000                ; PAE
PPD  equ 0x73000
PPT  equ 0x74000                ; 0 .. 2 MiB
IDT  equ 0x78000
TSS  equ 0x79000
STACK_TOP equ 0x7c00
STACK0 equ 0x7b00               ; of ring 0, when it comes from ring 3
USER_STACK equ 0x7a00

P   equ 1
W   equ 2
U   equ 4
PS  equ 0x80

CR0_PE equ 1
CR0_WP equ 1 << 16
CR0_AM equ 1 << 18
CR0_PG equ 1 << 31
CR4_PSE equ 1 << 4
CR4_PAE equ 1 << 5
DF  equ 1 << 10
IOPL3 equ 3 << 12
VM  equ 1 << 17
AC  equ 1 << 18

DEBUG_PORT equ 0xe9
LINE_STATUS equ 0x3fd
ROOM equ 1 << 5
RESULT_PORT equ 0x510
DELAY_PORT equ 0x80
DONE_VECTOR equ 0x30

        bits 16
        org 0x7c00
start:  cli
        xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, STACK_TOP
        jmp 0:real
        bits 32
end_line:
        mov al, 10
        mov edx, DEBUG_PORT
        out dx, al
        mov edx, LINE_STATUS            ; until there is room: what comes too fast is dropped
.room:  in al, dx
        test al, ROOM
        jz .room
        ret
        bits 16

        times 510 - ($ - $$) db 0
        dw 0xaa55

; ---- Real mode ----

real:   mov word [13 * 4], real_gp
        mov word [12 * 4], real_ss
        jmp real_cases

real_ss:
        mov byte [cs:real_vector], 12
        jmp real_over
real_gp:
        mov byte [cs:real_vector], 13
real_over:
        mov word [cs:real_cx], cx
        mov word [cs:real_si], si
        mov word [cs:real_di], di
        xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, STACK_TOP - 2
        cld
        ret

real_vector: db 0
real_cx: dw 0
real_si: dw 0
real_di: dw 0
real_seen: times 7 db 0

; BX: code, EBP: offset, CX: count, DX: flags. SP is STACK_TOP - 2 at the call.
real_run:
        mov byte [real_vector], 0
        mov esi, ebp
        mov edi, ebp
        push dx
        mov ax, 0x2000
        mov ds, ax
        mov es, ax
        mov ax, 0x2e2e
        mov dx, DELAY_PORT
        popf
        jmp bx

; REAL "text", offset, count, flags, <control>, <tried>
%macro REAL 6
        jmp %%go
%%text: db %1, 0
%%one:  %5
        jmp real_over
%%two:  %6
        jmp real_over
%%go:   mov bx, %%one
        mov ebp, %2
        mov ecx, %3
        mov dx, %4 | 2
        call real_run
        mov si, real_vector
        mov di, real_seen
        mov cx, 7
        rep movsb
        mov bx, %%two
        mov ebp, %2
        mov ecx, %3
        mov dx, %4 | 2
        call real_run
        mov si, real_vector
        mov di, real_seen
        mov cx, 7
        repe cmpsb
        mov bx, %%text
        call real_compared
        mov si, %%offset
        call puts16
        jmp %%out
%%offset: db " at ", %str(%2), 10, 0
%%out:
%endmacro

%macro REAL_ALL 4               ; text, offset, count, flags
        REAL {%1, ", OUTSB"}, %2, %3, %4, lodsb, outsb
        REAL {%1, ", OUTSW"}, %2, %3, %4, lodsw, outsw
        REAL {%1, ", OUTSD"}, %2, %3, %4, lodsd, outsd
        REAL {%1, ", INSB"}, %2, %3, %4, stosb, insb
        REAL {%1, ", INSW"}, %2, %3, %4, stosw, insw
        REAL {%1, ", INSD"}, %2, %3, %4, stosd, insd
        REAL {%1, ", REP OUTSW"}, %2, %3, %4, rep lodsw, rep outsw
        REAL {%1, ", REP INSB"}, %2, %3, %4, rep stosb, rep insb
        REAL {%1, ", REP INSD"}, %2, %3, %4, rep stosd, rep insd
        REAL {%1, ", a32 OUTSB"}, %2, %3, %4, a32 lodsb, a32 outsb
        REAL {%1, ", a32 INSD"}, %2, %3, %4, a32 stosd, a32 insd
        REAL {%1, ", a32 REP OUTSW"}, %2, %3, %4, a32 rep lodsw, a32 rep outsw
        REAL {%1, ", CS OUTSW"}, %2, %3, %4, cs lodsw, cs outsw
        REAL {%1, ", SS OUTSW"}, %2, %3, %4, ss lodsw, ss outsw
%endmacro

; BX: text; whether both halves were alike is in ZF. Says the control's vector where they were not, and in
; both cases what the other half ended with: vector, CX, SI, DI.
real_compared:
        mov si, ok
        je .say
        inc dword [bad]
        mov si, not_ok
        call puts16
        mov si, bx
        call puts16
        mov si, real_field
        call puts16
        mov al, [real_seen]
        call hex8
        mov al, [real_vector]
        call hex8
        mov si, line_end
        call puts16
        mov si, so
.say:   call puts16
        mov si, bx
        call puts16
        mov si, blank
        call puts16
        mov si, real_vector
        mov cx, 7
.byte:  lodsb
        call hex8
        loop .byte
        ret
real_field: db ": vector ", 0
line_end: db 10, 0
blank:  db " ", 0

hex8:   mov dx, DEBUG_PORT
        mov ah, al
        shr al, 4
        call .digit
        mov al, ah
.digit: and al, 15
        add al, '0'
        cmp al, '9'
        jbe .out
        add al, 'a' - '0' - 10
.out:   out dx, al
        ret

puts16: lodsb
        test al, al
        jz .out
        mov dx, DEBUG_PORT
        out dx, al
        jmp puts16
.out:   ret

ok:     db "ok ", 0
so:     db "so ", 0
not_ok: db "BAD ", 0
bad:    dd 0

        align 8
; What a case may write to, even on a CPU that asks no limit, is from 0x20000 up, or near 0.
gdt:    dq 0
        dq 0x00cf9b000000ffff   ; 08 code
        dq 0x00cf93000000ffff   ; 10 data
        dq 0x00cffb000000ffff   ; 18 code, ring 3
        dq 0x00cff3000000ffff   ; 20 data, ring 3
        dq 0x0000890000000087 | (TSS & 0xffff) << 16 | (TSS >> 16 & 0xff) << 32         ; 28
        dq 0x008f9b000000ffff   ; 30 16-bit code
        dq 0x0000f3020000ffff   ; 38 data to 64 KiB, from 0x20000
        dq 0x0000f30200000fff   ; 40 data to 4 KiB, from 0x20000
        dq 0x0040f1020000ffff   ; 48 read-only
        dq 0x0040fb020000ffff   ; 50 code, readable
        dq 0x00cff9000000ffff   ; 58 code, execute only (ring 3)
        dq 0x00cf99000000ffff   ; 60 code, execute only (ring 0)
        dq 0x0000f7020000ffff   ; 68 expand-down, 16-bit, all of it below: nothing
        dq 0x0000f70200000fff   ; 70 expand-down, 16-bit: 1000 .. ffff
        dq 0x0040f70200000fff   ; 78 expand-down, 32-bit: 1000 .. ffffffff
        dq 0x00c0f70200000001   ; 80 expand-down, pages: 2000 .. ffffffff
        dq 0x0040f5020000ffff   ; 88 expand-down, read-only
        dq 0x00cff3020000ffff   ; 90 data to 4 GiB, from 0x20000
        dq 0xffcff3fff000ffff   ; 98 data to 4 GiB, from 0xfffff000
        dq 0x0040ff020000ffff   ; a0 conforming code
        dq 0x0040f30200000000   ; a8 one byte
        dq 0x00c0f30200000000   ; b0 one page
        dq 0x0000930000007fff   ; b8 ring 0, for the stack: to 32 KiB
gdt_pointer:
        dw gdt_pointer - gdt - 1
        dd gdt
idt_pointer:
        dw 64 * 8 - 1
        dd IDT

real_cases:
        REAL_ALL "real mode", 0x1000, 3, 0
        REAL_ALL "real mode", 0xffff, 3, 0
        REAL_ALL "real mode", 0xfffe, 3, 0
        REAL_ALL "real mode", 0xfffd, 3, 0
        REAL_ALL "real mode", 0xfffa, 3, 0
        REAL_ALL "real mode, down", 1, 3, DF
        REAL_ALL "real mode", 0x1ffff, 3, 0
        REAL_ALL "real mode, no count", 0xffff, 0x10000, 0
        jmp to_protected

to_protected:
        lgdt [gdt_pointer]
        mov eax, cr0
        or eax, CR0_PE
        mov cr0, eax
        jmp 8:protected

; ---- Protected mode ----

        bits 32
%macro GATE 1
        align 16
  %if %1 == 8 || (%1 >= 10 && %1 <= 14) || %1 == 17
        push dword %1
  %else
        push dword 0
        push dword %1
  %endif
        jmp exception
%endmacro
        align 16
stubs:
%assign vector 0
%rep 64
        GATE vector
  %assign vector vector + 1
%endrep

        align 8
seen:
s_vector: dd 0
s_code: dd 0
s_cr2:  dd 0
s_rf:   dd 0
s_ecx:  dd 0
s_esi:  dd 0
s_edi:  dd 0
s_eip:  dd 0
s_entry0: dd 0
s_entry1: dd 0
SEEN equ 10
control: times SEEN dd 0
s_names: db "vector  code    cr2     rf      ecx     esi     edi     eip     entry 1 entry 2 "

p_seg:  dd 0                    ; DS, ES and FS
p_ss:   dd 0
p_cs:   dd 0
p_at:   dd 0
p_count: dd 0
p_eflags: dd 0
watch0: dd 0
watch1: dd 0
stub:   dd 0
base:   dd 0                    ; of the code that runs
run_esp: dd 0

exception:
        push eax
        mov eax, 0x10
        mov ds, eax
        mov es, eax
        pop eax
        mov [s_ecx], ecx
        mov [s_esi], esi
        mov [s_edi], edi
        mov eax, [esp]
        mov [s_vector], eax
        mov eax, [esp + 4]
        mov [s_code], eax
        mov eax, [esp + 8]
        add eax, [base]
        sub eax, [stub]
        mov [s_eip], eax
        mov eax, [esp + 16]
        shr eax, 16
        and eax, 1
        mov [s_rf], eax
        mov eax, cr2
        mov [s_cr2], eax
        cmp dword [s_vector], DONE_VECTOR
        jne .over
        mov dword [s_eip], -1
        mov dword [s_vector], -1
        mov dword [s_rf], 0
.over:  mov eax, 0x10
        mov ss, eax
        mov fs, eax
        mov gs, eax
        mov esp, [run_esp]
        cld
        push dword 2
        popfd
        ret

; EBX: code
run:    mov [stub], ebx
        mov dword [base], 0
        xor eax, eax
        mov cr2, eax
        mov dword [s_code], 0
        mov [run_esp], esp
        mov eax, [p_eflags]
        test eax, VM
        jnz .v86
        mov ecx, [p_cs]
        test ecx, 3
        jz .inner
        push dword [p_ss]
        push dword USER_STACK
.inner: push eax
        push ecx
        push ebx
        jmp .registers
.v86:   push dword [p_seg]      ; GS FS DS ES
        push dword [p_seg]
        push dword [p_seg]
        push dword [p_seg]
        push dword [p_ss]
        push dword USER_STACK
        push eax
        mov eax, ebx
        shr eax, 4
        push eax
        shl eax, 4
        mov [base], eax
        sub ebx, eax
        push ebx
.registers:
        mov ecx, [p_count]
        mov esi, [p_at]
        mov edi, esi
        mov edx, DELAY_PORT
        mov eax, [p_cs]
        test al, 3
        jnz .segments
        mov eax, [p_ss]
        test dword [p_eflags], VM
        jnz .segments
        mov ss, eax
.segments:
        mov eax, [p_seg]
        test dword [p_eflags], VM
        jnz .go
        mov es, eax
        mov fs, eax
        mov ds, eax
.go:    mov eax, 0x2e2e2e2e
        iretd

defaults:
        mov dword [p_seg], 0x10
        mov dword [p_ss], 0x10
        mov dword [p_cs], 8
        mov dword [p_count], 3
        mov dword [p_at], 0x20000
        mov dword [p_eflags], 2 | IOPL3
        mov dword [watch0], gdt
        mov dword [watch1], gdt
        mov eax, cr0
        and eax, ~CR0_AM
        or eax, CR0_WP
        mov cr0, eax
        ret

case_run:
        call defaults
        call [prepare]
        mov eax, cr3
        mov cr3, eax
        call run
        mov eax, [watch0]
        mov eax, [eax]
        and eax, 0xfff
        mov [s_entry0], eax
        mov eax, [watch1]
        mov eax, [eax]
        and eax, 0xfff
        mov [s_entry1], eax
        jmp defaults
prepare: dd 0

; CASE bits, "text", prepare, <control>, <tried>
%macro CASE 5
        jmp %%go
%%text: db %2, 0
        bits %1
%%one:  %4
        int DONE_VECTOR
%%two:  %5
        int DONE_VECTOR
        bits 32
%%go:   mov ebx, %%one
        mov dword [prepare], %3
        call case_run
        mov esi, seen
        mov edi, control
        mov ecx, SEEN
        rep movsd
        mov ebx, %%two
        call case_run
        mov esi, %%text
        call compare
%endmacro

compare:
        push esi
        xor ebx, ebx
        xor ebp, ebp
.next:  mov eax, [control + ebx * 4]
        cmp eax, [seen + ebx * 4]
        je .same
        inc ebp
        inc dword [bad]
        mov esi, not_ok
        call puts
        mov esi, [esp]
        call puts
        mov esi, colon
        call puts
        lea esi, [s_names + ebx * 8]
        mov ecx, 8
        mov edx, DEBUG_PORT
.name:  lodsb
        out dx, al
        loop .name
        mov eax, [control + ebx * 4]
        call hex
        mov eax, [seen + ebx * 4]
        call hex
        call newline
        test ebx, ebx           ; another vector: all else is another's, too
        jz .over
.same:  inc ebx
        cmp ebx, SEEN
        jb .next
.over:  mov esi, ok
        test ebp, ebp
%ifdef QUIET                    ; real mode's few are told all the same
        jz .quiet
%else
        jz .say
%endif
        mov esi, so
.say:   call puts
        mov esi, [esp]
        call puts
        mov eax, [seen]
        call hex
        mov eax, [seen + 4]
        call hex
        mov eax, [p_where]
        call hex
        xor eax, eax            ; as in check64.inc
        xor ebx, ebx
.sum:   rol eax, 7
        xor eax, [seen + ebx * 4]
        inc ebx
        cmp ebx, SEEN
        jb .sum
        call hex
        call newline
.quiet: pop esi
        ret
p_where: dd 0
colon:  db ": ", 0

puts:   lodsb
        test al, al
        jz .out
        mov edx, DEBUG_PORT
        out dx, al
        jmp puts
.out:   ret

newline:
        jmp strict near end_line

hex:    push ecx
        push edi
        mov edi, eax
        mov edx, DEBUG_PORT
        mov al, ' '
        out dx, al
        mov ecx, 8
.digit: rol edi, 4
        mov eax, edi
        and eax, 15
        add al, '0'
        cmp al, '9'
        jbe .out
        add al, 'a' - '0' - 10
.out:   out dx, al
        loop .digit
        pop edi
        pop ecx
        ret

; SEGMENT selector, offset: every instruction there, in ring 0 and ring 3
s_selector: dd 0
s_offset: dd 0
in_ring0:
        mov eax, [s_selector]
        and eax, ~3
        mov [p_seg], eax
        mov eax, [s_offset]
        mov [p_at], eax
        ret
in_ring3:
        call in_ring0
        or dword [p_seg], 3
        cmp dword [p_seg], 3    ; the null selector stays, ring 0's data become ring 3's
        jne .data
        mov dword [p_seg], 0
.data:  cmp dword [p_seg], 0x10 | 3
        jne .loaded
        mov dword [p_seg], 0x20 | 3
.loaded:
        mov dword [p_cs], 0x18 | 3
        mov dword [p_ss], 0x20 | 3
        ret
in_16bit:
        call in_ring0
        mov dword [p_cs], 0x30
        ret
in_execute_only:                ; CS overrides
        call in_ring0
        mov dword [p_seg], 0x10
        mov dword [p_cs], 0x60
        ret
in_execute_only3:
        call in_ring3
        mov dword [p_seg], 0x20 | 3
        mov dword [p_cs], 0x58 | 3
        ret
in_small_stack:
        call in_ring0
        mov dword [p_seg], 0x10
        mov dword [p_ss], 0xb8
        ret
down_ring0:
        call in_ring0
        or dword [p_eflags], DF
        ret

; All cases at [s_selector]:[s_offset]; a routine, so that they are there once.
all_cases:
        CASE 32, "OUTSB", in_ring0, lodsb, outsb
        CASE 32, "OUTSW", in_ring0, lodsw, outsw
        CASE 32, "OUTSD", in_ring0, lodsd, outsd
        CASE 32, "INSB", in_ring0, stosb, insb
        CASE 32, "INSW", in_ring0, stosw, insw
        CASE 32, "INSD", in_ring0, stosd, insd
        CASE 32, "REP OUTSB", in_ring0, rep lodsb, rep outsb
        CASE 32, "REP INSW", in_ring0, rep stosw, rep insw
        CASE 32, "REP INSD, down", down_ring0, rep stosd, rep insd
        CASE 32, "a16 OUTSW", in_ring0, a16 lodsw, a16 outsw
        CASE 32, "a16 REP INSD", in_ring0, a16 rep stosd, a16 rep insd
        CASE 32, "FS OUTSW", in_ring0, fs lodsw, fs outsw
        CASE 32, "ring 3, OUTSB", in_ring3, lodsb, outsb
        CASE 32, "ring 3, INSW", in_ring3, stosw, insw
        CASE 32, "ring 3, REP OUTSD", in_ring3, rep lodsd, rep outsd
        CASE 16, "16-bit code, OUTSW", in_16bit, lodsw, outsw
        CASE 16, "16-bit code, REP INSB", in_16bit, rep stosb, rep insb
        CASE 16, "16-bit code, a32 REP INSD", in_16bit, a32 rep stosd, a32 rep insd
        ret

%macro SEGMENT 2
        mov dword [s_selector], %1
        mov dword [s_offset], %2
        mov dword [p_where], %1 << 16 | (%2 & 0xffff)
        call all_cases
%endmacro

; Virtual-8086 mode: offsets from 0x20000.
%macro V86 2-3
%1:     mov dword [p_seg], 0x2000
        mov dword [p_ss], 0
        mov dword [p_cs], 3
        mov dword [p_at], %2
        mov dword [p_eflags], 2 | IOPL3 | VM
        mov dword [p_where], %2
        %3
        ret
%endmacro
V86 v86_inside, 0x100
V86 v86_last, 0xffff
V86 v86_even, 0xfffe
V86 v86_long, 0xfffd
V86 v86_beyond, 0x10000
V86 v86_odd, 0x101, {call v86_ac}
v86_ac: or dword [p_eflags], AC
        mov eax, cr0
        or eax, CR0_AM
        mov cr0, eax
        ret
%macro V86_ALL 1
        CASE 16, "v86, OUTSB", %1, lodsb, outsb
        CASE 16, "v86, OUTSW", %1, lodsw, outsw
        CASE 16, "v86, OUTSD", %1, lodsd, outsd
        CASE 16, "v86, INSB", %1, stosb, insb
        CASE 16, "v86, INSW", %1, stosw, insw
        CASE 16, "v86, INSD", %1, stosd, insd
        CASE 16, "v86, REP OUTSW", %1, rep lodsw, rep outsw
        CASE 16, "v86, REP INSB", %1, rep stosb, rep insb
        CASE 16, "v86, a32 INSW", %1, a32 stosw, a32 insw
        CASE 16, "v86, SS OUTSW", %1, ss lodsw, ss outsw
%endmacro

; Paging: pages at 0x80000 and behind; [entry0] and [entry1] are their entries, whatever the format.
ONE equ 0x80
entry0: dd 0
entry1: dd 0
%macro PAGES 4-5+               ; name, flags of the first and second page, address, more
%1:     mov eax, [entry0]
        mov dword [eax], ONE << 12 | %2
        mov [watch0], eax
        mov eax, [entry1]
        mov dword [eax], (ONE + 1) << 12 | %3
        mov [watch1], eax
        mov dword [p_at], %4
        mov dword [p_where], %4
        %5
        ret
%endmacro
%macro RING3 0
        mov dword [p_cs], 0x18 | 3
        mov dword [p_ss], 0x20 | 3
        mov dword [p_seg], 0x20 | 3
%endmacro
no_wp:  mov eax, cr0
        and eax, ~CR0_WP
        mov cr0, eax
        ret
PAGES clean, P | W, P | W, ONE << 12 | 0x20
PAGES crossing, P | W, P | W, ONE << 12 | 0xfff
PAGES absent, 0, P | W, ONE << 12 | 0x20
PAGES second_absent, P | W, 0, ONE << 12 | 0xffe
PAGES read_only, P, P, ONE << 12 | 0xfff
PAGES read_only_free, P, P, ONE << 12 | 0xfff, {call no_wp}
PAGES user_supervisor, P | W, P | W, ONE << 12 | 0x20, {RING3}
PAGES user_user, P | W | U, P | W | U, ONE << 12 | 0xffd, {RING3}
PAGES user_second, P | W | U, P | W, ONE << 12 | 0xffe, {RING3}
PAGES user_read_only, P | U, P | U, ONE << 12 | 0x30, {RING3}

; A large page: at 0x20000000, its directory entry in [large_entry].
large_entry: dd 0
%macro LARGE 3                  ; name, flags, address
%1:     mov eax, [large_entry]
        mov dword [eax], 0x400000 | PS | %2
        mov [watch0], eax
        mov dword [p_at], %3
        mov dword [p_where], %3
        ret
%endmacro
LARGE large, P | W, 0x20000ffd
LARGE large_read_only, P, 0x20000ffd
LARGE large_absent, 0, 0x20000010
LARGE large_reserved13, P | W | 1 << 13, 0x20000010
LARGE large_reserved21, P | W | 1 << 21, 0x20000010
reserved_high:                  ; PAE: bit 45 of the page's entry
        call clean
        mov eax, [entry0]
        mov dword [eax + 4], 1 << 13
        ret
reserved_nx:                    ; PAE: NX while EFER.NXE is clear
        call clean
        mov eax, [entry0]
        mov dword [eax + 4], 1 << 31
        ret
whole:  mov eax, [entry0]
        mov dword [eax + 4], 0
        ret
wraps:  mov dword [p_at], 0xfffffffd    ; the end of a flat segment: mapped by nobody
        mov dword [p_where], 0xfffffffd
        ret

paging_cases:
%macro PAGED 1
        CASE 32, "paged, OUTSB", %1, lodsb, outsb
        CASE 32, "paged, OUTSD", %1, lodsd, outsd
        CASE 32, "paged, INSB", %1, stosb, insb
        CASE 32, "paged, INSW", %1, stosw, insw
        CASE 32, "paged, REP OUTSW", %1, rep lodsw, rep outsw
        CASE 32, "paged, REP INSD", %1, rep stosd, rep insd
%endmacro
        PAGED clean
        PAGED crossing
        PAGED absent
        PAGED second_absent
        PAGED read_only
        PAGED read_only_free
        PAGED user_supervisor
        PAGED user_user
        PAGED user_second
        PAGED user_read_only
        PAGED large
        PAGED large_read_only
        PAGED large_absent
        PAGED wraps
        ret

protected:
        mov eax, 0x10
        mov ds, eax
        mov es, eax
        mov ss, eax
        mov fs, eax
        mov gs, eax
        mov esp, STACK_TOP
        mov dword [TSS + 4], STACK0
        mov dword [TSS + 8], 0x10
        mov word [TSS + 102], 0x68      ; the I/O permission map: ports 0 to 0xf7
        mov byte [TSS + 0x87], 0xff
        mov eax, 0x28
        ltr ax
        mov edi, IDT
        mov ebx, stubs
        mov ecx, 64
.gate:  mov [edi], bx
        mov word [edi + 2], 8
        mov word [edi + 4], 0xee00
        mov eax, ebx
        shr eax, 16
        mov [edi + 6], ax
        add edi, 8
        add ebx, 16
        loop .gate
        lidt [idt_pointer]

        SEGMENT 0, 0x20000      ; null
        SEGMENT 0x10, 0x20000
        SEGMENT 0x90, 0x2ffff
        SEGMENT 0x38, 0x8000
        SEGMENT 0x38, 0xfffc
        SEGMENT 0x38, 0xfffd
        SEGMENT 0x38, 0xfffe
        SEGMENT 0x38, 0xffff
        SEGMENT 0x38, 0x10000
        SEGMENT 0x38, 0xffffffff
        SEGMENT 0x40, 0xffc
        SEGMENT 0x40, 0xffe
        SEGMENT 0x40, 0xfff
        SEGMENT 0x40, 0x1000
        SEGMENT 0x48, 0x8000    ; read-only
        SEGMENT 0x48, 0xfffe
        SEGMENT 0x50, 0x8000    ; code
        SEGMENT 0x50, 0xffff
        SEGMENT 0x68, 0x8000    ; expand-down
        SEGMENT 0x70, 0xffe
        SEGMENT 0x70, 0xfff
        SEGMENT 0x70, 0x1000
        SEGMENT 0x70, 0xfffd
        SEGMENT 0x70, 0xffff
        SEGMENT 0x70, 0x10000
        SEGMENT 0x78, 0xfff
        SEGMENT 0x78, 0x1000
        SEGMENT 0x78, 0x10000
        SEGMENT 0x78, 0xfffffffd
        SEGMENT 0x78, 0xffffffff
        SEGMENT 0x80, 0x1fff
        SEGMENT 0x80, 0x2000
        SEGMENT 0x88, 0x10000
        SEGMENT 0x90, 0x10000
        SEGMENT 0x90, 0xffffffff
        SEGMENT 0x90, 0xfffe1000
        SEGMENT 0x98, 0x21000
        SEGMENT 0x98, 0x1100
        SEGMENT 0xa0, 0x8000
        SEGMENT 0xa8, 0
        SEGMENT 0xa8, 1
        SEGMENT 0xb0, 0xfff
        mov dword [p_where], 0
        mov dword [s_offset], 0x20000
        CASE 32, "execute-only, CS OUTSB", in_execute_only, cs lodsb, cs outsb
        CASE 32, "ring 3, execute-only, CS OUTSW", in_execute_only3, cs lodsw, cs outsw
        mov dword [s_offset], 0x7ffe
        CASE 32, "SS OUTSW", in_small_stack, ss lodsw, ss outsw
        mov dword [s_offset], 0x7fff
        CASE 32, "SS OUTSB", in_small_stack, ss lodsb, ss outsb
        CASE 32, "SS OUTSW, beyond", in_small_stack, ss lodsw, ss outsw
        CASE 32, "SS REP OUTSB, beyond", in_small_stack, ss rep lodsb, ss rep outsb
        V86_ALL v86_inside
        V86_ALL v86_last
        V86_ALL v86_even
        V86_ALL v86_long
        V86_ALL v86_beyond
        V86_ALL v86_odd

        mov edi, PT             ; 32-bit paging: 0 .. 4 MiB, ring 3 may run in the image
        mov eax, P | W | U
        mov ecx, 1024
.page:  stosd
        add eax, 0x1000
        loop .page
        mov dword [PD], PT | P | W | U
        mov dword [entry0], PT + ONE * 4
        mov dword [entry1], PT + ONE * 4 + 4
        mov dword [large_entry], PD + (0x20000000 >> 22) * 4
        mov eax, cr4
        or eax, CR4_PSE
        mov cr4, eax
        mov eax, PD
        mov cr3, eax
        mov eax, cr0
        or eax, CR0_PG
        mov cr0, eax
        call paging_cases
        PAGED large_reserved21
        V86_ALL v86_inside

        mov eax, cr0            ; PAE
        and eax, ~CR0_PG
        mov cr0, eax
        mov edi, PPT
        mov eax, P | W | U
        mov ecx, 512
.wide:  stosd
        mov dword [edi], 0
        add edi, 4
        add eax, 0x1000
        loop .wide
        mov dword [PDPT], PPD | P
        mov dword [PPD], PPT | P | W | U
        mov dword [entry0], PPT + ONE * 8
        mov dword [entry1], PPT + ONE * 8 + 8
        mov dword [large_entry], PPD + (0x20000000 >> 21) * 8
        mov eax, cr4
        or eax, CR4_PAE
        mov cr4, eax
        mov eax, PDPT
        mov cr3, eax
        mov eax, cr0
        or eax, CR0_PG
        mov cr0, eax
        call paging_cases
        PAGED large_reserved13
        CASE 32, "reserved bit, OUTSB", reserved_high, lodsb, outsb
        CASE 32, "reserved bit, INSB", reserved_high, stosb, insb
        CASE 32, "NX, OUTSB", reserved_nx, lodsb, outsb
        CASE 32, "NX, REP INSW", reserved_nx, rep stosw, rep insw
        call whole

        mov eax, [bad]
        mov edx, RESULT_PORT
        out dx, eax
