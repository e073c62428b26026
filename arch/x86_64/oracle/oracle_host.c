/*
 * The host kinds against the CPU: accesses from ring 0, whose fault is caught by trap_probe_hook,
 * and from ring 3, by a few instructions on a page of their own whose every end is an exception.
 *
 * SDM Vol. 3, 4.6 "Access rights" and 4.7 "Page-fault exceptions".
 */
#include "arch/x86_64/cpu.h"
#include "arch/x86_64/mm/host_root.h"
#include "arch/x86_64/mm/kernel.h"
#include "arch/x86_64/mm/layout.h"
#include "arch/x86_64/mm/table_envs.h"
#include "arch/x86_64/oracle/random_table.h"
#include "arch/x86_64/percpu.h"
#include "arch/x86_64/trap.h"
#include "arch/x86_64/user_entry.h"
#include "lib/format.h"
#include "lib/panic.h"
#include "lib/string.h"
#include "mm/frames/buddy.h"
#include "mm/paging/typed.h"

#define INT3 0xcc

/* Between the direct map and the MMIO window nothing is ever placed (layout.h). */
#define KERNEL_FIRST (DIRECT_BASE + DIRECT_SIZE)
#define KERNEL_LAST (MMIO_BASE - 1)
/* The first slot of a user root is for the page that ring 3 runs on. */
#define USER_WINDOW_FIRST (512 * GiB)
#define USER_WINDOW_LAST (255 * 512 * GiB - 1)
#define STUB_AT USER_FIRST

#define PAIRS_A_TABLE 50
#define PAIRS_A_CHANGE 3 /* where the table changes between pairs */

_Static_assert(KERNEL_FIRST < KERNEL_LAST, "there is room that no window has");

/* ---- One access ----------------------------------------------------------------------------- */

struct conditions {
    bool ring3;
    bool wp, smep, smap, ac; /* as they are for this access */
};

#define NO_TRAP UINT64_MAX

/* The exception that an access ended in, and where ring 0 goes on after it. */
static struct {
    bool armed; /* an access is being made */
    uint64_t vector, error, address, rip, rax;
    uint64_t landing, stack;
} caught;

static bool catch_trap(struct trap_frame *frame)
{
    if (!caught.armed)
        return false;
    caught.armed = false;
    caught.vector = frame->vector;
    caught.error = frame->error;
    caught.address = read_cr2();
    caught.rip = frame->rip;
    caught.rax = frame->rax;
    if (trap_from_user(frame)) {
        user_leave_from(frame);
    } else {
        frame->rip = caught.landing;
        frame->rsp = caught.stack;
    }
    return true;
}

/* Each asm notes where it ends and its stack, for catch_trap() to send it there. */
#define LANDING                                                                                    \
    "leaq 1f(%%rip), %%rcx\n\t"                                                                    \
    "movq %%rcx, %[landing]\n\t"                                                                   \
    "movq %%rsp, %[stack]\n\t"

static uint8_t access_ring0(uint64_t at, unsigned access, uint8_t value)
{
    switch (access) {
    case RIGHT_R:
        __asm__ volatile(
            LANDING "movb (%[at]), %[value]\n1:"
            : [value] "+q"(value), [landing] "=m"(caught.landing), [stack] "=m"(caught.stack)
            : [at] "r"(at)
            : "rcx", "memory");
        break;
    case RIGHT_W:
        __asm__ volatile(LANDING "movb %[value], (%[at])\n1:"
                         : [landing] "=m"(caught.landing), [stack] "=m"(caught.stack)
                         : [at] "r"(at), [value] "q"(value)
                         : "rcx", "memory");
        break;
    default: /* what is there is INT3, or the fetch faults: it does not return */
        __asm__ volatile(LANDING "call *%[at]\n1:"
                         : [landing] "=m"(caught.landing), [stack] "=m"(caught.stack)
                         : [at] "r"(at)
                         : "rcx", "memory");
        break;
    }
    return value;
}

