/* See names.h. APM Vol. 2, appendix C. */
#include "arch/x86_64/svm/names.h"

#include "arch/x86_64/svm/vmcb.h"

const char *svm_exit_name(uint64_t code)
{
    static const char *const names[] = {
        [SVM_EXIT_INTR] = "external interrupt",
        [SVM_EXIT_NMI] = "NMI",
        [SVM_EXIT_SMI] = "SMI",
        [SVM_EXIT_INIT] = "INIT",
        [SVM_EXIT_VINTR] = "interrupt window",
        [SVM_EXIT_RDPMC] = "RDPMC",
        [SVM_EXIT_CPUID] = "CPUID",
        [SVM_EXIT_IRET] = "IRET",
        [SVM_EXIT_INVD] = "INVD",
        [SVM_EXIT_HLT] = "HLT",
        [SVM_EXIT_INVLPGA] = "INVLPGA",
        [SVM_EXIT_IOIO] = "I/O instruction",
        [SVM_EXIT_MSR] = "RDMSR or WRMSR",
        [SVM_EXIT_SHUTDOWN] = "shutdown",
        [SVM_EXIT_VMRUN] = "VMRUN",
        [SVM_EXIT_VMMCALL] = "VMMCALL",
        [SVM_EXIT_VMLOAD] = "VMLOAD",
        [SVM_EXIT_VMSAVE] = "VMSAVE",
        [SVM_EXIT_STGI] = "STGI",
        [SVM_EXIT_CLGI] = "CLGI",
        [SVM_EXIT_SKINIT] = "SKINIT",
        [SVM_EXIT_RDTSCP] = "RDTSCP",
        [SVM_EXIT_WBINVD] = "WBINVD",
        [SVM_EXIT_MONITOR] = "MONITOR",
        [SVM_EXIT_MWAIT] = "MWAIT",
        [SVM_EXIT_MWAIT_ARMED] = "MWAIT",
        [SVM_EXIT_XSETBV] = "XSETBV",
        [SVM_EXIT_NPF] = "nested page fault",
    };

    if (code == SVM_EXIT_INVALID)
        return "the VMCB is not consistent";
    if (code < SVM_EXIT_DR_READ)
        return "control register access";
    if (code < SVM_EXIT_EXCEPTION)
        return "debug register access";
    if (code < SVM_EXIT_INTR)
        return "exception";
    if (code < sizeof(names) / sizeof(names[0]) && names[code])
        return names[code];
    return "an exit without a name";
}

bool svm_exit_undefined(uint64_t code)
{
    switch (code) {
    case SVM_EXIT_INVLPGA:
    case SVM_EXIT_VMRUN:
    case SVM_EXIT_VMLOAD:
    case SVM_EXIT_VMSAVE:
    case SVM_EXIT_STGI:
    case SVM_EXIT_CLGI:
    case SVM_EXIT_SKINIT:
    case SVM_EXIT_RDTSCP:
    case SVM_EXIT_MONITOR:
    case SVM_EXIT_MWAIT:
    case SVM_EXIT_MWAIT_ARMED:
        return true;
    default:
        return false;
    }
}
