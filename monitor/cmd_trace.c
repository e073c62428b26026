/*
 * `trace`: what the mapper, the allocator, the flushes and the guests' exits have been doing.
 *
 * The trace points (mm/trace.h) write into a ring, where the newest record overwrites the oldest.
 */
#include "arch/x86_64/cpu.h"
#include "arch/x86_64/cpu_state.h"
#include "arch/x86_64/mm/kernel.h"
#include "arch/x86_64/mm/tlb.h"
#include "arch/x86_64/symbols.h"
#include "lib/string.h"
#include "mm/trace.h"
#include "monitor/commands.h"
#include "vm/guest.h"
#include "vm/interrupts.h"

#define RING_RECORDS 2048
#define SHOWN_AT_FIRST 20

struct trace_record {
    uint64_t time; /* TSC */
    struct trace_point point;
    uint32_t cpu;
};

static struct {
    struct trace_record ring[RING_RECORDS];
    bool begun;
    uint64_t written; /* ever; the next goes to its remainder */
    uint64_t since;   /* TSC when it was switched on */
} tracing;

/* Runs in the middle of anything: it may not lock, allocate or print. */
static void keep(const struct trace_point *point)
{
    uint64_t at = __atomic_fetch_add(&tracing.written, 1, __ATOMIC_RELAXED);

    tracing.ring[at % RING_RECORDS] = (struct trace_record){rdtsc(), *point, cpu_number()};
}

/* --- Names -------------------------------------------------------------------------------------
 */

#define BIT_OF(event) (UINT32_C(1) << (event))
#define ALL_EVENTS (BIT_OF(TRACE_EVENTS) - 1)

static const char *const event_names[TRACE_EVENTS] = {
    [TRACE_MAP] = "map",         [TRACE_UNMAP] = "unmap",
    [TRACE_PROTECT] = "protect", [TRACE_SPLIT] = "split",
    [TRACE_MERGE] = "merge",     [TRACE_HARVEST] = "harvest",
    [TRACE_CLONE] = "clone",     [TRACE_COPY] = "copy",
    [TRACE_DESTROY] = "destroy", [TRACE_ALLOC] = "alloc",
    [TRACE_FREE] = "free",       [TRACE_SHARE] = "share",
    [TRACE_RELEASE] = "release", [TRACE_FLUSH] = "flush",
    [TRACE_EXIT] = "exit",       [TRACE_INTERRUPT] = "interrupt",
};

#define MAPPER_EVENTS "map unmap protect split merge harvest clone copy destroy"
#define ALLOCATOR_EVENTS "alloc free share release"

static const struct {
    const char *name;
    uint32_t events;
} event_groups[] = {
    {"mapper", BIT_OF(TRACE_MAP) | BIT_OF(TRACE_UNMAP) | BIT_OF(TRACE_PROTECT) |
                   BIT_OF(TRACE_SPLIT) | BIT_OF(TRACE_MERGE) | BIT_OF(TRACE_HARVEST) |
                   BIT_OF(TRACE_CLONE) | BIT_OF(TRACE_COPY) | BIT_OF(TRACE_DESTROY)},
    {"allocator",
     BIT_OF(TRACE_ALLOC) | BIT_OF(TRACE_FREE) | BIT_OF(TRACE_SHARE) | BIT_OF(TRACE_RELEASE)},
    {"all", ALL_EVENTS},
};

/* 0 for a word that names none. */
static uint32_t events_named(const char *word)
{
    for (unsigned i = 0; i < TRACE_EVENTS; i++)
        if (strcmp(word, event_names[i]) == 0)
            return BIT_OF(i);
    for (unsigned i = 0; i < ARRAY_SIZE(event_groups); i++)
        if (strcmp(word, event_groups[i].name) == 0)
            return event_groups[i].events;
    return 0;
}

static int refuse_event(const struct command *command, struct output *out, const char *word)
{
    return command_refuse(command, out, E_INVAL,
                          "\"%.20s\" is no event: there are " MAPPER_EVENTS
                          " (all of them: mapper), " ALLOCATOR_EVENTS
                          " (allocator), flush, exit, interrupt, all",
                          word);
}

/* --- On and off --------------------------------------------------------------------------------
 */

static const struct column state_columns[] = {
    {"tracing", COLUMN_FLAG, 0}, {"events", COLUMN_TEXT, 0},    {"written", COLUMN_NUMBER, 0},
    {"kept", COLUMN_NUMBER, 0},  {"at most", COLUMN_NUMBER, 0},
};
static const struct record state_record = RECORD("trace", state_columns);

