/*
 * `who` and `frames`: whose a frame is and who maps it, and what all frames are used for.
 */
#include "arch/x86_64/guest/read_linear.h"
#include "arch/x86_64/mm/explain.h"
#include "arch/x86_64/mm/kernel.h"
#include "lib/string.h"
#include "mm/frames/buddy.h"
#include "monitor/commands.h"
#include "monitor/monitor.h"
#include "monitor/tables.h"
#include "vm/guest_audit.h"

/* --- who ------------------------------------------------------------------------------------- */

static const struct column whose_columns[] = {
    {"hpa", COLUMN_HEX, 0},       {"memory", COLUMN_TEXT, 0},      {"state", COLUMN_TEXT, 0},
    {"purpose", COLUMN_TEXT, 0},  {"owner", COLUMN_TEXT, 0},       {"block", COLUMN_HEX, 0},
    {"order", COLUMN_NUMBER, 0},  {"block size", COLUMN_SIZE, 0},  {"payload", COLUMN_HEX, 0},
    {"it means", COLUMN_TEXT, 0}, {"table level", COLUMN_TEXT, 0}, {"mappings", COLUMN_NUMBER, 0},
};
static const struct record whose_record = RECORD("frame", whose_columns);

static const struct column mapping_columns[] = {
    {"table", COLUMN_TEXT, 12}, {"address", COLUMN_HEX, 18}, {"page", COLUMN_SIZE, 4},
    {"rights", COLUMN_TEXT, 6}, {"type", COLUMN_TEXT, 4},    {"A", COLUMN_FLAG, 3},
    {"D", COLUMN_FLAG, 3},      {"entry", COLUMN_HEX, 0},
};
static const struct record mapping_record = RECORD_NARROW("mapping", mapping_columns, "D,A,type");

/* A frame that a table maps more often than anybody wants to read. */
#define MAPPINGS_SHOWN 64

/* Guest-physical addresses of one guest at which a frame is looked for in the guest's own tables,
 * and walks of those tables that are made for it. */
#define GPAS_FOLLOWED 16
#define GVA_WALKS 50000

/* The search for one address in one table. */
struct search {
    struct output *out;
    struct table *table;
    const char *name;
    uint64_t wanted; /* the frame's address */
    uint64_t found;  /* mappings, in all tables so far */
    /* of a guest whose second level is searched: */
    struct guest *guest;
    uint64_t gpa[GPAS_FOLLOWED];
    unsigned gpas;
    /* of a table's own frames: */
    unsigned level; /* 0: it is none of them */
};

/* And for what that came to in the tables that a guest has built itself. */
struct own_search {
    struct search *search;
    const char *name;
    struct gva_visit visit;
};

static int search_run(void *ctx, const struct mapping *run)
{
    struct search *search = ctx;
    struct mapping page;
    char rights[RIGHTS_TEXT];

    if (search->wanted < run->out.v || search->wanted - run->out.v > run->last - run->in)
        return 0;
    uint64_t in = run->in + (search->wanted - run->out.v);
    if (search->guest && search->gpas < GPAS_FOLLOWED)
        search->gpa[search->gpas++] = in;
    if (++search->found > MAPPINGS_SHOWN)
        return 0;
    if (table_translate(search->table, in, &page) != E_OK)
        return 0; /* gone since: a guest's table changes only while it runs */
    output_row(search->out, &mapping_record,
               (struct value[]){as_text(search->name), as_number(in),
                                as_number(level_size(search->table->kind, page.level)),
                                as_text(rights_text(rights, page.attrs.rights)),
                                as_text(mem_type_name((enum mem_type)page.attrs.type)),
                                as_number(page.accessed), as_number(page.dirty),
                                as_number(page.raw)});
    return 0;
}

static enum node_verdict search_node(void *ctx, const struct table_node *node)
{
    struct search *search = ctx;

    if (node->frame.v != search->wanted)
        return NODE_ENTER;
    search->level = node->level;
    return NODE_STOP;
}

