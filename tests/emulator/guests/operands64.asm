; The memory operands of INS and OUTS in 64-bit mode against those of STOS and LODS: canonical form,
; paging, rights, A and D, pages that are crossed, address sizes, segment bases, alignment.

%include "check64.inc"

ONE  equ 0x80                   ; pages to try: this one and the next
SPOT   equ ONE * 0x1000


; Both registers, so that one preparation serves INS and OUTS.
%macro POINT 1
        mov rax, %1
        mov [p_rsi], rax
        mov [p_rdi], rax
%endmacro

; name, entry of the first page, of the second, address, more
%macro PAGES 4-5+
%1:     ENTRY ONE, %2
        ENTRY ONE + 1, %3
        mov qword [watch0], PT + ONE * 8
        mov qword [watch1], PT + (ONE + 1) * 8
        mov qword [p_rcx], 4
        POINT %4
        %5
        ret
%endmacro

%macro BOTH 2                   ; text, prepare: all widths, once and repeated
        CASE {%1, ", OUTSB"}, %2, lodsb, outsb
        CASE {%1, ", OUTSW"}, %2, lodsw, outsw
        CASE {%1, ", OUTSD"}, %2, lodsd, outsd
        CASE {%1, ", REP OUTSB"}, %2, rep lodsb, rep outsb
        CASE {%1, ", REP OUTSD"}, %2, rep lodsd, rep outsd
        CASE {%1, ", INSB"}, %2, stosb, insb
        CASE {%1, ", INSW"}, %2, stosw, insw
        CASE {%1, ", INSD"}, %2, stosd, insd
        CASE {%1, ", REP INSB"}, %2, rep stosb, rep insb
        CASE {%1, ", REP INSW"}, %2, rep stosw, rep insw
        CASE {%1, ", REP INSD"}, %2, rep stosd, rep insd
%endmacro

E1 equ SPOT | P
E2 equ SPOT + 0x1000 | P
RESERVED equ 1 << 45            ; beyond the 40 bits of these CPUs

PAGES clean, E1 | W, E2 | W, SPOT + 0x10
PAGES backwards, E1 | W, E2 | W, SPOT + 0x10, {or qword [p_rflags], DF}
PAGES crossing, E1 | W, E2 | W, SPOT + 0xfff
PAGES crossing_back, E1 | W, E2 | W, SPOT + 0x1002, {or qword [p_rflags], DF}
PAGES absent, SPOT, E2 | W, SPOT + 0x20
PAGES second_absent, E1 | W, SPOT + 0x1000, SPOT + 0xffe
PAGES second_absent_odd, E1 | W, SPOT + 0x1000, SPOT + 0xfff
PAGES first_absent, SPOT, E2 | W, SPOT + 0xfff
PAGES read_only, E1, E2, SPOT + 0x30
PAGES second_read_only, E1 | W, E2, SPOT + 0xffd
PAGES write_freely, E1, E2, SPOT + 0xfff, {call no_wp}
PAGES reserved, E1 | W | RESERVED, E2 | W, SPOT + 0x40
PAGES second_reserved, E1 | W, E2 | W | RESERVED, SPOT + 0xfff
PAGES reserved_absent, SPOT | RESERVED, E2, SPOT + 0x40
PAGES user_supervisor, E1 | W, E2 | W, SPOT + 0x50, {mov dword [p_ring], 3}
PAGES user_user, E1 | W | U, E2 | W | U, SPOT + 0xfff, {mov dword [p_ring], 3}
PAGES user_second, E1 | W | U, E2 | W, SPOT + 0xffe, {mov dword [p_ring], 3}
PAGES user_read_only, E1 | U, E2 | U, SPOT + 0x50, {mov dword [p_ring], 3}
PAGES user_read_only_free, E1 | U, E2 | U, SPOT + 0x50, {call user_no_wp}
PAGES smap, E1 | W | U, E2 | W | U, SPOT + 0x60, {call with_smap}
PAGES smap_ac, E1 | W | U, E2 | W | U, SPOT + 0x60, {call with_smap_ac}
PAGES smap_second, E1 | W, E2 | W | U, SPOT + 0xffe, {call with_smap}
PAGES smap_user, E1 | W | U, E2 | W | U, SPOT + 0x60, {call with_smap_user}
PAGES aligned, E1 | W | U, E2 | W | U, SPOT + 0x70, {call with_ac_user}
PAGES odd, E1 | W | U, E2 | W | U, SPOT + 0x71, {call with_ac_user}
PAGES even, E1 | W | U, E2 | W | U, SPOT + 0x72, {call with_ac_user}
PAGES odd_absent, SPOT, E2, SPOT + 0x71, {call with_ac_user}
PAGES odd_crossing, E1 | W | U, SPOT, SPOT + 0xfff, {call with_ac_user}
PAGES odd_ring0, E1 | W, E2 | W, SPOT + 0x71, {call with_ac_kernel}
PAGES odd_no_am, E1 | W | U, E2 | W | U, SPOT + 0x71, {call with_ac_no_am}