/* MOV RDI, imm64; then the access; then INT3. */
static void write_stub(uint8_t *stub, uint64_t at, unsigned access, uint8_t value)
{
    uint8_t code[] = {0x48, 0xbf, 0, 0, 0, 0, 0, 0, 0, 0, INT3, INT3, INT3, INT3, INT3};

    memcpy(code + 2, &at, sizeof(at));
    switch (access) {
    case RIGHT_R: /* MOV AL, [RDI] */
        memcpy(code + 10, (uint8_t[]){0x8a, 0x07}, 2);
        break;
    case RIGHT_W: /* MOV AL, imm8; MOV [RDI], AL */
        memcpy(code + 10, (uint8_t[]){0xb0, value, 0x88, 0x07}, 4);
        break;
    default: /* JMP RDI */
        memcpy(code + 10, (uint8_t[]){0xff, 0xe7}, 2);
        break;
    }
    memcpy(stub, code, sizeof(code));
}

static uint8_t access_ring3(uint8_t *stub, uint64_t at, unsigned access, uint8_t value)
{
    struct percpu *cpu = this_cpu();
    uint64_t rsp0 = cpu->tss.rsp[0];

    write_stub(stub, at, access, value);
    user_enter(STUB_AT, 0, RFLAGS_FIXED);
    tss_set_rsp0(rsp0);
    return (uint8_t)caught.rax;
}

/* ---- What the CPU will do ------------------------------------------------------------------- */

struct outcome {
    bool through;
    uint64_t error; /* of the page fault */
};

static void describe_outcome(char text[ORACLE_TEXT], const struct outcome *outcome)
{
    if (outcome->through)
        format_buffer(text, ORACLE_TEXT, "goes through");
    else
        format_buffer(text, ORACLE_TEXT, "page fault 0x%lx", outcome->error);
}

static bool permitted(unsigned rights, unsigned access, const struct conditions *c)
{
    bool user_page = rights & RIGHT_U;

    if (c->ring3)
        return user_page && (rights & access);
    if (access == RIGHT_X)
        return (rights & RIGHT_X) && !(user_page && c->smep);
    if (user_page && c->smap && !c->ac)
        return false;
    return access == RIGHT_R || (rights & RIGHT_W) || !c->wp;
}

static struct outcome predict(const struct pair *pair, const struct conditions *c)
{
    struct outcome outcome = {0};

    /* EFER.NXE is on, so that a fetch is always told from a read. */
    outcome.error = (pair->access == RIGHT_W ? PF_WRITE : 0) |
                    (pair->access == RIGHT_X ? PF_FETCH : 0) | (c->ring3 ? PF_USER : 0);
    if (pair->walk.error == E_NOENT)
        return outcome;
    outcome.error |= PF_PRESENT;
    if (pair->walk.error == E_ILLEGAL)
        outcome.error |= PF_RESERVED;
    else
        outcome.through = permitted(pair->walk.mapping.attrs.rights, pair->access, c);
    return outcome;
}

/* ---- Trying it ------------------------------------------------------------------------------ */

struct host_space {
    struct oracle *oracle;
    struct random_table random;
    uint8_t *stub; /* the page that ring 3 runs on, as the kernel sees it */
    bool as_is; /* with the control registers as they are: no change of them drops translations */
};

static void random_conditions(struct host_space *space, struct conditions *c)
{
    uint64_t bits = oracle_random(space->oracle);

    *c = (struct conditions){
        .ring3 = bits & 1,
        .wp = space->as_is || (bits >> 1 & 1),
        .smep = cpu_features.smep && (space->as_is || (bits >> 2 & 1)),
        .smap = cpu_features.smap && (space->as_is || (bits >> 3 & 1)),
        .ac = cpu_features.smap && (bits >> 4 & 1),
    };
}

