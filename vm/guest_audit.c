/* See vm/guest_audit.h. */
#include "vm/guest_audit.h"

#include "lib/error.h"
#include "lib/format.h"
#include "vm/dirty.h"
#include "vm/snapshot.h"

static int read_root(const struct audit_table *table, struct audit_root *out)
{
    const struct guest *guest = table->ctx;
    struct vm_root root;
    int error = guests_backend()->read_root(guest->vcpu, &root);

    if (error == E_OK)
        *out = (struct audit_root){root.frame, root.levels};
    return error;
}

static uint64_t frames_of_cpus(const struct guest *guest)
{
    uint64_t frames = 0;

    for (unsigned i = 0; i < GUEST_VCPUS; i++)
        frames += guest->cpu[i].vcpu != NULL ? guest->cpu[i].vcpu->frames : 0;
    return frames;
}

void guest_describe(struct guest *guest, char name[GUEST_AUDIT_NAME], struct audit_table *out)
{
    format_buffer(name, GUEST_AUDIT_NAME, "g%u %s", guest->number, guest->name);
    *out = (struct audit_table){
        .table = &guest->table,
        .name = name,
        .shows = BIT(PURPOSE_GUEST_RAM),
        .others = frames_of_cpus(guest) + dirty_frames(guest) + guest_snapshot_frames(guest),
        .read_root = guest->vcpu != NULL ? read_root : NULL,
        .ctx = guest,
    };
}

void guest_describe_snapshot(struct guest *guest, char name[GUEST_AUDIT_NAME],
                             struct audit_table *out)
{
    format_buffer(name, GUEST_AUDIT_NAME, "g%u's snapshot", guest->number);
    *out = (struct audit_table){
        .table = &guest->snapshot->table,
        .name = name,
        .shows = BIT(PURPOSE_GUEST_RAM),
        .others = AUDIT_UNKNOWN, /* they are the guest's, and judged there */
    };
}

static bool is_over(void *ctx)
{
    const uint64_t *deadline = ctx;

    return guests_backend()->ticks() >= *deadline;
}

void guest_audit(struct guest *guest, uint64_t deadline)
{
    char name[GUEST_AUDIT_NAME];
    struct audit_table table;

    if (!guest->has_table)
        return;
    guest_describe(guest, name, &table);
    audit_one(&table, deadline != UINT64_MAX ? is_over : NULL, &deadline);
}
