/* See vm/shared.h. */
#include "vm/shared.h"

#include "lib/bits.h"
#include "lib/error.h"
#include "lib/panic.h"
#include "lib/string.h"
#include "mm/frames/buddy.h"
#include "mm/paging/typed.h"
#include "vm/cow.h"
#include "vm/slots.h"

static struct shared_memory all[SHARED_LIMIT];

struct shared_memory *shared_by_index(unsigned index)
{
    return index < SHARED_LIMIT && all[index].users != 0 ? &all[index] : NULL;
}

static struct shared_memory *find(const char *name)
{
    for (unsigned i = 0; i < SHARED_LIMIT; i++)
        if (all[i].users != 0 && strcmp(all[i].name, name) == 0)
            return &all[i];
    return NULL;
}

uint64_t shared_size(const char *name)
{
    const struct shared_memory *memory = find(name);

    return memory != NULL ? memory->size : 0;
}

/* ---- Made and given back --------------------------------------------------------------------- */

/* The largest blocks that its addresses, what is left and the buddy allow. */
static int take_frames(struct shared_memory *memory)
{
    for (uint64_t at = 0; at < memory->size;) {
        unsigned order = highest_bit((memory->size - at) / PAGE_SIZE);
        int error;

        if (at != 0 && lowest_bit(at / PAGE_SIZE) < order)
            order = lowest_bit(at / PAGE_SIZE);
        if (order > BUDDY_MAX_ORDER)
            order = BUDDY_MAX_ORDER;
        do
            error = block_map(&memory->table, gpa(at), order, RIGHT_RW, OWNER_SHARED);
        while ((error == E_NOMEM || error == E_QUOTA) && order-- > 0);
        if (error != E_OK)
            return error;
        at += PAGE_SIZE << order;
    }
    return E_OK;
}

static void give_back(struct shared_memory *memory)
{
    const struct table_kind *kind = memory->table.kind;

    pages_release_all(&memory->table, kind->input_first, kind->input_last);
    invariant(table_destroy(&memory->table) == E_OK);
    memory->users = 0;
}

static int make(struct shared_memory *memory, const char *name, uint64_t size)
{
    const struct vm_backend *backend = guests_backend();
    int error = table_init(&memory->table, backend->kind, backend->table_caps(),
                           backend->table_env(), backend->kind->purpose, OWNER_SHARED);

    if (error != E_OK)
        return error;
    memset(memory->name, 0, sizeof(memory->name));
    memcpy(memory->name, name, strlen(name));
    memory->size = size;
    error = take_frames(memory);
    if (error != E_OK)
        give_back(memory);
    return error;
}

static struct shared_memory *nobodys(void)
{
    for (unsigned i = 0; i < SHARED_LIMIT; i++)
        if (all[i].users == 0)
            return &all[i];
    return NULL;
}

int shared_use(struct slot *slot, const char *name)
{
    struct shared_memory *memory = find(name);
    int error = E_OK;

    if (memory == NULL) {
        memory = nobodys();
        error = memory != NULL ? make(memory, name, slot->size) : E_FULL;
    } else if (memory->size != slot->size) {
        error = E_INVAL;
    }
    if (error != E_OK)
        return error;
    memory->users++;
    slot->shared = memory;
    return E_OK;
}

void shared_hold(const struct slot *slot, unsigned slots)
{
    for (unsigned i = 0; i < slots; i++)
        if (slot[i].shared != NULL)
            slot[i].shared->users++;
}

void shared_drop(struct slot *slot, unsigned slots)
{
    for (unsigned i = 0; i < slots; i++) {
        struct shared_memory *memory = slot[i].shared;

        slot[i].shared = NULL;
        if (memory != NULL && memory->users == 1)
            give_back(memory);
        else if (memory != NULL)
            memory->users--;
    }
}

/* ---- In a guest ------------------------------------------------------------------------------ */

struct mapper {
    struct guest *guest;
    const struct slot *slot;
    int error;
};

/* A holder more of each block that the run has a part of. */
static void share_blocks(const struct mapping *run)
{
    hpa_t head;
    uint64_t record;

    for (uint64_t done = 0; done <= run->last - run->in;) {
        invariant(buddy_block(hpa_add(run->out, done), &head, &record));
        invariant(buddy_share(head, OWNER_SHARED) == E_OK);
        done = head.v + (PAGE_SIZE << frame_record_order(record)) - run->out.v;
    }
}

static int map_run(void *ctx, const struct mapping *run)
{
    struct mapper *mapper = ctx;
    struct guest *guest = mapper->guest;
    unsigned rights = mapper->slot->rights;
    struct flush_batch batch;

    if (guest->dirty.way != DIRTY_OFF)
        rights &= ~(unsigned)RIGHT_W; /* whatever the size of its leaves: it comes when written */
    flush_begin(&batch, &guest->table);
    mapper->error = gpa_map(&guest->table, gpa_add(mapper->slot->base, run->in), run->out,
                            run->last - run->in + 1, attrs_of(rights, MEM_WB), MAP_DEFAULT, &batch);
    flush_commit(&batch);
    if (mapper->error == E_OK)
        share_blocks(run);
    return mapper->error != E_OK;
}

int shared_map(struct guest *guest, const struct slot *slot)
{
    struct mapper mapper = {.guest = guest, .slot = slot};

    table_visit(&slot->shared->table, 0, slot->size - 1, VISIT_RUNS, map_run, &mapper);
    guest_note_frames(guest);
    return mapper.error;
}

void shared_describe(struct shared_memory *memory, char *name, size_t name_size,
                     struct audit_table *out)
{
    format_buffer(name, name_size, "shared %s", memory->name);
    *out = (struct audit_table){
        .table = &memory->table,
        .name = name,
        .shows = BIT(PURPOSE_GUEST_RAM),
        .others = AUDIT_UNKNOWN, /* frames of OWNER_SHARED are shown by guests as well */
    };
}
