/*
 * Second-level tables, EPT or NPT, against the CPU: a guest of three instructions reads, writes or
 * runs a byte behind a linear address that its own page tables lead to the guest-physical address
 * in question. The random leaves lie in the lower half of its physical addresses, its code and its
 * page tables at the start of the upper one, which stays as the mapper made it.
 *
 *   guest-physical  half + 0x1000 PML4   0x2000 PDPT   0x3000 PD   0x4000 PT   0x5000 code
 *   linear          0x5000 code   0x6000 and on, up to 2 MiB: pages to try
 *
 * SDM Vol. 3, 29.3.3 "EPT-induced VM exits"; APM Vol. 2, 15.25.6 "Nested versus Guest Page Faults".
 */
#include "arch/x86_64/mm/ept.h"
#include "arch/x86_64/mm/host_entry.h"
#include "arch/x86_64/mm/table_envs.h"
#include "arch/x86_64/oracle/random_table.h"
#include "lib/format.h"
#include "lib/panic.h"
#include "lib/string.h"
#include "mm/frames/buddy.h"
#include "mm/paging/typed.h"
#include "x86/control.h"

#define GUEST_PML4 0x1000
#define GUEST_PDPT 0x2000
#define GUEST_PD 0x3000
#define GUEST_PT 0x4000
#define GUEST_CODE 0x5000
#define GUEST_TRY 0x6000 /* linear: pages from here to the end of what the PT maps */
#define GUEST_TRY_PAGES 500
#define GUEST_PAGES 5
#define GUEST_ORDER 3

#define CODE_READ 0x00
#define CODE_WRITE 0x10
#define CODE_RUN 0x20

#define WINDOW_FIRST 0 /* of guest-physical addresses */
#define WIDTH_MOST 46  /* of a guest-physical address that is tried */

#define PAIRS_A_TABLE 50
#define PAIRS_A_CHANGE 3 /* where the table changes between pairs */
#define SLICE 4000000    /* also enough for an emulator on a busy computer */
#define RUNS 64          /* for one access: more come back for another reason every time */

static const uint8_t vmcall[] = {0x0f, 0x01, 0xc1};
static const uint8_t jump_rsi[] = {0xff, 0xe6};

struct guest_space {
    struct oracle *oracle;
    struct random_table random;
    uint64_t half; /* of its physical addresses: where the upper one starts */
    hpa_t pages;   /* half + GUEST_PML4 and on */
    struct vcpu *vcpu;
    struct vm_exit exit; /* the last one */
    bool waits;          /* it was the hypercall after a read or a write: RSI says where to go on */
};

static void *page_of(const struct guest_space *space, uint64_t offset)
{
    return direct(hpa_add(space->pages, offset - GUEST_PML4));
}

/* ---- The guest ------------------------------------------------------------------------------ */

static void write_code(struct guest_space *space)
{
    uint8_t *code = page_of(space, GUEST_CODE);

    memcpy(code + CODE_READ, (uint8_t[]){0x8a, 0x07}, 2);  /* MOV AL, [RDI] */
    memcpy(code + CODE_WRITE, (uint8_t[]){0x88, 0x07}, 2); /* MOV [RDI], AL */
    memcpy(code + CODE_RUN, (uint8_t[]){0xff, 0xe7}, 2);   /* JMP RDI */
    for (unsigned i = CODE_READ; i <= CODE_WRITE; i += CODE_WRITE - CODE_READ) {
        memcpy(code + i + 2, vmcall, sizeof(vmcall));
        memcpy(code + i + 2 + sizeof(vmcall), jump_rsi, sizeof(jump_rsi));
    }
}

static void write_page_tables(struct guest_space *space)
{
    const uint64_t bits = space->half | PTE_P | PTE_RW | PTE_A | PTE_D;

    *(uint64_t *)page_of(space, GUEST_PML4) = GUEST_PDPT | bits;
    *(uint64_t *)page_of(space, GUEST_PDPT) = GUEST_PD | bits;
    *(uint64_t *)page_of(space, GUEST_PD) = GUEST_PT | bits;
    ((uint64_t *)page_of(space, GUEST_PT))[GUEST_CODE / PAGE_SIZE] = GUEST_CODE | bits;
}

static uint64_t linear_of(const struct pair *pair)
{
    return GUEST_TRY + pair->in / PAGE_SIZE % GUEST_TRY_PAGES * PAGE_SIZE + pair->in % PAGE_SIZE;
}

/* Has the pair's linear page lead to its guest-physical one. True when it led elsewhere before, so
 * that the CPU may know it so. */