static uint8_t access_under(struct host_space *space, const struct pair *pair,
                            const struct conditions *c, uint8_t value)
{
    uint64_t cr0 = read_cr0(), cr4 = read_cr4();

    if (!space->as_is) {
        write_cr0(c->wp ? cr0 | CR0_WP : cr0 & ~CR0_WP);
        write_cr4((cr4 & ~(CR4_SMEP | CR4_SMAP)) | (c->smep ? CR4_SMEP : 0) |
                  (c->smap ? CR4_SMAP : 0));
    }
    caught.vector = NO_TRAP;
    caught.armed = true;
    if (c->ring3) {
        value = access_ring3(space->stub, pair->in, pair->access, value);
    } else {
        if (c->ac)
            __asm__ volatile("stac" : : : "memory", "cc");
        value = access_ring0(pair->in, pair->access, value);
        if (c->ac)
            __asm__ volatile("clac" : : : "memory", "cc");
    }
    caught.armed = false;
    if (!space->as_is) {
        write_cr4(cr4);
        write_cr0(cr0);
    }
    return value;
}

/* What the access came to, as a phrase; NULL where it is as predicted. */
static const char *judge(struct host_space *space, const struct pair *pair,
                         const struct conditions *c, const struct outcome *predicted, uint8_t put,
                         uint8_t got, char happened[ORACLE_TEXT])
{
    bool ended_well = pair->access == RIGHT_X
                          ? caught.vector == VECTOR_BP && caught.rip == pair->in + 1
                          : caught.vector == (c->ring3 ? VECTOR_BP : NO_TRAP);

    if (caught.vector == VECTOR_PF) {
        struct outcome outcome = {false, caught.error};

        if (!predicted->through && caught.error == predicted->error && caught.address == pair->in)
            return NULL;
        describe_outcome(happened, &outcome);
        if (caught.address != pair->in)
            format_buffer(happened, ORACLE_TEXT, "page fault 0x%lx for 0x%lx", caught.error,
                          caught.address);
        return happened;
    }
    if (!ended_well) {
        format_buffer(happened, ORACLE_TEXT, "%s at 0x%lx",
                      caught.vector == NO_TRAP ? "no trap" : trap_name(caught.vector), caught.rip);
        return happened;
    }
    if (!predicted->through)
        return "goes through";
    uint8_t there = *(volatile uint8_t *)direct(pair->to);
    if ((pair->access == RIGHT_R && got != put) || (pair->access == RIGHT_W && there != put))
        return "goes through, to another frame";
    return check_accessed_dirty(space->random.table, pair);
}

static void describe_conditions(char text[ORACLE_TEXT], const struct conditions *c)
{
    format_buffer(text, ORACLE_TEXT, "ring %u%s%s%s%s", c->ring3 ? 3 : 0, c->wp ? " WP" : "",
                  c->smep ? " SMEP" : "", c->smap ? " SMAP" : "", c->ac ? " AC" : "");
}

static void try_pair(struct host_space *space)
{
    char conditions[ORACLE_TEXT], before[ORACLE_TEXT], happened[ORACLE_TEXT];
    struct oracle *oracle = space->oracle;
    struct conditions c;
    struct pair pair;

    random_pair(oracle, &space->random, 1, &pair);
    random_conditions(space, &c);
    struct outcome predicted = predict(&pair, &c);
    count_pair(oracle, &pair, !predicted.through);
    if (predicted.through)
        space->random.through = pair.in;

    /* A byte that nothing else holds: read it, write it, or run it. */
    uint8_t put = pair.access == RIGHT_X ? INT3 : (uint8_t)(1 + oracle_below(oracle, 100));
    uint8_t *to = pair.walk.error == E_OK ? direct(pair.to) : NULL;
    if (to != NULL && pair.access != RIGHT_W)
        *(volatile uint8_t *)to = put;
    uint8_t got = access_under(space, &pair, &c, pair.access == RIGHT_W ? put : 0);
    const char *wrong = judge(space, &pair, &c, &predicted, put, got, happened);
    if (to != NULL)
        *(volatile uint8_t *)to = FILLER;

    describe_conditions(conditions, &c);
    describe_outcome(before, &predicted);
    if (wrong != NULL)
        report_pair(oracle, &pair, conditions, before, wrong);
    if (!pair_is_consistent(space->random.table, &pair))
        report_pair(oracle, &pair, conditions, "what a walk says", "translate says otherwise");
}

