/*
 * The arithmetic of VMX, apart from any VMX instruction: which control bits a CPU lets one set,
 * what the fixed bits make of CR0 and CR4, and what an exit qualification says. Pure functions of
 * their arguments, the same in the hypervisor and in a hosted test.
 *
 * Sections are those of the SDM Vol. 3: chapter 25 "Virtual machine control structures", 26 "VMX
 * non-root operation", 27 "VM entries", 28 "VM exits", 29 "VMX support for address translation", 31
 * "VMX instruction reference", appendices A "VMX capability reporting facility" and C "Basic exit
 * reasons".
 */
#ifndef QUIRE_ARCH_VMX_CONTROLS_H
#define QUIRE_ARCH_VMX_CONTROLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arch/x86_64/guest/legal.h"
#include "lib/bits.h"
#include "lib/error.h"
#include "x86/control.h"

/* The capability MSRs (appendix A). */
#define IA32_VMX_BASIC 0x480
#define IA32_VMX_PINBASED_CTLS 0x481
#define IA32_VMX_PROCBASED_CTLS 0x482
#define IA32_VMX_EXIT_CTLS 0x483
#define IA32_VMX_ENTRY_CTLS 0x484
#define IA32_VMX_MISC 0x485
#define IA32_VMX_CR0_FIXED0 0x486
#define IA32_VMX_CR0_FIXED1 0x487
#define IA32_VMX_CR4_FIXED0 0x488
#define IA32_VMX_CR4_FIXED1 0x489
#define IA32_VMX_VMCS_ENUM 0x48a
#define IA32_VMX_PROCBASED_CTLS2 0x48b
#define IA32_VMX_EPT_VPID_CAP 0x48c
#define IA32_VMX_TRUE_PINBASED_CTLS 0x48d
#define IA32_VMX_TRUE_PROCBASED_CTLS 0x48e
#define IA32_VMX_TRUE_EXIT_CTLS 0x48f
#define IA32_VMX_TRUE_ENTRY_CTLS 0x490

/* The five words of 32 controls that this hypervisor sets. */
enum control_word {
    CONTROLS_PIN,   /* pin-based VM-execution controls (25.6.1) */
    CONTROLS_PROC,  /* primary processor-based ones (25.6.2) */
    CONTROLS_PROC2, /* secondary processor-based ones */
    CONTROLS_EXIT,  /* VM-exit controls (25.7.1) */
    CONTROLS_ENTRY, /* VM-entry controls (25.8.1) */
    CONTROLS_COUNT
};

#define PIN_EXTERNAL_INTERRUPT_EXITING BIT(0)
#define PIN_NMI_EXITING BIT(3)
#define PIN_VIRTUAL_NMIS BIT(5)
#define PIN_PREEMPTION_TIMER BIT(6)

#define PROC_INTERRUPT_WINDOW_EXITING BIT(2)
#define PROC_TSC_OFFSETTING BIT(3)
#define PROC_HLT_EXITING BIT(7)
#define PROC_INVLPG_EXITING BIT(9)
#define PROC_MWAIT_EXITING BIT(10)
#define PROC_RDPMC_EXITING BIT(11)
#define PROC_RDTSC_EXITING BIT(12)
#define PROC_CR3_LOAD_EXITING BIT(15)
#define PROC_CR3_STORE_EXITING BIT(16)
#define PROC_CR8_LOAD_EXITING BIT(19)
#define PROC_CR8_STORE_EXITING BIT(20)
#define PROC_TPR_SHADOW BIT(21)
#define PROC_NMI_WINDOW_EXITING BIT(22)
#define PROC_MOV_DR_EXITING BIT(23)
#define PROC_UNCONDITIONAL_IO_EXITING BIT(24)
#define PROC_IO_BITMAPS BIT(25)
#define PROC_MONITOR_TRAP_FLAG BIT(27)
#define PROC_MSR_BITMAPS BIT(28)
#define PROC_MONITOR_EXITING BIT(29)
#define PROC_PAUSE_EXITING BIT(30)
#define PROC_SECONDARY_CONTROLS BIT(31)

