/*
 * VMX's exits and events, on a CPU that is played (tests/unit/model_vmx.h): what each exit comes
 * to, what is carried out for the guest, and that the next entry is one that the manual allows.
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
#include "arch/x86_64/mm/ept.h"
#include "arch/x86_64/vmx/events.h"
#include "arch/x86_64/vmx/state.h"
#include "tests/unit/model_tlb.h"
#include "tests/unit/vmx_guest.h"

#define TYPE(n) ((uint32_t)(n) << 8)
#define VALID 0x80000000u
#define CODE 0x800u

static int start(void **state)
{
    (void)state;
    vmx_machine_start();
    return 0;
}

static int stop(void **state)
{
    (void)state;
    model_guest_stop();
    return 0;
}

static void in_mode(struct vcpu_state s)
{
    model_set(&s);
}

/* The next entry, which must be one that the CPU makes; what it injects. */
static uint32_t next_event(void)
{
    vmx_exit_by((struct model_exit){.reason = EXIT_PREEMPTION_TIMER});
    return model_vmx.event;
}

static void assert_raises(unsigned vector, bool has_code, uint32_t code)
{
    assert_int_equal(g.exit.kind, VM_EXIT_HANDLED);
    assert_int_equal(field(VMCS_GUEST_RIP), 0x1000);
    assert_int_equal(field(VMCS_GUEST_RFLAGS) & RFLAGS_RF, RFLAGS_RF);
    assert_int_equal(next_event(), VALID | TYPE(3) | (has_code ? CODE : 0) | vector);
    assert_int_equal(model_vmx.code, code);
}

static void assert_done(unsigned length)
{
    assert_int_equal(g.exit.kind, VM_EXIT_HANDLED);
    assert_int_equal(field(VMCS_GUEST_RIP), 0x1000 + length);
    assert_int_equal(next_event(), 0);
}

static void again_at_1000(void)
{
    set_field(VMCS_GUEST_RIP, 0x1000);
    set_field(VMCS_GUEST_RFLAGS, 2);
}

/* ---- Injection ------------------------------------------------------------------------------ */

static int inject(enum vm_event_kind kind, uint8_t vector, bool has_code, uint32_t code)
{
    return g.backend->inject(g.vcpu, (struct vm_event){kind, vector, has_code, code, 0x123456});
}

static void interrupts_wait_for_their_window(void **state)
{
    (void)state;
    assert_false(g.backend->interrupts_open(g.vcpu));
    assert_int_equal(inject(VM_EVENT_INTERRUPT, 0x30, false, 0), E_STATE);
    set_field(VMCS_GUEST_RFLAGS, 2 | RFLAGS_IF);
    for (unsigned shadow = 1; shadow <= 2; shadow++) {
        set_field(VMCS_GUEST_INTERRUPTIBILITY, shadow);
        assert_false(g.backend->interrupts_open(g.vcpu));
        assert_int_equal(inject(VM_EVENT_INTERRUPT, 0x30, false, 0), E_STATE);
        assert_int_equal(inject(VM_EVENT_NMI, 2, false, 0), E_STATE);
    }
    set_field(VMCS_GUEST_INTERRUPTIBILITY, 0);
    assert_true(g.backend->interrupts_open(g.vcpu));
    g.backend->set_halted(g.vcpu, true);
    assert_int_equal(field(VMCS_GUEST_ACTIVITY), 1);
    assert_int_equal(inject(VM_EVENT_INTERRUPT, 0x30, false, 0), E_OK);
    assert_int_equal(field(VMCS_GUEST_ACTIVITY), 0); /* an event wakes it */
    assert_false(g.backend->interrupts_open(g.vcpu));
    assert_int_equal(inject(VM_EVENT_INTERRUPT, 0x31, false, 0), E_STATE);
    assert_int_equal(inject(VM_EVENT_EXCEPTION, 6, false, 0), E_STATE);
    assert_int_equal(next_event(), VALID | 0x30);
    assert_int_equal(next_event(), 0);
}

static void nmis_wait_for_iret(void **state)
{
    (void)state;
    assert_int_equal(inject(VM_EVENT_NMI, 2, false, 0), E_OK);
    assert_int_equal(next_event(), VALID | TYPE(2) | 2);
    assert_int_equal(field(VMCS_PROC_CONTROLS) & PROC_NMI_WINDOW_EXITING, 0);
    assert_int_equal(inject(VM_EVENT_NMI, 2, false, 0), E_STATE); /* blocked by NMI */
    /* The IRET is told, whatever interrupts do behind it. */
    assert_int_equal(field(VMCS_PROC_CONTROLS) & PROC_NMI_WINDOW_EXITING, PROC_NMI_WINDOW_EXITING);
    set_field(VMCS_GUEST_INTERRUPTIBILITY, 0);
    vmx_exit_by((struct model_exit){.reason = EXIT_NMI_WINDOW});
    assert_int_equal(g.exit.kind, VM_EXIT_WINDOW);
    assert_int_equal(field(VMCS_PROC_CONTROLS) & PROC_NMI_WINDOW_EXITING, 0);
    assert_int_equal(inject(VM_EVENT_NMI, 2, false, 0), E_OK);
    assert_int_equal(next_event(), VALID | TYPE(2) | 2);
}

/* What cannot be had is not asked for: behind STI the window might open before the NMI may come. */
static void an_nmi_that_waits_has_a_window(void **state)
{
    (void)state;
    set_field(VMCS_GUEST_INTERRUPTIBILITY, BLOCKING_BY_STI);
    assert_int_equal(inject(VM_EVENT_NMI, 2, false, 0), E_STATE);
    assert_int_equal(field(VMCS_PROC_CONTROLS) & PROC_NMI_WINDOW_EXITING, 0);
    set_field(VMCS_GUEST_INTERRUPTIBILITY, BLOCKING_BY_MOV_SS);
    assert_int_equal(inject(VM_EVENT_NMI, 2, false, 0), E_STATE);
    assert_int_equal(field(VMCS_PROC_CONTROLS) & PROC_NMI_WINDOW_EXITING, PROC_NMI_WINDOW_EXITING);
    set_field(VMCS_GUEST_INTERRUPTIBILITY, 0);
    assert_int_equal(inject(VM_EVENT_NMI, 2, false, 0), E_OK);
    assert_int_equal(field(VMCS_PROC_CONTROLS) & PROC_NMI_WINDOW_EXITING, 0);
    assert_int_equal(inject(VM_EVENT_NMI, 2, false, 0), E_STATE); /* behind what is injected */
    assert_int_equal(field(VMCS_PROC_CONTROLS) & PROC_NMI_WINDOW_EXITING, PROC_NMI_WINDOW_EXITING);
}

/* The handler of an NMI that faults is still that handler: blocking ends by IRET alone. */
static void a_fault_keeps_nmis_blocked(void **state)
{
    (void)state;
    for (unsigned vector = 6; vector <= 17; vector++) {
        if (vector == 8 || vector == 9 || vector == 15)
            continue;
        in_mode(model_long_mode(0x1000));
        set_field(VMCS_GUEST_INTERRUPTIBILITY, BLOCKING_BY_NMI | BLOCKING_BY_STI);
        assert_int_equal(inject(VM_EVENT_EXCEPTION, (uint8_t)vector, true, 0), E_OK);
        assert_int_equal(next_event() & 0xff, vector);
        assert_int_equal(field(VMCS_GUEST_INTERRUPTIBILITY), BLOCKING_BY_NMI);
        assert_int_equal(inject(VM_EVENT_NMI, 2, false, 0), E_STATE);
    }
}