static void show_state(struct output *out)
{
    char events[120] = "";
    size_t n = 0;

    for (unsigned i = 0; i < TRACE_EVENTS && n < sizeof(events); i++)
        if (trace_events & BIT_OF(i))
            n +=
                format_buffer(events + n, sizeof(events) - n, "%s%s", n ? " " : "", event_names[i]);
    output_facts(
        out, &state_record,
        (struct value[]){as_number(trace_events != 0), n ? as_text(events) : as_nothing(),
                         as_number(tracing.written),
                         as_number(tracing.written < RING_RECORDS ? tracing.written : RING_RECORDS),
                         as_number(RING_RECORDS)});
}

static int trace_on(const struct command *command, struct output *out, const struct arguments *args)
{
    uint32_t chosen = args->count > 2 ? 0 : ALL_EVENTS;

    for (unsigned i = 2; i < args->count; i++) {
        uint32_t events = events_named(args->word[i]);
        if (!events)
            return refuse_event(command, out, args->word[i]);
        chosen |= events;
    }
    tracing.begun = true;
    if (!trace_events) {
        tracing.written = 0;
        tracing.since = rdtsc();
    }
    trace_hook = keep;
    __atomic_store_n(&trace_events, chosen, __ATOMIC_RELEASE);
    show_state(out);
    return E_OK;
}

/* --- Show --------------------------------------------------------------------------------------
 */

static const struct column event_columns[] = {
    {"event", COLUMN_NUMBER, 5}, {"ticks", COLUMN_NUMBER, 10}, {"cpu", COLUMN_NUMBER, 3},
    {"whose", COLUMN_TEXT, 10},  {"what", COLUMN_TEXT, 7},     {"at", COLUMN_HEX, 18},
    {"size", COLUMN_SIZE, 6},    {"detail", COLUMN_TEXT, 22},  {"result", COLUMN_TEXT, 6},
    {"caller", COLUMN_TEXT, 0},
};
static const struct record event_record =
    RECORD_NARROW("event", event_columns, "cpu,event,size,ticks");

#define DETAIL_TEXT 48

static uint64_t event_size(const struct trace_point *point)
{
    switch (point->event) {
    case TRACE_ALLOC:
    case TRACE_FREE:
    case TRACE_RELEASE:
        return PAGE_SIZE << (point->b & 31);
    case TRACE_DESTROY:
    case TRACE_EXIT:
    case TRACE_INTERRUPT:
        return 0;
    default:
        return point->b;
    }
}

static const char *event_detail(char text[DETAIL_TEXT], const struct trace_point *point)
{
    char rights[RIGHTS_TEXT], owner[OWNER_TEXT];

    text[0] = 0;
    switch (point->event) {
    case TRACE_MAP:
        format_buffer(text, DETAIL_TEXT, "to 0x%lx", point->c);
        break;
    case TRACE_PROTECT:
        format_buffer(text, DETAIL_TEXT, "%s", rights_text(rights, (unsigned)point->c));
        break;
    case TRACE_SPLIT:
        format_buffer(text, DETAIL_TEXT, "down to %s", level_name((unsigned)point->c));
        break;
    case TRACE_CLONE:
    case TRACE_COPY:
        format_buffer(text, DETAIL_TEXT, "of %s", owner_text(owner, (owner_t)point->c));
        break;
    case TRACE_ALLOC:
        if (point->c >> 8)
            format_buffer(text, DETAIL_TEXT, "%lu frames, %s", point->c >> 8,
                          purpose_name((enum frame_purpose)(point->c & 0xff)));
        else
            format_buffer(text, DETAIL_TEXT, "%s", purpose_name((enum frame_purpose)point->c));
        break;
    case TRACE_FREE:
        if (point->c > 1)
            format_buffer(text, DETAIL_TEXT, "%lu frames", point->c);
        break;
    case TRACE_SHARE:
        format_buffer(text, DETAIL_TEXT, "one holder more");
        break;
    case TRACE_RELEASE:
        format_buffer(text, DETAIL_TEXT, point->c ? "freed with the last" : "one holder fewer");
        break;
    case TRACE_FLUSH:
        if (point->c)
            format_buffer(text, DETAIL_TEXT, "%lu range%s", point->c, point->c == 1 ? "" : "s");
        else
            format_buffer(text, DETAIL_TEXT, "the whole context");
        break;
    case TRACE_EXIT:
        format_buffer(text, DETAIL_TEXT, "%s", vm_exit_text((enum vm_exit_kind)point->c));
        break;
    case TRACE_INTERRUPT:
        interrupt_origin_text(text, (struct interrupt_origin){
                                        .kind = (enum interrupt_origin_kind)(point->c >> 8),
                                        .number = point->c & 0xff,
                                    });
        break;
    default:
        break;
    }
    return text;
}

