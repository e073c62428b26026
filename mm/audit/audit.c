/*
 * See mm/audit/audit.h. Tables are read through the walker's own primitives (mm/paging/walker.h),
 * for a kind that is known only at run time; the loop over them is this file's own, because the
 * walker follows what an entry says and this one must first ask whether it may.
 */
#include "mm/audit/audit.h"

#include "lib/format.h"
#include "mm/frames/buddy.h"
#include "mm/paging/entry_count.h"
#include "mm/audit/tally.h"
#include "mm/paging/walker.h"

#define TABLES_LIMIT 128
#define ALIAS_RUNS 32

/* The rules for which the tables' structure has to be gone through. */
#define STRUCTURE                                                                                  \
    (AUDIT_ALL &                                                                                   \
     ~(AUDIT_ADDRESS_SPACE | BIT(AUDIT_UPPER_HALF) | BIT(AUDIT_ROOT) | BIT(AUDIT_BATCHES)))

#define TABLE_PURPOSES (BIT(PURPOSE_HOST_TABLE) | BIT(PURPOSE_USER_TABLE) | BIT(PURPOSE_EPT_TABLE))
#define SHOWN_PURPOSES (BIT(PURPOSE_USER_RAM) | BIT(PURPOSE_GUEST_RAM))

struct auditor {
    const struct audit *audit;
    audit_report_fn report;
    void *ctx;
    struct audit_totals *totals;
    struct tally tally;
    int error;                          /* E_NOMEM: no scratch memory */
    uint64_t unsafe[TABLES_LIMIT / 64]; /* tables that lead where nobody should read */

    /* Of the table that is being judged. */
    const struct audit_table *now;
    uint64_t tables, memory; /* frames reached; of memory, the owner's own */
    bool moot;
    uint64_t legal[4];  /* by level: the flags of a leaf found legal last ... */
    bool have_legal[4]; /* ... if any */
};

const char *audit_rule_text(enum audit_rule rule)
{
    static const char *const text[AUDIT_RULES] = {
        [AUDIT_TABLE_MEMORY] = "tables lie in RAM that is in use",
        [AUDIT_TABLE_TAG] = "tables' frames are recorded as their kind's",
        [AUDIT_TABLE_OWNER] = "tables' frames are recorded as their owner's",
        [AUDIT_TABLE_ONCE] = "each table is reached once",
        [AUDIT_TABLE_COUNT] = "table frames are as many as counted",
        [AUDIT_TABLE_STRAY] = "each frame recorded as a table is reached",
        [AUDIT_ENTRY_LEGAL] = "each entry is one that the CPU accepts",
        [AUDIT_ENTRY_COUNT] = "present entries are as many as recorded",
        [AUDIT_LEAF_RAM] = "no guest or program sees other than RAM",
        [AUDIT_LEAF_FREE] = "no guest or program sees a free frame",
        [AUDIT_LEAF_PURPOSE] = "no guest or program sees the hypervisor's memory",
        [AUDIT_LEAF_OWNER] = "no guest or program sees another's memory",
        [AUDIT_LEAF_SHARED] = "memory seen twice is shared, as recorded",
        [AUDIT_LEAF_STRAY] = "each frame of guest and user memory is seen",
        [AUDIT_OWNER_COUNT] = "owners hold what their tables reach",
        [AUDIT_WRITE_EXECUTE] = "nothing is writable and executable",
        [AUDIT_GUARD] = "guard pages are absent",
        [AUDIT_UPPER_HALF] = "each root has the kernel's half",
        [AUDIT_ROOT] = "root registers hold the tables' roots",
        [AUDIT_BATCHES] = "each flush batch was committed",
        [AUDIT_DYING] = "no frame waits for a flush",
    };
    return (unsigned)rule < AUDIT_RULES ? text[rule] : "unknown rule";
}