/* Tries pairs on a table that is current. Either it is damaged first; or it stays legal and changes
 * between the pairs, where a translation that a flush has missed would show. */
static int try_pairs(struct host_space *space, bool damaged, uint64_t pairs)
{
    int error = E_OK;

    space->as_is = !damaged && oracle_below(space->oracle, 4) != 0;
    while (pairs-- > 0 && error == E_OK) {
        if (!damaged && oracle_below(space->oracle, PAIRS_A_CHANGE) == 0)
            error = random_table_change(space->oracle, &space->random);
        try_pair(space);
    }
    return error;
}

static void begin_catching(bool (**user_hook)(struct trap_frame *))
{
    *user_hook = trap_user_hook;
    trap_user_hook = catch_trap;
    trap_probe_hook = catch_trap;
    if (this_cpu()->put_guest)
        this_cpu()->put_guest();
}

static void end_catching(bool (*user_hook)(struct trap_frame *))
{
    trap_probe_hook = NULL;
    trap_user_hook = user_hook;
}

/* ---- The user kind -------------------------------------------------------------------------- */

static const struct attrs user_attrs[] = {
    {RIGHT_R | RIGHT_U, MEM_WB},
    {RIGHT_RW | RIGHT_U, MEM_WB},
    {RIGHT_RX | RIGHT_U, MEM_WB},
    {RIGHT_RWX | RIGHT_U, MEM_WB},
    {RIGHT_R, MEM_WB},
    {RIGHT_RW, MEM_WB},
    {RIGHT_RX, MEM_WB},
    {RIGHT_RWX, MEM_WB},
};

static uint64_t host_fatal(const struct table *table, unsigned level, bool leaf)
{
    uint64_t bits = long_mode_reserved(table, level, leaf);

    return bits != 0 ? bits : PTE_P;
}

static int map_stub(struct host_space *space, struct table *table)
{
    struct flush_batch batch;
    hpa_t frame;
    int error = buddy_alloc(0, PURPOSE_TEST, OWNER_HOST, &frame);

    if (error != E_OK)
        return error;
    flush_begin(&batch, table);
    error = hva_map(table, hva(STUB_AT), frame, PAGE_SIZE, attrs_of(RIGHT_RX | RIGHT_U, MEM_WB),
                    MAP_DEFAULT, &batch);
    flush_commit(&batch);
    space->stub = direct(frame);
    if (error != E_OK)
        invariant(buddy_free(frame, 0, OWNER_HOST) == E_OK);
    return error;
}

static void drop_stub(struct host_space *space, struct table *table)
{
    struct flush_batch batch;

    flush_begin(&batch, table);
    invariant(hva_unmap(table, hva(STUB_AT), PAGE_SIZE, &batch) == E_OK);
    flush_commit(&batch);
    invariant(buddy_free(direct_hpa(space->stub), 0, OWNER_HOST) == E_OK);
}

/* On a table of its own that is current meanwhile. */
static int try_user_table(struct host_space *space, uint64_t pairs)
{
    struct table *table = space->random.table;
    bool (*user_hook)(struct trap_frame *);
    int error = random_table_fill(space->oracle, &space->random);

    if (error == E_OK) {
        bool damaged = oracle_below(space->oracle, 3) != 0;

        if (damaged)
            random_table_damage(space->oracle, &space->random, LONG_MODE_HARMLESS, host_fatal);
        begin_catching(&user_hook);
        invariant(host_root_set(table) == E_OK);
        error = try_pairs(space, damaged, pairs);
        invariant(host_root_set(&kernel_table) == E_OK);
        end_catching(user_hook);
    }
    random_table_clear(&space->random);
    return error;
}

