/*
 * SVM as it stands, on a CPU that is played (tests/unit/model_svm.h): whether it can be had, what a
 * VMCB holds, exits and events, and what each entry flushes.
 */
#include "tests/unit/model_cpu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>
#undef skip /* of cmocka's: a backend has one */

#include "arch/x86_64/guest/reset_state.h"
#include "arch/x86_64/lapic.h"
#include "arch/x86_64/mm/npt.h"
#include "arch/x86_64/svm/svm.h"
#include "arch/x86_64/svm/vcpu.h"
#include "mm/frames/buddy.h"
#include "mm/paging/typed.h"
#include "tests/unit/model_guest.h"
#include "tests/unit/model_svm.h"
#include "tests/unit/model_tlb.h"

#define VALID EVENT_VALID
#define TYPE(n) ((uint64_t)(n) << 8)
#define CODE(n) (EVENT_CODE_VALID | (uint64_t)(n) << 32)

static void start_with(uint32_t asids, bool flush_by_asid)
{
    const struct vm_backend *backend;
    const char *why;

    model_machine_start();
    model_svm_start(asids, true, flush_by_asid);
    memset(&svm_policy, 0, sizeof(svm_policy));
    if (svm_init(&backend, &why) != E_OK)
        fail_msg("SVM is refused: %s", why);
    model_guest_start(backend);
    struct vcpu_state state = model_long_mode(0x1000);
    model_set(&state);
}

static int start(void **state)
{
    (void)state;
    start_with(16, true);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    model_guest_stop();
    return 0;
}

static struct svm_vcpu *guest(void)
{
    return svm_vcpu_of(g.vcpu);
}

static struct vmcb *vmcb(void)
{
    return guest()->vmcb;
}

static void exit_by(struct model_svm_exit exit)
{
    model_svm.next = exit;
    model_run();
}

/* The next entry; what it injects. */
static uint64_t next_event(void)
{
    exit_by((struct model_svm_exit){.code = SVM_EXIT_INTR});
    return model_svm.event;
}

static struct {
    unsigned calls, left; /* so many of them are dealt with */
    gpa_t at;
    unsigned access;
} touch;

/* The guest is entered again, and exits by an interrupt when nothing is left to be dealt with. */
static bool deal_with(struct vcpu *vcpu, gpa_t at, unsigned access)
{
    assert_ptr_equal(vcpu, g.vcpu);
    touch.calls++;
    touch.at = at;
    touch.access = access;
    if (touch.left == 0)
        return false;
    if (--touch.left == 0)
        model_svm.next = (struct model_svm_exit){.code = SVM_EXIT_INTR};
    else
        model_svm.next.event = 0;
    return true;
}

static void touched(unsigned left, struct model_svm_exit exit)
{
    memset(&touch, 0, sizeof(touch));
    touch.left = left;
    model_svm.entries = 0;
    g.vcpu->entries = 0;
    guest()->reinjected = 0;
    g.vcpu->touch = deal_with;
    exit_by(exit);
    g.vcpu->touch = NULL;
}

static void spend_the_slice(struct vmcb *vmcb)
{
    (void)vmcb;
    model_cpu.tsc += 2000000;
}

static void use_rax(struct vmcb *vmcb)
{
    vmcb->rax++;
}

/* A fault that is dealt with before the lock is taken: the guest goes on at once, with its RAX and
 * with the event whose delivery it had interrupted. */
static void a_touch_is_no_exit(void **state)
{
    const struct model_svm_exit write = {.code = SVM_EXIT_NPF,
                                         .info1 = BIT(32) | 6,
                                         .info2 = 0x5008,
                                         .event = VALID | TYPE(3) | CODE(6) | 14,
                                         .guest = use_rax};
    struct model_svm_exit late = write, present = write, reserved = write;

    (void)state;
    g.vcpu->gpr[RAX] = 5;
    touched(1, write);
    assert_int_equal(g.exit.kind, VM_EXIT_INTERRUPT);
    assert_int_equal(touch.at.v, 0x5008);
    assert_int_equal(touch.access, RIGHT_W);
    assert_int_equal(model_svm.event, VALID | TYPE(3) | CODE(6) | 14);
    assert_int_equal(model_svm.entries, 2);
    assert_int_equal(g.vcpu->entries, 2);
    assert_int_equal(g.vcpu->gpr[RAX], 6);
    touched(3, write);
    assert_int_equal(model_svm.entries, 4);
    assert_int_equal(model_svm.event, 0);
    assert_int_equal(g.vcpu->gpr[RAX], 9);
    /* What is not dealt with is an exit like others. */
    touched(0, write);
    assert_int_equal(touch.calls, 1);
    assert_int_equal(g.exit.kind, VM_EXIT_MEMORY);
    assert_int_equal(guest()->reinjected, 1);
    late.guest = spend_the_slice;
    touched(1, late);
    assert_int_equal(touch.calls, 0);
    present.info1 |= PF_PRESENT; /* no first touch */
    touched(1, present);
    assert_int_equal(touch.calls, 0);
    assert_int_equal(g.exit.kind, VM_EXIT_MEMORY);
    reserved.info1 |= PF_RESERVED;
    touched(1, reserved);
    assert_int_equal(touch.calls, 0);
    assert_int_equal(g.exit.kind, VM_EXIT_MISCONFIG);
}

static void code_at_1000(const void *bytes, unsigned size)
{
    memcpy(g.bytes + 0x1000, bytes, size);
    vmcb()->rip = 0x1000;
    vmcb()->rflags = 2;
}

#define CODE_IS(...) code_at_1000((uint8_t[]){__VA_ARGS__}, sizeof((uint8_t[]){__VA_ARGS__}))

static void assert_done(unsigned length)
{
    assert_int_equal(g.exit.kind, VM_EXIT_HANDLED);
    assert_int_equal(vmcb()->rip, 0x1000 + length);
    assert_int_equal(next_event(), 0);
}

static void assert_raises(unsigned vector, bool has_code)
{
    assert_int_equal(g.exit.kind, VM_EXIT_HANDLED);
    assert_int_equal(vmcb()->rip, 0x1000);
    assert_int_equal(vmcb()->rflags & RFLAGS_RF, RFLAGS_RF);
    assert_int_equal(next_event(), VALID | TYPE(3) | (has_code ? CODE(0) : 0) | vector);
}

/* ---- Whether it can be had ------------------------------------------------------------------ */

static const char *refusal(uint32_t asids, bool nested, bool svm, uint64_t vm_cr, bool lapic)
{
    const struct vm_backend *backend = NULL;
    const char *why = NULL;

    model_machine_start();
    model_svm_start(asids, nested, false);
    memset(&svm_policy, 0, sizeof(svm_policy));
    cpu_features.svm = svm;
    *model_msr(0xc0010114) = vm_cr;
    model_cpu.lapic = lapic;
    int error = svm_init(&backend, &why);
    assert_int_equal(error == E_OK, backend != NULL);
    assert_int_equal((*model_msr(IA32_EFER) & EFER_SVME) != 0, error == E_OK);
    model_machine_stop();
    return why ? why : "";
}

static void what_the_cpu_must_offer(void **state)
{
    (void)state;
    assert_string_equal(refusal(2, true, true, 0, true), "");
    assert_non_null(strstr(refusal(2, true, false, 0, true), "no SVM"));
    assert_non_null(strstr(refusal(2, false, true, 0, true), "without nested paging"));
    assert_non_null(strstr(refusal(1, true, true, 0, true), "no ASID"));
    assert_non_null(strstr(refusal(2, true, true, 0x10, true), "locked SVM off"));
    assert_non_null(strstr(refusal(2, true, true, 0, false), "no local APIC timer"));
}