/* A run of a guest's own tables: does it reach one of the guest-physical addresses? */
static int search_own_run(void *ctx, const struct mapping *run)
{
    struct own_search *own = ctx;
    struct search *search = own->search;
    char rights[RIGHTS_TEXT];

    for (unsigned i = 0; i < search->gpas; i++) {
        struct gva_walk walk;
        uint64_t offset = search->gpa[i] - run->out.v;

        if (search->gpa[i] < run->out.v || offset > run->last - run->in ||
            ++search->found > MAPPINGS_SHOWN ||
            gva_walk(&own->visit.registers, gva(run->in + offset), &walk) != E_OK)
            continue;
        const struct mapping *page = &walk.walk.mapping;
        output_row(search->out, &mapping_record,
                   (struct value[]){as_text(own->name), as_number(run->in + offset),
                                    as_number(page->last - page->in + 1),
                                    as_text(rights_text(rights, page->attrs.rights)),
                                    as_text(pat_type_name(run->attrs.type)),
                                    as_number(page->accessed), as_number(page->dirty),
                                    as_number(page->raw)});
    }
    return 0;
}

/* Through the guest's own tables to the addresses at which its second level has the frame. */
static void search_own_tables(struct search *search)
{
    struct vcpu_state state;
    char name[OWNER_TEXT];

    if (!search->gpas || !search->guest->vcpu ||
        guests_backend()->get_state(search->guest->vcpu, &state) != E_OK)
        return;
    struct own_search own = {
        .search = search,
        .name = name,
        .visit = {.registers = guest_gva_context(&search->guest->table, &state),
                  .pat = state.pat,
                  .most_walks = GVA_WALKS},
    };
    enum paging_mode mode = paging_mode_of(&own.visit.registers);
    if (mode == PAGING_NONE || mode == PAGING_5LEVEL)
        return;
    format_buffer(name, sizeof(name), "g%u's own", search->guest->number);
    if (table_visit_gva(&own.visit, 0, UINT64_MAX, search_own_run, &own) == E_FULL)
        output_note(search->out, "The tables that g%u %s has built were searched up to 0x%lx.",
                    search->guest->number, search->guest->name, own.visit.next);
}

/* Calls `fn` for each table there is, with its name in search->name. search->guest is set for what
 * a guest runs by; nobody runs by its snapshot's, or its disk's. */
static void each_table(struct search *search, void (*fn)(struct search *search))
{
    char name[GUEST_AUDIT_TABLES][GUEST_AUDIT_NAME];
    struct audit_table table[GUEST_AUDIT_TABLES];

    search->name = "host";
    search->table = &kernel_table;
    fn(search);
    for (unsigned i = 1; i <= guest_count(); i++) {
        struct guest *guest = guest_by_number(i);
        unsigned tables = guest_describe(guest, name, table);

        for (unsigned j = 0; j < tables; j++) {
            search->name = name[j];
            search->table = table[j].table;
            search->guest = search->table == &guest->table ? guest : NULL;
            search->gpas = 0;
            fn(search);
        }
    }
    search->guest = NULL;
}

static void search_mappings(struct search *search)
{
    const struct table_kind *kind = search->table->kind;

    table_visit(search->table, kind->input_first, kind->input_last, VISIT_RUNS, search_run, search);
    if (search->guest)
        search_own_tables(search);
}

static void search_tables(struct search *search)
{
    if (!search->level)
        table_visit_nodes(search->table, search_node, search);
}

static const char *memory_kind(uint64_t at)
{
    struct memsegment segment = regions_segment(&boot_facts.memory->memory, at);

    return segment.gap ? "none: no RAM of the memory map"
                       : mem_kind_name((enum mem_kind)segment.flags);
}

/* What the layer that took the frame keeps in its record (mm/frames/frame.h). */
#define MEANING_TEXT 64
static const char *payload_meaning(char buffer[MEANING_TEXT], const struct frame_info *info)
{
    switch (info->state) {
    case FRAME_DYING:
        return "link of the list on which it waits for its flush";
    case FRAME_SHARED:
        return "holders";
    case FRAME_USED:
    case FRAME_TAIL:
        break;
    default:
        return NULL;
    }
    if (!(TABLE_PURPOSES & BIT(info->purpose)))
        return NULL;
    format_buffer(buffer, MEANING_TEXT, "present entries of the table: %lu", info->payload);
    return buffer;
}