static void show_event(struct output *out, uint64_t number, const struct trace_record *record)
{
    const struct trace_point *point = &record->point;
    char whose[OWNER_TEXT], detail[DETAIL_TEXT], caller[80];
    uint64_t size = event_size(point), offset = 0;
    bool called = point->event != TRACE_EXIT && point->event != TRACE_INTERRUPT;
    const char *symbol = called ? symbol_of((uint64_t)(uintptr_t)point->caller, &offset) : NULL;

    if (symbol)
        format_buffer(caller, sizeof(caller), "%s+0x%lx", symbol, offset);
    output_row(out, &event_record,
               (struct value[]){as_number(number), as_number(record->time - tracing.since),
                                as_number(record->cpu), as_text(owner_text(whose, point->owner)),
                                as_text(event_names[point->event]), as_number(point->a),
                                size ? as_number(size) : as_nothing(),
                                *event_detail(detail, point) ? as_text(detail) : as_nothing(),
                                point->result ? as_text(error_name(point->result)) : as_text("ok"),
                                symbol ? as_text(caller) : as_nothing()});
}

#define CPU_KEY "cpu="

struct trace_filter {
    uint32_t events;
    bool by_owner, by_cpu;
    owner_t owner;
    uint64_t cpu;
    uint64_t most;
};

static int take_filter(const struct command *command, struct output *out,
                       const struct arguments *args, struct trace_filter *filter)
{
    *filter = (struct trace_filter){.most = SHOWN_AT_FIRST};
    for (unsigned i = 2; i < args->count; i++) {
        const char *word = args->word[i];
        struct complaint why;
        unsigned number;
        uint32_t events = events_named(word);
        const char *cpu = word_behind(word, CPU_KEY);

        if (events) {
            filter->events |= events;
        } else if (cpu) {
            int error = command_number(command, out, cpu, "CPU's number", &filter->cpu);
            if (error)
                return error;
            filter->by_cpu = true;
        } else if (strcmp(word, "host") == 0) {
            filter->by_owner = true;
            filter->owner = OWNER_HOST;
        } else if (word[0] >= '0' && word[0] <= '9') {
            int error = command_number(command, out, word, "number of events", &filter->most);
            if (!error && filter->most == 0)
                error = command_refuse(command, out, E_RANGE,
                                       "%s events? give a number from 1, or none for the newest %u",
                                       word, SHOWN_AT_FIRST);
            if (error)
                return error;
        } else if (word[0] == 'g' && parse_guest(word, &number, &why) == E_OK) {
            struct guest *guest;
            int error = command_guest(command, out, word, &guest);
            if (error)
                return error;
            filter->by_owner = true;
            filter->owner = guest_owner(guest);
        } else {
            return refuse_event(command, out, word);
        }
    }
    if (!filter->events)
        filter->events = ALL_EVENTS;
    return E_OK;
}

static bool passes(const struct trace_filter *filter, const struct trace_record *record)
{
    return (filter->events & BIT_OF(record->point.event)) &&
           (!filter->by_owner || filter->owner == record->point.owner) &&
           (!filter->by_cpu || filter->cpu == record->cpu);
}

/* A guest that is asked for and has had no exit yet, for it has not run since it was made; NULL:
 * none. */
static const struct guest *not_run(const struct trace_filter *filter)
{
    for (unsigned i = 1; i <= guest_count(); i++) {
        const struct guest *guest = guest_by_number(i);

        if ((!filter->by_owner || filter->owner == guest_owner(guest)) && !guest_ended(guest) &&
            guest->state != GUEST_RUNNING && vm_exit_total(guest) == 0 && guest->ticks == 0)
            return guest;
    }
    return NULL;
}

/* The newest that pass the filter, oldest first. What is shown causes no events: it maps and
 * allocates nothing. */
static int trace_show(const struct command *command, struct output *out,
                      const struct arguments *args)
{
    struct trace_filter filter;
    uint64_t end = tracing.written, first = end > RING_RECORDS ? end - RING_RECORDS : 0;
    uint64_t from = end, passing = 0;
    int error = take_filter(command, out, args, &filter);

    if (error)
        return error;
    if (!tracing.begun)
        return command_refuse(command, out, E_STATE,
                              "nothing has been traced: `trace on` begins it");
    while (from > first && passing < filter.most) {
        from--;
        passing += passes(&filter, &tracing.ring[from % RING_RECORDS]);
    }
    for (uint64_t at = from; at < end; at++) {
        const struct trace_record *record = &tracing.ring[at % RING_RECORDS];
        if (passes(&filter, record))
            show_event(out, at, record);
    }
    const struct guest *waiting = NULL;
    if ((filter.events & BIT_OF(TRACE_EXIT)) && !filter.by_cpu)
        waiting = not_run(&filter);
    if (!passing && waiting)
        output_note(out, "g%u %s has not run since it was made (%s): `start g%u` lets it run.",
                    waiting->number, waiting->name, guest_state_name(waiting->state),
                    waiting->number);
    else if (!passing)
        output_note(out, "No event of these is in the ring.");
    show_state(out);
    return E_OK;
}