/* ---- What a VMCB holds ---------------------------------------------------------------------- */

static bool passes(uint32_t msr, bool write)
{
    const uint8_t *map = direct(svm_policy.msrpm);
    uint32_t bit = (msr >= 0xc0010000   ? 0x8000
                    : msr >= 0xc0000000 ? 0x4000
                                        : 0) +
                   (msr & 0x1fff) * 2 + write;

    return !(map[bit / 8] >> bit % 8 & 1);
}

static void what_passes(void **state)
{
    static const uint32_t own[] = {0x174,      0x175,      0x176,      0xc0000081, 0xc0000082,
                                   0xc0000083, 0xc0000084, 0xc0000100, 0xc0000101, 0xc0000102};
    static const uint32_t ranges[] = {0, 0xc0000000, 0xc0010000};

    (void)state;
    for (unsigned range = 0; range < 3; range++)
        for (uint32_t i = 0; i < 0x2000; i++) {
            bool wanted = false;

            for (unsigned n = 0; n < ARRAY_SIZE(own); n++)
                wanted |= own[n] == ranges[range] + i;
            if (passes(ranges[range] + i, false) != wanted ||
                passes(ranges[range] + i, true) != wanted)
                fail_msg("MSR %#x", ranges[range] + i);
        }
    const uint8_t *ports = direct(svm_policy.iopm);
    for (unsigned i = 0; i < 0x2001; i++)
        assert_int_equal(ports[i], 0xff);
    assert_int_equal(vmcb()->iopm, svm_policy.iopm.v);
    assert_int_equal(vmcb()->msrpm, svm_policy.msrpm.v);
}

static void look_where(struct vmcb *vmcb)
{
    (void)vmcb;
    assert_true(model_cpu.percpu.in_guest);
}

static void what_exits(void **state)
{
    (void)state;
    assert_int_equal(vmcb()->intercept_cr, BIT(4) | BIT(8) | BIT(20) | BIT(24));
    assert_int_equal(vmcb()->intercept_exceptions, BIT(1) | BIT(6) | BIT(17) | BIT(18));
    assert_int_equal(vmcb()->intercept1, 0x9d44801f);
    assert_int_equal(vmcb()->intercept2, 0x3eff);
    assert_int_equal(vmcb()->intercept3 | vmcb()->intercept_dr | vmcb()->tsc_offset, 0);
    assert_int_equal(vmcb()->ncr3, g.table.root.v);
    assert_int_equal(vmcb()->asid, guest()->asid);
    assert_int_equal(g.table.tag, guest()->asid);
    assert_int_equal(vmcb()->pat, 0x0007040600070406);
    assert_int_equal(svm_policy.guest_cr4 & (CR4_VMXE | CR4_LA57 | CR4_PKE | CR4_SMXE), 0);
    exit_by((struct model_svm_exit){.code = SVM_EXIT_INTR});
    assert_int_equal(g.exit.kind, VM_EXIT_INTERRUPT);
    assert_int_equal(model_svm.interrupt, BIT(24)); /* V_INTR_MASKING */
    assert_int_equal(model_cpu.windows, 1);         /* the host takes it */
    exit_by((struct model_svm_exit){.code = SVM_EXIT_NMI, .guest = look_where});
    assert_false(model_cpu.percpu.in_guest);
    assert_int_equal(svm_policy.nmis, 1);
    assert_int_equal(model_cpu.windows, 1);
    assert_int_equal(model_cpu.timer, 0);
    assert_ptr_equal(model_cpu.resident, &guest()->resident);
}

static uint32_t timer_then;
static bool timer_repeated;
static uint8_t sent_then;

static void look_at_timer(struct vmcb *vmcb)
{
    (void)vmcb;
    timer_then = model_cpu.timer;
    timer_repeated = model_cpu.timer_repeats;
    sent_then = model_cpu.sent_itself;
}

/* A nudge whose NMI has come before the entry: the slice is over at once. */
static void a_nudge_before_the_entry(void **state)
{
    static bool nudged;

    (void)state;
    g.vcpu->nudged = &nudged;
    model_svm.next = (struct model_svm_exit){.code = SVM_EXIT_INTR, .guest = look_at_timer};
    assert_int_equal(g.backend->run(g.vcpu, UINT64_C(1) << 30, &g.exit), E_OK);
    uint32_t whole = timer_then;
    assert_int_equal(sent_then, 0);
    assert_true(timer_repeated); /* QEMU loses one at times: docs/SVM.md */
    nudged = true;
    assert_int_equal(g.backend->run(g.vcpu, UINT64_C(1) << 30, &g.exit), E_OK);
    assert_int_equal(timer_then, whole);
    assert_int_equal(sent_then, VECTOR_TIMER);
    g.vcpu->nudged = NULL;
    model_cpu.sent_itself = 0;
    assert_int_equal(g.backend->run(g.vcpu, 1, &g.exit), E_OK);
    assert_int_equal(sent_then, 0);
    assert_true(timer_then > 1000 && timer_then < whole / 100); /* no shorter than an entry */
}

static void frames_come_back(void **state)
{
    struct vcpu *extra;

    (void)state;
    assert_int_equal(model_guest_add(&extra), E_OK);
    uint16_t asid = svm_vcpu_of(extra)->asid;
    assert_int_not_equal(asid, guest()->asid);
    g.backend->vcpu_destroy(extra);
    uint64_t free_before = model_free_frames(), quota = buddy_quota(GUEST_OWNER);
    uint64_t owned = buddy_owner_frames(GUEST_OWNER);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(model_guest_add(&extra), E_OK);
        assert_int_equal(svm_vcpu_of(extra)->asid, asid);
        assert_int_equal(free_before - model_free_frames(), extra->frames);
        resident_switch(&svm_vcpu_of(extra)->resident);
        g.backend->vcpu_destroy(extra);
        assert_null(model_cpu.resident);
        assert_int_equal(model_free_frames(), free_before);
    }
    for (unsigned limit = 0; limit < 2; limit++) {
        buddy_set_quota(GUEST_OWNER, owned + limit);
        assert_int_equal(model_guest_add(&extra), E_QUOTA);
        assert_int_equal(model_free_frames(), free_before);
    }
    buddy_set_quota(GUEST_OWNER, quota);
    struct table other = {.kind = NULL};
    assert_int_equal(g.backend->vcpu_create(NULL, &other, GUEST_OWNER, &extra), E_INVAL);
    struct vm_root root;
    assert_int_equal(g.backend->read_root(g.vcpu, &root), E_OK);
    assert_int_equal(root.frame.v, g.table.root.v);
    vmcb()->nested = 0;
    assert_int_equal(g.backend->read_root(g.vcpu, &root), E_ILLEGAL);
}

/* ---- The TLB -------------------------------------------------------------------------------- */

static struct tlb_way mine(void)
{
    return (struct tlb_way){TLB_NESTED, g.table.root, guest()->asid, 0, true};
}

static void cache(void)
{
    struct tlb_way way = mine();

    tlb_use(&way, 0, GUEST_BYTES - 1, true);
}

static void use_by_guest(struct vmcb *v)
{
    (void)v;
    cache();
}