#define PROC2_VIRTUALIZE_APIC BIT(0)
#define PROC2_EPT BIT(1)
#define PROC2_DESCRIPTOR_TABLE_EXITING BIT(2)
#define PROC2_RDTSCP BIT(3)
#define PROC2_VPID BIT(5)
#define PROC2_WBINVD_EXITING BIT(6)
#define PROC2_UNRESTRICTED_GUEST BIT(7)
#define PROC2_PAUSE_LOOP_EXITING BIT(10)
#define PROC2_INVPCID BIT(12)
#define PROC2_VMFUNC BIT(13)
#define PROC2_VMCS_SHADOWING BIT(14)
#define PROC2_ENCLS_EXITING BIT(15)
#define PROC2_PML BIT(17)
#define PROC2_EPT_VIOLATION_VE BIT(18)
#define PROC2_XSAVES BIT(20)
#define PROC2_MODE_BASED_EXECUTE BIT(22)
#define PROC2_TSC_SCALING BIT(25)

#define EXIT_SAVE_DEBUG_CONTROLS BIT(2)
#define EXIT_HOST_64BIT BIT(9)
#define EXIT_LOAD_PERF_GLOBAL_CTRL BIT(12)
#define EXIT_ACKNOWLEDGE_INTERRUPT BIT(15)
#define EXIT_SAVE_PAT BIT(18)
#define EXIT_LOAD_PAT BIT(19)
#define EXIT_SAVE_EFER BIT(20)
#define EXIT_LOAD_EFER BIT(21)
#define EXIT_SAVE_PREEMPTION_TIMER BIT(22)

#define ENTRY_LOAD_DEBUG_CONTROLS BIT(2)
#define ENTRY_IA32E_GUEST BIT(9)
#define ENTRY_SMM BIT(10)
#define ENTRY_LOAD_PERF_GLOBAL_CTRL BIT(13)
#define ENTRY_LOAD_PAT BIT(14)
#define ENTRY_LOAD_EFER BIT(15)

/* The MSR that reports what a word allows: with `true_controls` (IA32_VMX_BASIC bit 55) the TRUE
 * one, which also lets "default1" controls be cleared (A.2, A.3.1, A.4, A.5). */
uint32_t control_msr(enum control_word word, bool true_controls);

/*
 * Settles one word against its capability MSR (A.3: bits 31:0 are the allowed 0-settings, a 1 there
 * must be 1; bits 63:32 the allowed 1-settings, a 0 there must be 0). The result has every bit of
 * `required`, those of `wanted` that may be set, and those that must be. E_UNSUPPORTED when a
 * required bit may not be set; then *missing (may be NULL) has these bits and *out is untouched.
 */
int control_adjust(uint64_t msr, uint32_t required, uint32_t wanted, uint32_t *out,
                   uint32_t *missing);

/* IA32_VMX_BASIC (A.1). */
struct vmx_basic {
    uint32_t revision;    /* identifier of the VMCS and VMXON regions */
    uint32_t region_size; /* bytes to allocate for each: 1..4096 */
    bool below_4g;        /* their addresses are limited to 32 bits */
    uint8_t memory_type;  /* to access them with: 6 is WB */
    bool ins_outs_info;   /* exits by INS and OUTS give instruction information */
    bool true_controls;
};
struct vmx_basic vmx_basic_decode(uint64_t msr);

/* IA32_VMX_MISC (A.6). */
struct vmx_misc {
    unsigned timer_shift; /* the preemption timer counts when TSC bit N changes */
    bool stores_lma;      /* exits store EFER.LMA into "IA-32e mode guest" */
    bool activity_hlt;    /* entry in the HLT activity state */
    unsigned cr3_targets;
    unsigned max_msr_list; /* recommended maximum of an MSR list */
    bool inject_length_0;
};
struct vmx_misc vmx_misc_decode(uint64_t msr);