no_wp:  mov rax, cr0
        and eax, ~CR0_WP
        mov cr0, rax
        ret
user_no_wp:
        mov dword [p_ring], 3
        jmp no_wp
with_smap:
        mov rax, cr4
        or eax, CR4_SMAP
        mov cr4, rax
        ret
with_smap_ac:
        or qword [p_rflags], AC
        jmp with_smap
with_smap_user:
        mov dword [p_ring], 3
        jmp with_smap
with_am:
        mov rax, cr0
        or eax, CR0_AM
        mov cr0, rax
        ret
with_ac_user:
        mov dword [p_ring], 3
with_ac_kernel:
        or qword [p_rflags], AC
        jmp with_am
with_ac_no_am:
        mov dword [p_ring], 3
        or qword [p_rflags], AC
        ret

; Addresses that are no page's.
%macro ADDRESS 2-3+
%1:     mov qword [p_rcx], 3
        POINT %2
        %3
        ret
%endmacro
ADDRESS hole_low, 0x0000800000000000
ADDRESS hole_last, 0x00007fffffffffff
ADDRESS hole_edge, 0x00007ffffffffffe
ADDRESS hole_high, 0xffff7fffffffffff
ADDRESS hole_up, 0xffff7ffffffffffe
ADDRESS high_half, 0xffff800000000000
ADDRESS the_end, 0xffffffffffffffff
ADDRESS the_end_even, 0xfffffffffffffffe
ADDRESS nowhere, 0x0000700000000000
ADDRESS four_gib, 0xfffffffe

; An address size of 32 bits: registers are cut, an element is not.
ADDRESS cut, 0xdead00000000 | SPOT, {call cut_entries}
ADDRESS cut_count, SPOT, {call cut_count_entries}
cut_entries:
        ENTRY ONE, E1 | W
        mov qword [watch0], PT + ONE * 8
        ret
cut_count_entries:
        mov rax, 0x300000000
        mov [p_rcx], rax
        jmp cut_entries

; Bases of FS and GS count, ES, CS, SS and DS are one.
based:  call cut_entries
        POINT 0x20
        mov ecx, IA32_FS_BASE
        mov eax, SPOT
        xor edx, edx
        wrmsr
        ret
based_high:
        call based
        POINT 0x10
        mov ecx, IA32_FS_BASE
        mov eax, 0xfffffff0
        mov edx, 0x00007fff
        wrmsr
        ret
based_cut:
        call based
        mov rax, 0xffffffff00000040
        mov [p_rsi], rax
        ret

; Compatibility mode: segments count, linear addresses have 32 bits.
COMPATIBLE equ 0x38
%macro COMPAT 3                 ; name, data segment, offset
%1:     mov qword [p_cs], COMPATIBLE
        mov dword [p_data], %2
        mov qword [p_rcx], 3
        mov qword [watch0], PT + ONE * 8
        mov qword [watch1], PT + (ONE + 1) * 8
        ENTRY ONE, E1 | W
        ENTRY ONE + 1, E2 | W
        POINT %3
        ret
%endmacro
COMPAT compat, KERNEL_DATA, SPOT + 0xfff
COMPAT compat_last, 0x40, 0xfff
COMPAT compat_beyond, 0x40, 0x1000
COMPAT compat_null, 0, SPOT
COMPAT compat_wraps, 0x48, SPOT + 0x1010
COMPAT compat_end, KERNEL_DATA, 0xffffffff
%macro COMPAT_ALL 2
        CASE_BITS 32, {%1, ", OUTSB"}, %2, lodsb, outsb
        CASE_BITS 32, {%1, ", OUTSW"}, %2, lodsw, outsw
        CASE_BITS 32, {%1, ", INSB"}, %2, stosb, insb
        CASE_BITS 32, {%1, ", INSD"}, %2, stosd, insd
        CASE_BITS 32, {%1, ", REP OUTSD"}, %2, rep lodsd, rep outsd
        CASE_BITS 32, {%1, ", REP INSB"}, %2, rep stosb, rep insb
        CASE_BITS 32, {%1, ", a16 REP INSW"}, %2, a16 rep stosw, a16 rep insw
%endmacro