static bool aim(struct guest_space *space, const struct pair *pair)
{
    uint64_t *entry = (uint64_t *)page_of(space, GUEST_PT) + linear_of(pair) / PAGE_SIZE;
    uint64_t was = *entry;

    *entry = align_down(pair->in, PAGE_SIZE) | PTE_P | PTE_RW | PTE_A | PTE_D;
    return was != 0 && was != *entry;
}

static uint64_t code_for(const struct pair *pair)
{
    return GUEST_CODE + (pair->access == RIGHT_R   ? CODE_READ
                         : pair->access == RIGHT_W ? CODE_WRITE
                                                   : CODE_RUN);
}

static struct vcpu_state state_for(const struct guest_space *space, const struct pair *pair,
                                   uint8_t value)
{
    const struct segment data = {.limit = UINT32_MAX, .selector = 0x10, .access = 0xc093};
    struct vcpu_state state = {
        .rip = code_for(pair),
        .rflags = RFLAGS_FIXED,
        .cr0 = CR0_PE | CR0_PG | CR0_NE | CR0_ET,
        .cr3 = space->half + GUEST_PML4,
        .cr4 = CR4_PAE,
        .efer = EFER_LME | EFER_LMA,
        .segment =
            {
                [SEG_ES] = data,
                [SEG_CS] = {.limit = UINT32_MAX, .selector = 0x08, .access = 0xa09b},
                [SEG_SS] = data,
                [SEG_DS] = data,
                [SEG_FS] = data,
                [SEG_GS] = data,
                [SEG_LDTR] = {.unusable = true},
                [SEG_TR] = {.limit = 0x67, .selector = 0x18, .access = 0x8b},
            },
    };

    state.gpr[RAX] = value;
    state.gpr[RDI] = linear_of(pair);
    return state;
}

/* ---- What the CPU will do, and did ---------------------------------------------------------- */

enum verdict { THROUGH, VIOLATION, MISCONFIGURATION, OTHER };

struct outcome {
    enum verdict verdict;
    unsigned allowed;  /* of a violation */
    const char *other; /* name of another exit */
};

static struct outcome predict(const struct pair *pair)
{
    const struct walk *walk = &pair->walk;

    if (walk->error == E_NOENT)
        return (struct outcome){.verdict = VIOLATION, .allowed = RIGHT_NONE};
    if (walk->error == E_ILLEGAL)
        return (struct outcome){.verdict = MISCONFIGURATION};
    if (walk->mapping.attrs.rights & pair->access)
        return (struct outcome){.verdict = THROUGH};
    return (struct outcome){.verdict = VIOLATION, .allowed = walk->mapping.attrs.rights};
}

static void describe_outcome(const struct guest_space *space, char text[ORACLE_TEXT],
                             const struct outcome *outcome)
{
    const char *kind = space->oracle->backend->kind->name;
    char rights[RIGHTS_TEXT];

    switch (outcome->verdict) {
    case THROUGH:
        format_buffer(text, ORACLE_TEXT, "goes through");
        return;
    case VIOLATION:
        format_buffer(text, ORACLE_TEXT, "%s violation, allowed %s", kind,
                      rights_text(rights, outcome->allowed));
        return;
    case MISCONFIGURATION:
        format_buffer(text, ORACLE_TEXT, "%s misconfiguration", kind);
        return;
    case OTHER:
        format_buffer(text, ORACLE_TEXT, "%s", outcome->other);
        return;
    }
}

/* The exit that a try ended in; where it does not concern the address in question it is OTHER. A
 * nested page fault does not tell the linear address. */
static struct outcome outcome_of(const struct guest_space *space, const struct pair *pair,
                                 const struct vm_exit *exit)
{
    uint64_t linear = linear_of(pair);
    bool told = space->oracle->backend->kind == &ept_kind;

    switch (exit->kind) {
    case VM_EXIT_MEMORY:
        if (exit->memory.gpa.v != pair->in || exit->memory.walk ||
            exit->memory.access != pair->access || exit->memory.gva_valid != told ||
            (told && exit->memory.gva.v != linear))
            return (struct outcome){OTHER, 0, "a violation by another access"};
        return (struct outcome){.verdict = VIOLATION, .allowed = exit->memory.allowed};
    case VM_EXIT_MISCONFIG:
        if (exit->memory.gpa.v != pair->in)
            return (struct outcome){OTHER, 0, "a misconfiguration elsewhere"};
        return (struct outcome){.verdict = MISCONFIGURATION};
    case VM_EXIT_HYPERCALL:
        if (pair->access == RIGHT_X && exit->rip != linear)
            return (struct outcome){OTHER, 0, "a hypercall from elsewhere"};
        return (struct outcome){.verdict = THROUGH};
    default:
        return (struct outcome){OTHER, 0, exit->name != NULL ? exit->name : "no exit"};
    }
}