/* --- Counters ----------------------------------------------------------------------------------
 */

static const struct column flush_columns[] = {
    {"table", COLUMN_TEXT, 16},  {"asked", COLUMN_NUMBER, 8},  {"ranges", COLUMN_NUMBER, 8},
    {"whole", COLUMN_NUMBER, 8}, {"spared", COLUMN_NUMBER, 8},
};
static const struct record flush_record = RECORD("flushes", flush_columns);

static const struct column tlb_columns[] = {
    {"INVLPG", COLUMN_NUMBER, 0},          {"CR3 loads", COLUMN_NUMBER, 0},
    {"INVPCID", COLUMN_NUMBER, 0},         {"everything global", COLUMN_NUMBER, 0},
    {"one guest table", COLUMN_NUMBER, 0}, {"all guest tables", COLUMN_NUMBER, 0},
    {"guest tag", COLUMN_NUMBER, 0},       {"guest tag at entry", COLUMN_NUMBER, 0},
};
static const struct record tlb_record = RECORD("invalidations", tlb_columns);

static void show_flushes(struct output *out, const char *name, const struct table *table)
{
    output_row(out, &flush_record,
               (struct value[]){as_text(name), as_number(table->flushes.asked),
                                as_number(table->flushes.ranges), as_number(table->flushes.whole),
                                as_number(table->flushes.spared)});
}

static int trace_counters(const struct command *command, struct output *out,
                          const struct arguments *args)
{
    struct tlb_counters tlb = tlb_counters_total();
    char name[OWNER_TEXT];

    if (args->count > 2)
        return command_refuse(command, out, E_INVAL, "nothing follows `trace counters`");
    show_flushes(out, "host", &kernel_table);
    for (unsigned i = 1; i <= guest_count(); i++)
        if (guest_by_number(i)->has_table)
            show_flushes(out, owner_text(name, guest_owner(guest_by_number(i))),
                         &guest_by_number(i)->table);
    output_facts(out, &tlb_record,
                 (struct value[]){as_number(tlb.invlpg), as_number(tlb.cr3_loads),
                                  as_number(tlb.invpcid), as_number(tlb.all_global),
                                  as_number(tlb.one_guest_table), as_number(tlb.all_guest_tables),
                                  as_number(tlb.guest_tag), as_number(tlb.guest_tag_at_entry)});
    return E_OK;
}

static int trace_command(const struct command *command, struct output *out,
                         const struct arguments *args)
{
    const char *what = args->count > 1 ? args->word[1] : "";

    if (strcmp(what, "on") == 0)
        return trace_on(command, out, args);
    if (strcmp(what, "show") == 0)
        return trace_show(command, out, args);
    if (strcmp(what, "counters") == 0)
        return trace_counters(command, out, args);
    if (strcmp(what, "off") == 0 && args->count == 2)
        __atomic_store_n(&trace_events, 0, __ATOMIC_RELEASE);
    else if (*what)
        return command_refuse(command, out, E_INVAL,
                              "\"%.20s\": it is `trace %s`, or `trace` alone",
                              args->word[args->count - 1], command->usage);
    show_state(out);
    return E_OK;
}

static const struct command trace_commands[] = {
    {
        .name = "trace",
        .usage = "on [EVENT ...] | off | show [N] [EVENT ...] [gN|host] [cpu=N] | counters",
        .summary = "what mapper, allocator, flushes, exits and interrupts have been doing",
        .details = "Alone it says whether anything is being traced. Events:\n" MAPPER_EVENTS "\n"
                   "(all of them: mapper), " ALLOCATOR_EVENTS " (allocator),\n"
                   "flush, exit, interrupt (handed to a guest; at: its vector). `on` keeps those\n"
                   "named, or all, in a ring; `show` gives the newest 20, or N, that pass its\n"
                   "filter, with the time since `on` in TSC ticks, the CPU, whose table or block\n"
                   "it was, and who called. `counters` says how many flushes writers asked for,\n"
                   "how many were done (by range, or of a whole context) and how often none was\n"
                   "needed.\n",
        .words = MAPPER_EVENTS " mapper " ALLOCATOR_EVENTS " allocator flush exit interrupt all",
        .example = "trace on mapper flush",
        .most = 12,
        .run = trace_command,
    },
};

const struct command_family trace_family = FAMILY("trace", trace_commands);