; A page table entry is reached by a page of 2 MiB, an entry with a reserved bit there, none.
LARGE equ 0x20000000
%macro LARGE_PAGE 3             ; name, entry, address
%1:     mov rax, %2
        mov [PD + (LARGE >> 21 & 511) * 8], rax
        mov qword [watch0], PD + (LARGE >> 21 & 511) * 8
        mov qword [p_rcx], 3
        POINT %3
        ret
%endmacro
LARGE_PAGE large, 0x600000 | P | W | PS, LARGE + 0x1ffffd
LARGE_PAGE large_reserved, 0x602000 | P | W | PS, LARGE + 5
LARGE_PAGE large_absent, 0, LARGE + 5
LARGE_PAGE large_read_only, 0x600000 | P | PS, LARGE + 0xfff

; Prefixes that 64-bit mode ignores.
%macro OF_SS 1
        db 0x36
        %1
%endmacro
%macro OF_CS 1
        db 0x2e
        %1
%endmacro

main:   BOTH "clean pages", clean
        BOTH "downwards", backwards
        BOTH "across pages", crossing
        BOTH "downwards across pages", crossing_back
        BOTH "absent", absent
        BOTH "the second absent", second_absent
        BOTH "the second absent, odd", second_absent_odd
        BOTH "the first absent", first_absent
        BOTH "read-only", read_only
        BOTH "the second read-only", second_read_only
        BOTH "read-only, WP clear", write_freely
        BOTH "reserved bit", reserved
        BOTH "reserved bit in the second", second_reserved
        BOTH "reserved bit, absent", reserved_absent
        BOTH "ring 3, supervisor's page", user_supervisor
        BOTH "ring 3, user's pages", user_user
        BOTH "ring 3, the second supervisor's", user_second
        BOTH "ring 3, read-only", user_read_only
        BOTH "ring 3, read-only, WP clear", user_read_only_free
        mov eax, 7              ; SMAP, where there is one
        xor ecx, ecx
        cpuid
        bt ebx, 20
        jnc no_smap
        BOTH "SMAP", smap
        BOTH "SMAP and AC", smap_ac
        BOTH "SMAP at the second", smap_second
        BOTH "SMAP, ring 3", smap_user
no_smap:
        BOTH "aligned", aligned
        BOTH "odd, #AC", odd
        BOTH "even, #AC", even
        BOTH "odd and absent", odd_absent
        BOTH "odd and across", odd_crossing
        BOTH "odd in ring 0", odd_ring0
        BOTH "odd without AM", odd_no_am
        BOTH "not canonical", hole_low
        BOTH "last below the hole", hole_last
        BOTH "two below the hole", hole_edge
        BOTH "in the hole's end", hole_high
        BOTH "two before its end", hole_up
        BOTH "first of the upper half", high_half
        BOTH "last of all", the_end
        BOTH "last but one", the_end_even
        BOTH "mapped by nobody", nowhere
        BOTH "at 4 GiB", four_gib
        CASE "a32 OUTSB", cut, a32 lodsb, a32 outsb
        CASE "a32 REP OUTSW", cut, a32 rep lodsw, a32 rep outsw
        CASE "a32 REP INSD", cut, a32 rep stosd, a32 rep insd
        CASE "a32 REP OUTSB, count in the upper half", cut_count, a32 rep lodsb, a32 rep outsb
        CASE "a32 OUTSD at the end of 4 GiB", four_gib, a32 lodsd, a32 outsd
        CASE "a32 INSD at the end of 4 GiB", four_gib, a32 stosd, a32 insd
        CASE "a32 REP INSB at the end of 4 GiB", four_gib, a32 rep stosb, a32 rep insb
        CASE "FS OUTSB", based, fs lodsb, fs outsb
        CASE "FS OUTSB at the hole", based_high, fs lodsb, fs outsb
        CASE "FS a32 OUTSW", based_cut, fs a32 lodsw, fs a32 outsw
        CASE "SS OUTSB, not canonical", hole_low, OF_SS lodsb, OF_SS outsb
        CASE "SS OUTSB", clean, OF_SS lodsb, OF_SS outsb
        CASE "CS OUTSW", crossing, OF_CS lodsw, OF_CS outsw
        COMPAT_ALL "compatibility mode", compat
        COMPAT_ALL "compatibility mode, the last byte", compat_last
        COMPAT_ALL "compatibility mode, beyond", compat_beyond
        COMPAT_ALL "compatibility mode, null", compat_null
        COMPAT_ALL "compatibility mode, a wrap", compat_wraps
        COMPAT_ALL "compatibility mode, the end", compat_end
        BOTH "a large page", large
        BOTH "a large page's reserved bit", large_reserved
        BOTH "no large page", large_absent
        BOTH "a large page, read-only", large_read_only
        jmp finish