/*
 * A guest that waits after a hypercall goes on from there, with all that the CPU knows of its
 * addresses; to set its state anew would have the CPU forget them.
 */
static int send_on(struct guest_space *space, const struct pair *pair, uint8_t value, bool forget)
{
    const struct vm_backend *backend = space->oracle->backend;
    struct vcpu_state state;

    if (!space->waits || forget) {
        state = state_for(space, pair, value);
        return backend->set_state(space->vcpu, &state);
    }
    backend->skip(space->vcpu, &space->exit);
    space->vcpu->gpr[RSI] = code_for(pair);
    space->vcpu->gpr[RDI] = linear_of(pair);
    space->vcpu->gpr[RAX] = value;
    return E_OK;
}

static int run_guest(struct guest_space *space, const struct pair *pair, uint8_t *value,
                     struct outcome *outcome)
{
    const struct vm_backend *backend = space->oracle->backend;
    struct vm_exit *exit = &space->exit;
    bool forget = aim(space, pair);
    int error = send_on(space, pair, *value, forget);

    *exit = (struct vm_exit){.kind = VM_EXIT_SLICE};
    for (unsigned runs = 0; runs < RUNS && error == E_OK; runs++) {
        error = backend->run(space->vcpu, SLICE, exit);
        if (exit->kind != VM_EXIT_SLICE && exit->kind != VM_EXIT_INTERRUPT &&
            exit->kind != VM_EXIT_HANDLED)
            break;
    }
    *value = (uint8_t)space->vcpu->gpr[RAX];
    *outcome = outcome_of(space, pair, exit);
    space->waits = exit->kind == VM_EXIT_HYPERCALL && pair->access != RIGHT_X;
    return error;
}

/* ---- Trying it ------------------------------------------------------------------------------ */

static const char *judge(struct guest_space *space, const struct pair *pair,
                         const struct outcome *predicted, const struct outcome *outcome,
                         uint8_t put, uint8_t got, char happened[ORACLE_TEXT])
{
    if (outcome->verdict != predicted->verdict || outcome->allowed != predicted->allowed) {
        describe_outcome(space, happened, outcome);
        return happened;
    }
    if (outcome->verdict != THROUGH)
        return NULL;
    uint8_t there = *(volatile uint8_t *)direct(pair->to);
    if ((pair->access == RIGHT_R && got != put) || (pair->access == RIGHT_W && there != put))
        return "goes through, to another frame";
    return check_accessed_dirty(space->random.table, pair);
}

static int try_pair(struct guest_space *space)
{
    char before[ORACLE_TEXT], happened[ORACLE_TEXT];
    struct oracle *oracle = space->oracle;
    struct outcome outcome;
    struct pair pair;

    random_pair(oracle, &space->random, sizeof(vmcall), &pair);
    struct outcome predicted = predict(&pair);
    count_pair(oracle, &pair, predicted.verdict != THROUGH);
    if (predicted.verdict == THROUGH)
        space->random.through = pair.in;

    uint8_t put = (uint8_t)(1 + oracle_below(oracle, 100));
    uint8_t *to = pair.walk.error == E_OK ? direct(pair.to) : NULL;
    if (to != NULL && pair.access == RIGHT_X)
        memcpy(to, vmcall, sizeof(vmcall));
    else if (to != NULL && pair.access == RIGHT_R)
        *(volatile uint8_t *)to = put;
    uint8_t got = pair.access == RIGHT_W ? put : 0;
    int error = run_guest(space, &pair, &got, &outcome);
    if (error != E_OK)
        return error;
    const char *wrong = judge(space, &pair, &predicted, &outcome, put, got, happened);
    if (to != NULL)
        memset(to, FILLER, sizeof(vmcall));

    describe_outcome(space, before, &predicted);
    if (wrong != NULL)
        report_pair(oracle, &pair, "guest", before, wrong);
    if (!pair_is_consistent(space->random.table, &pair))
        report_pair(oracle, &pair, "guest", "what a walk says", "translate says otherwise");
    return E_OK;
}

/* ---- Tables --------------------------------------------------------------------------------- */

/* R, W, X, A, the bit that makes a leaf ignore the guest's PAT, and ignored ones. The rights may
 * become a combination that no CPU accepts, or none. */
#define EPT_HARMLESS (EPT_R | EPT_W | EPT_X | EPT_A | BIT(11) | BITS(62, 52))

/* 29.3.3.1: reserved bits, reserved memory types. Bit 12 of large leaves is left alone: not every
 * emulator looks at it. */