/* With an error code where the manual has one, and in protected mode alone; RF for faults. */
static void exceptions_as_the_cpu_has_them(void **state)
{
    static const struct {
        uint8_t vector;
        bool has_code, rf;
        unsigned type, length;
    } all[] = {
        {0, false, true, 3, 0},  {1, false, false, 3, 0}, {3, false, false, 6, 1},
        {4, false, false, 6, 1}, {6, false, true, 3, 0},  {8, true, false, 3, 0},
        {10, true, true, 3, 0},  {13, true, true, 3, 0},  {14, true, true, 3, 0},
        {16, false, true, 3, 0}, {17, true, true, 3, 0},  {18, false, false, 3, 0},
        {19, false, true, 3, 0}, {31, false, true, 3, 0},
    };

    (void)state;
    for (unsigned real = 0; real < 2; real++)
        for (unsigned i = 0; i < ARRAY_SIZE(all); i++) {
            struct vcpu_state s = real ? guest_reset_state : model_long_mode(0x1000);
            bool has_code = all[i].has_code && !real;

            s.rflags = 2 | RFLAGS_IF;
            in_mode(s);
            set_field(VMCS_GUEST_INTERRUPTIBILITY, BLOCKING_BY_STI);
            assert_int_equal(inject(VM_EVENT_EXCEPTION, all[i].vector, all[i].has_code, 0x77),
                             E_OK);
            assert_int_equal(field(VMCS_GUEST_INTERRUPTIBILITY), 0);
            assert_int_equal((field(VMCS_GUEST_RFLAGS) & RFLAGS_RF) != 0, all[i].rf);
            assert_int_equal(next_event(),
                             VALID | TYPE(all[i].type) | (has_code ? CODE : 0) | all[i].vector);
            assert_int_equal(model_vmx.code, has_code ? 0x77 : 0);
            if (all[i].length)
                assert_int_equal(model_vmx.event_length, 1);
            if (all[i].vector == 14)
                assert_int_equal(vmx_guest()->live.cr2, 0x123456);
        }
    assert_int_equal(inject(VM_EVENT_EXCEPTION, 32, false, 0), E_INVAL);
    assert_int_equal(inject(VM_EVENT_EXCEPTION, 2, false, 0), E_INVAL);
    assert_int_equal(inject((enum vm_event_kind)9, 2, false, 0), E_INVAL);
}

static void a_window_is_asked_for_and_told(void **state)
{
    (void)state;
    g.backend->want_window(g.vcpu, true);
    assert_int_equal(field(VMCS_PROC_CONTROLS) & BIT(2), BIT(2));
    vmx_exit_by((struct model_exit){.reason = EXIT_INTERRUPT_WINDOW});
    assert_int_equal(g.exit.kind, VM_EXIT_WINDOW);
    g.backend->want_window(g.vcpu, false);
    assert_int_equal(field(VMCS_PROC_CONTROLS) & BIT(2), 0);
    vmx_caps.misc.activity_hlt = false; /* then it spins on its HLT */
    g.backend->set_halted(g.vcpu, true);
    assert_int_equal(field(VMCS_GUEST_ACTIVITY), 0);
}

/* ---- Events that an exit interrupted (28.2.4) ---------------------------------------------- */

static void interrupted_events_come_again(void **state)
{
    static const struct {
        uint32_t vectoring, code, again;
    } all[] = {
        {VALID | 0x41, 0, VALID | 0x41},
        {VALID | TYPE(3) | CODE | 14, 6, VALID | TYPE(3) | CODE | 14},
        {VALID | TYPE(4) | 0x80, 0, VALID | TYPE(4) | 0x80},
        {VALID | TYPE(6) | 3, 0, VALID | TYPE(6) | 3},
        {VALID | TYPE(5) | 1, 0, VALID | TYPE(5) | 1},
        {VALID | 0x1000 | TYPE(3) | 6, 0, VALID | TYPE(3) | 6}, /* bit 12 is undefined */
        {TYPE(3) | 6, 0, 0},
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(all); i++) {
        in_mode(model_long_mode(0x1000));
        set_field(VMCS_GUEST_RFLAGS, 2 | RFLAGS_IF);
        vmx_exit_by((struct model_exit){.reason = EXIT_EPT_VIOLATION,
                                        .qualification = 0x181,
                                        .length = 3,
                                        .vectoring = all[i].vectoring,
                                        .vectoring_code = all[i].code});
        assert_int_equal(g.exit.kind, VM_EXIT_MEMORY);
        assert_int_equal(next_event(), all[i].again);
        assert_int_equal(model_vmx.code, all[i].code);
        if ((all[i].again >> 8 & 7) >= 4)
            assert_int_equal(model_vmx.event_length, 3);
    }
    assert_int_equal(vmx_guest()->reinjected, 6);
    /* Nothing is left of a delivery that a triple fault has ended. */
    vmx_exit_by((struct model_exit){.reason = EXIT_TRIPLE_FAULT, .vectoring = VALID | TYPE(3) | 8});
    assert_int_equal(g.exit.kind, VM_EXIT_SHUTDOWN);
    assert_int_equal(field(VMCS_ENTRY_INTERRUPTION) & VALID, 0);
}

/* Of one that was delivered the field keeps all but the valid bit, and no guest has it to come. */
static void a_delivered_event_is_not_kept(void **state)
{
    static struct vcpu_rest rest;

    (void)state;
    in_mode(model_long_mode(0x1000));
    set_field(VMCS_GUEST_RFLAGS, 2 | RFLAGS_IF);
    set_field(VMCS_ENTRY_INTERRUPTION, VALID | 0x63);
    vmx_exit_by((struct model_exit){.reason = EXIT_PREEMPTION_TIMER});
    assert_int_equal(field(VMCS_ENTRY_INTERRUPTION), 0x63);
    assert_int_equal(g.backend->get_rest(g.vcpu, &rest), E_OK);
    assert_int_equal(rest.event, 0);
    assert_int_equal(g.backend->set_rest(g.vcpu, &rest), E_OK);
}

static void block_nmis(void)
{
    set_field(VMCS_GUEST_INTERRUPTIBILITY, BLOCKING_BY_NMI);
}

static void unblock_nmis(void)
{
    set_field(VMCS_GUEST_INTERRUPTIBILITY, 0);
}

/* 28.2.3, 27.3.1.5: an NMI that was being delivered; an IRET that faulted. */
static void nmis_and_iret(void **state)
{
    static const struct {
        struct model_exit exit;
        bool blocked;
    } irets[] = {
        {{.reason = EXIT_EPT_VIOLATION, .qualification = 0x1181}, true},
        {{.reason = EXIT_EPT_VIOLATION, .qualification = 0x181}, false},
        {{.reason = EXIT_LOG_FULL, .qualification = 0x1000}, true},
        {{.reason = EXIT_LOG_FULL}, false},
        {{.reason = 0, .interruption = VALID | 0x1000 | TYPE(3) | 18}, true},
        {{.reason = 0, .interruption = VALID | TYPE(3) | 18}, false},
        {{.reason = 0, .interruption = 0x1000 | TYPE(3) | 18}, false},
        {{.reason = 0, .interruption = VALID | 0x1000 | TYPE(3) | CODE | 17}, false},
        {{.reason = 0, .interruption = VALID | 0x1000 | TYPE(3) | CODE | 8}, false},
        {{.reason = EXIT_IO, .qualification = 0x1000, .interruption = VALID | 0x1000}, false},
    };

    (void)state;
    vmx_exit_by((struct model_exit){.reason = EXIT_EPT_VIOLATION,
                                    .qualification = 0x181,
                                    .vectoring = VALID | TYPE(2) | 2,
                                    .guest = block_nmis});
    assert_int_equal(field(VMCS_GUEST_INTERRUPTIBILITY), 0);
    assert_int_equal(next_event(), VALID | TYPE(2) | 2);
    for (unsigned i = 0; i < ARRAY_SIZE(irets); i++) {
        in_mode(model_long_mode(0x1000));
        struct model_exit exit = irets[i].exit;
        exit.guest = unblock_nmis;
        vmx_exit_by(exit);
        assert_int_equal(field(VMCS_GUEST_INTERRUPTIBILITY),
                         irets[i].blocked ? BLOCKING_BY_NMI : 0);
    }
}