const char *audit_line(char text[AUDIT_LINE], const struct audit_finding *finding)
{
    char in[32] = "", at[32] = "";

    if (finding->has_in)
        format_buffer(in, sizeof(in), "0x%lx: ", finding->in);
    if (finding->has_at)
        format_buffer(at, sizeof(at), "%s0x%lx: ", finding->has_in ? "at " : "frame ",
                      finding->at.v);
    format_buffer(text, AUDIT_LINE, "%s%s%s%s%s (rule: %s)", finding->table ? finding->table : "",
                  finding->table ? ": " : "", in, at, finding->detail,
                  audit_rule_text(finding->rule));
    return text;
}

/* ---- Findings ------------------------------------------------------------------------------- */

struct place {
    bool has_in, has_at;
    uint64_t in;
    hpa_t at;
};

static struct place at_input(uint64_t in)
{
    return (struct place){.has_in = true, .in = in};
}

static struct place at_frame(hpa_t at)
{
    return (struct place){.has_at = true, .at = at};
}

static struct place at_both(uint64_t in, hpa_t at)
{
    return (struct place){.has_in = true, .has_at = true, .in = in, .at = at};
}

static bool wanted(const struct auditor *a, enum audit_rule rule)
{
    return (a->audit->rules >> rule & 1) != 0;
}

/* Notes that a rule was judged; says whether it is asked for at all. */
static bool judging(struct auditor *a, enum audit_rule rule)
{
    if (!wanted(a, rule))
        return false;
    a->totals->rules |= BIT(rule);
    return true;
}

__attribute__((format(printf, 5, 6))) static void found(struct auditor *a, enum audit_rule rule,
                                                        const char *table, struct place place,
                                                        const char *detail, ...)
{
    struct audit_finding finding = {
        .rule = rule,
        .table = table,
        .has_in = place.has_in,
        .has_at = place.has_at,
        .in = place.in,
        .at = place.at,
    };
    va_list args;

    if (!judging(a, rule))
        return;
    a->totals->found++;
    if (++a->totals->findings[rule] > AUDIT_REPORTED || a->report == NULL)
        return;
    va_start(args, detail);
    vformat_buffer(finding.detail, sizeof(finding.detail), detail, args);
    va_end(args);
    a->report(a->ctx, &finding);
}

/* ---- Memory that leaves show ---------------------------------------------------------------- */

/* Counts frames as reached; those reached before are to be shared. False: no scratch memory. */
static bool reach_memory(struct auditor *a, uint64_t in, hpa_t base, uint64_t frames,
                         const struct frame_info *info)
{
    uint64_t again, first;

    a->error = tally_add(&a->tally, pfn_of(base), frames, &again, &first);
    if (a->error != E_OK)
        return false;
    a->totals->memory += frames - again;
    if (info->owner == a->now->table->owner)
        a->memory += frames - again;
    if (again != 0 && info->state != FRAME_SHARED)
        found(a, AUDIT_LEAF_SHARED, a->now->name,
              at_both(in + ((first - pfn_of(base)) << PAGE_SHIFT), hpa_of_pfn(first)),
              "%lu frames from here are shown elsewhere as well, and not shared", again);
    return true;
}

/* What is wrong with this block's being shown by the table; AUDIT_RULES: nothing. */
static enum audit_rule shown_rule(const struct audit_table *t, const struct frame_info *info)
{
    switch (info->state) {
    case FRAME_FREE:
    case FRAME_CACHED:
    case FRAME_DYING:
        return AUDIT_LEAF_FREE;
    case FRAME_RESERVED:
        return AUDIT_LEAF_PURPOSE;
    case FRAME_USED:
    case FRAME_TAIL:
    case FRAME_SHARED:
        break;
    }
    if ((t->shows >> info->purpose & 1) == 0)
        return AUDIT_LEAF_PURPOSE;
    return info->owner != t->table->owner && info->state != FRAME_SHARED ? AUDIT_LEAF_OWNER
                                                                         : AUDIT_RULES;
}

