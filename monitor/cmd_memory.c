/*
 * `mem`: what memory there is, what is free, and who has the rest.
 */
#include "mm/frames/buddy.h"
#include "monitor/commands.h"
#include "monitor/monitor.h"
#include "vm/guest.h"
#include "vm/merge.h"
#include "vm/quota.h"

static const struct column region_columns[] = {
    {"first", COLUMN_HEX, 18},
    {"last", COLUMN_HEX, 18},
    {"size", COLUMN_SIZE, 10},
    {"kind", COLUMN_TEXT, 0},
};
static const struct record region_record = RECORD("region", region_columns);

static const struct column total_columns[] = {
    {"total frames", COLUMN_FRAMES, 0},    {"free frames", COLUMN_FRAMES, 0},
    {"cached frames", COLUMN_FRAMES, 0},   {"used frames", COLUMN_FRAMES, 0},
    {"reserved frames", COLUMN_FRAMES, 0}, {"allocations", COLUMN_NUMBER, 0},
    {"frees", COLUMN_NUMBER, 0},           {"failed allocations", COLUMN_NUMBER, 0},
    {"refused frees", COLUMN_NUMBER, 0},
};
static const struct record total_record = RECORD("memory", total_columns);

#define BAR 20 /* characters of a bar */

static const struct column share_columns[] = {
    {"part", COLUMN_TEXT, 16},
    {"frames", COLUMN_FRAMES, 10},
    {"size", COLUMN_SIZE, 10},
    {"share", COLUMN_TEXT, BAR},
};
static const struct record share_record = RECORD("part", share_columns);

static const struct column order_columns[] = {
    {"order", COLUMN_NUMBER, 5},   {"block", COLUMN_SIZE, 5}, {"free blocks", COLUMN_NUMBER, 0},
    {"frames", COLUMN_FRAMES, 10}, {"size", COLUMN_SIZE, 10}, {"share", COLUMN_TEXT, BAR},
};
static const struct record order_record = RECORD("order", order_columns);

static const struct column purpose_columns[] = {
    {"purpose", COLUMN_TEXT, 16},
    {"frames", COLUMN_FRAMES, 10},
    {"size", COLUMN_SIZE, 10},
    {"share", COLUMN_TEXT, BAR},
};
static const struct record purpose_record = RECORD("purpose", purpose_columns);

static const struct column owner_columns[] = {
    {"owner", COLUMN_TEXT, 16},  {"frames", COLUMN_FRAMES, 10}, {"size", COLUMN_SIZE, 10},
    {"share", COLUMN_TEXT, BAR}, {"quota", COLUMN_SIZE, 10},
};
static const struct record owner_record = RECORD("owner", owner_columns);

/* `part` of `whole` as a bar; what is not nothing shows at least one mark. Returns `buffer`. */
static const char *bar(char buffer[BAR + 1], uint64_t part, uint64_t whole)
{
    unsigned marks = whole ? (unsigned)((part * BAR + whole / 2) / whole) : 0;

    if (part && !marks)
        marks = 1;
    for (unsigned i = 0; i < BAR; i++)
        buffer[i] = i < marks ? '#' : '.';
    buffer[BAR] = 0;
    return buffer;
}

static uint64_t used_frames(const struct buddy_stats *stats)
{
    uint64_t used = 0;

    for (unsigned i = 0; i < PURPOSE_COUNT; i++)
        used += stats->by_purpose[i];
    return used;
}

static void show_regions(struct output *out)
{
    struct memregion region;

    output_title(out, "memory map");
    regions_each (&region, &boot_facts.memory->memory) {
        output_row(out, &region_record,
                   (struct value[]){as_number(region.base),
                                    as_number(region.base + region.size - 1),
                                    as_number(region.size),
                                    as_text(mem_kind_name((enum mem_kind)region.flags))});
    }
}

static void show_totals(struct output *out, const struct buddy_stats *stats)
{
    uint64_t used = used_frames(stats);
    char share[BAR + 1];

    output_title(out, "frames of 4K");
    output_row(out, &share_record,
               (struct value[]){as_text("used"), as_number(used), as_number(used << PAGE_SHIFT),
                                as_text(bar(share, used, stats->total_frames))});
    output_row(out, &share_record,
               (struct value[]){as_text("free"), as_number(stats->free_frames),
                                as_number(stats->free_frames << PAGE_SHIFT),
                                as_text(bar(share, stats->free_frames, stats->total_frames))});
    output_facts(out, &total_record,
                 (struct value[]){as_number(stats->total_frames), as_number(stats->free_frames),
                                  as_number(stats->cached_frames), as_number(used),
                                  as_number(stats->reserved_frames), as_number(stats->allocations),
                                  as_number(stats->frees), as_number(stats->failed),
                                  as_number(stats->refused_double + stats->refused_order +
                                            stats->refused_owner + stats->refused_range +
                                            stats->refused_shared + stats->refused_state)});
}