/* A fork's vCPU is the first one's, but for its tag. */
static void a_copy_is_the_same(void **state)
{
    struct vcpu *first = g.vcpu, *second;
    struct vcpu_state s = model_long_mode(0x1000), was;

    (void)state;
    assert_int_equal(model_guest_add(&second), E_OK);
    uint16_t tag = vmx_vcpu_of(second)->vpid;
    for (unsigned i = 0; i < GPR_COUNT; i++)
        s.gpr[i] = 0x1111 * i;
    s.cr2 = 0x123;
    s.cr4 |= CR4_DE;
    s.rflags = 2 | RFLAGS_IF;
    in_mode(s);
    g.vcpu->cr8 = 7;
    set_field(VMCS_GUEST_PAT, 0x0606060606060606);
    set_field(VMCS_GUEST_INTERRUPTIBILITY, BLOCKING_BY_NMI);
    g.backend->want_window(first, true);
    assert_int_equal(inject(VM_EVENT_EXCEPTION, 13, true, 0x18), E_OK);
    was = model_state();
    assert_int_equal(g.backend->vcpu_copy(second, first), E_OK);
    g.vcpu = second;
    struct vcpu_state is = model_state();
    assert_memory_equal(&is, &was, sizeof(is));
    assert_int_equal(second->cr8, 7);
    assert_int_equal(field(VMCS_VPID), tag);
    assert_int_not_equal(tag, vmx_vcpu_of(first)->vpid);
    assert_int_equal(field(VMCS_GUEST_INTERRUPTIBILITY), BLOCKING_BY_NMI);
    assert_int_equal(field(VMCS_PROC_CONTROLS) & PROC_INTERRUPT_WINDOW_EXITING,
                     PROC_INTERRUPT_WINDOW_EXITING);
    g.backend->want_window(second, false); /* it knows that it has one */
    assert_int_equal(field(VMCS_PROC_CONTROLS) & PROC_INTERRUPT_WINDOW_EXITING, 0);
    assert_int_equal(next_event(), VALID | TYPE(3) | CODE | 13);
    assert_int_equal(model_vmx.code, 0x18);
    g.backend->vcpu_destroy(second);
    g.vcpu = first;
}

/* ---- After an instruction ------------------------------------------------------------------- */

static void in_the_shadow_of_sti(void)
{
    set_field(VMCS_GUEST_RFLAGS, 2 | RFLAGS_IF | RFLAGS_RF);
    set_field(VMCS_GUEST_INTERRUPTIBILITY, BLOCKING_BY_STI);
}

static void in_the_shadow_of_mov_ss(void)
{
    set_field(VMCS_GUEST_RFLAGS, 2 | RFLAGS_TF);
    set_field(VMCS_GUEST_INTERRUPTIBILITY, BLOCKING_BY_MOV_SS);
    set_field(VMCS_GUEST_PENDING_DEBUG, DEBUG_BS);
}

static void instructions_end(void **state)
{
    (void)state;
    vmx_exit_by(
        (struct model_exit){.reason = EXIT_CPUID, .length = 2, .guest = in_the_shadow_of_sti});
    assert_false(g.backend->skip(g.vcpu, &g.exit));
    assert_int_equal(field(VMCS_GUEST_RIP), 0x1002);
    assert_int_equal(field(VMCS_GUEST_INTERRUPTIBILITY), 0);
    assert_int_equal(field(VMCS_GUEST_RFLAGS), 2 | RFLAGS_IF);
    assert_int_equal(next_event(), 0);

    /* One that is run again keeps its shadow, and has RF. */
    vmx_exit_by(
        (struct model_exit){.reason = EXIT_CPUID, .length = 2, .guest = in_the_shadow_of_sti});
    set_field(VMCS_GUEST_RFLAGS, 2 | RFLAGS_IF);
    g.backend->retry(g.vcpu);
    assert_int_equal(field(VMCS_GUEST_INTERRUPTIBILITY), BLOCKING_BY_STI);
    assert_int_equal(field(VMCS_GUEST_RFLAGS), 2 | RFLAGS_IF | RFLAGS_RF);

    /* Between iterations the shadow ends, and RF is set. */
    set_field(VMCS_GUEST_RFLAGS, 2 | RFLAGS_IF);
    assert_false(g.backend->iterated(g.vcpu));
    assert_int_equal(field(VMCS_GUEST_INTERRUPTIBILITY), 0);
    assert_int_equal(field(VMCS_GUEST_RFLAGS), 2 | RFLAGS_IF | RFLAGS_RF);

    /* 32-bit code ends at 4 GiB. */
    in_mode(model_flat_mode(0xffffffff));
    vmx_exit_by((struct model_exit){.reason = EXIT_CPUID, .length = 2});
    (void)g.backend->skip(g.vcpu, &g.exit);
    assert_int_equal(field(VMCS_GUEST_RIP), 1);
}

static void single_steps(void **state)
{
    (void)state;
    set_field(VMCS_GUEST_RFLAGS, 2 | RFLAGS_TF);
    vmx_exit_by((struct model_exit){.reason = EXIT_CPUID, .length = 2});
    assert_true(g.backend->skip(g.vcpu, &g.exit));
    assert_int_equal(next_event(), 0);
    assert_int_equal(model_vmx.pending_debug, DEBUG_BS);

    /* What is pending of an instruction that has not taken place is dropped, ... */
    set_field(VMCS_GUEST_PENDING_DEBUG, 0);
    vmx_exit_by(
        (struct model_exit){.reason = EXIT_CPUID, .length = 2, .guest = in_the_shadow_of_mov_ss});
    assert_int_equal(field(VMCS_GUEST_PENDING_DEBUG), DEBUG_BS); /* but for that shadow */
    g.backend->retry(g.vcpu);
    assert_int_equal(next_event(), 0);
    assert_int_equal(model_vmx.pending_debug, DEBUG_BS);
    in_mode(model_long_mode(0x1000));
    set_field(VMCS_GUEST_PENDING_DEBUG, DEBUG_BS);
    vmx_drop_traps(vmx_guest());
    assert_int_equal(field(VMCS_GUEST_PENDING_DEBUG), 0);
}

/* Breakpoints that the hypervisor meets in the guest's place. */
static void breakpoints(void **state)
{
    (void)state;
    model_cpu.dr[1] = 0x71;
    set_field(VMCS_GUEST_DR7, 0x400 | 4 | 2u << 20); /* L1: I/O, one byte */
    g.backend->note_port(g.vcpu, 0x70, 2);
    assert_int_equal(vmx_guest()->traps, 0); /* CR4.DE is 0 */
    set_field(VMCS_GUEST_CR4, field(VMCS_GUEST_CR4) | CR4_DE);
    g.backend->note_port(g.vcpu, 0x72, 2);
    assert_int_equal(vmx_guest()->traps, 0);
    g.backend->note_port(g.vcpu, 0x70, 2);
    assert_int_equal(vmx_guest()->traps, 2);
    g.exit.length = 1;
    assert_true(g.backend->skip(g.vcpu, &g.exit));
    assert_int_equal(field(VMCS_GUEST_PENDING_DEBUG), 2 | BIT(12));
    assert_int_equal(vmx_guest()->traps, 0);
    set_field(VMCS_GUEST_DR7, 0x400 | 1u << 20);
    g.backend->note_port(g.vcpu, 0x71, 1);
    assert_int_equal(vmx_guest()->traps, 0);         /* not enabled */
    set_field(VMCS_GUEST_DR7, 0x400 | 4 | 1u << 20); /* L1: writes */
    vmx_note_memory(vmx_guest(), 0x71, 1, false);
    assert_int_equal(vmx_guest()->traps, 0);
    vmx_note_memory(vmx_guest(), 0x6f, 4, true);
    assert_int_equal(vmx_guest()->traps, 2);
    g.backend->retry(g.vcpu); /* it has not taken place */
    assert_int_equal(vmx_guest()->traps, 0);
}

/* ---- What exits come to --------------------------------------------------------------------- */

