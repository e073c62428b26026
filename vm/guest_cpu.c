/* See vm/guest_cpu.h. */
#include "vm/guest_cpu.h"

#include "lib/error.h"
#include "lib/format.h"
#include "vm/guest.h"
#include "vm/sched.h"

int vcpus_create(struct guest *guest, struct table *table, struct vcpu *to[GUEST_VCPUS])
{
    int error = E_OK;

    for (unsigned i = 0; i < GUEST_VCPUS; i++)
        to[i] = NULL;
    for (unsigned i = 0; error == E_OK && i < guest->cpus; i++) {
        error = guests_backend()->vcpu_create(guest, table, guest_owner(guest), &to[i]);
        if (error != E_OK)
            to[i] = NULL;
    }
    if (error != E_OK)
        vcpus_destroy(to);
    return error;
}

static void destroy(struct vcpu **vcpu)
{
    if (*vcpu != NULL)
        guests_backend()->vcpu_destroy(*vcpu);
    *vcpu = NULL;
}

void vcpus_destroy(struct vcpu *of[GUEST_VCPUS])
{
    for (unsigned i = 0; i < GUEST_VCPUS; i++)
        destroy(&of[i]);
}

int guest_cpus_create(struct guest *guest)
{
    struct vcpu *vcpu[GUEST_VCPUS];
    int error = vcpus_create(guest, &guest->table, vcpu);

    for (unsigned i = 0; error == E_OK && i < guest->cpus; i++)
        guest->cpu[i].vcpu = vcpu[i];
    guest_deal_with(guest, 0);
    return error;
}

void guest_cpus_refused(struct guest *guest, int error)
{
    if (error == E_FULL)
        format_buffer(
            guest->reason, sizeof(guest->reason),
            "no virtual CPU: it needs %u tag%s of the TLB, and this CPU has too few left: "
            "end a guest, or give fewer `cpus=`",
            guest->cpus, guest->cpus == 1 ? "" : "s");
    else
        format_buffer(guest->reason, sizeof(guest->reason), "no virtual CPU: %s",
                      error_text(error));
}

void guest_cpus_destroy(struct guest *guest)
{
    for (unsigned i = 0; i < GUEST_VCPUS; i++)
        destroy(&guest->cpu[i].vcpu);
    guest_deal_with(guest, 0);
}

void guest_cpus_count(struct guest *guest, unsigned cpus)
{
    for (unsigned i = 0; i < GUEST_VCPUS; i++) {
        guest->cpu[i].guest = guest;
        guest->cpu[i].index = i;
    }
    while (guest->cpus < cpus) {
        sched_choose_queue(&guest->cpu[guest->cpus]);
        guest->cpus++;
    }
    guest->cpus = cpus;
}

void guest_cpus_reset(struct guest *guest)
{
    for (unsigned i = 0; i < GUEST_VCPUS; i++) {
        struct guest_cpu *cpu = &guest->cpu[i];

        cpu->is = (struct cpu_condition){.waits = i != 0};
        cpu->quiet_until = 0;
        cpu->spurious.count = 0;
        cpu->ticks = 0;
        cpu->share.overran = cpu->share.sat_out = 0; /* what it owes it goes on owing */
    }
}
