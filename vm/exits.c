/* See vm/exits.h. */
#include "vm/exits.h"

#include "lib/log.h"
#include "vm/dirty.h"
#include "vm/inject.h"
#include "vm/interrupts.h"
#include "vm/ports.h"
#include "vm/report.h"
#include "x86/control.h"

#define IDT_LEAST (8 * 15 - 1) /* gates of 32-bit code up to that of a page fault */

static void exit_halt(struct guest *guest, const struct vm_exit *exit)
{
    if (guests_backend()->skip(guest->vcpu, exit))
        return; /* the debug trap after it wakes it at once */
    guests_backend()->set_halted(guest->vcpu, true);
    guest_at(guest)->is.halted = true;
    guest_at(guest)->is.deaf = !guests_backend()->interrupts_open(guest->vcpu);
    if (interrupts_can_wake(guest) || guest->state != GUEST_RUNNING)
        return; /* it keeps its turn, and takes it when an interrupt has come */
    guest->state = GUEST_HALTED;
    guest_flush_output(guest);
    log_guest("g%u %s: halted (HLT at 0x%lx; no device of its own can wake it)", guest->number,
              guest->name, exit->rip);
}

static void exit_exception(struct guest *guest, const struct vm_exit *exit)
{
    guest_stop(guest, exit, "exception %u (code 0x%x, address 0x%lx) at RIP 0x%lx",
               exit->exception.vector, exit->exception.has_code ? exit->exception.code : 0,
               exit->exception.address, exit->rip);
}

static void exit_unknown(struct guest *guest, const struct vm_exit *exit)
{
    guest_stop(guest, exit, "exit that nothing handles: %s (0x%lx) at RIP 0x%lx",
               exit->name != NULL ? exit->name : "?", exit->raw, exit->rip);
}

/* What the guest's CPU could not deliver says its table of handlers, and of a page fault CR2. */
static void exit_shutdown(struct guest *guest, const struct vm_exit *exit)
{
    struct vcpu_state state;

    if (guests_backend()->get_state(guest->vcpu, &state) != E_OK)
        guest_stop(guest, exit, "triple fault at RIP 0x%lx", exit->rip);
    else if (state.cr0 & CR0_PE && (state.idt_base == 0 || state.idt_limit < IDT_LEAST))
        guest_stop(guest, exit, "triple fault at RIP 0x%lx: no IDT was loaded, CR2 0x%lx",
                   exit->rip, state.cr2);
    else
        guest_stop(guest, exit, "triple fault at RIP 0x%lx; IDT at 0x%lx, limit 0x%x, CR2 0x%lx",
                   exit->rip, state.idt_base, state.idt_limit, state.cr2);
}

bool exit_dispatch(struct guest *guest, const struct vm_exit *exit)
{
    if ((unsigned)exit->kind < VM_EXIT_COUNT)
        guest->exits[exit->kind]++;
    switch (exit->kind) {
    case VM_EXIT_SLICE: /* or up to a device's next interrupt */
    case VM_EXIT_INTERRUPT:
    case VM_EXIT_WINDOW:
    case VM_EXIT_HANDLED:
        return true;
    case VM_EXIT_LOG_FULL:
        dirty_drain(guest);
        return true;
    case VM_EXIT_MEMORY:
        exit_memory(guest, exit);
        break;
    case VM_EXIT_MISCONFIG:
        exit_misconfig(guest, exit);
        break;
    case VM_EXIT_PORT:
        exit_port(guest, exit);
        break;
    case VM_EXIT_MSR:
        exit_msr(guest, exit);
        break;
    case VM_EXIT_CPUID:
        exit_cpuid(guest, exit);
        break;
    case VM_EXIT_HALT:
        exit_halt(guest, exit);
        break;
    case VM_EXIT_HYPERCALL:
        return exit_hypercall(guest, exit);
    case VM_EXIT_EXCEPTION:
        exit_exception(guest, exit);
        break;
    case VM_EXIT_SHUTDOWN:
        exit_shutdown(guest, exit);
        guest->was_reset = true; /* as the chipset of a PC answers to it */
        break;
    case VM_EXIT_MACHINE_CHECK:
        guest_stop(guest, exit, "the host's hardware failed while it ran, a machine check: %s",
                   exit->name);
        break;
    case VM_EXIT_BAD_STATE:
        guest_stop(guest, exit, "the CPU refused to enter the guest: %s (0x%x)",
                   exit->name != NULL ? exit->name : "?", exit->bad.error);
        break;
    case VM_EXIT_UNTIL:
        guest->round_over = true;
        return false;
    case VM_EXIT_NO_BREAKPOINT:
        guest_hold(guest,
                   "it uses all four debug registers itself at RIP 0x%lx; none is left for `until`",
                   exit->rip);
        break;
    case VM_EXIT_UNKNOWN:
    case VM_EXIT_COUNT:
        exit_unknown(guest, exit);
        break;
    }
    return guest->state == GUEST_RUNNING;
}
