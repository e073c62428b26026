/*
 * The protocol of arch/x86_64/mm/shootdown.c as a model, and all of its interleavings: three CPUs,
 * each with a short script of loads, unloads, reads and flushes; every step that another CPU can
 * see is one transition, and an NMI may come before each of them. Searched breadth first, each
 * state once.
 *
 * The table is a number: `entry`, which a writer makes larger, under the table's lock where its
 * script says so. A CPU that uses the table caches the number. What must hold:
 *
 *   - when a flush is over (the frames go back), no CPU holds an older number that it may use, nor
 *     is in a read that began before;
 *   - no state is without a way on, but the one in which every script is over;
 *   - a CPU that loads the table holds, once it may use it, nothing older than the last flush that
 *     was over by then.
 *
 * Each break of the protocol that `struct broken` names must be found by the same search.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define CPUS 3
#define SCRIPT 5
#define STATES (1u << 22)
#define NOBODY 7

enum op { END, LOAD, UNLOAD, USE, READ, FLUSH, FLUSH_LOCKED };

/* Where a CPU is in its operation. */
enum step {
    NEXT,
    /* LOAD */
    PUBLISHED,
    COUNTED,
    /* READ */
    READ_BEGUN, /* the depth is 1, nothing read yet */
    READING,
    READ_OVER, /* the depth is 0, what is owed not yet looked at */
    /* FLUSH */
    WANTS_TABLE,
    STORES,
    COUNTS,
    LOOKS,
    WANTS_LOCK,
    ASKS,
    FORGETS,
    WAITS,
};

struct cpu {
    uint8_t pc, step;
    uint8_t published, usable; /* its context; it may use what it holds */
    uint8_t cached;            /* the number it holds; 0: nothing */
    uint8_t seen;              /* the generation it knows */
    uint8_t asked, answered, owes, reading, nmi;
    uint8_t mask, number; /* of the flush that it has under way */
    uint8_t read;         /* the number that its read began with */
    uint8_t flushed;      /* entry as its flush was begun */
    uint8_t generation;   /* that it has read while it loads */
};

struct state {
    struct cpu cpu[CPUS];
    uint8_t entry, generation, number;
    uint8_t lock, table_lock; /* the holder, or NOBODY */
    uint8_t request;          /* the number that is being flushed */
    uint8_t over;             /* the newest number whose flush is over */
};

static struct broken {
    bool answer_first;    /* the answer before the flush */
    bool wrong_mask;      /* CPU 2 is never asked */
    bool no_generation;   /* the flush is not counted */
    bool look_first;      /* the generation is read before the table is published */
    bool count_late;      /* the masks are read before the flush is counted */
    bool read_answers;    /* a read does not put the answer off */
    bool no_nmi_in_spin;  /* who waits for a lock takes no NMI */
    bool readers_unasked; /* who only reads, and has not loaded the table, is not asked */
    bool goes_on;         /* the sender waits for no answer */
} broken;

static uint8_t script[CPUS][SCRIPT];

/* ---- Steps --------------------------------------------------------------------------------- */

static const char *failure;

static void gone_wrong(const char *what)
{
    if (!failure)
        failure = what;
}

static void fill(const struct state *s, struct cpu *cpu)
{
    if (cpu->cached == 0)
        cpu->cached = s->entry;
}

/* The flush is over: what was replaced may be given away. */
static void check_over(struct state *s, uint8_t flushed)
{
    if (flushed > s->over)
        s->over = flushed;
    for (unsigned i = 0; i < CPUS; i++) {
        if (s->cpu[i].usable && s->cpu[i].cached && s->cpu[i].cached < s->over)
            gone_wrong("a CPU holds what was flushed");
        if ((s->cpu[i].step == READING) && s->cpu[i].read < s->over)
            gone_wrong("a CPU reads what was freed");
    }
}

static void take_nmi(struct state *s, unsigned n)
{
    struct cpu *cpu = &s->cpu[n];

    cpu->nmi = 0;
    if (cpu->asked == cpu->answered)
        return;
    cpu->cached = 0;
    if (cpu->reading && !broken.read_answers)
        cpu->owes = cpu->asked;
    else
        cpu->answered = cpu->asked;
}

static bool spins(const struct state *s, const struct cpu *cpu)
{
    return (cpu->step == WANTS_TABLE && s->table_lock != NOBODY) ||
           (cpu->step == WANTS_LOCK && s->lock != NOBODY);
}

static bool all_answered(const struct state *s, const struct cpu *cpu)
{
    for (unsigned i = 0; i < CPUS; i++)
        if ((cpu->mask >> i & 1) && s->cpu[i].answered != cpu->number)
            return false;
    return true;
}