/* Judges [base, base + size), shown from `in` on, block by block, up to the first that is wrong. */
static bool judge_shown(struct auditor *a, uint64_t in, hpa_t base, uint64_t size)
{
    const struct audit_table *t = a->now;

    for (uint64_t done = 0, part; done < size; done += part) {
        hpa_t at = hpa_add(base, done), head;
        uint64_t record;

        if (!buddy_block(at, &head, &record)) {
            a->moot = true;
            found(a, AUDIT_LEAF_RAM, t->name, at_both(in + done, at), "it shows what is not RAM");
            return true;
        }
        struct frame_info info = frame_record_decode(record);
        enum audit_rule rule = shown_rule(t, &info);

        if (rule != AUDIT_RULES) {
            a->moot = true;
            found(a, rule, t->name, at_both(in + done, at),
                  "it shows a frame that is %s: %s of owner %u", frame_state_name(info.state),
                  purpose_name(info.purpose), info.owner);
            return true;
        }
        part = head.v + (PAGE_SIZE << info.order) - at.v;
        if (part > size - done)
            part = size - done;
        if (!reach_memory(a, in + done, at, part >> PAGE_SHIFT, &info))
            return false;
    }
    return true;
}

/* ---- Tables --------------------------------------------------------------------------------- */

/* One table on the way from the root to where the auditor is. */
struct node {
    uint64_t *table;
    uint64_t in;        /* the first input address that it covers */
    unsigned next, end; /* slots still to be looked at */
    unsigned children;  /* non-leaf entries still to be followed */
};

/* Address bits that a legal leaf of this level may have: what is legal does not depend on them. */
static uint64_t free_address_bits(const struct table_kind *k, const struct table_caps *caps,
                                  unsigned level)
{
    unsigned width = caps->maxphyaddr < 52 ? caps->maxphyaddr : 52;

    return BITS(width - 1, level_shift(k, level)) & ENTRY_ADDRESS;
}

/* Leaves of one table are mostly alike: what was legal is remembered by its flags. */
static enum rule judge_entry(struct auditor *a, const struct table *t, unsigned level,
                             uint64_t entry)
{
    uint64_t flags;

    if (level > 3 || level > t->caps.leaf_top)
        return entry_rule(t->kind, &t->caps, level, entry);
    flags = entry & ~free_address_bits(t->kind, &t->caps, level);
    if (a->have_legal[level] && a->legal[level] == flags)
        return RULE_OK;
    enum rule rule = entry_rule(t->kind, &t->caps, level, entry);
    if (rule == RULE_OK && is_leaf(t->kind, entry, level)) {
        a->legal[level] = flags;
        a->have_legal[level] = true;
    }
    return rule;
}

static void mark_unsafe(struct auditor *a)
{
    unsigned index = (unsigned)(a->now - a->audit->table);

    a->unsafe[index / 64] |= BIT(index % 64);
    a->moot = true;
}