static int one_user_table(struct oracle *oracle, uint64_t pairs)
{
    struct table table;
    struct host_space space = {
        .oracle = oracle,
        .random = {.table = &table,
                   .first = USER_WINDOW_FIRST,
                   .last = USER_WINDOW_LAST,
                   .keep = STUB_AT,
                   .attrs = user_attrs,
                   .attrs_count = ARRAY_SIZE(user_attrs)},
    };
    int error = table_init(&table, &user_kind, &kernel_table.caps, &buddy_table_env,
                           PURPOSE_USER_TABLE, OWNER_HOST);

    if (error != E_OK)
        return error;
    /* No program runs: its PCID is free. */
    table.tag = (uint16_t)(OWNER_FIRST_USER + this_cpu()->number);
    error = table_share_upper(&table, &kernel_table);
    if (error == E_OK)
        error = map_stub(&space, &table);
    if (error == E_OK) {
        oracle->counts->tables++;
        error = try_user_table(&space, pairs);
        drop_stub(&space, &table);
    }
    invariant(table_destroy(&table) == E_OK);
    return error;
}

int oracle_user(struct oracle *oracle, uint64_t pairs)
{
    int error = E_OK;

    for (uint64_t part; pairs > 0 && error == E_OK; pairs -= part) {
        part = pairs < PAIRS_A_TABLE ? pairs : PAIRS_A_TABLE;
        error = one_user_table(oracle, part);
    }
    return error;
}

/* ---- The kernel kind ------------------------------------------------------------------------ */

static const struct attrs kernel_attrs[] = {
    {RIGHT_R, MEM_WB},
    {RIGHT_RW, MEM_WB},
    {RIGHT_RX, MEM_WB},
    {RIGHT_RWX, MEM_WB},
    {RIGHT_R | RIGHT_G, MEM_WB},
    {RIGHT_RW | RIGHT_G, MEM_WB},
    {RIGHT_RX | RIGHT_G, MEM_WB},
    {RIGHT_RWX | RIGHT_G, MEM_WB},
};

/* The table is the live one, so nothing in it is damaged. What was tried before is tried again
 * after everything has been unmapped, and in the next piece that comes to lie there. */
static int try_kernel(struct host_space *space, uint64_t pairs)
{
    bool (*user_hook)(struct trap_frame *);
    int error = E_OK;

    begin_catching(&user_hook);
    while (pairs > 0 && error == E_OK) {
        uint64_t part = pairs < PAIRS_A_TABLE ? pairs : PAIRS_A_TABLE;

        error = random_table_fill(space->oracle, &space->random);
        if (error == E_OK) {
            space->oracle->counts->tables++;
            pairs -= part;
            error = try_pairs(space, false, part);
        }
        random_table_clear(&space->random);
    }
    end_catching(user_hook);
    return error;
}

int oracle_kernel(struct oracle *oracle, uint64_t pairs)
{
    struct table user;
    struct host_space space = {
        .oracle = oracle,
        .random = {.table = &kernel_table,
                   .first = KERNEL_FIRST,
                   .last = KERNEL_LAST,
                   .attrs = kernel_attrs,
                   .attrs_count = kernel_table.caps.global ? ARRAY_SIZE(kernel_attrs)
                                                           : ARRAY_SIZE(kernel_attrs) / 2},
    };

    /* Under a program's root, so that ring 3 can try as well. */
    int error = table_init(&user, &user_kind, &kernel_table.caps, &buddy_table_env,
                           PURPOSE_USER_TABLE, OWNER_HOST);
    if (error != E_OK)
        return error;
    user.tag = (uint16_t)(OWNER_FIRST_USER + this_cpu()->number);
    error = table_share_upper(&user, &kernel_table);
    if (error == E_OK)
        error = map_stub(&space, &user);
    if (error == E_OK) {
        invariant(host_root_set(&user) == E_OK);
        error = try_kernel(&space, pairs);
        invariant(host_root_set(&kernel_table) == E_OK);
        drop_stub(&space, &user);
    }
    invariant(table_destroy(&user) == E_OK);
    return error;
}