/* An entry flushes what was asked for, by the finest control that the CPU has, and no more. */
static void entries_flush(void **state)
{
    (void)state;
    for (unsigned fine = 0; fine < 2; fine++) {
        struct flush_batch batch;
        struct tlb_way way, other = {.sort = TLB_NESTED, .tag = 9};

        start_with(16, fine);
        way = mine();
        cache(); /* of the last one with this ASID */
        exit_by((struct model_svm_exit){.code = SVM_EXIT_INTR});
        assert_int_equal(tlb_cached(&way), 0);
        exit_by((struct model_svm_exit){.code = SVM_EXIT_INTR, .guest = use_by_guest});
        unsigned full = tlb_cached(&way);
        assert_true(full > 256);
        exit_by((struct model_svm_exit){.code = SVM_EXIT_INTR});
        assert_int_equal(tlb_cached(&way), full);

        tlb_add(&other, 0x1000, false);
        flush_begin(&batch, &g.table);
        assert_int_equal(gpa_unmap(&g.table, gpa(0x5000), PAGE_SIZE, &batch), E_OK);
        flush_commit(&batch);
        exit_by((struct model_svm_exit){.code = SVM_EXIT_INTR});
        tlb_check(&way, 0, GUEST_BYTES - 1);
        assert_int_equal(tlb_cached(&way), 0);
        assert_int_equal(tlb_cached(&other), fine);

        /* So does what changes the guest's own translations. */
        cache();
        CODE_IS(0x0f, 0x22, 0xe0);
        g.vcpu->gpr[RAX] = CR4_PAE | CR4_PGE;
        g.vcpu->gpr[RAX] = CR4_PAE | CR4_PGE;
        exit_by((struct model_svm_exit){.code = SVM_EXIT_CR_WRITE + 4});
        assert_done(3);
        assert_int_equal(tlb_cached(&way), 0);
        cache();
        CODE_IS(0x0f, 0x30);
        g.vcpu->gpr[RCX] = IA32_EFER;
        g.vcpu->gpr[RAX] = EFER_LME | EFER_LMA;
        g.vcpu->gpr[RDX] = 0;
        exit_by((struct model_svm_exit){.code = SVM_EXIT_MSR, .info1 = 1});
        assert_done(2);
        assert_int_equal(tlb_cached(&way), 0);
        cache();
        struct vcpu_state s = model_long_mode(0x1000);
        model_set(&s);
        assert_int_equal(next_event(), 0);
        assert_int_equal(tlb_cached(&way), 0);
        model_guest_stop();
    }
}

/* ---- Registers ------------------------------------------------------------------------------ */

static void state_goes_in_and_out(void **state)
{
    (void)state;
    struct vcpu_state s = model_long_mode(0x123456789), out;
    for (unsigned i = 0; i < GPR_COUNT; i++)
        s.gpr[i] = 0x0101010101010101 * (i + 1);
    s.rflags |= RFLAGS_IF | RFLAGS_DF;
    s.cr2 = 0x8877665544332211;
    s.cr4 |= CR4_PGE;
    s.segment[SEG_FS].base = 0xffff800000000000;
    s.segment[SEG_SS].access = 0xc0f3;
    s.segment[SEG_CS].access = 0xa0fb;
    s.segment[SEG_GS].unusable = true; /* whatever else is said of it */
    s.gdt_base = 0xffff900000000000;
    s.gdt_limit = 0x127;
    s.idt_base = 0xffff910000000000;
    s.idt_limit = 0xfff;
    s.dr7 = 0x455;
    model_set(&s);
    assert_int_equal(vmcb()->cpl, 3);
    assert_int_equal(vmcb()->efer, s.efer | EFER_SVME);
    out = model_state();
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        assert_int_equal(out.segment[i].selector, s.segment[i].selector);
        assert_int_equal(out.segment[i].base, s.segment[i].base);
        assert_int_equal(out.segment[i].limit, s.segment[i].limit);
        assert_int_equal(out.segment[i].unusable, s.segment[i].unusable);
        if (!s.segment[i].unusable)
            assert_int_equal(out.segment[i].access, s.segment[i].access);
    }
    assert_memory_equal(out.gpr, s.gpr, sizeof(s.gpr));
    assert_int_equal(out.rip, s.rip);
    assert_int_equal(out.rflags, s.rflags);
    assert_int_equal(out.cr0, s.cr0);
    assert_int_equal(out.cr2, s.cr2);
    assert_int_equal(out.cr3, s.cr3);
    assert_int_equal(out.cr4, s.cr4);
    assert_int_equal(out.efer, s.efer);
    assert_int_equal(out.gdt_base, s.gdt_base);
    assert_int_equal(out.gdt_limit, s.gdt_limit);
    assert_int_equal(out.idt_base, s.idt_base);
    assert_int_equal(out.idt_limit, s.idt_limit);
    assert_int_equal(out.dr7, s.dr7);
    struct vm_modes modes;
    assert_int_equal(g.backend->get_modes(g.vcpu, &modes), E_OK);
    assert_true(modes.code64);
#define REFUSED(error, change)                                                                     \
    do {                                                                                           \
        struct vcpu_state bad = s;                                                                 \
        bad.rip = 1;                                                                               \
        bad.change;                                                                                \
        assert_int_equal(g.backend->set_state(g.vcpu, &bad), error);                               \
        assert_int_equal(vmcb()->rip, s.rip);                                                      \
    } while (0)
    REFUSED(E_INVAL, cr0 |= BIT(32));
    REFUSED(E_INVAL, cr0 &= ~CR0_PE);
    REFUSED(E_INVAL, efer |= EFER_SVME);
    REFUSED(E_INVAL, dr7 |= BIT(32));
    REFUSED(E_UNSUPPORTED, cr4 |= CR4_VMXE);
#undef REFUSED
    s = model_flat_mode(0x7c00);
    s.segment[SEG_DS].access = 0xc092;
    s.segment[SEG_TR].access = 0x89;
    model_set(&s);
    assert_int_equal(vmcb()->ds.attributes, 0xc93);
    assert_int_equal(vmcb()->tr.attributes, 0x8b);
    assert_int_equal(vmcb()->cpl, 0);
}

/* ---- Events --------------------------------------------------------------------------------- */

static int inject(enum vm_event_kind kind, uint8_t vector, bool has_code, uint32_t code)
{
    return g.backend->inject(g.vcpu, (struct vm_event){kind, vector, has_code, code, 0x123456});
}

static void interrupts_wait_for_their_window(void **state)
{
    (void)state;
    assert_int_equal(inject(VM_EVENT_INTERRUPT, 0x30, false, 0), E_STATE);
    vmcb()->rflags = 2 | RFLAGS_IF;
    vmcb()->shadow = 1;
    assert_int_equal(inject(VM_EVENT_INTERRUPT, 0x30, false, 0), E_STATE);
    assert_int_equal(inject(VM_EVENT_NMI, 2, false, 0), E_STATE);
    g.backend->want_window(g.vcpu, true);
    exit_by((struct model_svm_exit){.code = SVM_EXIT_VINTR});
    assert_int_equal(g.exit.kind, VM_EXIT_WINDOW);
    assert_int_equal(model_svm.interrupt, BIT(24) | BIT(20) | 0xfu << 16 | BIT(8));
    assert_true(model_svm.shadow);
    g.backend->want_window(g.vcpu, false);
    vmcb()->shadow = 0;
    g.backend->set_halted(g.vcpu, true);
    unsigned entries = model_svm.entries;
    model_run();
    assert_int_equal(g.exit.kind, VM_EXIT_SLICE); /* it waits */
    assert_int_equal(model_svm.entries, entries);
    assert_int_equal(inject(VM_EVENT_INTERRUPT, 0x30, false, 0), E_OK);
    assert_int_equal(inject(VM_EVENT_EXCEPTION, 6, false, 0), E_STATE);
    assert_false(g.backend->interrupts_open(g.vcpu));
    assert_int_equal(next_event(), VALID | 0x30);
    assert_int_equal(model_svm.interrupt, BIT(24));
    assert_int_equal(next_event(), 0);
}

