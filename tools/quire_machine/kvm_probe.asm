; The boot sector of a guest that tells the launcher what KVM really gives a guest. It leaves QEMU
; through isa-debug-exit with one of these codes (the process then ends with 2 * code + 1):
;   16 no VMX    17 VMX without EPT    18 EPT without unrestricted guest    19 all three
;   20 AMD's SVM without nested paging    21 both
; SDM Vol. 3, Appendix A, "VMX Capability Reporting Facility"; APM Vol. 3, CPUID 8000_0001, 8000_000A.

IA32_VMX_PROCBASED_CTLS  equ 0x482
IA32_VMX_PROCBASED_CTLS2 equ 0x48b
CPUID_1_ECX_VMX          equ 5
CPUID_EXTENDED_ECX_SVM   equ 2
CPUID_SVM_EDX_NP         equ 0
ACTIVATE_SECONDARY       equ 31         ; of the allowed-1 half, in EDX
ENABLE_EPT               equ 1
UNRESTRICTED_GUEST       equ 7
EXIT_PORT                equ 0xf4

        bits 16
        org 0x7c00

        xor di, di                      ; how far the CPU comes
        mov eax, 1
        cpuid
        bt ecx, CPUID_1_ECX_VMX
        jnc amd
        inc di
        mov ecx, IA32_VMX_PROCBASED_CTLS
        rdmsr
        bt edx, ACTIVATE_SECONDARY
        jnc done
        mov ecx, IA32_VMX_PROCBASED_CTLS2
        rdmsr
        bt edx, ENABLE_EPT
        jnc done
        inc di
        bt edx, UNRESTRICTED_GUEST
        jnc done
        inc di
        jmp done
amd:    mov eax, 0x80000000
        cpuid
        cmp eax, 0x8000000a
        jb done
        mov eax, 0x80000001
        cpuid
        bt ecx, CPUID_EXTENDED_ECX_SVM
        jnc done
        mov eax, 0x8000000a
        cpuid
        mov di, 4
        bt edx, CPUID_SVM_EDX_NP
        jnc done
        inc di
done:   lea ax, [di + 16]
        mov dx, EXIT_PORT
        out dx, al
stop:   hlt
        jmp stop

        times 510 - ($ - $$) db 0
        dw 0xaa55
