/*
 * The seam between what a guest is (vm/) and how a CPU runs it (a folder of arch/x86_64/ for each
 * vendor): a small structure of operations downwards, exits in neutral terms
 * upwards. Nothing here names what only one CPU has.
 */
#ifndef QUIRE_VM_BACKEND_H
#define QUIRE_VM_BACKEND_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/format.h"
#include "lib/lock.h"
#include "mm/addr.h"
#include "mm/paging/attrs.h"
#include "mm/paging/table.h"

struct guest;

/* General registers in the order of their instruction encoding. */
enum gpr {
    RAX,
    RCX,
    RDX,
    RBX,
    RSP,
    RBP,
    RSI,
    RDI,
    R8,
    R9,
    R10,
    R11,
    R12,
    R13,
    R14,
    R15,
    GPR_COUNT
};

struct segment {
    uint64_t base;
    uint32_t limit;
    uint16_t selector;
    uint16_t
        access; /* type..P, AVL L D/B G as in the second descriptor doubleword, bits 8..23 >> 8 */
    bool unusable;
};

/* Of SS: the current privilege level. */
static inline unsigned segment_dpl(const struct segment *segment)
{
    return segment->access >> 5 & 3;
}

enum segment_index { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_LDTR, SEG_TR, SEG_COUNT };

/* What is needed to start a guest, and what `regs gN` shows. */
struct vcpu_state {
    uint64_t gpr[GPR_COUNT];
    uint64_t rip, rflags;
    uint64_t cr0, cr2, cr3, cr4, efer; /* as the guest sees them */
    uint64_t pdpte[4];
    struct segment segment[SEG_COUNT];
    uint64_t gdt_base, idt_base;
    uint32_t gdt_limit, idt_limit;
    uint64_t dr7;
    uint64_t pat;  /* to be read; set_state() leaves it as it is */
    uint64_t xcr0; /* likewise */
    bool halted;
};

/* What a vCPU is beside struct vcpu_state, to be kept outside of this machine. */
#define VCPU_FPU_MOST 4096
struct vcpu_rest {
    uint64_t star, lstar, cstar, fmask, kernel_gs_base;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t pat, xcr0;
    uint64_t dr[4], dr6;
    uint64_t pending_debug; /* SDM Vol. 3, table 25-4 */
    /* An event whose delivery comes with the next entry: vector in bits 7:0, type in 10:8, 11: it
     * has `event_code`, 31: there is one (SDM Vol. 3, 25.8.3; APM Vol. 2, 15.20); `event_length` is
     * its instruction's, where it has one. */
    uint32_t event, event_code, event_length;
    uint32_t blocked; /* VCPU_BLOCKED_ bits */
    uint32_t traps;   /* breakpoints that the instruction in progress has met */
    uint32_t cr8;
    uint32_t fpu_size;          /* of an XSAVE area in standard form, or an FXSAVE image */
    uint8_t fpu[VCPU_FPU_MOST]; /* zeroes behind fpu_size */
};

#define VCPU_EVENT_VALID (UINT32_C(1) << 31)
#define VCPU_BLOCKED_STI 1u /* as bits of the interruptibility state: SDM Vol. 3, table 25-3 */
#define VCPU_BLOCKED_MOV_SS 2u
#define VCPU_BLOCKED_NMI 8u

enum vm_exit_kind {
    VM_EXIT_SLICE,     /* its time slice is over */
    VM_EXIT_INTERRUPT, /* an interrupt of the host's; already dealt with */
    VM_EXIT_WINDOW,    /* it can take an interrupt now, as want_window() asked to be told */
    VM_EXIT_MEMORY,    /* second-level table: absent or rights missing */
    VM_EXIT_MISCONFIG, /* second-level table: an illegal entry */
    VM_EXIT_PORT,
    VM_EXIT_MSR,
    VM_EXIT_CPUID,
    VM_EXIT_HALT,
    VM_EXIT_HYPERCALL,
    VM_EXIT_EXCEPTION,     /* one that was asked to be intercepted */
    VM_EXIT_SHUTDOWN,      /* triple fault */
    VM_EXIT_MACHINE_CHECK, /* the host's hardware has failed while it ran; `name` says how */
    VM_EXIT_BAD_STATE,     /* the CPU refused to enter the guest */
    VM_EXIT_LOG_FULL,      /* log_start()'s list has no room for another page */
    VM_EXIT_HANDLED,       /* dealt with inside the backend (CR access, XSETBV, ...): just resume */
    VM_EXIT_UNTIL,         /* it is about to execute the instruction at vcpu.until */
    VM_EXIT_NO_BREAKPOINT, /* `until` cannot be watched for: the guest uses all debug registers */
    VM_EXIT_UNKNOWN,       /* nothing knows this one: stop the guest; `name` and `raw` say what */
    VM_EXIT_COUNT
};