static void exceptions_as_the_cpu_has_them(void **state)
{
    (void)state;
    for (unsigned real = 0; real < 2; real++)
        for (unsigned vector = 0; vector < 32; vector++) {
            bool code = vector == 8 || (vector >= 10 && vector <= 14) || vector == 17;
            bool fault = vector != 1 && vector != 3 && vector != 4 && vector != 8 && vector != 18;
            struct vcpu_state s = real ? guest_reset_state : model_long_mode(0x1000);

            if (vector == 2)
                continue;
            model_set(&s);
            vmcb()->shadow = 1;
            assert_int_equal(inject(VM_EVENT_EXCEPTION, (uint8_t)vector, code, 0x77), E_OK);
            assert_int_equal(vmcb()->shadow, 0);
            assert_int_equal((vmcb()->rflags & RFLAGS_RF) != 0, fault);
            assert_int_equal(next_event(),
                             VALID | TYPE(3) | (code && !real ? CODE(0x77) : UINT64_C(0)) | vector);
            if (vector == 14)
                assert_int_equal(vmcb()->cr2, 0x123456);
        }
    assert_int_equal(inject(VM_EVENT_EXCEPTION, 32, false, 0), E_INVAL);
    assert_int_equal(inject(VM_EVENT_EXCEPTION, 2, false, 0), E_INVAL);
}

/* An NMI blocks the next until IRET, which exits once; a reset ends the blocking. */
static void nmis_wait_for_iret(void **state)
{
    (void)state;
    assert_int_equal(inject(VM_EVENT_NMI, 2, false, 0), E_OK);
    assert_int_equal(vmcb()->intercept1 & BIT(20), BIT(20));
    assert_int_equal(next_event(), VALID | TYPE(2) | 2);
    assert_int_equal(inject(VM_EVENT_NMI, 2, false, 0), E_STATE);
    exit_by((struct model_svm_exit){.code = SVM_EXIT_IRET});
    assert_int_equal(g.exit.kind, VM_EXIT_HANDLED);
    assert_int_equal(vmcb()->intercept1 & BIT(20), 0);
    assert_int_equal(inject(VM_EVENT_NMI, 2, false, 0), E_STATE); /* the IRET is still to run */
    vmcb()->rip = 0x2000;
    assert_int_equal(inject(VM_EVENT_NMI, 2, false, 0), E_OK);
    assert_int_equal(next_event(), VALID | TYPE(2) | 2);
    assert_int_equal(inject(VM_EVENT_NMI, 2, false, 0), E_STATE);

    struct vcpu_state s = model_long_mode(0x1000);
    model_set(&s);
    assert_int_equal(vmcb()->intercept1 & BIT(20), 0);
    assert_int_equal(inject(VM_EVENT_NMI, 2, false, 0), E_OK);
}

/* The handler of an NMI that faults is still that handler: blocking ends by IRET alone. And an IRET
 * that faults in the second level runs again: it is as if it had not run. */
static void a_fault_keeps_nmis_blocked(void **state)
{
    (void)state;
    assert_int_equal(inject(VM_EVENT_NMI, 2, false, 0), E_OK);
    assert_int_equal(next_event(), VALID | TYPE(2) | 2);
    assert_int_equal(inject(VM_EVENT_EXCEPTION, 14, true, 2), E_OK);
    assert_int_equal(next_event() & 0xff, 14);
    assert_int_equal(vmcb()->intercept1 & BIT(20), BIT(20));
    assert_int_equal(inject(VM_EVENT_NMI, 2, false, 0), E_STATE);
    exit_by((struct model_svm_exit){.code = SVM_EXIT_IRET});
    exit_by((struct model_svm_exit){.code = SVM_EXIT_NPF, .info2 = 0x2000});
    assert_int_equal(inject(VM_EVENT_NMI, 2, false, 0), E_STATE);
    vmcb()->rip = 0x2000; /* the handler of its own fault, which finds them unblocked */
    assert_int_equal(inject(VM_EVENT_NMI, 2, false, 0), E_OK);
}

static unsigned self_is;

static unsigned self(void)
{
    return self_is;
}

static void forget(struct table *table, const struct flush_batch *batch)
{
    table->kind->flush(table, batch);
}

static const struct shootdown_ops two_cpus = {.self = self, .forget = forget};

static unsigned flushed_at_entry(void)
{
    exit_by((struct model_svm_exit){.code = SVM_EXIT_INTR});
    return vmcb()->tlb_control;
}

/* Wherever a vCPU comes to, that CPU forgets what it has cached of the guest, which may have
 * changed its tables on another one since. */
static void a_vcpu_moves_to_another_cpu(void **state)
{
    struct vcpu_state s = model_long_mode(0x1000);

    (void)state;
    shootdown_init(&two_cpus);
    model_set(&s);
    (void)flushed_at_entry();
    assert_int_equal(flushed_at_entry(), TLB_CONTROL_NOTHING);
    for (unsigned i = 1; i < 5; i++) {
        g.backend->put_all();
        assert_null(model_cpu.resident);
        self_is = i & 1;
        assert_int_not_equal(flushed_at_entry(), TLB_CONTROL_NOTHING);
        assert_int_equal(flushed_at_entry(), TLB_CONTROL_NOTHING);
    }
    /* It runs on CPU 0, and gets another state on CPU 1. */
    g.backend->put_all();
    self_is = 1;
    model_set(&s);
    self_is = 0;
    assert_int_not_equal(flushed_at_entry(), TLB_CONTROL_NOTHING);
    g.backend->put_all();
    assert_int_equal(flushed_at_entry(), TLB_CONTROL_NOTHING); /* and back where it was */
}

/* A fork's vCPU is the first one's, but for its tag: what it is shows at its first entry. */
static void a_copy_is_the_same(void **state)
{
    struct vcpu *first = g.vcpu, *second;
    struct vcpu_state s = model_long_mode(0x1000), was;

    (void)state;
    assert_int_equal(model_guest_add(&second), E_OK);
    uint16_t tag = svm_vcpu_of(second)->asid;
    for (unsigned i = 0; i < GPR_COUNT; i++)
        s.gpr[i] = 0x1111 * i;
    s.cr4 |= CR4_DE;
    model_set(&s);
    g.vcpu->cr8 = 7;
    vmcb()->pat = 0x0606060606060606;
    assert_int_equal(inject(VM_EVENT_NMI, 2, false, 0), E_OK);
    was = model_state();
    cache();
    assert_int_equal(g.backend->vcpu_copy(second, first), E_OK);
    g.vcpu = second;
    struct vcpu_state is = model_state();
    assert_memory_equal(&is, &was, sizeof(is));
    assert_int_equal(is.cr4, CR4_PAE | CR4_DE); /* MCE is the host's in both */
    assert_int_equal(second->cr8, 7);
    assert_int_equal(vmcb()->asid, tag);
    assert_int_not_equal(vmcb()->asid, svm_vcpu_of(first)->asid);
    assert_int_equal(vmcb()->ncr3, g.table.root.v);
    assert_int_equal(next_event(), VALID | TYPE(2) | 2);
    assert_int_equal(inject(VM_EVENT_NMI, 2, false, 0), E_STATE); /* blocked, in the copy too */
    g.vcpu = first;
    s.cr4 |= CR4_MCE;
    model_set(&s);
    g.backend->set_halted(first, true);
    assert_int_equal(g.backend->vcpu_copy(second, first), E_OK);
    g.vcpu = second;
    assert_int_equal(model_state().cr4, CR4_PAE | CR4_DE | CR4_MCE);
    assert_true(model_state().halted);
    g.backend->vcpu_destroy(second);
    g.vcpu = first;
}