static void begin(struct state *s, struct cpu *cpu, unsigned n)
{
    uint8_t op = script[n][cpu->pc];

    switch (op) {
    case LOAD:
        if (broken.look_first)
            cpu->generation = s->generation;
        else
            cpu->published = 1;
        cpu->step = PUBLISHED;
        return;
    case UNLOAD:
        cpu->usable = 0; /* what is cached stays, as under a tag */
        cpu->published = 0;
        break;
    case USE:
        if (cpu->usable)
            fill(s, cpu);
        break;
    case READ:
        cpu->reading = 1;
        cpu->step = READ_BEGUN;
        return;
    case FLUSH_LOCKED:
        cpu->step = WANTS_TABLE;
        return;
    case FLUSH:
        cpu->step = STORES;
        return;
    }
    cpu->pc++;
}

static void end_flush(struct state *s, struct cpu *cpu, unsigned n)
{
    check_over(s, cpu->flushed);
    if (s->table_lock == n)
        s->table_lock = NOBODY;
    cpu->step = NEXT;
    cpu->pc++;
}

static void look_who(struct state *s, struct cpu *cpu, unsigned n)
{
    cpu->mask = 0;
    for (unsigned i = 0; i < CPUS; i++)
        if (i != n && (s->cpu[i].published || (s->cpu[i].reading && !broken.readers_unasked)) &&
            !(broken.wrong_mask && i == 2))
            cpu->mask |= (uint8_t)(1u << i);
}

/* The sender's; false where it has to wait. */
static bool step_flush(struct state *s, struct cpu *cpu, unsigned n)
{
    switch (cpu->step) {
    case WANTS_TABLE:
        if (s->table_lock != NOBODY)
            return false;
        s->table_lock = (uint8_t)n;
        cpu->step = STORES;
        return true;
    case STORES:
        cpu->flushed = ++s->entry;
        cpu->step = COUNTS;
        return true;
    case COUNTS:
        if (broken.count_late)
            look_who(s, cpu, n);
        else if (!broken.no_generation)
            s->generation++;
        cpu->step = LOOKS;
        return true;
    case LOOKS:
        if (broken.count_late)
            s->generation++;
        else
            look_who(s, cpu, n);
        cpu->step = cpu->mask ? WANTS_LOCK : FORGETS;
        return true;
    case WANTS_LOCK:
        if (s->lock != NOBODY)
            return false;
        s->lock = (uint8_t)n;
        cpu->number = ++s->number;
        cpu->step = ASKS;
        return true;
    case ASKS: /* one CPU a step */
        for (unsigned i = 0; i < CPUS; i++)
            if ((cpu->mask >> i & 1) && s->cpu[i].asked != cpu->number) {
                s->cpu[i].asked = cpu->number;
                if (broken.answer_first)
                    s->cpu[i].answered = cpu->number;
                s->cpu[i].nmi = 1;
                return true;
            }
        cpu->step = FORGETS;
        return true;
    case FORGETS:
        cpu->cached = 0;
        cpu->step = WAITS;
        return true;
    default: /* WAITS */
        if (cpu->mask && !broken.goes_on && !all_answered(s, cpu))
            return false;
        if (s->lock == n)
            s->lock = NOBODY;
        end_flush(s, cpu, n);
        return true;
    }
}

static bool step(struct state *s, unsigned n)
{
    struct cpu *cpu = &s->cpu[n];

    switch (cpu->step) {
    case NEXT:
        if (script[n][cpu->pc] == END)
            return false;
        begin(s, cpu, n);
        return true;
    case PUBLISHED:
        if (broken.look_first)
            cpu->published = 1;
        else
            cpu->generation = s->generation;
        cpu->step = COUNTED;
        return true;
    case COUNTED:
        if (cpu->generation != cpu->seen)
            cpu->cached = 0;
        cpu->seen = cpu->generation;
        cpu->usable = 1;
        if (cpu->cached && cpu->cached < s->over)
            gone_wrong("a CPU loads what was flushed");
        cpu->step = NEXT;
        cpu->pc++;
        return true;
    case READ_BEGUN:
        cpu->read = s->entry;
        cpu->step = READING;
        return true;
    case READING:
        cpu->reading = 0;
        cpu->step = READ_OVER;
        return true;
    case READ_OVER:
        if (cpu->owes > cpu->answered)
            cpu->answered = cpu->owes;
        cpu->step = NEXT;
        cpu->pc++;
        return true;
    default:
        return step_flush(s, cpu, n);
    }
}

/* ---- The search ---------------------------------------------------------------------------- */

static struct state *queue;
static uint32_t *buckets, *next_in_bucket, found;

static uint32_t hash_of(const struct state *s)
{
    const uint8_t *bytes = (const uint8_t *)s;
    uint32_t hash = 2166136261u;

    for (size_t i = 0; i < sizeof(*s); i++)
        hash = (hash ^ bytes[i]) * 16777619u;
    return hash % STATES;
}

static void reach(const struct state *s)
{
    uint32_t hash = hash_of(s);

    for (uint32_t i = buckets[hash]; i; i = next_in_bucket[i])
        if (memcmp(&queue[i], s, sizeof(*s)) == 0)
            return;
    assert_true(found + 1 < STATES);
    queue[++found] = *s;
    next_in_bucket[found] = buckets[hash];
    buckets[hash] = found;
}