static uint64_t ept_fatal(const struct table *table, unsigned level, bool leaf)
{
    uint64_t bits = table->caps.maxphyaddr < 52 ? BITS(51, table->caps.maxphyaddr) : 0;

    if (!leaf)
        bits |= level >= 4 ? BITS(7, 3) : BITS(6, 3);
    else
        bits |= EPT_TYPE; /* write-back less a bit: 2, 4 or 7; 4 is write-through, and legal */
    if (leaf && level == 2)
        bits |= BITS(20, 13);
    if (leaf && level == 3)
        bits |= BITS(29, 13);
    return bits;
}

/* Those of the host's entries (APM Vol. 2, 5.3.3); without U/S an entry lets nothing through. What
 * QEMU does not look at is left alone: bit 8 of entries for tables. */
static uint64_t npt_fatal(const struct table *table, unsigned level, bool leaf)
{
    return long_mode_reserved(table, level, leaf) | PTE_US;
}

static void damage(struct guest_space *space)
{
    if (space->oracle->backend->kind == &ept_kind)
        random_table_damage(space->oracle, &space->random, EPT_HARMLESS, ept_fatal);
    else
        random_table_damage(space->oracle, &space->random, LONG_MODE_HARMLESS, npt_fatal);
}

static int map_guest_pages(struct guest_space *space, struct table *table)
{
    struct flush_batch batch;

    flush_begin(&batch, table);
    int error = gpa_map(table, gpa(space->half + GUEST_PML4), space->pages, GUEST_PAGES * PAGE_SIZE,
                        attrs_of(RIGHT_RWX, MEM_WB), MAP_DEFAULT, &batch);
    flush_commit(&batch);
    return error;
}

static int try_table(struct guest_space *space, struct table *table, uint64_t pairs)
{
    const struct vm_backend *backend = space->oracle->backend;
    int error = map_guest_pages(space, table);

    space->waits = false;
    memset((uint64_t *)page_of(space, GUEST_PT) + GUEST_TRY / PAGE_SIZE, 0,
           GUEST_TRY_PAGES * sizeof(uint64_t));

    if (error == E_OK)
        error = random_table_fill(space->oracle, &space->random);
    if (error == E_OK)
        error = backend->vcpu_create(NULL, table, OWNER_HOST, &space->vcpu);
    if (error == E_OK) {
        bool damaged = oracle_below(space->oracle, 3) != 0;

        if (damaged)
            damage(space);
        space->oracle->counts->tables++;
        while (pairs-- > 0 && error == E_OK) {
            if (!damaged && oracle_below(space->oracle, PAIRS_A_CHANGE) == 0)
                error = random_table_change(space->oracle, &space->random);
            if (error == E_OK)
                error = try_pair(space);
        }
        backend->vcpu_destroy(space->vcpu);
    }
    random_table_clear(&space->random);
    return error;
}

static int one_table(struct guest_space *space, uint64_t pairs)
{
    const struct vm_backend *backend = space->oracle->backend;
    struct table table;
    int error = table_init(&table, backend->kind, backend->table_caps(), backend->table_env(),
                           backend->kind->purpose, OWNER_HOST);

    if (error != E_OK)
        return error;
    space->random.table = &table;
    error = try_table(space, &table, pairs);
    invariant(table_destroy(&table) == E_OK);
    return error;
}

int oracle_guest(struct oracle *oracle, uint64_t pairs)
{
    static const struct attrs attrs[] = {
        {RIGHT_R, MEM_WB},   {RIGHT_RW, MEM_WB}, {RIGHT_RX, MEM_WB},
        {RIGHT_RWX, MEM_WB}, {RIGHT_X, MEM_WB}, /* the last where it is offered */
    };
    const struct table_caps *caps = oracle->backend->table_caps();
    unsigned width = caps->maxphyaddr < WIDTH_MOST ? caps->maxphyaddr : WIDTH_MOST;
    struct guest_space space = {
        .oracle = oracle,
        .half = BIT(width - 1),
        .random = {.first = WINDOW_FIRST,
                   .last = BIT(width - 1) - 1,
                   .keep = BIT(width - 1) + GUEST_CODE,
                   .attrs = attrs,
                   .attrs_count = ARRAY_SIZE(attrs) - (caps->execute_only ? 0 : 1)},
    };
    int error = buddy_alloc(GUEST_ORDER, PURPOSE_TEST, OWNER_HOST, &space.pages);

    if (error != E_OK)
        return error;
    memset(direct(space.pages), 0, PAGE_SIZE << GUEST_ORDER);
    write_code(&space);
    write_page_tables(&space);
    for (uint64_t part; pairs > 0 && error == E_OK; pairs -= part) {
        part = pairs < PAIRS_A_TABLE ? pairs : PAIRS_A_TABLE;
        error = one_table(&space, part);
    }
    invariant(buddy_free(space.pages, GUEST_ORDER, OWNER_HOST) == E_OK);
    return error;
}