static void show_orders(struct output *out, const struct buddy_stats *stats)
{
    char share[BAR + 1];

    output_title(out, "free blocks");
    for (unsigned order = 0; order < BUDDY_ORDERS; order++) {
        uint64_t blocks = stats->free_blocks[order];
        if (blocks)
            output_row(out, &order_record,
                       (struct value[]){as_number(order), as_number(PAGE_SIZE << order),
                                        as_number(blocks), as_number(blocks << order),
                                        as_number(blocks << order << PAGE_SHIFT),
                                        as_text(bar(share, blocks << order, stats->free_frames))});
    }
}

static void show_purposes(struct output *out, const struct buddy_stats *stats)
{
    uint64_t used = used_frames(stats);
    char share[BAR + 1];

    output_title(out, "used, by purpose");
    for (unsigned i = 0; i < PURPOSE_COUNT; i++)
        if (stats->by_purpose[i])
            output_row(out, &purpose_record,
                       (struct value[]){as_text(purpose_name((enum frame_purpose)i)),
                                        as_number(stats->by_purpose[i]),
                                        as_number(stats->by_purpose[i] << PAGE_SHIFT),
                                        as_text(bar(share, stats->by_purpose[i], used))});
}

const char *owner_text(char buffer[OWNER_TEXT], owner_t owner)
{
    const struct guest *guest = NULL;

    if (owner == OWNER_NONE)
        return "nobody";
    if (owner == OWNER_HOST)
        return "host";
    if (owner == OWNER_SHARED)
        return "shared";
    if (owner < OWNER_FIRST_GUEST) {
        format_buffer(buffer, OWNER_TEXT, "program %u", owner - OWNER_FIRST_USER);
        return buffer;
    }
    guest = guest_by_number(owner - OWNER_FIRST_GUEST);
    format_buffer(buffer, OWNER_TEXT, "g%u%s%s", owner - OWNER_FIRST_GUEST, guest ? " " : "",
                  guest ? guest->name : "");
    return buffer;
}

static void show_owners(struct output *out, const struct buddy_stats *stats)
{
    uint64_t used = used_frames(stats);
    char name[OWNER_TEXT], share[BAR + 1];

    output_title(out, "used, by owner");
    for (unsigned owner = 0; owner < OWNER_LIMIT; owner++) {
        uint64_t frames = buddy_owner_frames((owner_t)owner);
        const struct guest *guest =
            owner > OWNER_FIRST_GUEST ? guest_by_number(owner - OWNER_FIRST_GUEST) : NULL;
        uint64_t quota = guest != NULL ? quota_bytes(guest) : UINT64_MAX;

        if (frames)
            output_row(out, &owner_record,
                       (struct value[]){as_text(owner_text(name, (owner_t)owner)),
                                        as_number(frames), as_number(frames << PAGE_SHIFT),
                                        as_text(bar(share, frames, used)),
                                        quota == UINT64_MAX ? as_nothing() : as_number(quota)});
    }
}

static const struct column saved_columns[] = {
    {"guests show", COLUMN_FRAMES, 0},
    {"in frames", COLUMN_FRAMES, 0},
    {"saved by sharing", COLUMN_FRAMES, 0},
};
static const struct record saved_record = RECORD("sharing", saved_columns);

/* What guests and their snapshots share, by whatever way. A guest that is being given back shows
 * less than it has. */
static void show_saved(struct output *out, const struct buddy_stats *stats)
{
    uint64_t shown = merge_frames_shown(), frames = stats->by_purpose[PURPOSE_GUEST_RAM];

    if (shown <= frames)
        return;
    output_title(out, "what guests share");
    output_facts(out, &saved_record,
                 (struct value[]){as_number(shown), as_number(frames), as_number(shown - frames)});
}

static int mem(const struct command *command, struct output *out, const struct arguments *args)
{
    struct buddy_stats stats;

    (void)command;
    (void)args;
    buddy_stats(&stats);
    show_regions(out);
    show_totals(out, &stats);
    show_orders(out, &stats);
    show_purposes(out, &stats);
    show_owners(out, &stats);
    show_saved(out, &stats);
    return E_OK;
}

static const struct command memory_commands[] = {
    {
        .name = "mem",
        .usage = "",
        .summary = "the memory map, what is free, and who has the rest",
        .details = "The memory map is the boot loader's, overlaps resolved. Frames are counted\n"
                   "by the buddy allocator: free ones by the size of their blocks, used ones by\n"
                   "purpose and by owner, each with its share as a bar. When every guest has\n"
                   "ended, the free frames are as many as before the first one started.\n",
        .example = "mem",
        .run = mem,
    },
};

const struct command_family memory_family = FAMILY("memory", memory_commands);