static void kinds_of_exits(void **state)
{
    static const struct {
        uint32_t reason;
        enum vm_exit_kind kind;
    } all[] = {
        {EXIT_PREEMPTION_TIMER, VM_EXIT_SLICE},
        {EXIT_CPUID, VM_EXIT_CPUID},
        {EXIT_HLT, VM_EXIT_HALT},
        {EXIT_VMCALL, VM_EXIT_HYPERCALL},
        {EXIT_TRIPLE_FAULT, VM_EXIT_SHUTDOWN},
        {EXIT_INTERRUPT_WINDOW, VM_EXIT_WINDOW},
        {EXIT_INIT, VM_EXIT_UNKNOWN},
        {EXIT_INVLPG, VM_EXIT_UNKNOWN},
        {EXIT_RDTSC, VM_EXIT_UNKNOWN},
        {EXIT_PAUSE, VM_EXIT_UNKNOWN},
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(all); i++) {
        vmx_exit_by((struct model_exit){.reason = all[i].reason, .length = 2, .qualification = 77});
        assert_int_equal(g.exit.kind, all[i].kind);
        assert_int_equal(g.exit.raw, all[i].reason);
        assert_int_equal(g.exit.qualification, 77);
        assert_int_equal(g.exit.rip, 0x1000);
        assert_int_equal(g.exit.length, 2);
        assert_int_equal(vmx_guest()->reasons[all[i].reason] != 0, true);
        assert_int_equal(field(VMCS_GUEST_RIP), 0x1000);
    }
}

static void instructions_that_are_not_offered(void **state)
{
    static const uint32_t undefined[] = {EXIT_GETSEC,  EXIT_VMCLEAR, EXIT_VMLAUNCH, EXIT_VMPTRLD,
                                         EXIT_VMPTRST, EXIT_VMREAD,  EXIT_VMRESUME, EXIT_VMWRITE,
                                         EXIT_VMXOFF,  EXIT_VMXON,   EXIT_INVEPT,   EXIT_INVVPID,
                                         EXIT_VMFUNC,  EXIT_MWAIT,   EXIT_MONITOR,  EXIT_ENCLS};

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(undefined); i++) {
        again_at_1000();
        vmx_exit_by((struct model_exit){.reason = undefined[i], .length = 3});
        assert_raises(6, false, 0);
    }
    again_at_1000();
    vmx_exit_by((struct model_exit){.reason = EXIT_RDPMC, .length = 2});
    assert_raises(13, true, 0);
    again_at_1000();
    vmx_exit_by((struct model_exit){.reason = EXIT_WBINVD, .length = 2});
    assert_done(2);
    again_at_1000();
    vmx_exit_by((struct model_exit){.reason = EXIT_INVD, .length = 2});
    assert_done(2);
}

static void memory_exits(void **state)
{
    (void)state;
    vmx_exit_by((struct model_exit){.reason = EXIT_EPT_VIOLATION,
                                    .qualification = 0x1aa, /* W; R and X given; GVA; final */
                                    .length = 5,
                                    .guest_physical = 0xabcdef123,
                                    .guest_linear = 0x123456789});
    assert_int_equal(g.exit.kind, VM_EXIT_MEMORY);
    assert_int_equal(g.exit.length, 0); /* whatever it was, it is not skipped */
    assert_int_equal(g.exit.memory.gpa.v, 0xabcdef123);
    assert_true(g.exit.memory.gva_valid && !g.exit.memory.walk);
    assert_int_equal(g.exit.memory.gva.v, 0x123456789);
    assert_int_equal(g.exit.memory.access, RIGHT_W);
    assert_int_equal(g.exit.memory.allowed, RIGHT_R | RIGHT_X);
    vmx_exit_by((struct model_exit){.reason = EXIT_EPT_VIOLATION, .qualification = 0x84});
    assert_true(g.exit.memory.walk && g.exit.memory.gva_valid);
    assert_int_equal(g.exit.memory.access, RIGHT_X);
    assert_int_equal(g.exit.memory.allowed, 0);
    vmx_exit_by((struct model_exit){.reason = EXIT_EPT_VIOLATION, .qualification = 1});
    assert_false(g.exit.memory.gva_valid);
    vmx_exit_by((struct model_exit){.reason = EXIT_EPT_MISCONFIGURATION, .guest_physical = 0x5000});
    assert_int_equal(g.exit.kind, VM_EXIT_MISCONFIG);
    assert_int_equal(g.exit.memory.gpa.v, 0x5000);
}

static struct {
    unsigned calls, left; /* so many of them are dealt with */
    gpa_t at;
    unsigned access;
    uint64_t timer;
} touch;

/* The guest is entered again, and exits by CPUID when nothing is left to be dealt with. */
static bool deal_with(struct vcpu *vcpu, gpa_t at, unsigned access)
{
    assert_ptr_equal(vcpu, g.vcpu);
    touch.calls++;
    touch.at = at;
    touch.access = access;
    touch.timer = model_vmx.timer;
    if (touch.left == 0)
        return false;
    if (--touch.left == 0)
        model_vmx.next = (struct model_exit){.reason = EXIT_CPUID, .length = 2};
    else
        model_vmx.next.vectoring = 0;
    return true;
}

static void touched(unsigned left, struct model_exit exit)
{
    memset(&touch, 0, sizeof(touch));
    touch.left = left;
    in_mode(model_long_mode(0x1000));
    set_field(VMCS_GUEST_RFLAGS, 2 | RFLAGS_IF);
    model_vmx.entries = 0;
    g.vcpu->entries = 0;
    vmx_guest()->reinjected = 0;
    memset(vmx_guest()->reasons, 0, sizeof(vmx_guest()->reasons));
    g.vcpu->touch = deal_with;
    vmx_exit_by(exit);
    g.vcpu->touch = NULL;
}

/* A fault that is dealt with before the lock is taken: the guest goes on at once, with the event
 * whose delivery it had interrupted, and with what is left of its slice. */
static void a_touch_is_no_exit(void **state)
{
    const struct model_exit write = {.reason = EXIT_EPT_VIOLATION,
                                     .qualification = 0x182,
                                     .guest_physical = 0x5008,
                                     .vectoring = VALID | TYPE(3) | CODE | 14,
                                     .vectoring_code = 6};
    struct model_exit unblocked = {.reason = EXIT_EPT_VIOLATION, .qualification = 0x1181};

    (void)state;
    touched(1, write);
    assert_int_equal(g.exit.kind, VM_EXIT_CPUID);
    assert_int_equal(touch.at.v, 0x5008);
    assert_int_equal(touch.access, RIGHT_W);
    assert_int_equal(model_vmx.event, VALID | TYPE(3) | CODE | 14);
    assert_int_equal(model_vmx.code, 6);
    assert_true(model_vmx.timer < touch.timer);
    assert_int_equal(model_vmx.entries, 2);
    assert_int_equal(g.vcpu->entries, 2);
    assert_int_equal(vmx_guest()->reasons[EXIT_EPT_VIOLATION], 1);
    assert_int_equal(vmx_guest()->reinjected, 1);

    touched(3, write);
    assert_int_equal(g.exit.kind, VM_EXIT_CPUID);
    assert_int_equal(model_vmx.entries, 4);
    assert_int_equal(model_vmx.event, 0);

    unblocked.guest = unblock_nmis;
    touched(1, unblocked);
    assert_int_equal(field(VMCS_GUEST_INTERRUPTIBILITY), BLOCKING_BY_NMI);
}

static void spend_the_slice(void)
{
    model_cpu.tsc += 2000000;
}

