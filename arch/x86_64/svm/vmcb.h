/*
 * The virtual machine control block: its layout, intercepts, exit codes and event words. APM Vol.
 * 2, appendix B "Layout of VMCB" and appendix C "SVM Intercept Exit Codes".
 */
#ifndef QUIRE_ARCH_SVM_VMCB_H
#define QUIRE_ARCH_SVM_VMCB_H

#include <stddef.h>
#include <stdint.h>

#include "lib/bits.h"

struct vmcb_segment {
    uint16_t selector;
    uint16_t attributes; /* type .. P, AVL L D/B G without a gap: 12 bits */
    uint32_t limit;      /* in bytes, inclusive */
    uint64_t base;
};

struct vmcb {
    /* The control area (table B-1). */
    uint32_t intercept_cr; /* reads of CR0..15, then writes */
    uint32_t intercept_dr; /* reads of DR0..15, then writes */
    uint32_t intercept_exceptions;
    uint32_t intercept1, intercept2, intercept3;
    uint8_t unused0[0x040 - 0x018];
    uint64_t iopm, msrpm;
    uint64_t tsc_offset;
    uint32_t asid;
    uint8_t tlb_control, unused1[3];
    uint32_t interrupt;        /* the virtual interrupt: V_TPR, V_IRQ, ... */
    uint32_t interrupt_vector; /* of the virtual interrupt */
    uint64_t shadow;           /* bit 0: the guest is in an interrupt shadow */
    uint64_t exit_code, exit_info1, exit_info2, exit_event;
    uint64_t nested;
    uint8_t unused2[0x0a8 - 0x098];
    uint64_t event;
    uint64_t ncr3;
    uint8_t unused3[0x0d0 - 0x0b8];
    uint8_t fetched_bytes; /* bits 3:0; of a nested page fault, where there are decode assists */
    uint8_t fetched[15];   /* from RIP on */
    uint8_t unused11[0x400 - 0x0e0];

    /* The state save area (table B-2). */
    struct vmcb_segment es, cs, ss, ds, fs, gs, gdtr, ldtr, idtr, tr;
    uint8_t unused4[0x4cb - 0x4a0];
    uint8_t cpl;
    uint8_t unused5[4];
    uint64_t efer;
    uint8_t unused6[0x548 - 0x4d8];
    uint64_t cr4, cr3, cr0, dr7, dr6, rflags, rip;
    uint8_t unused7[0x5d8 - 0x580];
    uint64_t rsp;
    uint8_t unused8[0x5f8 - 0x5e0];
    uint64_t rax;
    uint64_t star, lstar, cstar, sfmask, kernel_gs_base;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip, cr2;
    uint8_t unused9[0x668 - 0x648];
    uint64_t pat;
    uint8_t unused10[0x1000 - 0x670];
};

_Static_assert(sizeof(struct vmcb) == 0x1000, "one frame");
_Static_assert(offsetof(struct vmcb, asid) == 0x058, "appendix B");
_Static_assert(offsetof(struct vmcb, exit_code) == 0x070, "appendix B");
_Static_assert(offsetof(struct vmcb, nested) == 0x090, "appendix B");
_Static_assert(offsetof(struct vmcb, event) == 0x0a8, "appendix B");
_Static_assert(offsetof(struct vmcb, fetched_bytes) == 0x0d0, "appendix B");
_Static_assert(offsetof(struct vmcb, es) == 0x400, "appendix B");
_Static_assert(offsetof(struct vmcb, tr) == 0x490, "appendix B");
_Static_assert(offsetof(struct vmcb, efer) == 0x4d0, "appendix B");
_Static_assert(offsetof(struct vmcb, cr0) == 0x558, "appendix B");
_Static_assert(offsetof(struct vmcb, rip) == 0x578, "appendix B");
_Static_assert(offsetof(struct vmcb, star) == 0x600, "appendix B");
_Static_assert(offsetof(struct vmcb, cr2) == 0x640, "appendix B");
_Static_assert(offsetof(struct vmcb, pat) == 0x668, "appendix B");

#define INTERCEPT_CR_READ(n) BIT(n)
#define INTERCEPT_CR_WRITE(n) BIT(16 + (n))

/* The first word of instruction intercepts. */
#define INTERCEPT1_INTR BIT(0)
#define INTERCEPT1_NMI BIT(1)
#define INTERCEPT1_SMI BIT(2)
#define INTERCEPT1_INIT BIT(3)
#define INTERCEPT1_VINTR BIT(4)
#define INTERCEPT1_RDPMC BIT(15)
#define INTERCEPT1_CPUID BIT(18)
#define INTERCEPT1_IRET BIT(20)
#define INTERCEPT1_INVD BIT(22)
#define INTERCEPT1_HLT BIT(24)
#define INTERCEPT1_INVLPGA BIT(26)
#define INTERCEPT1_IOIO BIT(27)
#define INTERCEPT1_MSR BIT(28)
#define INTERCEPT1_FERR BIT(30)
#define INTERCEPT1_SHUTDOWN BIT(31)