struct vm_exit {
    enum vm_exit_kind kind;
    const char *name;       /* the backend's name of the raw reason */
    uint64_t raw;           /* raw reason, and ... */
    uint64_t qualification; /* ... what the CPU tells beside it, for people: vm_backend.detail */
    uint64_t rip;
    unsigned length; /* of the instruction, where the backend knows it; else 0 */
    union {
        struct {
            gpa_t gpa;
            gva_t gva;
            bool gva_valid;
            bool walk; /* hit while reading the guest's own page tables, not at the final address */
            unsigned access;  /* RIGHT_R, RIGHT_W, RIGHT_X */
            unsigned allowed; /* rights that the table gave */
        } memory;             /* MISCONFIG: gpa alone */
        struct {
            uint16_t port;
            uint8_t width; /* 1, 2, 4 */
            bool in, string, rep;
            /* String forms (INS, OUTS) only. RCX counts, RSI/RDI and RFLAGS.DF move, all within
             * the address size; vm/ updates the registers itself. */
            uint8_t address_bytes;      /* address size of the instruction: 2, 4 or 8 */
            enum segment_index segment; /* of the memory operand */
        } port;
        struct {
            uint32_t index;
            bool write;
        } msr;
        struct {
            uint8_t vector;
            bool has_code;
            uint32_t code;
            uint64_t address; /* of a page fault */
        } exception;
        struct {
            uint32_t error; /* VM-instruction error or failed-entry reason */
        } bad;
    };
};

enum vm_event_kind { VM_EVENT_INTERRUPT, VM_EVENT_NMI, VM_EVENT_EXCEPTION };
struct vm_event {
    enum vm_event_kind kind;
    uint8_t vector;
    bool has_code;
    uint32_t code;
    uint64_t address; /* of a page fault: for CR2 */
};

/* The memory operand of an instruction that vm/ carries out. */
struct vm_operand {
    enum segment_index segment;
    uint64_t offset;       /* the register; the address size masks it */
    uint8_t address_bytes; /* 2, 4, 8 */
    uint8_t bytes;         /* 1, 2, 4, 8 */
    unsigned access;       /* RIGHT_R or RIGHT_W */
    int8_t direction;      /* 1 or -1: others like it follow upwards, or downwards; 0: none does */
};

enum vm_operand_outcome {
    VM_OPERAND_REACHED,
    VM_OPERAND_EXCEPTION, /* the guest's own: inject `event` */
    VM_OPERAND_MEMORY,    /* as the exit that the access would have been: deal with `exit` */
    VM_OPERAND_AGAIN,     /* resume the guest at the same instruction */
    VM_OPERAND_UNKNOWN,   /* nobody can carry this instruction out */
};

struct vm_operand_place {
    struct { /* an operand that crosses pages has two */
        uint8_t *at;
        unsigned bytes;
    } piece[2];
    unsigned run; /* so many like it, itself included, are reached in the first piece's page */
    struct vm_event event;
    struct vm_exit exit;
};

/* Where accesses of a guest go that its table does not let through, and that are a device's or
 * lost (`covers`). */
struct vm_bus {
    bool (*covers)(struct guest *guest, gpa_t at, unsigned access);
    /* 1, 2, 4 or 8 bytes, aligned. */
    uint64_t (*read)(struct guest *guest, gpa_t at, unsigned bytes);
    void (*write)(struct guest *guest, gpa_t at, unsigned bytes, uint64_t value);
};

#define VM_EMULATION_WHY 160

struct vm_emulation {
    struct vm_event event;      /* EXCEPTION */
    struct vm_exit exit;        /* MEMORY */
    char why[VM_EMULATION_WHY]; /* UNKNOWN */
};

/* A guest-virtual address; run() comes back before the instruction there is executed. */
struct vm_until {
    bool on;
    uint64_t at;
};