/* What is not dealt with is an exit like others, and so is what comes when the slice is over. */
static void a_touch_that_is_an_exit(void **state)
{
    const struct model_exit read = {
        .reason = EXIT_EPT_VIOLATION, .qualification = 0x181, .vectoring = VALID | 0x41};
    struct model_exit late = read;

    (void)state;
    touched(0, read);
    assert_int_equal(touch.calls, 1);
    assert_int_equal(g.exit.kind, VM_EXIT_MEMORY);
    assert_int_equal(model_vmx.entries, 1);
    assert_int_equal(vmx_guest()->reinjected, 1);
    assert_int_equal(next_event(), VALID | 0x41);
    late.guest = spend_the_slice;
    touched(1, late);
    assert_int_equal(touch.calls, 0);
    assert_int_equal(g.exit.kind, VM_EXIT_MEMORY);
    touched(1, (struct model_exit){.reason = EXIT_EPT_MISCONFIGURATION});
    assert_int_equal(touch.calls, 0);
    /* A write to what can be read is no first touch. */
    touched(1, (struct model_exit){.reason = EXIT_EPT_VIOLATION, .qualification = 0x18a});
    assert_int_equal(touch.calls, 0);
    assert_int_equal(g.exit.kind, VM_EXIT_MEMORY);
}

static void port_exits(void **state)
{
    (void)state;
    /* OUT of two bytes to 0x3f8; INS by REP; OUTS with FS by 32-bit addresses. */
    vmx_exit_by((struct model_exit){.reason = EXIT_IO, .qualification = 0x3f80001, .length = 1});
    assert_int_equal(g.exit.kind, VM_EXIT_PORT);
    assert_int_equal(g.exit.port.port, 0x3f8);
    assert_int_equal(g.exit.port.width, 2);
    assert_false(g.exit.port.in || g.exit.port.string || g.exit.port.rep);
    vmx_exit_by((struct model_exit){.reason = EXIT_IO,
                                    .qualification = 0x60003b,
                                    .length = 2,
                                    .instruction = 2u << 7 | 4u << 15});
    assert_true(g.exit.port.in && g.exit.port.string && g.exit.port.rep);
    assert_int_equal(g.exit.port.width, 4);
    assert_int_equal(g.exit.port.address_bytes, 8);
    assert_int_equal(g.exit.port.segment, SEG_ES);
    vmx_exit_by((struct model_exit){
        .reason = EXIT_IO, .qualification = 0x600010, .instruction = 1u << 7 | 4u << 15});
    assert_int_equal(g.exit.port.address_bytes, 4);
    assert_int_equal(g.exit.port.segment, SEG_FS);
    /* A CPU that does not tell: as the code segment has it. */
    vmx_caps.basic.ins_outs_info = false;
    vmx_exit_by(
        (struct model_exit){.reason = EXIT_IO, .qualification = 0x600010, .instruction = 4u << 15});
    assert_int_equal(g.exit.port.address_bytes, 8);
    assert_int_equal(g.exit.port.segment, SEG_DS);
    in_mode(model_flat_mode(0x1000));
    vmx_exit_by((struct model_exit){.reason = EXIT_IO, .qualification = 0x600010});
    assert_int_equal(g.exit.port.address_bytes, 4);
    set_field(VMCS_GUEST_CS_ACCESS, 0x809b);
    vmx_exit_by((struct model_exit){.reason = EXIT_IO, .qualification = 0x600010});
    assert_int_equal(g.exit.port.address_bytes, 2);
}

static void exceptions_that_exit(void **state)
{
    (void)state;
    /* #DB: DR6 and DR7.GD as its delivery has them. */
    model_cpu.dr6 = 0xffff0ff5;
    set_field(VMCS_GUEST_DR7, 0x2400);
    vmx_exit_by((struct model_exit){
        .qualification = 0x6002, .interruption = VALID | TYPE(3) | 1, .length = 1});
    assert_int_equal(g.exit.kind, VM_EXIT_HANDLED);
    assert_int_equal(model_cpu.dr6, 0xffff6ff2);
    assert_int_equal(field(VMCS_GUEST_DR7), 0x400);
    assert_int_equal(field(VMCS_GUEST_RFLAGS) & RFLAGS_RF, 0);
    assert_int_equal(next_event(), VALID | TYPE(3) | 1);
    /* INT1 changes neither. */
    model_cpu.dr6 = 0xffff0ff0;
    vmx_exit_by((struct model_exit){.interruption = VALID | TYPE(5) | 1, .length = 1});
    assert_int_equal(model_cpu.dr6, 0xffff0ff0);
    assert_int_equal(next_event(), VALID | TYPE(5) | 1);
    assert_int_equal(model_vmx.event_length, 1);

    vmx_exit_by((struct model_exit){.interruption = VALID | TYPE(3) | CODE | 17});
    assert_raises(17, true, 0);
    vmx_exit_by((struct model_exit){.interruption = VALID | TYPE(3) | CODE | 14,
                                    .interruption_code = 6,
                                    .qualification = 0x9000});
    assert_int_equal(g.exit.kind, VM_EXIT_EXCEPTION);
    assert_int_equal(g.exit.exception.vector, 14);
    assert_int_equal(g.exit.exception.code, 6);
    assert_true(g.exit.exception.has_code);
    assert_int_equal(g.exit.exception.address, 0x9000);
}

static void interrupts_of_the_host(void **state)
{
    const struct {
        uint32_t info;
        enum vm_exit_kind kind;
        unsigned ended;
    } all[] = {
        {VALID | 0x40, VM_EXIT_INTERRUPT, 1},
        {VALID | VECTOR_TIMER, VM_EXIT_SLICE, 1},
        {VALID | VECTOR_SPURIOUS, VM_EXIT_INTERRUPT, 0},
        {0x40, VM_EXIT_INTERRUPT, 0},
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(all); i++) {
        model_cpu.ended = 0;
        vmx_exit_by(
            (struct model_exit){.reason = EXIT_EXTERNAL_INTERRUPT, .interruption = all[i].info});
        assert_int_equal(g.exit.kind, all[i].kind);
        assert_int_equal(model_cpu.ended, all[i].ended);
    }
    vmx_cpu()->lapic = false;
    model_cpu.ended = 0;
    vmx_exit_by(
        (struct model_exit){.reason = EXIT_EXTERNAL_INTERRUPT, .interruption = VALID | 0x40});
    assert_int_equal(model_cpu.ended, 0);
    assert_int_equal(vmx_cpu()->external_interrupts, 5);
    vmx_exit_by((struct model_exit){.interruption = VALID | TYPE(2) | 2});
    assert_int_equal(g.exit.kind, VM_EXIT_INTERRUPT);
    assert_int_equal(model_cpu.nmi_unblocked, 1);
    assert_int_equal(vmx_cpu()->nmis, 1);
    assert_int_equal(next_event(), 0);
}

static void msr_exits(void **state)
{
    uint64_t *gpr = g.vcpu->gpr;

    (void)state;
    gpr[RCX] = 0xffffffff0000001b;
    vmx_exit_by((struct model_exit){.reason = EXIT_WRMSR, .length = 2});
    assert_int_equal(g.exit.kind, VM_EXIT_MSR);
    assert_true(g.exit.msr.write);
    assert_int_equal(g.exit.msr.index, 0x1b);
    gpr[RCX] = IA32_PAT;
    gpr[RAX] = 0xdeadbeef00000000 | 0x01040506;
    gpr[RDX] = 0xdeadbeef00000000 | 0x00070605;
    vmx_exit_by((struct model_exit){.reason = EXIT_WRMSR, .length = 2});
    assert_done(2);
    assert_int_equal(field(VMCS_GUEST_PAT), 0x0007060501040506);
    again_at_1000();
    gpr[RAX] = gpr[RDX] = 0xffffffffffffffff;
    vmx_exit_by((struct model_exit){.reason = EXIT_RDMSR, .length = 2});
    assert_done(2);
    assert_int_equal(gpr[RAX], 0x01040506);
    assert_int_equal(gpr[RDX], 0x00070605);
    for (unsigned type = 2; type < 9; type++) {
        again_at_1000();
        gpr[RAX] = 0x06060606;
        gpr[RDX] = type << 24 | 6;
        vmx_exit_by((struct model_exit){.reason = EXIT_WRMSR, .length = 2});
        if (type == 2 || type == 3 || type == 8)
            assert_raises(13, true, 0);
        else
            assert_done(2);
    }
}

/* ---- Control registers ---------------------------------------------------------------------- */