/* Judges every entry of a table but for where non-leaf ones lead to. False: no scratch memory. */
static bool judge_entries(struct auditor *a, struct node *node, unsigned level)
{
    struct table *t = a->now->table;
    const struct table_kind *k = t->kind;
    uint64_t step = level_size(k, level);
    uint64_t run_in = 0, run_base = 0, run_size = 0;
    uint64_t present_mask = k->present_mask;
    const uint64_t *table = node->table;
    uint64_t present = 0;

    for (unsigned i = node->next, end = node->end; i < end; i++) {
        uint64_t entry = pte_peek(&table[i]);

        if (!(entry & present_mask))
            continue;
        uint64_t in = node->in + i * step;
        present += entry_at(k, i);
        enum rule rule = judge_entry(a, t, level, entry);
        if (rule != RULE_OK) {
            mark_unsafe(a); /* the walker has no doubt of it */
            found(a, AUDIT_ENTRY_LEGAL, a->now->name, at_both(in, direct_hpa(&node->table[i])),
                  "%s entry %u holds 0x%lx: %s", level_name(level), i, entry, rule_text(rule));
            continue;
        }
        if (!is_leaf(k, entry, level)) {
            node->children++;
            continue;
        }
        if (a->now->shows == 0)
            continue;
        uint64_t base = leaf_address(k, entry, level);
        if (run_size != 0 && run_base + run_size == base && run_in + run_size == in) {
            run_size += step;
            continue;
        }
        if (run_size != 0 && !judge_shown(a, run_in, hpa(run_base), run_size))
            return false;
        run_in = in;
        run_base = base;
        run_size = step;
    }
    if (run_size != 0 && !judge_shown(a, run_in, hpa(run_base), run_size))
        return false;

    a->totals->entries += entries_total(present);
    uint64_t recorded = frame_payload(direct_hpa(node->table));
    if (judging(a, AUDIT_ENTRY_COUNT) && recorded != present) {
        char has[ENTRIES_TEXT], says[ENTRIES_TEXT];
        found(a, AUDIT_ENTRY_COUNT, a->now->name, at_both(node->in, direct_hpa(node->table)),
              "the %s has %s present entries, its frame's record says %s", level_name(level),
              entries_text(has, present), entries_text(says, recorded));
    }
    return true;
}

/* Is this frame a table of ours, to be read now? Counts it as reached. */
static bool judge_frame(struct auditor *a, hpa_t frame, uint64_t in, unsigned level)
{
    const struct audit_table *t = a->now;
    struct frame_info info;
    uint64_t again = 0, first;

    if (frame_query(frame, &info, NULL) != E_OK) {
        mark_unsafe(a);
        found(a, AUDIT_TABLE_MEMORY, t->name, at_both(in, frame), "its %s lies outside all RAM",
              level_name(level));
        return false;
    }
    if (info.state != FRAME_USED || info.order != 0) {
        mark_unsafe(a);
        found(a, AUDIT_TABLE_MEMORY, t->name, at_both(in, frame),
              "its %s is in no table frame: %s, of order %u", level_name(level),
              frame_state_name(info.state), info.order);
        return false;
    }
    if (info.purpose != t->table->purpose) {
        mark_unsafe(a);
        found(a, AUDIT_TABLE_TAG, t->name, at_both(in, frame),
              "the frame of its %s is recorded as %s", level_name(level),
              purpose_name(info.purpose));
        return false;
    }
    a->error = tally_add(&a->tally, pfn_of(frame), 1, &again, &first);
    if (a->error != E_OK)
        return false;
    if (again != 0) {
        mark_unsafe(a); /* there may be a circle */
        found(a, AUDIT_TABLE_ONCE, t->name, at_both(in, frame),
              "its %s has been reached on another way already", level_name(level));
        return false;
    }
    if (info.owner != t->table->owner) {
        a->moot = true;
        found(a, AUDIT_TABLE_OWNER, t->name, at_both(in, frame),
              "the frame of its %s is recorded as owner %u's, not %u's", level_name(level),
              info.owner, t->table->owner);
    }
    a->tables++;
    return true;
}

static uint64_t canonical(const struct table_kind *k, uint64_t in)
{
    uint64_t top = level_size(k, k->levels + 1u) >> 1;

    return k->sign_extended && (in & top) ? in | ~(2 * top - 1) : in;
}