/* IA32_VMX_EPT_VPID_CAP (A.10). */
struct ept_vpid_caps {
    bool execute_only, walk_4, walk_5, uc, wb, page_2m, page_1g, accessed_dirty;
    bool advanced_exits; /* advanced exit information for EPT violations */
    bool invept, invept_single, invept_all;
    bool invvpid, invvpid_address, invvpid_single, invvpid_all, invvpid_keep_globals;
};
struct ept_vpid_caps ept_vpid_caps_decode(uint64_t msr);

/* CR0 and CR4 in VMX operation (24.8; A.7, A.8): a bit set in `fixed0` must be 1, a bit clear in
 * `fixed1` must be 0. An unrestricted guest may have PE and PG clear. */
struct cr_fixed {
    uint64_t fixed0, fixed1;
};
bool cr_fits(uint64_t value, struct cr_fixed fixed);
struct cr_fixed cr0_fixed_unrestricted(struct cr_fixed cr0);
/* `value` with the bits that are not free forced to what they must be. */
uint64_t cr_force(uint64_t value, struct cr_fixed fixed);

/* Interruption information: the one layout of event injection, exits and IDT vectoring (25.8.3,
 * 25.9.2, 25.9.3). */
enum interruption_type {
    INTERRUPTION_EXTERNAL = 0,
    INTERRUPTION_NMI = 2,
    INTERRUPTION_EXCEPTION = 3,
    INTERRUPTION_SOFTWARE = 4,             /* INT n */
    INTERRUPTION_PRIVILEGED_EXCEPTION = 5, /* INT1 */
    INTERRUPTION_SOFTWARE_EXCEPTION = 6,   /* INT3, INTO */
};
#define INTERRUPTION_VECTOR BITS(7, 0)
#define INTERRUPTION_CODE_VALID BIT(11)
#define INTERRUPTION_NMI_UNBLOCKED BIT(12) /* exits only */
#define INTERRUPTION_VALID BIT(31)
static inline uint32_t interruption(enum interruption_type type, uint8_t vector, bool has_code)
{
    return (uint32_t)(INTERRUPTION_VALID | (unsigned)type << 8 | vector |
                      (has_code ? INTERRUPTION_CODE_VALID : 0));
}
static inline enum interruption_type interruption_type(uint32_t info)
{
    return (enum interruption_type)(info >> 8 & 7);
}
/* RIP of the guest points at the instruction that raised it, and its length must be given. */
static inline bool interruption_has_length(uint32_t info)
{
    return interruption_type(info) >= INTERRUPTION_SOFTWARE &&
           interruption_type(info) <= INTERRUPTION_SOFTWARE_EXCEPTION;
}
/* Interruptibility state (25.4.2, table 25-3) and activity states. */
#define BLOCKING_BY_STI BIT(0)
#define BLOCKING_BY_MOV_SS BIT(1)
#define BLOCKING_BY_SMI BIT(2)
#define BLOCKING_BY_NMI BIT(3)
enum activity_state { ACTIVITY_ACTIVE, ACTIVITY_HLT, ACTIVITY_SHUTDOWN, ACTIVITY_WAIT_FOR_SIPI };