#define MOV_TO(cr, gpr) ((uint64_t)(gpr) << 8 | (cr))
#define MOV_FROM(cr, gpr) (0x10 | (uint64_t)(gpr) << 8 | (cr))

static void cr_exit(uint64_t qualification)
{
    vmx_exit_by(
        (struct model_exit){.reason = EXIT_CR_ACCESS, .qualification = qualification, .length = 3});
}

static struct tlb_way mine(void)
{
    return (struct tlb_way){
        .sort = TLB_COMBINED, .tag = vmx_guest()->vpid, .eptp = ept_eptp(&g.table)};
}

static void cache_two(void)
{
    struct tlb_way way = mine();

    tlb_empty();
    tlb_add(&way, 0x1000, false);
    tlb_add(&way, 0x2000, true);
}

static unsigned cached(void)
{
    struct tlb_way way = mine();

    return tlb_cached(&way);
}

/* What MOV to CR would invalidate is invalidated under the guest's VPID (4.10.4.1). */
static void control_registers_and_the_tlb(void **state)
{
    static const struct {
        uint64_t bit;
        unsigned left;
    } of_cr4[] = {{CR4_PGE, 0},   {CR4_PSE, 0}, {CR4_SMEP, 0}, {CR4_SMAP, 0},
                  {CR4_PCIDE, 0}, {CR4_TSD, 2}, {CR4_DE, 2},   {CR4_MCE, 2}};

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(of_cr4); i++) {
        in_mode(model_long_mode(0x1000));
        cache_two();
        g.vcpu->gpr[RBX] = CR4_PAE | of_cr4[i].bit;
        cr_exit(MOV_TO(4, RBX));
        assert_int_equal(cached(), of_cr4[i].left);
        assert_done(3);
        assert_int_equal(vmx_guest_cr4(), CR4_PAE | of_cr4[i].bit);
    }
    in_mode(model_long_mode(0x1000));
    cache_two();
    g.vcpu->gpr[RBX] = CR0_PG | CR0_PE | CR0_ET | CR0_NE | CR0_WP;
    cr_exit(MOV_TO(0, RBX));
    assert_int_equal(cached(), 0);
    assert_done(3);
    cache_two();
    g.vcpu->gpr[RBX] |= CR0_CD;
    cr_exit(MOV_TO(0, RBX));
    assert_int_equal(cached(), 2);

    in_mode(model_long_mode(0x1000));
    cache_two();
    g.vcpu->gpr[RBX] = 0xf0000;
    cr_exit(MOV_TO(3, RBX));
    assert_int_equal(cached(), 1); /* the global one */
    assert_done(3);
    /* Bit 63 asks for nothing to be dropped, where there are PCIDs; and is no part of CR3. */
    struct vcpu_state s = model_long_mode(0x1000);
    s.cr4 |= CR4_PCIDE;
    in_mode(s);
    cache_two();
    g.vcpu->gpr[RBX] = BIT(63) | 0xf0005;
    cr_exit(MOV_TO(3, RBX));
    assert_int_equal(cached(), 2);
    assert_int_equal(field(VMCS_GUEST_CR3), 0xf0005);
    assert_done(3);
}

static void control_registers_as_the_cpu_judges_them(void **state)
{
    (void)state;
#define REFUSED(cr, value)                                                                         \
    do {                                                                                           \
        in_mode(model_long_mode(0x1000));                                                          \
        g.vcpu->gpr[RSI] = (value);                                                                \
        cr_exit(MOV_TO(cr, RSI));                                                                  \
        assert_raises(13, true, 0);                                                                \
    } while (0)
    REFUSED(0, CR0_PG | CR0_ET);          /* without PE */
    REFUSED(0, CR0_PE | CR0_PG | CR0_NW); /* without CD */
    REFUSED(0, CR0_PE | CR0_PG | BIT(32));
    REFUSED(0, CR0_PE); /* out of 64-bit mode */
    REFUSED(4, 0);      /* PAE in long mode */
    REFUSED(4, CR4_PAE | CR4_VMXE);
    REFUSED(4, CR4_PAE | CR4_LA57);
    REFUSED(3, BIT(40));
    REFUSED(3, CR3_LAM_U57 | 0xf0000);
    REFUSED(3, CR3_LAM_U48 | 0xf0000);
    REFUSED(3, BIT(63)); /* without PCIDs it is reserved */
    REFUSED(8, 16);
    cpu_features.lam = true;
    REFUSED(3, BIT(60));
#undef REFUSED
    in_mode(model_long_mode(0x1000));
    g.vcpu->gpr[RBX] = CR3_LAM_U57 | CR3_LAM_U48 | 0xf0000;
    cr_exit(MOV_TO(3, RBX));
    assert_done(3);
    assert_int_equal(field(VMCS_GUEST_CR3), CR3_LAM_U57 | CR3_LAM_U48 | 0xf0000);
    cpu_features.lam = false;
    in_mode(model_long_mode(0x1000));
    g.vcpu->gpr[R15] = 15;
    cr_exit(MOV_TO(8, R15));
    assert_done(3);
    assert_int_equal(g.vcpu->cr8, 15);
    again_at_1000();
    cr_exit(MOV_FROM(8, R8));
    assert_done(3);
    assert_int_equal(g.vcpu->gpr[R8], 15);
    again_at_1000();
    cr_exit(MOV_FROM(3, RSP)); /* RSP is the VMCS's */
    assert_done(3);
    assert_int_equal(field(VMCS_GUEST_RSP), 0xf0000);
    again_at_1000();
    set_field(VMCS_GUEST_RSP, 0xf1000);
    cr_exit(MOV_TO(3, RSP));
    assert_done(3);
    assert_int_equal(field(VMCS_GUEST_CR3), 0xf1000);
    again_at_1000();
    cr_exit(MOV_FROM(4, RAX));
    assert_raises(6, false, 0);
    again_at_1000();
    cr_exit(MOV_TO(2, RAX));
    assert_raises(6, false, 0);
}

static void clts_and_lmsw(void **state)
{
    struct vcpu_state s = guest_reset_state;

    (void)state;
    s.rip = 0x1000;
    s.cr0 |= CR0_TS | CR0_MP;
    in_mode(s);
    cr_exit(0x20); /* CLTS */
    assert_done(3);
    assert_int_equal(vmx_guest_cr0(), CR0_ET | CR0_MP);
    again_at_1000();
    cr_exit(0x30 | UINT64_C(0xfff9) << 16); /* LMSW: PE and TS, and no bit above 3 */
    assert_done(3);
    assert_int_equal(vmx_guest_cr0(), CR0_ET | CR0_TS | CR0_PE);
    again_at_1000();
    cr_exit(0x30); /* which does not clear PE */
    assert_done(3);
    assert_int_equal(vmx_guest_cr0(), CR0_ET | CR0_PE);
}

/* Into long mode and out of it: LMA, and the control that goes with it. */
static void long_mode_comes_and_goes(void **state)
{
    struct vcpu_state s = model_flat_mode(0x1000);

    (void)state;
    s.cr4 = CR4_PAE;
    s.cr3 = 0xf0000;
    s.efer = EFER_LME;
    in_mode(s);
    g.vcpu->gpr[RAX] = UINT64_C(0xdead000000000000) | CR0_PG | CR0_PE; /* 32 bits count */
    cr_exit(MOV_TO(0, RAX));
    assert_done(3);
    assert_int_equal(model_state().efer, EFER_LME | EFER_LMA);
    assert_int_equal(field(VMCS_ENTRY_CONTROLS) & BIT(9), BIT(9));
    again_at_1000();
    g.vcpu->gpr[RAX] = CR0_PE;
    cr_exit(MOV_TO(0, RAX));
    assert_done(3);
    assert_int_equal(model_state().efer, EFER_LME);
    assert_int_equal(field(VMCS_ENTRY_CONTROLS) & BIT(9), 0);
    /* CS.L is set: not from there; nor with a 16-bit TSS. */
    s.segment[SEG_CS].access = 0xa09b;
    in_mode(s);
    g.vcpu->gpr[RAX] = CR0_PG | CR0_PE;
    cr_exit(MOV_TO(0, RAX));
    assert_raises(13, true, 0);
    s.segment[SEG_CS].access = 0xc09b;
    s.segment[SEG_TR].access = 0x83;
    in_mode(s);
    g.vcpu->gpr[RAX] = CR0_PG | CR0_PE;
    cr_exit(MOV_TO(0, RAX));
    assert_raises(13, true, 0);
}

