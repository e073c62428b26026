/* See mm/frames/early.h. */
#include "mm/frames/early.h"

#include "lib/bits.h"

void early_init(struct early *early, struct memblock *mb, uint64_t first, uint64_t last)
{
    *early = (struct early){.memblock = mb, .first = first};
    early_extend(early, last);
}

void early_extend(struct early *early, uint64_t last)
{
    early->last = last;
    for (unsigned order = 0; order < EARLY_ORDERS; order++)
        early->top[order] = last;
}

/* The highest free place for `bytes`, whole frames. */
static int find(struct early *early, uint64_t bytes, uint64_t align, uint64_t *out)
{
    unsigned order = highest_bit(bytes >> PAGE_SHIFT);
    bool passed = false; /* a run that counts for this order */
    struct memframes run;

    for (uint64_t from = early->top[order]; memblock_free_below(early->memblock, from, &run);
         from = run.base - 1) {
        uint64_t last = run.base + (run.size - 1);
        uint64_t base = run.base > early->first ? run.base : early->first;

        if (last < base)
            break;
        if (!passed)
            early->top[order] = last;
        passed = passed || run.size >> PAGE_SHIFT >> order != 0;
        if (last - base >= bytes - 1 && align_down(last - (bytes - 1), align) >= base) {
            *out = align_down(last - (bytes - 1), align);
            return E_OK;
        }
        if (run.base == 0)
            break;
    }
    return E_NOMEM;
}

int early_alloc(struct early *early, uint64_t size, uint64_t align, enum frame_purpose purpose,
                hpa_t *out)
{
    uint64_t bytes = align_up(size, PAGE_SIZE);
    uint64_t base;
    int error;

    if (early->closed)
        return E_STATE;
    if (size == 0 || !is_power_of_two(align) || align < PAGE_SIZE)
        return E_INVAL;
    if (purpose <= PURPOSE_FREE || purpose >= PURPOSE_COUNT)
        return E_INVAL;
    if (bytes < size)
        return E_NOMEM;

    error = find(early, bytes, align, &base);
    if (error != E_OK)
        return error;
    error = memblock_reserve(early->memblock, base, bytes, purpose);
    if (error != E_OK)
        return error;
    early->frames += bytes >> PAGE_SHIFT;
    early->by_purpose[purpose] += bytes >> PAGE_SHIFT;
    *out = hpa(base);
    return E_OK;
}

int early_free(struct early *early, hpa_t base, uint64_t size, enum frame_purpose purpose)
{
    uint64_t bytes = align_up(size, PAGE_SIZE);
    struct memframes run;
    int error;

    if (early->closed)
        return E_STATE;
    if (bytes == 0 || !is_aligned(base.v, PAGE_SIZE) || (unsigned)purpose >= PURPOSE_COUNT ||
        bytes >> PAGE_SHIFT > early->by_purpose[purpose])
        return E_INVAL;
    if (!memblock_next_frames(early->memblock, base.v, &run) || run.base != base.v ||
        run.size < bytes || !run.reserved || run.purpose != purpose)
        return E_PERM;

    error = memblock_unreserve(early->memblock, base.v, bytes);
    if (error != E_OK)
        return error;
    early->frames -= bytes >> PAGE_SHIFT;
    early->by_purpose[purpose] -= bytes >> PAGE_SHIFT;
    early_extend(early, early->last); /* rare: searches begin anew */
    return E_OK;
}

/* How frames that memblock reserved for `purpose` appear in the frame database. */
static struct frame_info recorded_as(enum frame_purpose purpose)
{
    struct frame_info info = {.state = FRAME_USED, .purpose = purpose, .owner = OWNER_HOST};

    if (purpose == PURPOSE_FIRMWARE || purpose == PURPOSE_IMAGE)
        info.state = FRAME_RESERVED;
    return info;
}

int early_hand_over(struct early *early, uint64_t *handed, uint64_t *recorded)
{
    struct memframes run = {0};

    if (early->closed)
        return E_STATE;
    /* From the first frame on: a frame must never be given out by both. */
    early->closed = true;
    *handed = 0;
    *recorded = 0;

    while (memblock_next_frames(early->memblock, run.base + run.size, &run)) {
        int error;

        if (!run.reserved) {
            error = buddy_add(hpa(run.base), run.size);
            *handed += run.size >> PAGE_SHIFT;
        } else if (run.purpose <= PURPOSE_FREE || run.purpose >= PURPOSE_COUNT) {
            error = E_INVAL;
        } else {
            struct frame_info info = recorded_as((enum frame_purpose)run.purpose);

            error = buddy_record(hpa(run.base), run.size, info.state, info.purpose, info.owner);
            *recorded += run.size >> PAGE_SHIFT;
        }
        if (error != E_OK)
            return error;
    }
    return E_OK;
}

struct check {
    const struct memblock *memblock;
    uint64_t next;  /* every frame below is as it must be */
    uint64_t wrong; /* the first offender */
};

enum { CHECK_FAILED = 1 };

static int fail_at(struct check *check, uint64_t frame)
{
    check->wrong = frame;
    return CHECK_FAILED;
}

static bool agrees(const struct memframes *run, const struct frame_info *info)
{
    struct frame_info want;

    if (!run->reserved)
        return info->state == FRAME_FREE || info->state == FRAME_CACHED;
    want = recorded_as((enum frame_purpose)run->purpose);
    return info->state == want.state && info->purpose == want.purpose && info->owner == want.owner;
}

/* One run of the buddy's against the runs of memblock's that it covers. Frames of RAM before it
 * that no run has covered are missing; frames in it that are no RAM do not belong there. */
static int check_run(void *ctx, hpa_t base, uint64_t size, const struct frame_info *info)
{
    struct check *check = ctx;
    uint64_t end = base.v + size;
    struct memframes run;

    while (check->next < end) {
        bool found = memblock_next_frames(check->memblock, check->next, &run);

        if (found && run.base < base.v)
            return fail_at(check, run.base);
        if (check->next < base.v)
            check->next = base.v;
        if (!found || run.base != check->next || !agrees(&run, info))
            return fail_at(check, check->next);
        check->next = run.base + run.size < end ? run.base + run.size : end;
    }
    return 0;
}

int early_verify_hand_over(const struct early *early, hpa_t *frame)
{
    struct check check = {.memblock = early->memblock};
    struct memframes run;
    bool failed;

    if (!early->closed) {
        *frame = hpa(early->first);
        return E_STATE;
    }
    failed = buddy_visit(check_run, &check) != 0;
    if (!failed && memblock_next_frames(early->memblock, check.next, &run))
        failed = fail_at(&check, run.base) != 0;
    if (failed) {
        *frame = hpa(check.wrong);
        return E_STATE;
    }
    return E_OK;
}