/* Basic exit reasons (appendix C). */
enum exit_reason {
    EXIT_EXCEPTION_OR_NMI = 0,
    EXIT_EXTERNAL_INTERRUPT = 1,
    EXIT_TRIPLE_FAULT = 2,
    EXIT_INIT = 3,
    EXIT_SIPI = 4,
    EXIT_INTERRUPT_WINDOW = 7,
    EXIT_NMI_WINDOW = 8,
    EXIT_TASK_SWITCH = 9,
    EXIT_CPUID = 10,
    EXIT_GETSEC = 11,
    EXIT_HLT = 12,
    EXIT_INVD = 13,
    EXIT_INVLPG = 14,
    EXIT_RDPMC = 15,
    EXIT_RDTSC = 16,
    EXIT_RSM = 17,
    EXIT_VMCALL = 18,
    EXIT_VMCLEAR = 19,
    EXIT_VMLAUNCH = 20,
    EXIT_VMPTRLD = 21,
    EXIT_VMPTRST = 22,
    EXIT_VMREAD = 23,
    EXIT_VMRESUME = 24,
    EXIT_VMWRITE = 25,
    EXIT_VMXOFF = 26,
    EXIT_VMXON = 27,
    EXIT_CR_ACCESS = 28,
    EXIT_MOV_DR = 29,
    EXIT_IO = 30,
    EXIT_RDMSR = 31,
    EXIT_WRMSR = 32,
    EXIT_ENTRY_GUEST_STATE = 33,
    EXIT_ENTRY_MSR_LOADING = 34,
    EXIT_MWAIT = 36,
    EXIT_MONITOR_TRAP_FLAG = 37,
    EXIT_MONITOR = 39,
    EXIT_PAUSE = 40,
    EXIT_ENTRY_MACHINE_CHECK = 41,
    EXIT_EPT_VIOLATION = 48,
    EXIT_EPT_MISCONFIGURATION = 49,
    EXIT_INVEPT = 50,
    EXIT_RDTSCP = 51,
    EXIT_PREEMPTION_TIMER = 52,
    EXIT_INVVPID = 53,
    EXIT_WBINVD = 54,
    EXIT_XSETBV = 55,
    EXIT_RDRAND = 57,
    EXIT_INVPCID = 58,
    EXIT_VMFUNC = 59,
    EXIT_ENCLS = 60,
    EXIT_LOG_FULL = 62,
    EXIT_REASON_COUNT = 80
};
#define EXIT_REASON_BASIC BITS(15, 0)
#define EXIT_REASON_ENTRY_FAILURE BIT(31)

/* Exit qualification of an EPT violation (28.2.1, table 28-7). */
struct ept_violation {
    unsigned access;    /* RIGHT_R, RIGHT_W, RIGHT_X of mm/paging/attrs.h: what was tried */
    unsigned allowed;   /* what the table gave */
    bool gva_valid;     /* the guest-linear address field is valid */
    bool walk;          /* hit while walking the guest's tables, not at the final address */
    bool nmi_unblocked; /* IRET had unblocked NMIs already */
};
struct ept_violation ept_violation_decode(uint64_t qualification);

/* Exit qualification of a control-register access (table 28-3). */
enum cr_access_kind { CR_ACCESS_MOV_TO, CR_ACCESS_MOV_FROM, CR_ACCESS_CLTS, CR_ACCESS_LMSW };
struct cr_access {
    enum cr_access_kind kind;
    uint8_t cr;
    uint8_t gpr;     /* enum gpr of vm/backend.h */
    uint16_t source; /* of LMSW */
};
struct cr_access cr_access_decode(uint64_t qualification);

/* Exit qualification of an I/O instruction (table 28-5). */
struct io_access {
    uint16_t port;
    uint8_t width; /* bytes: 1, 2, 4 */
    bool in, string, rep;
};
struct io_access io_access_decode(uint64_t qualification);

/* INVEPT and INVVPID types (31.3). */
enum invept_type { INVEPT_SINGLE_CONTEXT = 1, INVEPT_ALL_CONTEXTS = 2 };
enum invvpid_type {
    INVVPID_ADDRESS = 0,
    INVVPID_SINGLE_CONTEXT = 1,
    INVVPID_ALL_CONTEXTS = 2,
    INVVPID_KEEP_GLOBALS = 3,
};
/* The type to use on a CPU that may lack the one asked for: one that invalidates at least as much.
 * E_UNSUPPORTED when there is none, E_INVAL for an unknown type. */
int invept_choose(struct ept_vpid_caps caps, unsigned type, unsigned *out);
int invvpid_choose(struct ept_vpid_caps caps, unsigned type, unsigned *out);

/* Preemption-timer ticks for a number of TSC ticks: at least 1, so that a guest always advances. */
uint32_t timer_ticks(uint64_t tsc_ticks, unsigned shift);

#endif
