/*
 * `digest`: a guest's memory in one number, to be compared with another run's.
 */
#include "arch/x86_64/mm/physical.h"
#include "lib/error.h"
#include "mm/paging/typed.h"
#include "monitor/commands.h"
#include "monitor/tables.h"
#include "vm/guest.h"

static const struct column slot_columns[] = {
    {"first", COLUMN_HEX, 12}, {"size", COLUMN_SIZE, 8},   {"slot", COLUMN_TEXT, 14},
    {"there", COLUMN_SIZE, 8}, {"digest", COLUMN_HEX, 18},
};
static const struct record slot_record = RECORD("digest", slot_columns);

static const struct column memory_columns[] = {{"memory", COLUMN_SIZE, 0},
                                               {"there", COLUMN_SIZE, 0},
                                               {"digest", COLUMN_HEX, 0}};
static const struct record memory_record = RECORD("all memory", memory_columns);

/* FNV-1a (Fowler, Noll, Vo) of 64 bits, byte by byte. It finds what differs by chance; it is no
 * proof against somebody who wants two memories to look alike. */
#define FNV_BASIS UINT64_C(0xcbf29ce484222325)
#define FNV_PRIME UINT64_C(0x100000001b3)

static uint64_t digest_bytes(uint64_t digest, const void *bytes, unsigned size)
{
    const uint8_t *byte = bytes;

    for (unsigned i = 0; i < size; i++)
        digest = (digest ^ byte[i]) * FNV_PRIME;
    return digest;
}

/* The frame behind a guest-physical page; false: it has none yet. */
static bool find_frame(struct guest *guest, gpa_t at, hpa_t *frame)
{
    struct mapping page;

    if (gpa_translate(&guest->table, at, &page) != E_OK)
        return false;
    *frame = hpa_add(page.out, at.v - page.in);
    return true;
}

struct digest {
    struct output *out;
    struct guest *guest;
    uint64_t total, done; /* bytes: of all slots, and looked at so far */
    uint64_t there;       /* bytes that have frames */
    uint64_t value;
    bool stopped;
};

/* What has no frame yet is what the guest would find there: zeroes. */
static void digest_slot(struct digest *d, const struct slot *slot)
{
    static const uint8_t zeroes[PAGE_SIZE];
    static uint8_t page[PAGE_SIZE];
    uint64_t value = FNV_BASIS, there = 0;

    for (uint64_t at = 0; at < slot->size && !d->stopped; at += PAGE_SIZE) {
        hpa_t frame;
        bool found = find_frame(d->guest, gpa_add(slot->base, at), &frame) &&
                     physical_load(NULL, frame, page, PAGE_SIZE);

        there += found ? PAGE_SIZE : 0;
        value = digest_bytes(value, found ? page : zeroes, PAGE_SIZE);
        d->done += PAGE_SIZE;
        if (d->done % (1 << 20) == 0) {
            output_progress(d->out, "digest", d->done, d->total);
            d->stopped = command_stopped(NULL) != 0;
        }
    }
    if (d->stopped)
        return;
    d->there += there;
    d->value = digest_bytes(d->value, &value, sizeof(value));
    output_progress_end(d->out);
    output_row(d->out, &slot_record,
               (struct value[]){as_number(slot->base.v), as_number(slot->size),
                                as_text(slot_kind_name(slot->kind)), as_number(there),
                                as_number(value)});
}

static int digest(const struct command *command, struct output *out, const struct arguments *args)
{
    struct digest d = {.out = out, .value = FNV_BASIS};
    int error = command_guest(command, out, args->word[1], &d.guest);

    if (error)
        return error;
    if (!d.guest->has_table)
        return table_refuse_none(command, out, d.guest);
    for (unsigned i = 0; i < d.guest->slots; i++)
        if (d.guest->slot[i].kind != SLOT_DEVICE)
            d.total += d.guest->slot[i].size;
    for (unsigned i = 0; i < d.guest->slots && !d.stopped; i++)
        if (d.guest->slot[i].kind != SLOT_DEVICE)
            digest_slot(&d, &d.guest->slot[i]);
    output_progress_end(out);
    if (d.stopped)
        return command_refuse(command, out, E_STATE, "stopped by a key");
    output_facts(out, &memory_record,
                 (struct value[]){as_number(d.total), as_number(d.there), as_number(d.value)});
    return E_OK;
}

static const struct command digest_commands[] = {
    {
        .name = "digest",
        .usage = "gN",
        .summary = "a guest's memory in one number, for comparison",
        .details = "FNV-1a of 64 bits over the bytes of each slot that is memory, and over these\n"
                   "numbers in their order; a page that has no frame yet counts as the zeroes\n"
                   "that the guest would find. It depends on nothing but what the guest sees:\n"
                   "neither on the frames nor on the CPU. `pause` the guest first if it is to\n"
                   "stay the same.\n",
        .example = "digest g1",
        .least = 1,
        .most = 1,
        .run = digest,
    },
};

const struct command_family digest_family = FAMILY("digest", digest_commands);
