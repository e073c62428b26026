/* What a guest is beside its memory and its CPU, as a snapshot or a fork takes it. */
#include "vm/guest.h"

void life_save(const struct guest *guest, struct guest_life *out)
{
    *out = (struct guest_life){
        .devices = guest->devices,
        .has_bios = guest->has_bios,
        .has_disk = guest->has_disk,
        .clock = guest_now(guest),
    };
    for (unsigned i = 0; i < GUEST_VCPUS; i++)
        out->cpu[i] = guest->cpu[i].is;
}

void life_restore(struct guest *guest, const struct guest_life *in)
{
    guest->devices = in->devices;
    guest->has_bios = in->has_bios;
    guest->has_disk = in->has_disk;
    for (unsigned i = 0; i < GUEST_VCPUS; i++) {
        guest->cpu[i].is = in->cpu[i];
        guest->cpu[i].quiet_until = 0;
        guest->cpu[i].spurious.count = 0;
    }
    guest->clock = (struct guest_clock){.stopped = true, .at = in->clock};
    guest->was_reset = false;
}