static struct value text_or_nothing(const char *text)
{
    return text ? as_text(text) : as_nothing();
}

static int who(const struct command *command, struct output *out, const struct arguments *args)
{
    struct search search = {.out = out};
    struct frame_info info;
    char owner[OWNER_TEXT], about[MEANING_TEXT];
    hpa_t head;
    uint64_t at;
    int error = command_number(command, out, args->word[1], "address", &at);

    if (error)
        return error;
    if (at >> 52)
        return command_refuse(command, out, E_RANGE,
                              "0x%lx is no physical address: those have 52 bits at the most", at);
    search.wanted = align_down(at, PAGE_SIZE);
    bool known = frame_query(hpa(at), &info, &head) == E_OK;
    bool whose = known && info.state != FRAME_FREE && info.state != FRAME_CACHED;
    bool in_block = known && info.state != FRAME_RESERVED;

    each_table(&search, search_tables);
    each_table(&search, search_mappings);
    const char *meaning = known ? payload_meaning(about, &info) : NULL;
    output_facts(out, &whose_record,
                 (struct value[]){
                     as_number(at), as_text(memory_kind(at)),
                     known ? as_text(frame_state_name(info.state)) : as_nothing(),
                     whose ? as_text(purpose_name(info.purpose)) : as_nothing(),
                     whose && info.owner != OWNER_NONE ? as_text(owner_text(owner, info.owner))
                                                       : as_nothing(),
                     in_block ? as_number(head.v) : as_nothing(),
                     in_block ? as_number(info.order) : as_nothing(),
                     in_block ? as_number(PAGE_SIZE << info.order) : as_nothing(),
                     whose && (meaning || info.payload) ? as_number(info.payload) : as_nothing(),
                     text_or_nothing(meaning),
                     search.level ? as_text(level_name(search.level)) : as_nothing(),
                     as_number(search.found)});
    if (search.found > MAPPINGS_SHOWN)
        output_note(out, "Of these mappings the first %u are shown.", MAPPINGS_SHOWN);
    return E_OK;
}

/* --- frames ---------------------------------------------------------------------------------- */

static const struct column use_columns[] = {
    {"purpose", COLUMN_TEXT, 16}, {"owner", COLUMN_TEXT, 16}, {"frames", COLUMN_FRAMES, 10},
    {"size", COLUMN_SIZE, 10},    {"runs", COLUMN_NUMBER, 6},
};
static const struct record use_record = RECORD("use", use_columns);

static const struct column free_columns[] = {
    {"order", COLUMN_NUMBER, 5},   {"block", COLUMN_SIZE, 5},     {"blocks", COLUMN_NUMBER, 8},
    {"frames", COLUMN_FRAMES, 10}, {"too small", COLUMN_TEXT, 0},
};
static const struct record free_record = RECORD("free blocks", free_columns);

static const struct column fragmentation_columns[] = {
    {"free frames", COLUMN_FRAMES, 0},
    {"of them cached", COLUMN_FRAMES, 0},
    {"largest free block", COLUMN_SIZE, 0},
    {"percent of it too small for 2M", COLUMN_NUMBER, 0},
    {"percent of it too small for 1G", COLUMN_NUMBER, 0},
};
static const struct record fragmentation_record = RECORD("fragmentation", fragmentation_columns);

/* Owners that have a row of their own: the host, programs, and as many guests as there can be. */
#define OWNERS_SHOWN (OWNER_FIRST_GUEST + GUEST_LIMIT + 1)

static struct use {
    uint64_t frames, runs;
} use[PURPOSE_COUNT][OWNERS_SHOWN];