/* PAE paging: the four PDPTEs are loaded from memory, where they are legal and can be read. */
static void pdptes_are_loaded(void **state)
{
    static const uint64_t bad[] = {BIT(1), BIT(2), BIT(5), BIT(8), BIT(40), BIT(63)};
    uint64_t pdptes[4] = {0x2001, 0x3001, 0x4000, 0x5001};
    struct vcpu_state s = model_flat_mode(0x1000);

    (void)state;
    s.cr4 = CR4_PAE;
    s.cr3 = 0x6020;
    memcpy(g.bytes + 0x6020, pdptes, sizeof(pdptes));
    in_mode(s);
    g.vcpu->gpr[RAX] = CR0_PG | CR0_PE;
    cr_exit(MOV_TO(0, RAX));
    assert_done(3);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(field((enum vmcs_field)(VMCS_GUEST_PDPTE0 + 2 * i)), pdptes[i]);
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        uint64_t worse = 0x5001 | bad[i];
        in_mode(s);
        memcpy(g.bytes + 0x6038, &worse, 8);
        g.vcpu->gpr[RAX] = CR0_PG | CR0_PE;
        cr_exit(MOV_TO(0, RAX));
        assert_raises(13, true, 0);
        worse &= ~UINT64_C(1); /* absent: anything goes */
        memcpy(g.bytes + 0x6038, &worse, 8);
        again_at_1000();
        cr_exit(MOV_TO(0, RAX));
        assert_done(3);
        assert_int_equal(field(VMCS_GUEST_PDPTE3), worse);
    }
    /* By a new CR3, and by CR4's bits. */
    memcpy(g.bytes + 0x7000, pdptes, sizeof(pdptes));
    again_at_1000();
    g.vcpu->gpr[RAX] = 0x7000;
    cr_exit(MOV_TO(3, RAX));
    assert_done(3);
    assert_int_equal(field(VMCS_GUEST_PDPTE3), 0x5001);
    pdptes[3] = 0x9001;
    memcpy(g.bytes + 0x7000, pdptes, sizeof(pdptes));
    again_at_1000();
    g.vcpu->gpr[RAX] = CR4_PAE | CR4_PGE;
    cr_exit(MOV_TO(4, RAX));
    assert_done(3);
    assert_int_equal(field(VMCS_GUEST_PDPTE3), 0x9001);
    /* Where there is no memory it is the exit that the CPU would have made. */
    again_at_1000();
    g.vcpu->gpr[RAX] = GUEST_BYTES;
    cr_exit(MOV_TO(3, RAX));
    assert_int_equal(g.exit.kind, VM_EXIT_MEMORY);
    assert_int_equal(g.exit.memory.gpa.v, GUEST_BYTES);
    assert_true(g.exit.memory.walk && !g.exit.memory.gva_valid);
    assert_int_equal(g.exit.memory.access, RIGHT_R);
    assert_int_equal(field(VMCS_GUEST_RIP), 0x1000);
    assert_int_equal(field(VMCS_GUEST_CR3), 0x7000);
}

static void xsetbv_exits(void **state)
{
    (void)state;
    cpu_features.xcr0 = resident_xcr0 = 7;
    g.vcpu->gpr[RCX] = 0;
    g.vcpu->gpr[RDX] = 0;
    g.vcpu->gpr[RAX] = 7;
    vmx_exit_by((struct model_exit){.reason = EXIT_XSETBV, .length = 3});
    assert_done(3);
    assert_int_equal(model_cpu.xcr0, 7);
    assert_int_equal(model_state().xcr0, 7);
    static const struct {
        uint64_t rcx, rdx, rax;
    } bad[] = {{1, 0, 1}, {0, 0, 0}, {0, 0, 2}, {0, 0, 5}, {0, 1, 7}, {0, 0, 0xf}};
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        again_at_1000();
        g.vcpu->gpr[RCX] = bad[i].rcx;
        g.vcpu->gpr[RDX] = bad[i].rdx;
        g.vcpu->gpr[RAX] = bad[i].rax;
        vmx_exit_by((struct model_exit){.reason = EXIT_XSETBV, .length = 3});
        assert_raises(13, true, 0);
        assert_int_equal(model_cpu.xcr0, 7);
    }
}

/* ---- Entries that are refused --------------------------------------------------------------- */

/* ---- The hypervisor's breakpoint ------------------------------------------------------------ */

static struct {
    uint64_t dr7, dr[4], controls;
} inside;

static void look_inside(void)
{
    inside.dr7 = field(VMCS_GUEST_DR7);
    inside.controls = field(VMCS_PROC_CONTROLS);
    memcpy(inside.dr, model_cpu.dr, sizeof(inside.dr));
}

static void debug_exit(uint64_t qualification)
{
    vmx_exit_by((struct model_exit){
        .qualification = qualification, .interruption = VALID | TYPE(3) | 1, .guest = look_inside});
}

/* It is there while guest code runs, in a register that the guest has not enabled. */
static void until_is_met(void **state)
{
    const uint64_t own[4] = {0x11, 0x22, 0x33, 0x44};

    (void)state;
    memcpy(model_cpu.dr, own, sizeof(own));
    model_cpu.dr6 = 0xffff0ff0;
    set_field(VMCS_GUEST_DR7, 0x400 | 0x80 | BIT(20));
    debug_exit(1); /* before any has been asked for: the guest's own */
    assert_int_equal(g.exit.kind, VM_EXIT_HANDLED);
    assert_int_equal(inside.controls & PROC_MOV_DR_EXITING, 0);
    assert_int_equal(next_event(), VALID | TYPE(3) | 1);
    model_cpu.dr6 = 0xffff0ff0;
    g.vcpu->until = (struct vm_until){true, 0xffffffff81000123};
    debug_exit(4);
    assert_int_equal(g.exit.kind, VM_EXIT_UNTIL);
    assert_int_equal(inside.dr[2], 0xffffffff81000123);
    assert_int_equal(inside.dr7, 0x400 | 0x80 | BIT(20) | 0x20);
    assert_true(inside.controls & PROC_MOV_DR_EXITING);
    assert_memory_equal(model_cpu.dr, own, sizeof(own));
    assert_int_equal(field(VMCS_GUEST_DR7), 0x400 | 0x80 | BIT(20));
    assert_int_equal(model_cpu.dr6, 0xffff0ff0);
    assert_int_equal(field(VMCS_ENTRY_INTERRUPTION) & VALID, 0);
    /* The guest's own is the guest's, and so is INT1. */
    debug_exit(8);
    assert_int_equal(g.exit.kind, VM_EXIT_HANDLED);
    assert_int_equal(model_cpu.dr6, 0xffff0ff8);
    assert_int_equal(next_event(), VALID | TYPE(3) | 1);
    vmx_exit_by(
        (struct model_exit){.qualification = 4, .interruption = VALID | TYPE(5) | 1, .length = 1});
    assert_int_equal(g.exit.kind, VM_EXIT_HANDLED);
    assert_int_equal(next_event(), VALID | TYPE(5) | 1);
    /* The window and this come and go without each other. */
    g.backend->want_window(g.vcpu, true);
    debug_exit(4);
    assert_int_equal(inside.controls & (PROC_MOV_DR_EXITING | PROC_INTERRUPT_WINDOW_EXITING),
                     PROC_MOV_DR_EXITING | PROC_INTERRUPT_WINDOW_EXITING);
    g.vcpu->until.on = false;
    debug_exit(4);
    assert_int_equal(g.exit.kind, VM_EXIT_HANDLED);
    assert_int_equal(inside.dr7, 0x400 | 0x80 | BIT(20));
    assert_int_equal(inside.controls & (PROC_MOV_DR_EXITING | PROC_INTERRUPT_WINDOW_EXITING),
                     PROC_INTERRUPT_WINDOW_EXITING);
    /* Nothing is left of it in one that goes back to before it. */
    struct vcpu *before;
    assert_int_equal(model_guest_add(&before), E_OK);
    assert_int_equal(g.backend->vcpu_copy(before, g.vcpu), E_OK);
    g.vcpu->until.on = true;
    debug_exit(4);
    assert_int_equal(g.exit.kind, VM_EXIT_UNTIL);
    g.vcpu->until.on = false;
    assert_int_equal(g.backend->vcpu_copy(g.vcpu, before), E_OK);
    debug_exit(4);
    assert_int_equal(g.exit.kind, VM_EXIT_HANDLED);
    g.backend->vcpu_destroy(before);
}

