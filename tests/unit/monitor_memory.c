/*
 * What the console asks of vm/dirty.h and its like, for the tests that play the machine themselves:
 * a guest that writes the pages at 0x3000 and 0x4000 between any two questions.
 */
#include <string.h>

#include "lib/error.h"
#include "mm/paging/typed.h"
#include "vm/cow.h"
#include "vm/dirty.h"
#include "vm/fork.h"
#include "vm/fuzz.h"
#include "vm/heat.h"
#include "vm/merge.h"
#include "vm/saved.h"
#include "vm/shared.h"
#include "vm/slot_change.h"
#include "vm/slots.h"
#include "vm/snapshot.h"

#include <stddef.h>

const char *dirty_way_name(enum dirty_way way)
{
    return way == DIRTY_BY_MARKS ? "the table's dirty bits" : "off";
}

int dirty_start(struct guest *guest, enum dirty_asker asker)
{
    struct page_set *set = &guest->dirty.set[asker];

    if (dirty_asked(guest, asker))
        return E_STATE;
    page_set_begin(set, OWNER_HOST);
    int error = page_set_cover(set, 0, MiB);
    if (error != E_OK)
        return error;
    guest->dirty.askers |= 1u << asker;
    guest->dirty.way = DIRTY_BY_MARKS;
    return E_OK;
}

void dirty_stop(struct guest *guest, enum dirty_asker asker)
{
    if (!dirty_asked(guest, asker))
        return;
    guest->dirty.askers &= ~(1u << asker);
    guest->dirty.way = DIRTY_OFF;
    page_set_end(&guest->dirty.set[asker]);
}

void dirty_collect(struct guest *guest)
{
    for (unsigned i = 0; i < DIRTY_ASKERS; i++)
        if (dirty_asked(guest, (enum dirty_asker)i))
            page_set_add(&guest->dirty.set[i], 0x3000, 2 * PAGE_SIZE);
}

/* Nobody shares a frame. */
int page_own(struct guest *guest, gpa_t at)
{
    return gpa_translate(&guest->table, at, &(struct mapping){.in = 0});
}

int page_open(struct guest *guest, gpa_t at, const struct mapping *leaf)
{
    (void)leaf;
    return page_own(guest, at);
}

uint64_t guest_frames_peak(struct guest *guest)
{
    return guest->frames_peak;
}

void dirty_wrote(struct guest *guest, gpa_t at, uint64_t size)
{
    for (unsigned i = 0; i < DIRTY_ASKERS; i++)
        if (dirty_asked(guest, (enum dirty_asker)i))
            page_set_add(&guest->dirty.set[i], at.v, size);
}

uint64_t disk_frames(struct guest *guest)
{
    return guest->disk.table.table_frames;
}

uint64_t guest_snapshot_frames(const struct guest *guest)
{
    (void)guest;
    return 0;
}

/* It reaches one page in one sample, and no other in any. */
int heat_take(struct guest *guest, unsigned samples, uint64_t ticks, int (*poll)(void *ctx),
              void *ctx, struct heat *out)
{
    (void)ticks;
    (void)poll;
    (void)ctx;
    *out = (struct heat){.taken = samples};
    return guest->state != GUEST_RUNNING ? E_STATE : samples == 3 ? E_UNSUPPORTED : E_OK;
}

void heat_end(struct heat *heat)
{
    heat->taken = 0;
}

bool heat_run(const struct heat *heat, uint64_t from, uint64_t *first, uint64_t *last,
              unsigned *times)
{
    (void)heat;
    *first = 0x5000;
    *last = 0x5fff;
    *times = 1;
    return from <= 0x5000;
}

int merge_begin(struct merge *merge)
{
    *merge = (struct merge){.looked = 5, .shared = 3, .freed = 2};
    return E_OK;
}

bool merge_step(struct merge *merge, unsigned pages)
{
    (void)merge;
    return pages > 0;
}

void merge_end(struct merge *merge)
{
    (void)merge;
}

uint64_t merge_frames_shown(void)
{
    return 0;
}