/* What is spoilt must be refused, and is put back. */
#define REFUSED(member, value)                                                                     \
    do {                                                                                           \
        struct vcpu_rest spoilt = rest;                                                            \
        spoilt.member = (value);                                                                   \
        assert_int_equal(g.backend->set_rest(g.vcpu, &spoilt), E_ILLEGAL);                         \
    } while (0)

static void the_rest_goes_out_and_back(void **state)
{
    static struct vcpu_rest rest, again;
    struct vcpu *first = g.vcpu, *second;

    (void)state;
    assert_int_equal(model_guest_add(&second), E_OK);
    vmcb()->lstar = UINT64_C(0xffff800000001234);
    vmcb()->kernel_gs_base = 0x5678;
    vmcb()->sysenter_eip = 0x77;
    vmcb()->pat = UINT64_C(0x0606060606060606);
    vmcb()->dr6 = 0xffff0ff1;
    g.vcpu->cr8 = 3;
    assert_int_equal(inject(VM_EVENT_NMI, 2, false, 0), E_OK);
    assert_int_equal(g.backend->get_rest(first, &rest), E_OK);
    assert_int_equal(rest.lstar, vmcb()->lstar);
    assert_int_equal(rest.cr8, 3);
    assert_int_equal(rest.blocked, VCPU_BLOCKED_NMI);
    g.vcpu = second;
    REFUSED(cr8, 16);
    REFUSED(lstar, BIT(63));
    REFUSED(kernel_gs_base, BIT(62));
    REFUSED(fmask, BIT(32));
    REFUSED(dr6, BIT(32));
    REFUSED(pat, 2);
    REFUSED(event, VCPU_EVENT_VALID | 1u << 8);
    REFUSED(event, VCPU_EVENT_VALID | 1u << 12);
    REFUSED(event, 2);
    REFUSED(blocked, 4);
    REFUSED(traps, 16);
    REFUSED(fpu_size, rest.fpu_size + 1);
    REFUSED(fpu[26], 1); /* of MXCSR */
    assert_int_equal(g.backend->set_rest(second, &rest), E_OK);
    assert_int_equal(g.backend->get_rest(second, &again), E_OK);
    assert_memory_equal(&again, &rest, sizeof(rest));
    assert_int_equal(next_event(), VALID | TYPE(2) | 2);
    assert_int_equal(inject(VM_EVENT_NMI, 2, false, 0), E_STATE); /* blocked, here too */
    g.backend->vcpu_destroy(second);
    g.vcpu = first;
}

static void interrupted_events_come_again(void **state)
{
    static const struct {
        uint64_t event, again;
    } all[] = {
        {VALID | 0x41, VALID | 0x41},
        {VALID | TYPE(2) | 2, VALID | TYPE(2) | 2},
        {VALID | TYPE(3) | CODE(6) | 14, VALID | TYPE(3) | CODE(6) | 14},
        {VALID | TYPE(4) | 0x80, 0}, /* INT n runs again */
        {VALID | TYPE(3) | 3, 0},
        {VALID | TYPE(3) | 4, 0},
        {TYPE(3) | 6, 0},
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(all); i++) {
        vmcb()->rflags = 2 | RFLAGS_IF;
        exit_by((struct model_svm_exit){
            .code = SVM_EXIT_NPF, .info1 = 4, .info2 = GUEST_BYTES, .event = all[i].event});
        assert_int_equal(next_event(), all[i].again);
    }
    exit_by((struct model_svm_exit){.code = SVM_EXIT_SHUTDOWN, .event = VALID | TYPE(3) | 8});
    assert_int_equal(g.exit.kind, VM_EXIT_SHUTDOWN);
    assert_int_equal(next_event(), 0);
}

static void instructions_end(void **state)
{
    (void)state;
    CODE_IS(0x0f, 0xa2);
    vmcb()->rflags = 2 | RFLAGS_RF;
    vmcb()->shadow = 1;
    exit_by((struct model_svm_exit){.code = SVM_EXIT_CPUID});
    assert_int_equal(g.exit.kind, VM_EXIT_CPUID);
    assert_int_equal(g.exit.length, 2);
    assert_false(g.backend->skip(g.vcpu, &g.exit));
    assert_int_equal(vmcb()->rip, 0x1002);
    assert_int_equal(vmcb()->rflags, 2);
    assert_int_equal(vmcb()->shadow, 0);
    vmcb()->shadow = 1;
    assert_false(g.backend->iterated(g.vcpu));
    assert_int_equal(vmcb()->rflags, 2 | RFLAGS_RF);
    assert_int_equal(vmcb()->shadow, 0);
    vmcb()->rflags = 2;
    g.backend->retry(g.vcpu);
    assert_int_equal(vmcb()->rflags, 2 | RFLAGS_RF);

    /* A single step is the next event, and DR6 says so. */
    CODE_IS(0x0f, 0xa2);
    vmcb()->rflags = 2 | RFLAGS_TF;
    vmcb()->dr6 = 0xffff0ff3;
    exit_by((struct model_svm_exit){.code = SVM_EXIT_CPUID});
    assert_true(g.backend->skip(g.vcpu, &g.exit));
    assert_int_equal(vmcb()->dr6, 0xffff4ff0);
    assert_int_equal(next_event(), VALID | TYPE(3) | 1);

    /* A breakpoint on what is next is told with the step, and is nothing by itself. */
    CODE_IS(0x0f, 0xa2);
    model_cpu.dr[2] = 0x1002;
    vmcb()->dr7 = 0x400 | 0x10;
    vmcb()->rflags = 2 | RFLAGS_TF;
    exit_by((struct model_svm_exit){.code = SVM_EXIT_CPUID});
    assert_true(g.backend->skip(g.vcpu, &g.exit));
    assert_int_equal(vmcb()->dr6, 0xffff4ff4);
    assert_int_equal(next_event(), VALID | TYPE(3) | 1);
    CODE_IS(0x0f, 0xa2);
    vmcb()->rflags = 2;
    exit_by((struct model_svm_exit){.code = SVM_EXIT_CPUID});
    assert_false(g.backend->skip(g.vcpu, &g.exit));
    vmcb()->rflags = 2 | RFLAGS_TF; /* between iterations RF is set */
    vmcb()->rip = 0x1002;
    assert_true(g.backend->iterated(g.vcpu));
    assert_int_equal(vmcb()->dr6, 0xffff4ff0);
    vmcb()->dr7 = 0x400;
    CODE_IS(0x0f, 0xa2);
    vmcb()->rflags = 2;
    exit_by((struct model_svm_exit){.code = SVM_EXIT_CPUID});

    /* Breakpoints on ports and memory. */
    vmcb()->rflags = 2;
    model_cpu.dr[1] = 0x71;
    vmcb()->dr7 = 0x400 | 4 | 2u << 20;
    g.backend->note_port(g.vcpu, 0x70, 2);
    assert_int_equal(guest()->traps, 0);
    vmcb()->cr4 |= CR4_DE;
    g.backend->note_port(g.vcpu, 0x70, 2);
    assert_int_equal(guest()->traps, 2);
    g.backend->retry(g.vcpu);
    assert_int_equal(guest()->traps, 0);
    vmcb()->dr7 = 0x400 | 2u << 20;
    g.backend->note_port(g.vcpu, 0x70, 2);
    assert_int_equal(guest()->traps, 0);

    struct vcpu_state s = model_flat_mode(0xffffffff);
    model_set(&s);
    g.exit.length = 2;
    (void)g.backend->skip(g.vcpu, &g.exit);
    assert_int_equal(vmcb()->rip, 1);
}