static void until_needs_a_register(void **state)
{
    (void)state;
    set_field(VMCS_GUEST_DR7, 0x455);
    g.vcpu->until = (struct vm_until){true, 0x2000};
    unsigned before = model_vmx.entries;
    model_run();
    assert_int_equal(g.exit.kind, VM_EXIT_NO_BREAKPOINT);
    assert_int_equal(g.exit.rip, 0x1000);
    assert_int_equal(model_vmx.entries, before);
    assert_int_equal(field(VMCS_GUEST_DR7), 0x455);
}

static void dr_exit(uint64_t qualification)
{
    again_at_1000();
    vmx_exit_by(
        (struct model_exit){.reason = EXIT_MOV_DR, .qualification = qualification, .length = 3});
}

/* Table 28-4. Privilege and CR4.DE are not judged before the exit (26.1.3). */
static void moves_to_debug_registers(void **state)
{
    (void)state;
    set_field(VMCS_GUEST_DR7, 0x400);
    g.vcpu->until = (struct vm_until){true, 0x2000};
    g.vcpu->gpr[R9] = 0x123456789a;
    dr_exit(R9 << 8 | 3);
    assert_done(3);
    assert_int_equal(model_cpu.dr[3], 0x123456789a);
    dr_exit(RSP << 8 | 0x10 | 3);
    assert_done(3);
    assert_int_equal(field(VMCS_GUEST_RSP), 0x123456789a);
    g.vcpu->gpr[RBX] = 0xc0;
    dr_exit(RBX << 8 | 7);
    assert_done(3);
    assert_int_equal(field(VMCS_GUEST_DR7), 0x4c0);
    g.vcpu->gpr[RBX] = 5;
    dr_exit(RBX << 8 | 6);
    assert_int_equal(model_cpu.dr6, 0xffff0ff5);
    dr_exit(RBX << 8 | 0x10 | 7);
    assert_int_equal(g.vcpu->gpr[RBX], 0x4c0);
    g.vcpu->gpr[RBX] = BIT(32);
    dr_exit(RBX << 8 | 7);
    assert_raises(13, true, 0);
    set_field(VMCS_GUEST_CR4, field(VMCS_GUEST_CR4) | CR4_DE);
    dr_exit(RBX << 8 | 0x10 | 5);
    assert_raises(6, false, 0);
    set_field(VMCS_GUEST_DR7, 0x2400);
    set_field(VMCS_GUEST_RFLAGS, field(VMCS_GUEST_RFLAGS) & ~RFLAGS_RF);
    dr_exit(RBX << 8 | 0x10 | 7);
    assert_true(field(VMCS_GUEST_RFLAGS) & RFLAGS_RF);
    assert_int_equal(model_cpu.dr6, 0xffff2ff0);
    assert_int_equal(field(VMCS_GUEST_DR7), 0x400);
    assert_int_equal(next_event(), VALID | TYPE(3) | 1);
    set_field(VMCS_GUEST_SS_ACCESS, field(VMCS_GUEST_SS_ACCESS) | 3 << 5);
    set_field(VMCS_GUEST_CS_ACCESS, field(VMCS_GUEST_CS_ACCESS) | 3 << 5);
    dr_exit(RBX << 8 | 0x10 | 7);
    assert_raises(13, true, 0);
}

static void refused_entries_say_why(void **state)
{
    (void)state;
    set_field(VMCS_GUEST_RFLAGS, 0);
    assert_int_equal(g.backend->run(g.vcpu, 1, &g.exit), E_HARDWARE);
    assert_int_equal(g.exit.kind, VM_EXIT_BAD_STATE);
    assert_non_null(strstr(g.exit.name, "RFLAGS has a reserved bit set or bit 1 clear"));
    assert_int_equal(g.vcpu->entries, 0);
    again_at_1000();

    set_field(VMCS_PIN_CONTROLS, 0);
    assert_int_equal(g.backend->run(g.vcpu, 1, &g.exit), E_HARDWARE);
    assert_int_equal(g.exit.bad.error, 7);
    assert_non_null(strstr(g.exit.name, "must not be 0"));
    set_field(VMCS_PIN_CONTROLS, vmx_policy.control[CONTROLS_PIN]);

    set_field(VMCS_HOST_CS_SELECTOR, 3);
    set_field(VMCS_ENTRY_INTERRUPTION, VALID | TYPE(3) | 6);
    assert_int_equal(g.backend->run(g.vcpu, 1, &g.exit), E_HARDWARE);
    assert_int_equal(g.exit.bad.error, 8);
    assert_non_null(strstr(g.exit.name, "with event 0x80000306 to inject"));
    set_field(VMCS_HOST_CS_SELECTOR, 8);
    set_field(VMCS_ENTRY_INTERRUPTION, 0);

    vmx_guest()->launched = true;
    assert_int_equal(g.backend->run(g.vcpu, 1, &g.exit), E_HARDWARE);
    assert_int_equal(g.exit.bad.error, 5);
    vmx_guest()->launched = false;
    vmx_exit_by((struct model_exit){.reason = EXIT_PREEMPTION_TIMER});
    assert_int_equal(g.vcpu->entries, 1);
}

int main(void)
{
#define WITH_GUEST(test) cmocka_unit_test_setup_teardown(test, start, stop)
    const struct CMUnitTest tests[] = {
        WITH_GUEST(interrupts_wait_for_their_window),
        WITH_GUEST(a_delivered_event_is_not_kept),
        WITH_GUEST(nmis_wait_for_iret),
        WITH_GUEST(an_nmi_that_waits_has_a_window),
        WITH_GUEST(a_fault_keeps_nmis_blocked),
        WITH_GUEST(a_copy_is_the_same),
        WITH_GUEST(exceptions_as_the_cpu_has_them),
        WITH_GUEST(a_window_is_asked_for_and_told),
        WITH_GUEST(interrupted_events_come_again),
        WITH_GUEST(nmis_and_iret),
        WITH_GUEST(instructions_end),
        WITH_GUEST(single_steps),
        WITH_GUEST(breakpoints),
        WITH_GUEST(kinds_of_exits),
        WITH_GUEST(instructions_that_are_not_offered),
        WITH_GUEST(memory_exits),
        WITH_GUEST(a_touch_is_no_exit),
        WITH_GUEST(a_touch_that_is_an_exit),
        WITH_GUEST(port_exits),
        WITH_GUEST(exceptions_that_exit),
        WITH_GUEST(interrupts_of_the_host),
        WITH_GUEST(msr_exits),
        WITH_GUEST(control_registers_and_the_tlb),
        WITH_GUEST(control_registers_as_the_cpu_judges_them),
        WITH_GUEST(clts_and_lmsw),
        WITH_GUEST(long_mode_comes_and_goes),
        WITH_GUEST(pdptes_are_loaded),
        WITH_GUEST(xsetbv_exits),
        WITH_GUEST(until_is_met),
        WITH_GUEST(until_needs_a_register),
        WITH_GUEST(moves_to_debug_registers),
        WITH_GUEST(refused_entries_say_why),
    };
    return cmocka_run_group_tests_name("vmx_exits", tests, NULL, NULL);
}