int guest_snapshot(struct guest *guest)
{
    (void)guest;
    return E_QUOTA;
}

int guest_back(struct guest *guest)
{
    (void)guest;
    return E_NOENT;
}

int guest_fork(struct guest *guest, struct guest **out)
{
    *out = guest;
    return E_NOMEM;
}

struct shared_memory *shared_by_index(unsigned index)
{
    (void)index;
    return NULL;
}

void shared_describe(struct shared_memory *memory, char *name, size_t name_size,
                     struct audit_table *out)
{
    (void)memory;
    (void)name;
    (void)name_size;
    (void)out;
}

uint64_t guest_addresses_end(void)
{
    return UINT64_C(1) << 40;
}

/* What is asked for is said to be refused for the reason that its size is the number of. */
static int refusal(uint64_t size)
{
    if (size == 0)
        return E_RANGE;
    return size < PAGE_SIZE ? -(int)size : E_OK;
}

int slot_insert(struct guest *guest, enum slot_kind kind, gpa_t base, uint64_t size)
{
    (void)kind;
    return guest_slot_at(guest, base) != NULL ? E_EXIST
           : refusal(size) == E_OK            ? E_NOMEM
                                              : refusal(size);
}

int slot_insert_shared(struct guest *guest, const char *name, gpa_t base, uint64_t size,
                       unsigned rights)
{
    (void)name;
    if (size == 8 * PAGE_SIZE)
        return rights == RIGHT_R ? E_INVAL : E_FULL;
    return slot_insert(guest, SLOT_SHARED, base, size);
}

uint64_t shared_size(const char *name)
{
    return strcmp(name, "ring") == 0 ? 64 * PAGE_SIZE : 0;
}

int slot_hole(struct guest *guest, gpa_t base, uint64_t size)
{
    (void)guest;
    (void)base;
    return refusal(size);
}

int slot_remove(struct guest *guest, gpa_t base, uint64_t size)
{
    (void)guest;
    (void)base;
    return refusal(size);
}

int slot_protect(struct guest *guest, gpa_t base, uint64_t size, unsigned rights)
{
    (void)guest;
    (void)base;
    return rights == RIGHT_W ? E_UNSUPPORTED : refusal(size);
}

uint64_t clock_tsc_hz(void)
{
    return UINT64_C(1000000000);
}

int fuzz_run(struct guest *guest, const struct fuzz *fuzz, int (*poll)(void *ctx), void *ctx,
             struct fuzz_result *result)
{
    (void)guest;
    (void)poll;
    (void)ctx;
    *result = (struct fuzz_result){.rounds = 0};
    return fuzz->size <= FUZZ_INPUT ? E_STATE : E_INVAL;
}

int fuzz_replay(struct guest *guest, const struct fuzz *fuzz, bool *same)
{
    (void)guest;
    (void)fuzz;
    *same = false;
    return E_NOENT;
}

int guest_save_check(struct guest *guest, struct save *save)
{
    (void)guest;
    (void)save;
    return E_OK;
}

int guest_save(struct guest *guest, struct save *save)
{
    static const uint8_t file[1000] = SAVED_MAGIC;

    (void)guest;
    save->bytes = sizeof(file);
    save->pages = 1;
    return save->put(save->ctx, file, sizeof(file));
}

/* What `cost` does to a table is for others to test. */
int guest_table_init(const struct guest *guest, struct table *table)
{
    (void)guest;
    (void)table;
    return E_STATE;
}

int pages_clone(struct table *to, struct table *from)
{
    (void)to;
    (void)from;
    return E_NOMEM;
}

void pages_release_all(struct table *table, uint64_t first, uint64_t last)
{
    (void)table;
    (void)first;
    (void)last;
}

void slots_restore_rights(struct guest *guest)
{
    (void)guest;
}

bool guest_run_round(struct guest *guest, uint64_t most, int (*poll)(void *ctx), void *ctx)
{
    (void)guest;
    (void)most;
    return poll == NULL || poll(ctx) == 0;
}