static bool is_end(const struct state *s)
{
    for (unsigned i = 0; i < CPUS; i++)
        if (s->cpu[i].step != NEXT || script[i][s->cpu[i].pc] != END)
            return false;
    return true;
}

static void follow(const struct state *from)
{
    bool moved = false;

    for (unsigned n = 0; n < CPUS; n++) {
        struct state s = *from;

        if (s.cpu[n].nmi && !(broken.no_nmi_in_spin && spins(&s, &s.cpu[n]))) {
            take_nmi(&s, n);
            reach(&s);
            moved = true;
            s = *from;
        }
        if (step(&s, n)) {
            reach(&s);
            moved = true;
        }
    }
    if (!moved && !is_end(from))
        gone_wrong("no CPU can go on");
}

/* NULL: all is well. */
static const char *search(void)
{
    struct state start;

    memset(&start, 0, sizeof(start));
    start.entry = 1;
    start.lock = start.table_lock = NOBODY;
    memset(buckets, 0, STATES * sizeof(*buckets));
    found = 0;
    failure = NULL;
    reach(&start);
    for (uint32_t at = 1; at <= found && !failure; at++)
        follow(&queue[at]);
    return failure;
}

/* ---- Scripts ------------------------------------------------------------------------------- */

#define SCRIPTS 9
static const uint8_t scripts[SCRIPTS][CPUS][SCRIPT] = {
    {{FLUSH, FLUSH}, {LOAD, USE, UNLOAD, LOAD}, {LOAD, USE, USE, USE}},
    {{FLUSH_LOCKED}, {LOAD, USE, FLUSH_LOCKED}, {LOAD, USE, FLUSH_LOCKED}},
    {{LOAD, USE, FLUSH}, {LOAD, USE, FLUSH}, {LOAD, USE, FLUSH}},
    {{LOAD, FLUSH_LOCKED}, {LOAD, FLUSH}, {LOAD, READ, READ}},
    {{FLUSH, FLUSH}, {LOAD, USE, READ, USE}, {LOAD, USE, UNLOAD}},
    {{FLUSH}, {LOAD, USE, UNLOAD, LOAD}, {LOAD, UNLOAD, LOAD, USE}},
    {{LOAD, USE, FLUSH, USE}, {FLUSH_LOCKED}, {LOAD, READ, USE}},
    {{FLUSH_LOCKED, FLUSH}, {LOAD, USE, FLUSH_LOCKED}, {LOAD, READ}},
    {{FLUSH, FLUSH_LOCKED}, {READ, READ, FLUSH}, {READ, LOAD, USE}},
};

static const char *search_all(uint64_t *states)
{
    const char *what = NULL;

    for (unsigned i = 0; i < SCRIPTS && !what; i++) {
        memcpy(script, scripts[i], sizeof(script));
        what = search();
        *states += found;
    }
    return what;
}

static void test_every_interleaving(void **state)
{
    uint64_t states = 0;

    (void)state;
    broken = (struct broken){0};
    const char *what = search_all(&states);
    if (what)
        fail_msg("%s", what);
    print_message("%lu states of %u scripts\n", (unsigned long)states, SCRIPTS);
    assert_true(states > 10000);
}

static void finds(struct broken how, const char *expected)
{
    uint64_t states = 0;

    broken = how;
    const char *what = search_all(&states);
    if (!what || strcmp(what, expected) != 0)
        fail_msg("it finds %s, and not that %s", what ? what : "nothing", expected);
}

static void test_breaks_are_found(void **state)
{
    (void)state;
    finds((struct broken){.answer_first = true}, "a CPU holds what was flushed");
    finds((struct broken){.wrong_mask = true}, "a CPU holds what was flushed");
    finds((struct broken){.goes_on = true}, "a CPU holds what was flushed");
    finds((struct broken){.no_generation = true}, "a CPU loads what was flushed");
    finds((struct broken){.look_first = true}, "a CPU loads what was flushed");
    finds((struct broken){.count_late = true}, "a CPU loads what was flushed");
    finds((struct broken){.read_answers = true}, "a CPU reads what was freed");
    finds((struct broken){.readers_unasked = true}, "a CPU reads what was freed");
    finds((struct broken){.no_nmi_in_spin = true}, "no CPU can go on");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_interleaving),
        cmocka_unit_test(test_breaks_are_found),
    };
    queue = malloc(STATES * sizeof(*queue));
    buckets = malloc(STATES * sizeof(*buckets));
    next_in_bucket = malloc(STATES * sizeof(*next_in_bucket));
    if (!queue || !buckets || !next_in_bucket)
        return 1;
    int failed = cmocka_run_group_tests_name("shootdown model", tests, NULL, NULL);
    free(queue);
    free(buckets);
    free(next_in_bucket);
    return failed;
}