/* ---- What exits come to --------------------------------------------------------------------- */

static void kinds_of_exits(void **state)
{
    static const struct {
        uint64_t code;
        uint8_t bytes[4];
        enum vm_exit_kind kind;
        unsigned length;
    } all[] = {
        {SVM_EXIT_CPUID, {0x0f, 0xa2}, VM_EXIT_CPUID, 2},
        {SVM_EXIT_HLT, {0xf4}, VM_EXIT_HALT, 1},
        {SVM_EXIT_VMMCALL, {0x0f, 0x01, 0xd9}, VM_EXIT_HYPERCALL, 3},
        {SVM_EXIT_EXCEPTION + 6, {0x0f, 0x01, 0xc1}, VM_EXIT_HYPERCALL, 3}, /* VMCALL */
        {SVM_EXIT_CPUID, {0x90}, VM_EXIT_HANDLED, 0}, /* it has changed: the guest tries again */
        {SVM_EXIT_FERR, {0x90}, VM_EXIT_UNKNOWN, 0},
    };
    static const uint64_t undefined[] = {0x7a, 0x80, 0x82, 0x83, 0x84, 0x85,
                                         0x86, 0x87, 0x8a, 0x8b, 0x8c};

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(all); i++) {
        code_at_1000(all[i].bytes, sizeof(all[i].bytes));
        exit_by((struct model_svm_exit){.code = all[i].code});
        assert_int_equal(g.exit.kind, all[i].kind);
        assert_int_equal(g.exit.length, all[i].length);
        assert_int_equal(vmcb()->rip, 0x1000);
        assert_int_equal(next_event(), 0);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(undefined); i++) {
        CODE_IS(0x0f, 0x01, 0xd8);
        exit_by((struct model_svm_exit){.code = undefined[i]});
        assert_raises(6, false);
    }
    CODE_IS(0x0f, 0x0b); /* UD2 */
    exit_by((struct model_svm_exit){.code = SVM_EXIT_EXCEPTION + 6});
    assert_raises(6, false);
    CODE_IS(0x0f, 0x33);
    exit_by((struct model_svm_exit){.code = SVM_EXIT_RDPMC});
    assert_raises(13, true);
    CODE_IS(0x0f, 0x09);
    exit_by((struct model_svm_exit){.code = SVM_EXIT_WBINVD});
    assert_done(2);
    CODE_IS(0x0f, 0x08);
    exit_by((struct model_svm_exit){.code = SVM_EXIT_INVD});
    assert_done(2);
    CODE_IS(0x0f, 0x08);
    exit_by((struct model_svm_exit){.code = SVM_EXIT_WBINVD}); /* as QEMU has it */
    assert_done(2);
    CODE_IS(0x90);
    exit_by((struct model_svm_exit){.code = SVM_EXIT_EXCEPTION + 17});
    assert_raises(17, true);
    exit_by((struct model_svm_exit){.code = SVM_EXIT_EXCEPTION + 1});
    assert_int_equal(next_event(), VALID | TYPE(3) | 1);
    exit_by((struct model_svm_exit){.code = SVM_EXIT_EXCEPTION + 14, .info1 = 6, .info2 = 0x9000});
    assert_int_equal(g.exit.kind, VM_EXIT_EXCEPTION);
    assert_int_equal(g.exit.exception.code, 6);
    assert_int_equal(g.exit.exception.address, 0x9000);
}

static void memory_and_ports(void **state)
{
    struct flush_batch batch;

    (void)state;
    exit_by(
        (struct model_svm_exit){.code = SVM_EXIT_NPF, .info1 = BIT(32) | 6, .info2 = GUEST_BYTES});
    assert_int_equal(g.exit.kind, VM_EXIT_MEMORY);
    assert_int_equal(g.exit.memory.gpa.v, GUEST_BYTES);
    assert_int_equal(g.exit.memory.access, RIGHT_W);
    assert_int_equal(g.exit.memory.allowed, 0);
    assert_false(g.exit.memory.walk);
    flush_begin(&batch, &g.table);
    assert_int_equal(table_protect(&g.table, 0x5000, PAGE_SIZE, attrs_of(RIGHT_R, MEM_WB), &batch),
                     E_OK);
    flush_commit(&batch);
    exit_by(
        (struct model_svm_exit){.code = SVM_EXIT_NPF, .info1 = BIT(33) | 0x15, .info2 = 0x5008});
    assert_int_equal(g.exit.memory.access, RIGHT_X);
    assert_int_equal(g.exit.memory.allowed, RIGHT_R);
    assert_true(g.exit.memory.walk);
    exit_by((struct model_svm_exit){.code = SVM_EXIT_NPF, .info1 = 0xd, .info2 = 0x5008});
    assert_int_equal(g.exit.kind, VM_EXIT_MISCONFIG);

    CODE_IS(0x66, 0xef); /* OUT of two bytes */
    exit_by((struct model_svm_exit){
        .code = SVM_EXIT_IOIO, .info1 = UINT64_C(0x3f80020), .info2 = 0x1002});
    assert_int_equal(g.exit.kind, VM_EXIT_PORT);
    assert_int_equal(g.exit.port.port, 0x3f8);
    assert_int_equal(g.exit.port.width, 2);
    assert_false(g.exit.port.in || g.exit.port.string || g.exit.port.rep);
    assert_int_equal(g.exit.length, 2);
    CODE_IS(0xf3, 0x64, 0x67, 0x6e); /* REP OUTSB from FS, by 32-bit addresses */
    exit_by((struct model_svm_exit){.code = SVM_EXIT_IOIO, .info1 = 0x60001c, .info2 = 0x1004});
    assert_true(g.exit.port.string && g.exit.port.rep && !g.exit.port.in);
    assert_int_equal(g.exit.port.address_bytes, 4);
    assert_int_equal(g.exit.port.segment, SEG_FS);
    CODE_IS(0x64, 0x6c); /* INS has no other than ES */
    exit_by((struct model_svm_exit){.code = SVM_EXIT_IOIO, .info1 = 0x600015, .info2 = 0x1002});
    assert_int_equal(g.exit.port.address_bytes, 8);
    assert_int_equal(g.exit.port.segment, SEG_ES);
    CODE_IS(0x6e);
    exit_by((struct model_svm_exit){.code = SVM_EXIT_IOIO, .info1 = 0x600014, .info2 = 0x1001});
    assert_int_equal(g.exit.port.segment, SEG_DS);
}