/* From the root down, parents before children, the lowest input address first. */
static void judge_tables(struct auditor *a)
{
    struct table *t = a->now->table;
    const struct table_kind *k = t->kind;
    struct node at[MAX_LEVELS + 1];
    unsigned level = k->levels;

    if (!judge_frame(a, t->root, k->input_first, level))
        return;
    at[level] = (struct node){
        .table = direct(t->root),
        .in =
            align_down(k->input_first, level_size(k, level)) - root_first(k) * level_size(k, level),
        .next = root_first(k),
        .end = root_end(k),
    };
    if (!judge_entries(a, &at[level], level))
        return;
    while (level <= k->levels) {
        struct node *node = &at[level];

        if (node->children == 0) {
            level++;
            continue;
        }
        unsigned i = node->next++;
        uint64_t entry = pte_peek(&node->table[i]);
        uint64_t in = node->in + i * level_size(k, level);

        if (!is_present(k, entry) || is_leaf(k, entry, level) ||
            entry_rule(k, &t->caps, level, entry) != RULE_OK)
            continue;
        node->children--;
        hpa_t child = hpa(entry & ENTRY_ADDRESS);
        if (!judge_frame(a, child, in, level - 1)) {
            if (a->error != E_OK)
                return;
            continue;
        }
        level--;
        at[level] = (struct node){direct(child), in, 0, slots_of(k), 0};
        if (!judge_entries(a, &at[level], level))
            return;
    }
}

static void judge_counts(struct auditor *a)
{
    const struct audit_table *t = a->now;
    owner_t owner = t->table->owner;
    uint64_t reached = a->tables + a->memory + t->others;

    if (a->moot) {
        a->totals->moot = true;
        return;
    }
    if (judging(a, AUDIT_TABLE_COUNT) && t->table->table_frames != a->tables)
        found(a, AUDIT_TABLE_COUNT, t->name, at_frame(t->table->root),
              "it counts %lu table frames, and %lu were reached", t->table->table_frames,
              a->tables);
    if (t->others == AUDIT_UNKNOWN || !judging(a, AUDIT_OWNER_COUNT))
        return;
    uint64_t charged = buddy_owner_frames(owner);
    if (charged != reached)
        found(a, AUDIT_OWNER_COUNT, t->name, at_frame(t->table->root),
              "owner %u holds %lu frames; %lu tables, %lu of memory and %lu others are known",
              owner, charged, a->tables, a->memory, t->others);
}

static void judge_upper_half(struct auditor *a)
{
    const struct audit_table *t = a->now;
    const struct table_kind *k = t->table->kind;

    if (t->upper == NULL || !judging(a, AUDIT_UPPER_HALF))
        return;
    const uint64_t *theirs = direct(t->upper->root), *ours = direct(t->table->root);
    for (unsigned i = slots_of(k) / 2; i < slots_of(k); i++)
        /* A and D of a root entry are the CPU's to set, in either root. */
        if ((pte_peek(&theirs[i]) ^ pte_peek(&ours[i])) & ~accessed_dirty(k))
            found(a, AUDIT_UPPER_HALF, t->name,
                  at_both(canonical(k, i * level_size(k, k->levels)), direct_hpa(&ours[i])),
                  "root entry %u holds 0x%lx, the kernel's 0x%lx", i, pte_peek(&ours[i]),
                  pte_peek(&theirs[i]));
}

static void judge_root(struct auditor *a)
{
    const struct audit_table *t = a->now;
    struct audit_root root;

    if (t->read_root == NULL || !judging(a, AUDIT_ROOT))
        return;
    int error = t->read_root(t, &root);
    if (error != E_OK)
        found(a, AUDIT_ROOT, t->name, at_frame(t->table->root),
              "its root register cannot be read back: %s", error_text(error));
    else if (root.frame.v != t->table->root.v)
        found(a, AUDIT_ROOT, t->name, at_frame(t->table->root), "its root register leads to 0x%lx",
              root.frame.v);
    else if (root.levels != t->table->kind->levels)
        found(a, AUDIT_ROOT, t->name, at_frame(t->table->root),
              "its root register is for %u levels, it has %u", root.levels, t->table->kind->levels);
}

static void judge_batches(struct auditor *a)
{
    const struct audit_table *t = a->now;

    if (judging(a, AUDIT_BATCHES) && t->table->open_batches != 0)
        found(a, AUDIT_BATCHES, t->name, at_frame(t->table->root),
              "%lu batches begun and not committed", t->table->open_batches);
}

