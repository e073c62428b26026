/* See vm/guest_audit.h. */
#include "vm/guest_audit.h"

#include "lib/error.h"
#include "lib/format.h"
#include "vm/dirty.h"
#include "vm/disk.h"
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

/* Frames beside those of a table and of what it shows. */
static uint64_t other_frames(struct guest *guest)
{
    return frames_of_cpus(guest) + dirty_frames(guest) + guest_snapshot_frames(guest) +
           disk_frames(guest);
}

static void describe_memory(struct guest *guest, char name[GUEST_AUDIT_NAME],
                            struct audit_table *out)
{
    format_buffer(name, GUEST_AUDIT_NAME, "g%u %s", guest->number, guest->name);
    *out = (struct audit_table){
        .table = &guest->table,
        .name = name,
        .shows = BIT(PURPOSE_GUEST_RAM),
        .others = other_frames(guest),
        .read_root = guest->vcpu != NULL ? read_root : NULL,
        .ctx = guest,
    };
}

/* What others such a table has are the guest's, and judged there. */
static void describe(const struct guest *guest, const char *what, char name[GUEST_AUDIT_NAME],
                     struct table *table, struct audit_table *out)
{
    format_buffer(name, GUEST_AUDIT_NAME, "g%u's %s", guest->number, what);
    *out = (struct audit_table){
        .table = table,
        .name = name,
        .shows = BIT(PURPOSE_GUEST_RAM),
        .others = AUDIT_UNKNOWN,
    };
}

unsigned guest_describe(struct guest *guest, char name[][GUEST_AUDIT_NAME],
                        struct audit_table out[])
{
    struct guest_snapshot *snapshot = guest->snapshot;
    unsigned n = 0;

    if (!guest->has_table)
        return 0;
    describe_memory(guest, name[n], &out[n]);
    n++;
    if (disk_is_written(&guest->disk)) {
        describe(guest, "disk", name[n], &guest->disk.table, &out[n]);
        n++;
    }
    if (snapshot == NULL)
        return n;
    describe(guest, "snapshot", name[n], &snapshot->table, &out[n]);
    n++;
    if (disk_is_written(&snapshot->disk)) {
        describe(guest, "snapshot's disk", name[n], &snapshot->disk.table, &out[n]);
        n++;
    }
    return n;
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
    describe_memory(guest, name, &table);
    audit_one(&table, deadline != UINT64_MAX ? is_over : NULL, &deadline);
}