/* One virtual CPU: what vm/ sees of it. The backend embeds this in its own structure. */
struct vcpu {
    struct guest *guest;
    uint64_t gpr[GPR_COUNT]; /* live while the vCPU is out; RSP is kept by the backend */
    uint64_t entries;        /* VM entries that succeeded */
    uint64_t frames;         /* that it holds under its owner's number */
    uint64_t deadline;       /* clock at which its turn ends: no work for it goes on for longer */
    struct vm_until until;   /* where it comes back, beside its exits; vcpu_copy() leaves it */
    struct wide_lock *lock;  /* dropped while guest code runs; NULL: nobody else is there */
    /* A memory fault, before the lock is taken again: vcpu_touch(). NULL: it is an exit. */
    bool (*touch)(struct vcpu *vcpu, gpa_t at, unsigned access);
    uint64_t waited; /* ticks, for that lock */
    /* Set by another CPU, which then sends an NMI: a run that begins after that is over at once.
     * NULL: nobody sets it. */
    const bool *nudged;
    uint8_t cr8; /* bits 7:4 of the local APIC's task priority */
};

/* For run(): nothing but the CPU's own comes between the two, the entry and NMIs. Whoever asks for
 * a flush by an NMI may hold the lock: that is answered before the lock is taken. */
static inline void vcpu_drop_lock(const struct vcpu *vcpu)
{
    if (vcpu->lock != NULL)
        wide_lock_drop(vcpu->lock);
}

static inline bool vcpu_is_nudged(const struct vcpu *vcpu)
{
    return vcpu->nudged != NULL && __atomic_load_n(vcpu->nudged, __ATOMIC_RELAXED);
}

static inline void vcpu_take_lock(struct vcpu *vcpu, uint64_t (*ticks)(void))
{
    if (vcpu->lock == NULL)
        return;
    uint64_t before = ticks();
    wide_lock_take(vcpu->lock);
    vcpu->waited += ticks() - before;
}

/* What is left of a slice that ends at `end`; 0: it is not for more than one entry. */
static inline bool slice_goes_on(uint64_t end, uint64_t (*ticks)(void), uint64_t *left)
{
    uint64_t now = end != 0 ? ticks() : 0;

    *left = end - now;
    return now < end;
}

/* For run(), between the two, when the second-level table has not let an access (RIGHT_R, RIGHT_W,
 * RIGHT_X) through and the CPU tells that nothing was there. True: it does now, and the guest goes
 * on where it was, with what is left of its slice. False: an exit like others. */
static inline bool vcpu_touch(struct vcpu *vcpu, gpa_t at, unsigned access)
{
    return vcpu->touch != NULL && vcpu->touch(vcpu, at, access);
}

/* What the guest's CPU is set to, for what depends on it alone. */
struct vm_modes {
    uint64_t cr4, xcr0;
    bool code64; /* 64-bit mode */
};

/* Told of a page that was written; `page` is a 4 KiB boundary. */
typedef void (*vm_logged_fn)(void *ctx, gpa_t page);

/* How the root that the CPU uses for this guest reads back, decoded. */
struct vm_root {
    uint64_t raw;
    hpa_t frame;
    enum mem_type type;
    unsigned levels;
    bool accessed_dirty;
};

/* A backend's own structure of a vCPU, in which struct vcpu is, has at most so many bytes: what a
 * guest's quota counts for it. */
#define VCPU_MOST 4096

struct vm_backend {
    const char *name;
    const char *detail; /* the manual's name of vm_exit.qualification */

    /* What the CPU itself answers to CPUID (EAX EBX ECX EDX), before vm/cpuid.c's policy, and its
     * running clock (TSC ticks). */
    void (*cpuid)(uint32_t leaf, uint32_t subleaf, uint32_t out[4]);
    uint64_t (*ticks)(void);

    /* The XSAVE components that a guest may enable in XCR0, all of which the backend switches
     * between guests; 0 where guests have no XSAVE. */
    uint64_t (*xcr0_mask)(void);

    /* What a guest's second-level table may use on this CPU. */
    const struct table_caps *(*table_caps)(void);
    const struct table_env *(*table_env)(void);
    const struct table_kind *kind;

    int (*vcpu_create)(struct guest *guest, struct table *table, owner_t owner, struct vcpu **out);
    void (*vcpu_destroy)(struct vcpu *vcpu);
    /* Makes `to` what `from` is: every register, what is pending and what is blocked. Both are out
     * of their CPU; their tables, tags and logs stay their own. */
    int (*vcpu_copy)(struct vcpu *to, struct vcpu *from);