static void judge_table(struct auditor *a, const struct audit_table *t)
{
    a->now = t;
    a->tables = a->memory = 0;
    a->moot = false;
    for (unsigned level = 0; level < ARRAY_SIZE(a->have_legal); level++)
        a->have_legal[level] = false;

    judge_root(a);
    judge_batches(a);
    judge_upper_half(a);
    if (!(a->audit->rules & STRUCTURE))
        return;
    for (enum audit_rule rule = AUDIT_TABLE_MEMORY; rule <= AUDIT_TABLE_ONCE; rule++)
        judging(a, rule);
    judging(a, AUDIT_ENTRY_LEGAL);
    if (t->shows != 0)
        for (enum audit_rule rule = AUDIT_LEAF_RAM; rule <= AUDIT_LEAF_SHARED; rule++)
            judging(a, rule);
    judge_tables(a);
    a->totals->table_frames += a->tables;
    if (a->error == E_OK)
        judge_counts(a);
}

/* ---- Records -------------------------------------------------------------------------------- */

/* The rule that wants frames of this owner and purpose reached; AUDIT_RULES: none. *name receives
 * the name of the owner's table, where there is one. */
static enum audit_rule stray_rule(const struct auditor *a, const struct frame_info *info,
                                  const char **name)
{
    const struct audit *audit = a->audit;
    uint64_t purpose = BIT(info->purpose);
    enum audit_rule rule = AUDIT_RULES;

    *name = NULL;
    if (audit->everyone)
        rule = purpose & TABLE_PURPOSES   ? AUDIT_TABLE_STRAY
               : purpose & SHOWN_PURPOSES ? AUDIT_LEAF_STRAY
                                          : AUDIT_RULES;
    for (unsigned i = 0; i < audit->tables && *name == NULL; i++) {
        const struct audit_table *t = &audit->table[i];

        if (t->table->owner != info->owner)
            continue;
        if (info->purpose == t->table->purpose || (purpose & t->shows)) {
            *name = t->name;
            rule = purpose & t->shows ? AUDIT_LEAF_STRAY : AUDIT_TABLE_STRAY;
        }
    }
    return rule;
}

static bool known_owner(const struct auditor *a, owner_t owner)
{
    for (unsigned i = 0; i < a->audit->tables; i++)
        if (a->audit->table[i].table->owner == owner)
            return true;
    return a->audit->everyone;
}

static void judge_reached(struct auditor *a, enum audit_rule rule, const char *name,
                          const struct frame_info *info, uint64_t pfn, uint64_t end)
{
    while ((pfn = tally_uncounted(&a->tally, pfn, end)) < end) {
        uint64_t first = pfn;

        while (pfn < end && tally_count(&a->tally, pfn) == 0)
            pfn++;
        found(a, rule, name, at_frame(hpa_of_pfn(first)),
              "%lu frames from here are recorded as %s of owner %u, and nothing reaches them",
              (pfn - first), purpose_name(info->purpose), info->owner);
    }
}

/* Each frame of shared blocks that is shown more than once must be shown by all that share it. */
static void judge_shares(struct auditor *a, const char *name, uint64_t pfn, uint64_t end)
{
    while (pfn < end) {
        hpa_t head;
        uint64_t record;

        if (!buddy_block(hpa_of_pfn(pfn), &head, &record))
            return;
        struct frame_info info = frame_record_decode(record);
        uint64_t next = pfn_of(head) + (UINT64_C(1) << info.order);
        uint64_t holders = info.payload < TALLY_MOST ? info.payload : TALLY_MOST;

        for (; pfn < next && pfn < end; pfn++) {
            unsigned shown = tally_count(&a->tally, pfn);

            if (shown > 1 && shown != holders) {
                found(a, AUDIT_LEAF_SHARED, name, at_frame(hpa_of_pfn(pfn)),
                      "it is shown %u times, and its record says it is shared by %lu", shown,
                      info.payload);
                break;
            }
        }
        pfn = next;
    }
}