static void msrs_and_control_registers(void **state)
{
    uint64_t *gpr = g.vcpu->gpr;

    (void)state;
#define WRMSR(index, low, high)                                                                    \
    do {                                                                                           \
        CODE_IS(0x0f, 0x30);                                                                       \
        gpr[RCX] = (index);                                                                        \
        g.vcpu->gpr[RAX] = (low);                                                                  \
        gpr[RDX] = (high);                                                                         \
        exit_by((struct model_svm_exit){.code = SVM_EXIT_MSR, .info1 = 1});                        \
    } while (0)
    WRMSR(0x1b, 0, 0);
    assert_int_equal(g.exit.kind, VM_EXIT_MSR);
    assert_true(g.exit.msr.write);
    assert_int_equal(g.exit.msr.index, 0x1b);
    WRMSR(IA32_PAT, 0xdeadbeef01040506, 0x00070605);
    assert_done(2);
    assert_int_equal(vmcb()->pat, 0x0007060501040506);
    WRMSR(IA32_PAT, 0x02060606, 6);
    assert_raises(13, true);
    WRMSR(IA32_EFER, EFER_LME | EFER_LMA | EFER_SVME, 0);
    assert_raises(13, true);
    WRMSR(IA32_EFER, EFER_LMA, 0); /* LME while paging is on */
    assert_raises(13, true);
    WRMSR(IA32_EFER, EFER_LME | EFER_SCE, 0);
    assert_done(2);
    assert_int_equal(vmcb()->efer, EFER_LME | EFER_LMA | EFER_SCE | EFER_SVME);
    CODE_IS(0x0f, 0x32);
    gpr[RCX] = IA32_EFER;
    gpr[RDX] = ~UINT64_C(0);
    exit_by((struct model_svm_exit){.code = SVM_EXIT_MSR});
    assert_int_equal(gpr[RAX], EFER_LME | EFER_LMA | EFER_SCE);
    assert_int_equal(gpr[RDX], 0);
    assert_done(2);
#undef WRMSR
    CODE_IS(0x0f, 0x22, 0xe4); /* MOV CR4, RSP */
    vmcb()->rsp = CR4_PAE | CR4_DE;
    exit_by((struct model_svm_exit){.code = SVM_EXIT_CR_WRITE + 4});
    assert_done(3);
    assert_int_equal(vmcb()->cr4, CR4_PAE | CR4_DE | CR4_MCE);
    CODE_IS(0x0f, 0x20, 0xe2); /* MOV RDX, CR4: MCE is the host's */
    exit_by((struct model_svm_exit){.code = SVM_EXIT_CR_READ + 4});
    assert_done(3);
    assert_int_equal(gpr[RDX], CR4_PAE | CR4_DE);
    assert_int_equal(model_state().cr4, CR4_PAE | CR4_DE);
    CODE_IS(0x0f, 0x22, 0xe4);
    vmcb()->rsp = CR4_PAE | CR4_MCE;
    exit_by((struct model_svm_exit){.code = SVM_EXIT_CR_WRITE + 4});
    assert_int_equal(model_state().cr4, CR4_PAE | CR4_MCE);
    cpu_features.mce = false;
    CODE_IS(0x0f, 0x22, 0xe4);
    vmcb()->rsp = CR4_PAE;
    exit_by((struct model_svm_exit){.code = SVM_EXIT_CR_WRITE + 4});
    assert_int_equal(vmcb()->cr4, CR4_PAE);
    cpu_features.mce = true;
    CODE_IS(0x0f, 0x22, 0xe4);
    vmcb()->rsp = CR4_PAE | CR4_VMXE;
    exit_by((struct model_svm_exit){.code = SVM_EXIT_CR_WRITE + 4});
    assert_raises(13, true);
    CODE_IS(0x45, 0x0f, 0x22, 0xc1); /* MOV CR8, R9 */
    gpr[R9] = 15;
    exit_by((struct model_svm_exit){.code = SVM_EXIT_CR_WRITE + 8});
    assert_done(4);
    assert_int_equal(g.vcpu->cr8, 15);
    CODE_IS(0x45, 0x0f, 0x20, 0xc2);
    exit_by((struct model_svm_exit){.code = SVM_EXIT_CR_READ + 8});
    assert_done(4);
    assert_int_equal(gpr[R10], 15);
    CODE_IS(0x45, 0x0f, 0x22, 0xc1);
    gpr[R9] = 16;
    exit_by((struct model_svm_exit){.code = SVM_EXIT_CR_WRITE + 8});
    assert_raises(13, true);
    cpu_features.xcr0 = resident_xcr0 = 7;
    vmcb()->cr4 |= CR4_OSXSAVE;
    CODE_IS(0x0f, 0x01, 0xd1);
    gpr[RCX] = gpr[RDX] = 0;
    g.vcpu->gpr[RAX] = 7;
    exit_by((struct model_svm_exit){.code = SVM_EXIT_XSETBV});
    assert_done(3);
    assert_int_equal(model_cpu.xcr0, 7);
    struct vm_modes modes; /* while it is resident, what the CPU has: QEMU tells of no XSETBV */
    model_cpu.xcr0 = 3;
    assert_int_equal(g.backend->get_modes(g.vcpu, &modes), E_OK);
    assert_int_equal(modes.xcr0, 3);
    model_cpu.xcr0 = 7;
    CODE_IS(0x0f, 0x01, 0xd1);
    g.vcpu->gpr[RAX] = 6;
    exit_by((struct model_svm_exit){.code = SVM_EXIT_XSETBV});
    assert_raises(13, true);
    CODE_IS(0x0f, 0x01, 0xd1); /* from ring 3 */
    g.vcpu->gpr[RAX] = 3;
    vmcb()->cpl = 3;
    exit_by((struct model_svm_exit){.code = SVM_EXIT_XSETBV});
    assert_raises(13, true);
    assert_int_equal(model_cpu.xcr0, 7);
}

/* ---- The hypervisor's breakpoint ------------------------------------------------------------ */

static struct {
    uint64_t dr7, dr[4], shown;
    uint32_t intercepts;
} inside;

static void look_inside(struct vmcb *v)
{
    inside.dr7 = v->dr7;
    inside.intercepts = v->intercept_dr;
    inside.shown = model_cpu.dr7;
    memcpy(inside.dr, model_cpu.dr, sizeof(inside.dr));
}

static void meets_it(struct vmcb *v)
{
    look_inside(v);
    v->dr6 = 0xffff0ff4;
    v->rip = 0x2345;
}

static void meets_it_by_dr3(struct vmcb *v)
{
    meets_it(v);
    v->dr6 = 0xffff0ff8;
}

static void meets_another(struct vmcb *v)
{
    look_inside(v);
    v->dr6 = 0xffff0ffc; /* bit 2 is an old one of the guest's */
    v->rip = 0x3000;
}

static void debug_exit(void (*met)(struct vmcb *v))
{
    exit_by((struct model_svm_exit){.code = SVM_EXIT_EXCEPTION + 1, .guest = met});
}