/* The second. */
#define INTERCEPT2_VMRUN BIT(0)
#define INTERCEPT2_VMMCALL BIT(1)
#define INTERCEPT2_VMLOAD BIT(2)
#define INTERCEPT2_VMSAVE BIT(3)
#define INTERCEPT2_STGI BIT(4)
#define INTERCEPT2_CLGI BIT(5)
#define INTERCEPT2_SKINIT BIT(6)
#define INTERCEPT2_RDTSCP BIT(7)
#define INTERCEPT2_WBINVD BIT(9)
#define INTERCEPT2_MONITOR BIT(10)
#define INTERCEPT2_MWAIT BIT(11)
#define INTERCEPT2_MWAIT_ARMED BIT(12)
#define INTERCEPT2_XSETBV BIT(13)

#define TLB_CONTROL_NOTHING 0
#define TLB_CONTROL_ALL 1    /* every ASID */
#define TLB_CONTROL_ASID 3   /* the guest's, where the CPU has FlushByAsid */
#define NESTED_PAGING BIT(0) /* `nested` */
#define SHADOW_ACTIVE BIT(0) /* `shadow` */

/* `interrupt` */
#define V_IRQ BIT(8)
#define V_PRIORITY_SHIFT 16
#define V_IGNORE_TPR BIT(20)
#define V_INTR_MASKING BIT(24)

/* `event` and `exit_event` (15.20 "Event Injection"). */
#define EVENT_VECTOR BITS(7, 0)
#define EVENT_TYPE_SHIFT 8
#define EVENT_CODE_VALID BIT(11)
#define EVENT_VALID BIT(31)
#define EVENT_CODE_SHIFT 32
enum svm_event_type {
    EVENT_INTERRUPT = 0,
    EVENT_NMI = 2,
    EVENT_EXCEPTION = 3,
    EVENT_SOFTWARE = 4, /* INT n */
};

/* Exit codes (appendix C). */
enum svm_exit_code {
    SVM_EXIT_CR_READ = 0x000,
    SVM_EXIT_CR_WRITE = 0x010,
    SVM_EXIT_DR_READ = 0x020,
    SVM_EXIT_DR_WRITE = 0x030,
    SVM_EXIT_EXCEPTION = 0x040, /* and the vector */
    SVM_EXIT_INTR = 0x060,
    SVM_EXIT_NMI,
    SVM_EXIT_SMI,
    SVM_EXIT_INIT,
    SVM_EXIT_VINTR,
    SVM_EXIT_RDPMC = 0x06f,
    SVM_EXIT_CPUID = 0x072,
    SVM_EXIT_IRET = 0x074,
    SVM_EXIT_INVD = 0x076,
    SVM_EXIT_HLT = 0x078,
    SVM_EXIT_INVLPGA = 0x07a,
    SVM_EXIT_IOIO = 0x07b,
    SVM_EXIT_MSR = 0x07c,
    SVM_EXIT_FERR = 0x07e,
    SVM_EXIT_SHUTDOWN = 0x07f,
    SVM_EXIT_VMRUN = 0x080,
    SVM_EXIT_VMMCALL,
    SVM_EXIT_VMLOAD,
    SVM_EXIT_VMSAVE,
    SVM_EXIT_STGI,
    SVM_EXIT_CLGI,
    SVM_EXIT_SKINIT,
    SVM_EXIT_RDTSCP,
    SVM_EXIT_WBINVD = 0x089,
    SVM_EXIT_MONITOR,
    SVM_EXIT_MWAIT,
    SVM_EXIT_MWAIT_ARMED,
    SVM_EXIT_XSETBV,
    SVM_EXIT_NPF = 0x400,
};
#define SVM_EXIT_INVALID (~UINT64_C(0)) /* VMEXIT_INVALID: the VMCB is not consistent */

/* EXITINFO1 of IOIO (15.10.2 "IN and OUT Behavior"). EXITINFO2 has the next RIP. */
#define IOIO_IN BIT(0)
#define IOIO_STRING BIT(2)
#define IOIO_REP BIT(3)
#define IOIO_SIZE_SHIFT 4 /* one bit for 1, 2, 4 bytes: the size itself */
#define IOIO_PORT_SHIFT 16

#endif