static int judge_record(void *ctx, hpa_t base, uint64_t size, const struct frame_info *info)
{
    struct auditor *a = ctx;
    uint64_t pfn = pfn_of(base), end = pfn + (size >> PAGE_SHIFT);
    const char *name;
    enum audit_rule rule = stray_rule(a, info, &name);

    if (info->state == FRAME_DYING && known_owner(a, info->owner))
        found(a, AUDIT_DYING, name, at_frame(base),
              "%lu frames from here, %s of owner %u, were never freed after their flush",
              (end - pfn), purpose_name(info->purpose), info->owner);
    if ((info->state != FRAME_USED && info->state != FRAME_SHARED) || rule == AUDIT_RULES)
        return 0;
    if (!a->totals->moot && judging(a, rule))
        judge_reached(a, rule, name, info, pfn, end);
    if (!a->totals->moot && info->state == FRAME_SHARED && judging(a, AUDIT_LEAF_SHARED))
        judge_shares(a, name, pfn, end);
    return 0;
}

/* ---- Writable or executable ----------------------------------------------------------------- */

/* Executable runs are taken by the handful, and all writable ones held against them, so that this
 * needs no memory for any number of either. */
struct alias_pass {
    struct auditor *auditor;
    unsigned table; /* whose runs are being visited */
    struct executable {
        unsigned table;
        struct mapping run;
    } run[ALIAS_RUNS];
    unsigned count;
};

static uint64_t run_size(const struct mapping *run)
{
    return run->last - run->in + 1;
}

static int take_executable(void *ctx, const struct mapping *run)
{
    struct alias_pass *pass = ctx;
    struct auditor *a = pass->auditor;

    if (!(run->attrs.rights & RIGHT_X))
        return 0;
    if (run->attrs.rights & RIGHT_W)
        found(a, AUDIT_WRITE_EXECUTE, a->audit->table[pass->table].name, at_both(run->in, run->out),
              "writable and executable, up to 0x%lx", run->last);
    pass->run[pass->count++] = (struct executable){pass->table, *run};
    return pass->count == ALIAS_RUNS;
}

static int hold_against(void *ctx, const struct mapping *run)
{
    struct alias_pass *pass = ctx;
    struct auditor *a = pass->auditor;

    if (!(run->attrs.rights & RIGHT_W))
        return 0;
    for (unsigned i = 0; i < pass->count; i++) {
        const struct mapping *other = &pass->run[i].run;

        if (run->out.v >= other->out.v + run_size(other) ||
            other->out.v >= run->out.v + run_size(run) ||
            (pass->run[i].table == pass->table && other->in == run->in))
            continue;
        uint64_t first = run->out.v > other->out.v ? run->out.v : other->out.v;
        found(a, AUDIT_WRITE_EXECUTE, a->audit->table[pass->table].name,
              at_both(run->in + (first - run->out.v), hpa(first)),
              "writable here, executable at another address, 0x%lx of %s",
              (other->in + (first - other->out.v)), a->audit->table[pass->run[i].table].name);
        return 0;
    }
    return 0;
}

static bool can_visit(const struct auditor *a, unsigned index)
{
    return (a->unsafe[index / 64] >> index % 64 & 1) == 0;
}

/* Is the table one of those of `kind` that the rule is for, and fit to be read? */
static bool in_group(const struct auditor *a, unsigned index, const struct table_kind *kind)
{
    const struct audit_table *t = &a->audit->table[index];

    return t->write_xor_execute && t->table->kind == kind && can_visit(a, index);
}