/* It is there while guest code runs, in a register that the guest has not enabled. */
static void until_is_met(void **state)
{
    const uint64_t own[4] = {0x11, 0x22, 0x33, 0x44};

    (void)state;
    memcpy(model_cpu.dr, own, sizeof(own));
    vmcb()->dr6 = 0xffff0ff1;
    vmcb()->dr7 = 0x400 | 0x80 | BIT(20);
    g.vcpu->until = (struct vm_until){true, 0x2345};
    debug_exit(meets_it);
    assert_int_equal(g.exit.kind, VM_EXIT_UNTIL);
    assert_int_equal(g.exit.rip, 0x2345);
    assert_int_equal(inside.dr[2], 0x2345);
    assert_int_equal(inside.dr7, 0x400 | 0x80 | BIT(20) | 0x20);
    assert_int_equal(inside.shown, 0x420); /* QEMU's need */
    assert_int_equal(inside.intercepts, UINT32_MAX);
    assert_int_equal(model_cpu.dr7, 0x400);
    assert_memory_equal(model_cpu.dr, own, sizeof(own));
    assert_int_equal(vmcb()->dr7, 0x400 | 0x80 | BIT(20));
    assert_int_equal(vmcb()->dr6, 0xffff0ff1);
    assert_int_equal(vmcb()->event & VALID, 0);
    /* The guest's own is the guest's. */
    debug_exit(meets_another);
    assert_int_equal(g.exit.kind, VM_EXIT_HANDLED);
    assert_int_equal(vmcb()->dr6, 0xffff0ffc);
    assert_int_equal(next_event(), VALID | TYPE(3) | 1);
    g.vcpu->until.on = false;
    debug_exit(meets_it);
    assert_int_equal(g.exit.kind, VM_EXIT_HANDLED);
    assert_int_equal(inside.dr7, 0x400 | 0x80 | BIT(20));
    assert_int_equal(inside.intercepts, 0);
    assert_int_equal(vmcb()->dr6, 0xffff0ff4);
}

/* The address is linear. What QEMU needs, it does not bear where CS has a base. */
static void until_is_linear(void **state)
{
    struct vcpu_state s = model_flat_mode(0x1000);

    (void)state;
    s.segment[SEG_CS].base = 0x10000;
    model_set(&s);
    model_cpu.dr7 = 0x400;
    g.vcpu->until = (struct vm_until){true, 0x12345};
    debug_exit(meets_it_by_dr3);
    assert_int_equal(g.exit.kind, VM_EXIT_UNTIL);
    assert_int_equal(inside.dr[3], 0x12345);
    assert_int_equal(inside.shown, 0x400);
}

static void until_needs_a_register(void **state)
{
    (void)state;
    vmcb()->rip = 0x1000;
    vmcb()->dr7 = 0x455;
    g.vcpu->until = (struct vm_until){true, 0x2000};
    unsigned before = model_svm.entries;
    model_run();
    assert_int_equal(g.exit.kind, VM_EXIT_NO_BREAKPOINT);
    assert_int_equal(g.exit.rip, 0x1000);
    assert_int_equal(model_svm.entries, before);
    assert_int_equal(vmcb()->dr7, 0x455);
}

static void moves_to_debug_registers(void **state)
{
    (void)state;
    vmcb()->dr6 = 0xffff0ff0;
    vmcb()->dr7 = 0x400;
    g.vcpu->until = (struct vm_until){true, 0x2000};
    CODE_IS(0x41, 0x0f, 0x23, 0xd9); /* MOV DR3, R9 */
    g.vcpu->gpr[R9] = 0x123456789a;
    exit_by((struct model_svm_exit){.code = SVM_EXIT_DR_WRITE + 3});
    assert_done(4);
    assert_int_equal(model_cpu.dr[3], 0x123456789a);
    CODE_IS(0x0f, 0x21, 0xdc); /* MOV RSP, DR3 */
    exit_by((struct model_svm_exit){.code = SVM_EXIT_DR_READ + 3});
    assert_done(3);
    assert_int_equal(vmcb()->rsp, 0x123456789a);
    CODE_IS(0x0f, 0x23, 0xfb); /* MOV DR7, RBX */
    g.vcpu->gpr[RBX] = 0xc0;
    exit_by((struct model_svm_exit){.code = SVM_EXIT_DR_WRITE + 7});
    assert_done(3);
    assert_int_equal(vmcb()->dr7, 0x4c0);
    CODE_IS(0x0f, 0x23, 0xf3); /* MOV DR6, RBX */
    g.vcpu->gpr[RBX] = 5;
    exit_by((struct model_svm_exit){.code = SVM_EXIT_DR_WRITE + 6});
    assert_int_equal(vmcb()->dr6, 0xffff0ff5);
    CODE_IS(0x0f, 0x21, 0xfb); /* MOV RBX, DR7 */
    exit_by((struct model_svm_exit){.code = SVM_EXIT_DR_READ + 7});
    assert_int_equal(g.vcpu->gpr[RBX], 0x4c0);
    CODE_IS(0x0f, 0x23, 0xfb);
    g.vcpu->gpr[RBX] = BIT(32);
    exit_by((struct model_svm_exit){.code = SVM_EXIT_DR_WRITE + 7});
    assert_raises(13, true);
    CODE_IS(0x0f, 0x21, 0xeb); /* MOV RBX, DR5 */
    vmcb()->cr4 |= CR4_DE;
    exit_by((struct model_svm_exit){.code = SVM_EXIT_DR_READ + 5});
    assert_raises(6, false);
    CODE_IS(0x0f, 0x21, 0xfb);
    vmcb()->dr7 = 0x2400;
    vmcb()->rflags &= ~RFLAGS_RF;
    exit_by((struct model_svm_exit){.code = SVM_EXIT_DR_READ + 7});
    assert_true(vmcb()->rflags & RFLAGS_RF);
    assert_int_equal(vmcb()->dr6, 0xffff2ff0);
    assert_int_equal(vmcb()->dr7, 0x400);
    assert_int_equal(next_event(), VALID | TYPE(3) | 1);
    CODE_IS(0x0f, 0x21, 0xfb);
    vmcb()->cpl = 3;
    exit_by((struct model_svm_exit){.code = SVM_EXIT_DR_READ + 7});
    assert_raises(13, true);
}

static void a_refused_entry_is_told(void **state)
{
    (void)state;
    vmcb()->asid = 0;
    assert_int_equal(g.backend->run(g.vcpu, 1, &g.exit), E_HARDWARE);
    assert_int_equal(g.exit.kind, VM_EXIT_BAD_STATE);
    assert_int_equal(g.vcpu->entries, 0);
}

int main(void)
{
#define WITH_GUEST(test) cmocka_unit_test_setup_teardown(test, start, stop)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_the_cpu_must_offer),
        WITH_GUEST(what_passes),
        WITH_GUEST(what_exits),
        WITH_GUEST(a_nudge_before_the_entry),
        WITH_GUEST(frames_come_back),
        cmocka_unit_test(entries_flush),
        WITH_GUEST(state_goes_in_and_out),
        WITH_GUEST(interrupts_wait_for_their_window),
        WITH_GUEST(exceptions_as_the_cpu_has_them),
        WITH_GUEST(nmis_wait_for_iret),
        WITH_GUEST(a_fault_keeps_nmis_blocked),
        WITH_GUEST(a_copy_is_the_same),
        WITH_GUEST(a_vcpu_moves_to_another_cpu),
        WITH_GUEST(the_rest_goes_out_and_back),
        WITH_GUEST(interrupted_events_come_again),
        WITH_GUEST(a_touch_is_no_exit),
        WITH_GUEST(instructions_end),
        WITH_GUEST(kinds_of_exits),
        WITH_GUEST(memory_and_ports),
        WITH_GUEST(msrs_and_control_registers),
        WITH_GUEST(until_is_met),
        WITH_GUEST(until_is_linear),
        WITH_GUEST(until_needs_a_register),
        WITH_GUEST(moves_to_debug_registers),
        WITH_GUEST(a_refused_entry_is_told),
    };
    return cmocka_run_group_tests_name("svm_guest", tests, NULL, NULL);
}
