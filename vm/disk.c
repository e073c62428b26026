/* See vm/disk.h. */
#include "vm/disk.h"

#include "lib/bits.h"
#include "lib/error.h"
#include "lib/panic.h"
#include "lib/string.h"
#include "mm/frames/buddy.h"
#include "vm/cow.h"

/* As much of the image as there is from `at` on; zeroes behind it. */
static void read_image(const struct guest_image *image, uint64_t at, void *to, uint64_t size)
{
    uint64_t there = at < image->size ? image->size - at : 0;

    if (there > size)
        there = size;
    memcpy(to, image->bytes + at, there);
    memset((uint8_t *)to + there, 0, size - there);
}

static bool find(struct guest_disk *disk, uint64_t page, struct mapping *leaf)
{
    return disk_is_written(disk) && table_translate(&disk->table, page, leaf) == E_OK;
}

void disk_read(struct guest *guest, uint64_t at, void *sector)
{
    struct mapping leaf;

    if (find(&guest->disk, at, &leaf))
        memcpy(sector, direct(hpa_add(leaf.out, at - leaf.in)), BIOS_SECTOR);
    else
        read_image(&guest->image, at, sector, BIOS_SECTOR);
}

/* A new frame in place of one that others hold as well, or of none. */
static int map_copy(struct guest *guest, uint64_t page, const struct mapping *old, hpa_t *frame)
{
    struct guest_disk *disk = &guest->disk;
    struct flush_batch batch;
    int error = buddy_alloc(0, PURPOSE_GUEST_RAM, guest_owner(guest), frame);

    if (error != E_OK)
        return error;
    flush_begin(&batch, &disk->table);
    error = table_map(&disk->table, page, *frame, PAGE_SIZE, attrs_of(RIGHT_R, MEM_WB),
                      old != NULL ? MAP_REPLACE : MAP_DEFAULT, &batch);
    flush_commit(&batch);
    if (error != E_OK) {
        invariant(buddy_free(*frame, 0, guest_owner(guest)) == E_OK);
        return error;
    }
    if (old == NULL) {
        read_image(&guest->image, page, direct(*frame), PAGE_SIZE);
    } else {
        memcpy(direct(*frame), direct(old->out), PAGE_SIZE);
        invariant(buddy_release(old->out, 0, OWNER_SHARED, NULL) == E_OK);
    }
    return E_OK;
}

/* The frame of the page, which nobody else holds. All its blocks are single frames. */
static int own_page(struct guest *guest, uint64_t page, hpa_t *frame)
{
    struct mapping leaf;
    uint64_t record;

    if (!find(&guest->disk, page, &leaf))
        return map_copy(guest, page, NULL, frame);
    *frame = leaf.out;
    invariant(buddy_block(leaf.out, &leaf.out, &record));
    if (frame_record_owner(record) != OWNER_SHARED)
        return E_OK;
    if (frame_record_state(record) == FRAME_SHARED)
        return map_copy(guest, page, &leaf, frame);
    return buddy_transfer(leaf.out, 0, OWNER_SHARED, guest_owner(guest));
}

int disk_write(struct guest *guest, uint64_t at, const void *sector)
{
    uint64_t page = align_down(at, PAGE_SIZE);
    int error = E_OK;
    hpa_t frame;

    if (!disk_is_written(&guest->disk))
        error = guest_table_init(guest, &guest->disk.table);
    if (error == E_OK)
        error = own_page(guest, page, &frame);
    guest_note_frames(guest);
    if (error != E_OK)
        return error;
    memcpy((uint8_t *)direct(frame) + (at - page), sector, BIOS_SECTOR);
    guest->disk.changed = true;
    return E_OK;
}

int disk_clone(const struct guest *guest, struct guest_disk *to, struct guest_disk *from)
{
    int error;

    if (!disk_is_written(from))
        return E_OK;
    error = guest_table_init(guest, &to->table);
    return error != E_OK ? error : pages_clone(&to->table, &from->table);
}

struct count {
    owner_t owner;
    uint64_t frames;
};

static int count_frame(void *ctx, const struct mapping *leaf)
{
    struct count *count = ctx;
    uint64_t record;
    hpa_t first;

    count->frames +=
        buddy_block(leaf->out, &first, &record) && frame_record_owner(record) == count->owner;
    return 0;
}

uint64_t disk_frames(struct guest *guest)
{
    struct count own = {.owner = guest_owner(guest)};
    struct table *table = &guest->disk.table;

    if (!disk_is_written(&guest->disk))
        return 0;
    (void)table_visit(table, table->kind->input_first, table->kind->input_last, VISIT_PAGES,
                      count_frame, &own);
    return own.frames + table->table_frames;
}

bool disk_forget_by(struct guest_disk *disk, uint64_t deadline)
{
    if (!disk_is_written(disk))
        return true;
    while (!pages_release(&disk->table, &disk->forgotten, disk->table.kind->input_last))
        if (guests_backend()->ticks() >= deadline)
            return false;
    invariant(table_destroy(&disk->table) == E_OK);
    *disk = (struct guest_disk){.changed = false};
    return true;
}

void disk_forget(struct guest_disk *disk)
{
    (void)disk_forget_by(disk, UINT64_MAX);
}