static void hold_all_against(struct alias_pass *pass, const struct table_kind *kind)
{
    const struct audit *audit = pass->auditor->audit;

    for (pass->table = 0; pass->table < audit->tables; pass->table++)
        if (in_group(pass->auditor, pass->table, kind))
            table_visit(audit->table[pass->table].table, kind->input_first, kind->input_last,
                        VISIT_RUNS, hold_against, pass);
    pass->count = 0;
}

static void judge_aliases(struct auditor *a, const struct table_kind *kind)
{
    struct alias_pass pass = {.auditor = a};
    const struct audit *audit = a->audit;

    for (unsigned i = 0; i < audit->tables; i++) {
        uint64_t from = kind->input_first;

        if (!in_group(a, i, kind))
            continue;
        for (pass.table = i; table_visit(audit->table[i].table, from, kind->input_last, VISIT_RUNS,
                                         take_executable, &pass) != 0;
             pass.table = i) {
            uint64_t last = pass.run[pass.count - 1].run.last;

            hold_all_against(&pass, kind);
            if (last == kind->input_last)
                break;
            from = last + 1;
        }
    }
    if (pass.count != 0)
        hold_all_against(&pass, kind);
}

static void judge_write_xor_execute(struct auditor *a)
{
    const struct audit *audit = a->audit;

    for (unsigned i = 0; i < audit->tables; i++) {
        const struct table_kind *kind = audit->table[i].table->kind;
        bool first = audit->table[i].write_xor_execute && judging(a, AUDIT_WRITE_EXECUTE);

        for (unsigned j = 0; j < i && first; j++)
            first = !audit->table[j].write_xor_execute || audit->table[j].table->kind != kind;
        if (first)
            judge_aliases(a, kind);
    }
}

/* ---- Guard pages ---------------------------------------------------------------------------- */

static bool is_unsafe(const struct auditor *a, const struct table *table)
{
    for (unsigned i = 0; i < a->audit->tables; i++)
        if (a->audit->table[i].table == table && !can_visit(a, i))
            return true;
    return false;
}

static void judge_guards(struct auditor *a)
{
    for (unsigned i = 0; i < a->audit->guards; i++) {
        const struct audit_guard *guard = &a->audit->guard[i];

        if (is_unsafe(a, guard->table) || !judging(a, AUDIT_GUARD))
            continue;
        for (unsigned n = 0; n < guard->count; n++) {
            uint64_t at = guard->first + n * guard->stride;
            struct mapping mapping;

            if (table_translate(guard->table, at, &mapping) != E_NOENT)
                found(a, AUDIT_GUARD, guard->table_name, at_input(at), "%s is mapped", guard->name);
        }
    }
}

/* ---- All of it ------------------------------------------------------------------------------ */

static int check_description(const struct audit *audit)
{
    if (audit->tables > TABLES_LIMIT)
        return E_INVAL;
    for (unsigned i = 0; i < audit->tables; i++)
        if ((audit->rules & STRUCTURE) && !audit->table[i].table->env->frame_records)
            return E_INVAL;
    return E_OK;
}

int audit_run(const struct audit *audit, audit_report_fn report, void *ctx,
              struct audit_totals *totals)
{
    struct auditor a = {.audit = audit, .report = report, .ctx = ctx, .totals = totals};
    int error = check_description(audit);

    *totals = (struct audit_totals){0};
    if (error != E_OK)
        return error;
    tally_begin(&a.tally);
    for (unsigned i = 0; i < audit->tables && a.error == E_OK; i++)
        judge_table(&a, &audit->table[i]);
    judge_write_xor_execute(&a);
    judge_guards(&a);
    if (a.error == E_OK && (audit->rules & AUDIT_RECORDS)) {
        buddy_visit(judge_record, &a);
        totals->rules |= audit->rules & (totals->moot ? BIT(AUDIT_DYING) : AUDIT_RECORDS);
    }
    totals->scratch = a.tally.frames;
    tally_end(&a.tally);
    if (a.error != E_OK)
        return a.error;
    return totals->found != 0 ? E_STATE : E_OK;
}