static int count_use(void *ctx, hpa_t base, uint64_t size, const struct frame_info *info)
{
    (void)ctx;
    (void)base;
    if (info->state == FRAME_FREE || info->state == FRAME_CACHED || info->owner >= OWNERS_SHOWN)
        return 0;
    use[info->purpose][info->owner].frames += size >> PAGE_SHIFT;
    use[info->purpose][info->owner].runs++;
    return 0;
}

/* False: a key stopped it, and nothing was shown. */
static bool show_uses(struct output *out)
{
    char owner[OWNER_TEXT];

    memset(use, 0, sizeof(use));
    if (buddy_visit_until(count_use, NULL, command_stopped, NULL) != 0)
        return false;
    output_title(out, "used, by purpose and owner");
    for (unsigned i = 0; i < PURPOSE_COUNT; i++)
        for (unsigned j = 0; j < OWNERS_SHOWN; j++)
            if (use[i][j].frames)
                output_row(out, &use_record,
                           (struct value[]){as_text(purpose_name((enum frame_purpose)i)),
                                            as_text(owner_text(owner, (owner_t)j)),
                                            as_number(use[i][j].frames),
                                            as_number(use[i][j].frames << PAGE_SHIFT),
                                            as_number(use[i][j].runs)});
    return true;
}

/* How much of the free blocks' memory is of no use for a block of this order, in percent. */
static unsigned too_small(const struct buddy_stats *stats, unsigned order)
{
    uint64_t all = 0, small = 0;

    for (unsigned i = 0; i < BUDDY_ORDERS; i++) {
        all += stats->free_blocks[i] << i;
        if (i < order)
            small += stats->free_blocks[i] << i;
    }
    return all ? (unsigned)((small * 100 + all / 2) / all) : 0;
}

static int frames(const struct command *command, struct output *out, const struct arguments *args)
{
    struct buddy_stats stats;
    unsigned largest = BUDDY_ORDERS;
    char percent[8];

    (void)args;
    if (!show_uses(out))
        return command_refuse(command, out, E_STATE, "stopped by a key");
    buddy_stats(&stats);
    output_title(out, "free blocks");
    for (unsigned order = 0; order < BUDDY_ORDERS; order++) {
        if (!stats.free_blocks[order])
            continue;
        largest = order;
        format_buffer(percent, sizeof(percent), "%u%%", too_small(&stats, order));
        output_row(out, &free_record,
                   (struct value[]){as_number(order), as_number(PAGE_SIZE << order),
                                    as_number(stats.free_blocks[order]),
                                    as_number(stats.free_blocks[order] << order),
                                    as_text(percent)});
    }
    output_facts(
        out, &fragmentation_record,
        (struct value[]){as_number(stats.free_frames), as_number(stats.cached_frames),
                         largest < BUDDY_ORDERS ? as_number(PAGE_SIZE << largest) : as_nothing(),
                         as_number(too_small(&stats, 9)), as_number(too_small(&stats, 18))});
    return E_OK;
}

static const struct command frames_commands[] = {
    {
        .name = "who",
        .usage = "HPA",
        .summary = "whose a frame is, what for, and every mapping that reaches it",
        .details = "Every mapping in every table there is: the hypervisor's own, each guest's\n"
                   "second level, its snapshot's, that of its disk (by the disk's bytes), and\n"
                   "the tables that a guest whose memory it is has built itself, with the input\n"
                   "address that leads there. A frame that is a table itself says of which\n"
                   "level. A ring-3 program's table is gone by the time that one can ask.\n",
        .example = "who 0x200000",
        .least = 1,
        .most = 1,
        .run = who,
    },
    {
        .name = "frames",
        .usage = "",
        .summary = "what all frames are used for, and how the free ones hang together",
        .details = "Used frames by purpose and owner, with the number of runs that they lie in.\n"
                   "Of the free blocks, `too small` is how much of the free memory lies in\n"
                   "smaller blocks than these, and so is of no use to who wants one. Frames in\n"
                   "per-CPU caches are in none.\n",
        .example = "frames",
        .run = frames,
    },
};

const struct command_family frames_family = FAMILY("frames", frames_commands);