    int (*get_state)(struct vcpu *vcpu, struct vcpu_state *out);
    int (*get_modes)(struct vcpu *vcpu, struct vm_modes *out);
    int (*set_state)(struct vcpu *vcpu, const struct vcpu_state *in);
    /* The rest of it, to be set after set_state(). E_ILLEGAL: no CPU of this vendor could be so;
     * E_UNSUPPORTED: this one cannot, or cannot tell. The state is then to be thrown away. */
    int (*get_rest)(struct vcpu *vcpu, struct vcpu_rest *out);
    int (*set_rest)(struct vcpu *vcpu, const struct vcpu_rest *in);
    /* What is added to the clock when the guest reads it as its TSC, modulo 2^64. */
    void (*set_clock)(struct vcpu *vcpu, uint64_t offset);

    /* This CPU puts every vCPU that is active on it: what it still has of them goes to memory, and
     * any CPU may run them next. */
    void (*put_all)(void);

    /* Runs until the next exit that vm/ must see, at most about `slice` instructions-worth of TSC
     * ticks; active on this CPU from then on. E_OK and *exit, or E_HARDWARE with exit->kind
     * VM_EXIT_BAD_STATE. */
    int (*run)(struct vcpu *vcpu, uint64_t slice, struct vm_exit *exit);

    /* Moves RIP past the instruction that exited, clearing interrupt shadow as the CPU would. True
     * when a debug trap follows it, which the next entry delivers. */
    bool (*skip)(struct vcpu *vcpu, const struct vm_exit *exit);
    /* An iteration of a REP instruction is done, and others follow: RIP stays. True when a debug
     * trap follows it: then the guest has to be resumed before the next. */
    bool (*iterated)(struct vcpu *vcpu);
    /* The instruction is to be run again from where its registers say that it has come to. */
    void (*retry)(struct vcpu *vcpu);
    /* The instruction in progress accesses ports of the guest's: a breakpoint may be there. */
    void (*note_port)(struct vcpu *vcpu, uint16_t port, unsigned width);
    /* E_BUSY-like E_STATE when an event is pending already. */
    int (*inject)(struct vcpu *vcpu, struct vm_event event);
    void (*set_halted)(struct vcpu *vcpu, bool halted);
    bool (*interrupts_open)(struct vcpu *vcpu); /* IF set, no shadow, nothing pending */
    /* Whether to exit, from now on, as soon as interrupts are open. */
    void (*want_window)(struct vcpu *vcpu, bool wanted);

    /* Everything that the CPU checks of a memory operand, and A and D set as it sets them. `exit`
     * is the instruction's own. */
    enum vm_operand_outcome (*operand)(struct vcpu *vcpu, const struct vm_exit *exit,
                                       const struct vm_operand *operand,
                                       struct vm_operand_place *out);

    /* Carries out the instruction that a MEMORY exit has come from, with its accesses to devices on
     * the bus; of a repeated string as many iterations as one exit may take. REACHED: done. */
    enum vm_operand_outcome (*emulate)(struct vcpu *vcpu, const struct vm_exit *exit,
                                       const struct vm_bus *bus, struct vm_emulation *out);

    /* Has the CPU itself keep a list of the pages whose D it sets, from now on; log_take() empties
     * it. All NULL, or E_UNSUPPORTED: this CPU does not. E_NOMEM, E_QUOTA. The list's frame counts
     * in vcpu.frames. */
    int (*log_start)(struct vcpu *vcpu);
    void (*log_stop)(struct vcpu *vcpu);
    void (*log_take)(struct vcpu *vcpu, vm_logged_fn fn, void *ctx);

    int (*read_root)(struct vcpu *vcpu, struct vm_root *out); /* E_STATE where there is none */

    /* Memory by a linear address, as the guest's own tables have it in `state`, whatever their
     * rights; changes nothing. False unless all of it is RAM. */
    bool (*read_linear)(struct vcpu *vcpu, const struct vcpu_state *state, uint64_t at, void *to,
                        unsigned size);

    /* Does the qualification of a MEMORY exit tell what the guest's own tables say of the address?
     * NULL: it does not. */
    bool (*tells_first_level)(void);

    /* For a report: every reference of the walk by which the access of a MEMORY or MISCONFIG exit
     * went, and why the CPU ended it. */
    void (*explain)(struct vcpu *vcpu, const struct vm_exit *exit, struct sink *to);

    /* Raw state for a report of a stopped guest, beyond struct vcpu_state. */
    void (*dump)(struct vcpu *vcpu, struct sink *to);
};

#endif
