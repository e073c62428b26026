/* See explain.h. The order of events is the CPU's: each entry of the first level is translated by
 * the second before it is read; rights of the first level are judged when its leaf is known; the
 * second level's at the final address come last. */
#include "arch/x86_64/mm/explain.h"

#include "arch/x86_64/mm/ept.h"
#include "arch/x86_64/mm/host_entry.h"
#include "lib/panic.h"
#include "lib/string.h"
#include "mm/paging/typed.h"
#include "x86/control.h"

/* Exit qualification of an EPT violation (SDM Vol. 3, 28.2.1, table 28-7). */
#define QUALIFICATION_ALLOWED_SHIFT 3
#define QUALIFICATION_USER_EXECUTE BIT(6)
#define QUALIFICATION_LINEAR BIT(7)
#define QUALIFICATION_FINAL BIT(8)
#define QUALIFICATION_USER_ADDRESS BIT(9)
#define QUALIFICATION_WRITABLE BIT(10)
#define QUALIFICATION_NO_EXECUTE BIT(11)

#define TYPE_UC_MINUS 7 /* only a PAT entry has it */

/* One explanation in the making. */
struct explainer {
    const struct explain_query *query;
    struct explanation *e;
    unsigned first[MAX_LEVELS]; /* the steps that are entries of the first level, in order */
    unsigned firsts;
    bool ended; /* the verdict has been found while an entry was being read */
};

/* ---- Memory types -------------------------------------------------------------------------- */

unsigned effective_memory_type(unsigned mtrr, unsigned pat)
{
    if (pat == MEM_UC || mtrr == MEM_UC)
        return pat == MEM_WC ? MEM_WC : MEM_UC;
    switch (mtrr) {
    case MEM_WC:
        return pat == MEM_WT || pat == MEM_WP ? MEM_UC : MEM_WC;
    case MEM_WP:
        if (pat == TYPE_UC_MINUS)
            return MEM_WC;
        return pat == MEM_WB ? MEM_WP : pat;
    case MEM_WT:
        if (pat == TYPE_UC_MINUS)
            return MEM_UC;
        return pat == MEM_WB ? MEM_WT : pat;
    }
    return pat == TYPE_UC_MINUS ? MEM_UC : pat;
}

const char *pat_type_name(unsigned type)
{
    return type == TYPE_UC_MINUS ? "UC-" : mem_type_name((enum mem_type)type);
}

unsigned pat_of_leaf(uint64_t pat, uint64_t leaf, unsigned level)
{
    unsigned index = (leaf & PTE_PWT ? 1u : 0) | (leaf & PTE_PCD ? 2u : 0) |
                     (leaf & (level == 1 ? PTE_PAT_4K : PTE_PAT_LARGE) ? 4u : 0);
    return (unsigned)(pat >> (8 * index)) & 7;
}

/* ---- Steps and verdicts ---------------------------------------------------------------------- */

static struct explain_step *add_step(struct explanation *e, enum explain_table table)
{
    invariant(e->count < EXPLAIN_STEPS);
    struct explain_step *step = &e->step[e->count++];

    *step = (struct explain_step){.table = table};
    if (table != EXPLAIN_REGISTER)
        step->reference = (uint8_t)++e->references;
    return step;
}

static void decide(struct explanation *e, enum explain_outcome outcome, enum explain_rule rule,
                   unsigned at)
{
    e->outcome = outcome;
    e->rule = rule;
    e->decided = at;
}

/* 4.7 "Page-Fault Exceptions": what the access was, and by what it was refused. */
static void page_fault(const struct explain_query *query, struct explanation *e,
                       enum explain_rule rule, unsigned at)
{
    const struct gva_context *registers = query->registers;
    bool tells_fetch =
        ((registers->cr4 & CR4_PAE) && (registers->efer & EFER_NXE)) || (registers->cr4 & CR4_SMEP);

    decide(e, EXPLAIN_PAGE_FAULT, rule, at);
    e->code = (uint32_t)((rule == EXPLAIN_NOT_PRESENT ? 0 : PF_PRESENT) |
                         (query->access & RIGHT_W ? PF_WRITE : 0) | (query->user ? PF_USER : 0) |
                         (rule == EXPLAIN_ILLEGAL ? PF_RESERVED : 0) |
                         (query->access & RIGHT_X && tells_fetch ? PF_FETCH : 0));
}

/* ---- The second level ------------------------------------------------------------------------ */

/* How an access to a guest-physical address came about. */
struct second_access {
    unsigned access;
    bool during_walk;  /* at an entry of the guest's tables */
    bool user_address; /* of the linear address: U/S is 1 at every level */
    bool writable, no_execute;
};

static uint64_t qualification_of(const struct explain_query *query, const struct second_access *how,
                                 unsigned allowed)
{
    uint64_t value = how->access | (uint64_t)(allowed & RIGHT_RWX) << QUALIFICATION_ALLOWED_SHIFT;

    if (query->second->caps.mode_based_execute && (allowed & RIGHT_U))
        value |= QUALIFICATION_USER_EXECUTE;
    if (!query->registers)
        return value;
    value |= QUALIFICATION_LINEAR;
    if (how->during_walk)
        return value;
    value |= QUALIFICATION_FINAL;
    if (query->advanced)
        value |= (how->user_address ? QUALIFICATION_USER_ADDRESS : 0) |
                 (how->writable ? QUALIFICATION_WRITABLE : 0) |
                 (how->no_execute ? QUALIFICATION_NO_EXECUTE : 0);
    return value;
}

static void ept_exit(struct explainer *x, const struct second_access *how, gpa_t at,
                     enum explain_outcome outcome, enum explain_rule rule, unsigned step,
                     unsigned allowed)
{
    decide(x->e, outcome, rule, step);
    x->e->during_walk = how->during_walk;
    x->e->exit_gpa = at;
    if (outcome == EXPLAIN_EPT_VIOLATION)
        x->e->qualification = qualification_of(x->query, how, allowed);
    x->ended = true;
}

/* What an access by these means may do; with mode-based execute control two bits say who may
 * execute (29.3.2). */
static unsigned second_rights(const struct explain_query *query, unsigned allowed,
                              bool user_address)
{
    unsigned rights = allowed & RIGHT_RW;
    bool executes = query->second->caps.mode_based_execute && user_address ? allowed & RIGHT_U
                                                                           : allowed & RIGHT_X;
    return rights | (executes ? RIGHT_X : 0u);
}

static enum explain_rule second_rule(const struct second_access *how, unsigned missing)
{
    if (how->during_walk)
        return how->access & missing & RIGHT_W ? EXPLAIN_EPT_WALK : EXPLAIN_EPT_NO_READ;
    if (missing & RIGHT_W)
        return EXPLAIN_EPT_NO_WRITE;
    return missing & RIGHT_X ? EXPLAIN_EPT_NO_EXECUTE : EXPLAIN_EPT_NO_READ;
}

/* The entry that takes the first of the missing rights away. */
static unsigned second_culprit(const struct explanation *e, unsigned from, unsigned missing)
{
    for (unsigned i = from; i < e->count; i++)
        if (missing & ~(unsigned)e->step[i].entry.attrs.rights)
            return i;
    return e->count - 1;
}

/* Translates a guest-physical address. True with *mapping and *allowed; false when the CPU exits.
 */
static bool translate_second(struct explainer *x, gpa_t at, const struct second_access *how,
                             struct mapping *mapping, unsigned *allowed)
{
    struct explanation *e = x->e;
    unsigned from = e->count, rights = RIGHT_RWX | RIGHT_U;
    struct walk walk;

    gpa_walk(x->query->second, at, &walk);
    for (unsigned i = 0; i < walk.count; i++) {
        struct explain_step *step = add_step(e, EXPLAIN_SECOND);
        bool present = walk.step[i].class == ENTRY_TABLE || walk.step[i].class == ENTRY_LEAF;

        step->entry = walk.step[i];
        step->hpa = walk.step[i].address;
        step->type = walk.step[i].attrs.type;
        if (present)
            step->to = i + 1 < walk.count ? align_down(walk.step[i + 1].address.v, PAGE_SIZE)
                                          : walk.mapping.out.v;
        rights &= present ? walk.step[i].attrs.rights : 0u;
    }
    if (walk.error == E_RANGE) {
        ept_exit(x, how, at, EXPLAIN_EPT_VIOLATION, EXPLAIN_EPT_BEYOND, e->count, 0);
        return false;
    }
    if (walk.error == E_ILLEGAL) {
        e->entry_rule = walk.step[walk.count - 1].rule;
        ept_exit(x, how, at, EXPLAIN_EPT_MISCONFIG, EXPLAIN_ILLEGAL, e->count - 1, 0);
        return false;
    }
    if (walk.error) {
        ept_exit(x, how, at, EXPLAIN_EPT_VIOLATION, EXPLAIN_EPT_ABSENT, e->count - 1, 0);
        return false;
    }
    *mapping = walk.mapping;
    *allowed = rights;
    unsigned missing = how->access & ~second_rights(x->query, rights, how->user_address);
    if (missing) {
        ept_exit(x, how, at, EXPLAIN_EPT_VIOLATION, second_rule(how, missing),
                 second_culprit(e, from, missing), rights);
        return false;
    }
    return true;
}

/* ---- The first level ------------------------------------------------------------------------- */

/* The walker asks for an entry of the first level. With A/D for EPT the CPU's read of it counts as
 * a write as well (29.3.3.2, 29.3.5). */
static bool read_entry(void *ctx, gpa_t from, void *to, unsigned size)
{
    struct explainer *x = ctx;
    const struct explain_query *query = x->query;
    unsigned allowed = RIGHT_RWX;
    hpa_t at = hpa(from.v);

    if (query->second) {
        struct second_access how = {
            .access = query->second->caps.accessed_dirty ? RIGHT_RW : RIGHT_R,
            .during_walk = true,
        };
        struct mapping mapping;
        if (!translate_second(x, from, &how, &mapping, &allowed))
            return false;
        at = hpa_add(mapping.out, from.v - mapping.in);
    }
    if (!query->load(query->ctx, at, to, size)) {
        decide(x->e, EXPLAIN_UNKNOWN, EXPLAIN_UNREADABLE, x->e->count);
        x->e->exit_gpa = from;
        x->ended = true;
        return false;
    }
    x->first[x->firsts++] = x->e->count;
    struct explain_step *step = add_step(x->e, EXPLAIN_FIRST);
    step->hpa = at;
    step->allowed = (uint8_t)allowed;
    return true;
}

/* Gives the steps that read_entry() made what the walker found in them. */
static void fill_first(struct explainer *x, const struct walk *walk)
{
    for (unsigned i = 0; i < walk->count && i < x->firsts; i++) {
        struct explain_step *step = &x->e->step[x->first[i]];

        step->entry = walk->step[i];
        if (step->entry.class == ENTRY_LEAF) {
            step->to = walk->mapping.out.v;
            step->type = (uint8_t)pat_of_leaf(x->query->pat, step->entry.raw, step->entry.level);
        } else if (step->entry.class == ENTRY_TABLE) {
            step->to = step->entry.raw & BITS(51, 12);
        }
    }
}

/* A PAE guest's top level is a register. */
static void add_pdpte(const struct explain_query *query, struct explanation *e)
{
    unsigned index = (unsigned)(query->at >> 30) & 3;
    uint64_t raw = query->registers->pdpte[index];
    struct explain_step *step = add_step(e, EXPLAIN_REGISTER);

    step->entry = (struct walk_step){
        .level = 3,
        .index = (uint16_t)index,
        .raw = raw,
        .class = raw & PTE_P ? ENTRY_TABLE : ENTRY_ABSENT,
        .attrs = attrs_of(RIGHT_RWX | RIGHT_U, MEM_WB),
    };
    step->to = raw & BITS(51, 12);
}

/* 4.6.1 "Determination of Access Rights". Protection keys and shadow stacks are not offered to
 * guests, nor does the host use them. */
enum explain_rule paging_refusal(const struct gva_context *registers, bool user, uint64_t rflags,
                                 unsigned access, unsigned rights)
{
    bool user_address = (rights & RIGHT_U) != 0;

    if (user && !user_address)
        return EXPLAIN_SUPERVISOR;
    if (access & RIGHT_X) {
        if (!user && user_address && (registers->cr4 & CR4_SMEP))
            return EXPLAIN_SMEP;
        return rights & RIGHT_X ? EXPLAIN_RULE_NONE : EXPLAIN_NO_EXECUTE;
    }
    if (!user && user_address && (registers->cr4 & CR4_SMAP) && !(rflags & RFLAGS_AC))
        return EXPLAIN_SMAP;
    if ((access & RIGHT_W) && !(rights & RIGHT_W) && (user || (registers->cr0 & CR0_WP)))
        return EXPLAIN_READ_ONLY;
    return EXPLAIN_RULE_NONE;
}

static enum explain_rule first_rule(const struct explain_query *query, unsigned access,
                                    unsigned rights)
{
    return paging_refusal(query->registers, query->user, query->rflags, access, rights);
}

/* The entry of the first level that takes the right away which the rule is about. */
static unsigned first_culprit(const struct explainer *x, enum explain_rule rule)
{
    unsigned right = rule == EXPLAIN_SUPERVISOR   ? RIGHT_U
                     : rule == EXPLAIN_READ_ONLY  ? RIGHT_W
                     : rule == EXPLAIN_NO_EXECUTE ? RIGHT_X
                                                  : 0;

    for (unsigned i = 0; i < x->firsts; i++)
        if (right & ~(unsigned)x->e->step[x->first[i]].entry.attrs.rights)
            return x->first[i];
    return x->first[x->firsts - 1];
}

/* Without A/D for EPT the walk only reads, but where the CPU is to set A or D in an entry of the
 * guest's it writes there (4.8; 29.3.3.2). False when the CPU exits. */
static bool update_first(struct explainer *x)
{
    const struct explain_query *query = x->query;
    struct second_access how = {.access = RIGHT_W, .during_walk = true};

    if (!query->second || query->second->caps.accessed_dirty)
        return true;
    for (unsigned i = 0; i < x->firsts; i++) {
        const struct explain_step *step = &x->e->step[x->first[i]];
        bool leaf = step->entry.class == ENTRY_LEAF;
        bool sets =
            !step->entry.accessed || (leaf && (query->access & RIGHT_W) && !step->entry.dirty);

        if (sets && !(step->allowed & RIGHT_W)) {
            ept_exit(x, &how, gpa(step->entry.address.v), EXPLAIN_EPT_VIOLATION, EXPLAIN_EPT_UPDATE,
                     x->first[i], step->allowed);
            return false;
        }
    }
    return true;
}

/* From a linear address to the next one. False when the verdict is found. */
static bool translate_first(struct explainer *x, struct gva_walk *walk)
{
    const struct explain_query *query = x->query;
    struct explanation *e = x->e;
    struct gva_context context = *query->registers;

    context.read = read_entry;
    context.ctx = x;
    e->mode = paging_mode_of(&context);
    if (e->mode == PAGING_PAE && query->at <= UINT32_MAX)
        add_pdpte(query, e);
    int error = gva_walk(&context, gva(query->at), walk);
    fill_first(x, &walk->walk);
    if (x->ended)
        return false;

    unsigned last = e->count ? e->count - 1 : 0;
    switch (error) {
    case E_OK:
        break;
    case E_UNSUPPORTED:
        decide(e, EXPLAIN_UNKNOWN, EXPLAIN_NOT_WALKED, e->count);
        return false;
    case E_RANGE:
        if (e->mode == PAGING_4LEVEL)
            decide(e, EXPLAIN_GENERAL, EXPLAIN_NOT_CANONICAL, e->count);
        else
            decide(e, EXPLAIN_UNKNOWN, EXPLAIN_BEYOND_32_BITS, e->count);
        return false;
    case E_NOENT:
        page_fault(query, e, EXPLAIN_NOT_PRESENT, last);
        return false;
    default:
        if (e->step[last].table == EXPLAIN_REGISTER)
            e->step[last].entry.class = ENTRY_BAD;
        e->entry_rule =
            e->step[last].table == EXPLAIN_REGISTER ? RULE_RESERVED_BITS : e->step[last].entry.rule;
        page_fault(query, e, EXPLAIN_ILLEGAL, last);
        return false;
    }
    if (e->mode != PAGING_NONE) {
        enum explain_rule rule = first_rule(query, query->access, walk->walk.mapping.attrs.rights);
        if (rule != EXPLAIN_RULE_NONE) {
            page_fault(query, e, rule, first_culprit(x, rule));
            return false;
        }
    }
    return update_first(x);
}

static unsigned first_rights(const struct explain_query *query, const struct explanation *e,
                             unsigned rights)
{
    unsigned allowed = 0;

    if (!query->registers || e->mode == PAGING_NONE)
        return RIGHT_RWX;
    for (unsigned right = RIGHT_R; right <= RIGHT_X; right <<= 1)
        if (first_rule(query, right, rights) == EXPLAIN_RULE_NONE)
            allowed |= right;
    return allowed;
}

/* ---- The whole ------------------------------------------------------------------------------- */

void explain(const struct explain_query *query, struct explanation *e)
{
    struct explainer x = {.query = query, .e = e};
    struct gva_walk first = {.gpa = gpa(query->at)};
    const struct mapping *page = &first.walk.mapping;
    struct mapping second;
    unsigned pat = MEM_WB, allowed;

    *e = (struct explanation){.linear = query->registers != NULL,
                              .two_levels = query->second != NULL,
                              .at = query->at,
                              .access = query->access,
                              .user = query->user};
    if (query->registers && !translate_first(&x, &first))
        return;
    bool paging = query->registers && e->mode != PAGING_NONE;
    if (paging) {
        pat = pat_of_leaf(query->pat, page->raw, page->level);
        e->page = page->last - page->in + 1;
    }
    e->rights = first_rights(query, e, page->attrs.rights);
    e->type = effective_memory_type(MEM_WB, pat);
    e->gpa = first.gpa;
    e->has_gpa = true;
    if (!query->second) {
        e->hpa = hpa(first.gpa.v);
        e->has_hpa = true;
        decide(e, EXPLAIN_ALLOWED, EXPLAIN_RULE_NONE, e->count);
        return;
    }

    /* While CR0.PG is 0 every linear address is a writable and executable user-mode one (28.2.1).
     */
    struct second_access how = {
        .access = query->access,
        .user_address = !paging || (page->attrs.rights & RIGHT_U),
        .writable = !paging || (page->attrs.rights & RIGHT_W),
        .no_execute = paging && !(page->attrs.rights & RIGHT_X),
    };
    if (!translate_second(&x, first.gpa, &how, &second, &allowed))
        return;
    e->hpa = hpa_add(second.out, first.gpa.v - second.in);
    e->has_hpa = true;
    uint64_t size = second.last - second.in + 1;
    if (!e->page || size < e->page)
        e->page = size;
    e->rights &= second_rights(query, allowed, how.user_address);
    e->type = second.raw & EPT_IGNORE_PAT ? second.attrs.type
                                          : effective_memory_type(second.attrs.type, pat);
    decide(e, EXPLAIN_ALLOWED, EXPLAIN_RULE_NONE, e->count);
}

/* ---- Words ----------------------------------------------------------------------------------- */

const char *explain_outcome_name(enum explain_outcome outcome)
{
    static const char *const names[EXPLAIN_OUTCOMES] = {
        [EXPLAIN_ALLOWED] = "allowed",
        [EXPLAIN_PAGE_FAULT] = "#PF",
        [EXPLAIN_GENERAL] = "#GP",
        [EXPLAIN_EPT_VIOLATION] = "EPT violation",
        [EXPLAIN_EPT_MISCONFIG] = "EPT misconfiguration",
        [EXPLAIN_UNKNOWN] = "cannot be told",
    };
    return names[outcome];
}

static const struct {
    const char *text, *section;
} rules[EXPLAIN_RULES] = {
    [EXPLAIN_RULE_NONE] = {"every level lets it through", "SDM Vol. 3, 4.6.1"},
    [EXPLAIN_NOT_PRESENT] = {"the entry is not present", "SDM Vol. 3, 4.7"},
    [EXPLAIN_ILLEGAL] = {"", ""},
    [EXPLAIN_SUPERVISOR] = {"user mode may not reach a supervisor-mode address (U/S is 0)",
                            "SDM Vol. 3, 4.6.1"},
    [EXPLAIN_READ_ONLY] = {"a write where R/W is 0, by user mode or while CR0.WP is 1",
                           "SDM Vol. 3, 4.6.1"},
    [EXPLAIN_NO_EXECUTE] = {"an instruction fetch where XD is 1", "SDM Vol. 3, 4.6.1"},
    [EXPLAIN_SMEP] = {"with CR4.SMEP, supervisor mode may not execute at a user-mode address",
                      "SDM Vol. 3, 4.6.1"},
    [EXPLAIN_SMAP] = {"with CR4.SMAP and EFLAGS.AC clear, supervisor mode may not touch data at a "
                      "user-mode address",
                      "SDM Vol. 3, 4.6.1"},
    [EXPLAIN_NOT_CANONICAL] = {"the address is not canonical: bits 63 to 47 are not all equal",
                               "SDM Vol. 1, 3.3.7.1"},
    [EXPLAIN_BEYOND_32_BITS] = {"outside 64-bit mode a linear address has 32 bits",
                                "SDM Vol. 3, 4.1.1"},
    [EXPLAIN_EPT_ABSENT] = {"the EPT entry is not present: bits 2 to 0 are all 0",
                            "SDM Vol. 3, 29.3.2"},
    [EXPLAIN_EPT_BEYOND] = {"the guest-physical address has more bits than the EPT translates",
                            "SDM Vol. 3, 29.3.2"},
    [EXPLAIN_EPT_NO_READ] = {"a read that the EPT does not allow", "SDM Vol. 3, 29.3.3.2"},
    [EXPLAIN_EPT_NO_WRITE] = {"a write that the EPT does not allow", "SDM Vol. 3, 29.3.3.2"},
    [EXPLAIN_EPT_NO_EXECUTE] = {"an instruction fetch that the EPT does not allow",
                                "SDM Vol. 3, 29.3.3.2"},
    [EXPLAIN_EPT_WALK] = {"the CPU's walk counts as a write while the EPTP enables accessed and "
                          "dirty flags, and the guest's table lies where the EPT allows none",
                          "SDM Vol. 3, 29.3.3.2"},
    [EXPLAIN_EPT_UPDATE] =
        {"the CPU must set A or D in the guest's entry, which lies where the EPT "
         "allows no write",
         "SDM Vol. 3, 29.3.3.2"},
    [EXPLAIN_UNREADABLE] = {"the next entry lies where there is no memory to read", ""},
    [EXPLAIN_NOT_WALKED] = {"5-level paging of a guest is not walked", ""},
};

const char *explain_rule_text(char buffer[EXPLAIN_TEXT], const struct explanation *e)
{
    format_buffer(buffer, EXPLAIN_TEXT, "%s",
                  e->rule == EXPLAIN_ILLEGAL ? rule_text(e->entry_rule) : rules[e->rule].text);
    return buffer;
}

const char *explain_section(const struct explanation *e)
{
    if (e->rule == EXPLAIN_RULE_NONE && !e->linear)
        return "SDM Vol. 3, 29.3.3.2";
    if (e->rule != EXPLAIN_ILLEGAL)
        return rules[e->rule].section;
    return rule_section(e->outcome == EXPLAIN_EPT_MISCONFIG ? KIND_EPT : KIND_GUEST64,
                        e->entry_rule);
}

static const char *access_name(unsigned access)
{
    if (access & RIGHT_W)
        return "write to";
    return access & RIGHT_X ? "instruction fetch from" : "read of";
}

const char *explain_access_text(char buffer[EXPLAIN_TEXT], const struct explanation *e)
{
    const char *who = e->user ? "user" : "supervisor";

    if (!e->linear)
        format_buffer(buffer, EXPLAIN_TEXT, "%s GPA 0x%lx", access_name(e->access), e->at);
    else
        format_buffer(buffer, EXPLAIN_TEXT, "%s %s %s 0x%lx", who, access_name(e->access),
                      e->two_levels ? "GVA" : "HVA", e->at);
    return buffer;
}

const char *explain_table_name(const struct explanation *e, const struct explain_step *step)
{
    if (step->table == EXPLAIN_SECOND)
        return "EPT";
    return e->two_levels ? "guest" : "host";
}

const char *explain_decided_text(char buffer[EXPLAIN_TEXT], const struct explanation *e)
{
    buffer[0] = '\0';
    if (e->decided >= e->count)
        return buffer;
    const struct explain_step *step = &e->step[e->decided];
    size_t n = format_buffer(buffer, EXPLAIN_TEXT, "%s %s entry %u", explain_table_name(e, step),
                             step->table == EXPLAIN_REGISTER ? "PDPTE register"
                                                             : level_name(step->entry.level),
                             step->entry.index);
    if (step->table == EXPLAIN_SECOND && e->during_walk)
        format_buffer(buffer + n, EXPLAIN_TEXT - n,
                      ", on the way to a table of the guest's at 0x%lx", e->exit_gpa.v);
    return buffer;
}

struct word {
    uint64_t bit;
    const char *text;
};

static void list_words(char buffer[EXPLAIN_TEXT], size_t n, uint64_t value,
                       const struct word *words, unsigned count, const char *between)
{
    bool any = false;

    for (unsigned i = 0; i < count && n < EXPLAIN_TEXT; i++)
        if (value & words[i].bit) {
            n += format_buffer(buffer + n, EXPLAIN_TEXT - n, "%s%s", any ? between : "",
                               words[i].text);
            any = true;
        }
}

const char *explain_code_text(char buffer[EXPLAIN_TEXT], uint32_t code)
{
    static const struct word words[] = {
        {PF_WRITE, "write"},
        {PF_USER, "user"},
        {PF_RESERVED, "reserved bit"},
        {PF_FETCH, "fetch"},
    };
    size_t n =
        format_buffer(buffer, EXPLAIN_TEXT, "%s%s", code & PF_PRESENT ? "present" : "not present",
                      code & ~(uint32_t)PF_PRESENT ? ", " : "");
    list_words(buffer, n, code, words, ARRAY_SIZE(words), ", ");
    return buffer;
}

const char *explain_qualification_text(char buffer[EXPLAIN_TEXT], uint64_t qualification)
{
    static const struct word accesses[] = {
        {RIGHT_R, "read"}, {RIGHT_W, "write"}, {RIGHT_X, "fetch"}};
    static const struct word rest[] = {
        {QUALIFICATION_USER_EXECUTE, "; executable for user mode"},
        {QUALIFICATION_LINEAR, "; linear address known"},
        {QUALIFICATION_FINAL, "; at the final address"},
        {QUALIFICATION_USER_ADDRESS, "; user-mode address"},
        {QUALIFICATION_WRITABLE, "; writable by the guest's tables"},
        {QUALIFICATION_NO_EXECUTE, "; not executable by the guest's tables"},
    };
    char rights[RIGHTS_TEXT];

    buffer[0] = '\0';
    list_words(buffer, 0, qualification, accesses, ARRAY_SIZE(accesses), " and ");
    size_t n = strlen(buffer);
    rights_text(rights, (unsigned)(qualification >> QUALIFICATION_ALLOWED_SHIFT) & RIGHT_RWX);
    n += format_buffer(buffer + n, EXPLAIN_TEXT - n, "; the table gives %.3s", rights);
    if ((qualification & (QUALIFICATION_LINEAR | QUALIFICATION_FINAL)) == QUALIFICATION_LINEAR)
        n += format_buffer(buffer + n, EXPLAIN_TEXT - n, "; at a table of the guest's");
    list_words(buffer, n, qualification, rest, ARRAY_SIZE(rest), "");
    return buffer;
}

static void print_step(struct sink *to, const struct explanation *e,
                       const struct explain_step *step)
{
    const struct walk_step *entry = &step->entry;
    char rights[RIGHTS_TEXT];

    if (step->table == EXPLAIN_REGISTER)
        format(to, "   - guest PDPTE[%u] register: ", entry->index);
    else
        format(to, "  %2u %-5s %-4s[%3u] at ", step->reference, explain_table_name(e, step),
               level_name(entry->level), entry->index);
    if (step->table == EXPLAIN_FIRST && e->two_levels)
        format(to, "GPA 0x%lx, ", entry->address.v);
    if (step->table != EXPLAIN_REGISTER)
        format(to, "0x%lx: ", step->hpa.v);
    format(to, "0x%lx ", entry->raw);
    switch (entry->class) {
    case ENTRY_ABSENT:
        format(to, "not present\n");
        return;
    case ENTRY_BAD:
        format(to, "illegal: %s\n",
               rule_text(entry->rule != RULE_OK ? entry->rule : RULE_RESERVED_BITS));
        return;
    case ENTRY_TABLE:
        format(to, "table %s%s\n", rights_text(rights, entry->attrs.rights),
               entry->accessed ? " A" : "");
        return;
    case ENTRY_LEAF:
        format(to, "leaf  %s %s%s%s -> 0x%lx\n", rights_text(rights, entry->attrs.rights),
               pat_type_name(step->type), entry->accessed ? " A" : "", entry->dirty ? " D" : "",
               step->to);
        return;
    }
}

void explain_print(struct sink *to, const struct explanation *e)
{
    char text[EXPLAIN_TEXT], more[EXPLAIN_TEXT], rights[RIGHTS_TEXT];

    for (unsigned i = 0; i < e->count; i++)
        print_step(to, e, &e->step[i]);
    format(to, "%s: %s", explain_access_text(text, e), explain_outcome_name(e->outcome));
    if (e->outcome == EXPLAIN_PAGE_FAULT)
        format(to, ", error code 0x%x (%s)", e->code, explain_code_text(more, e->code));
    if (e->outcome == EXPLAIN_EPT_VIOLATION)
        format(to, ", qualification 0x%lx (%s)", e->qualification,
               explain_qualification_text(more, e->qualification));
    if (e->outcome == EXPLAIN_ALLOWED) {
        format(to, ", HPA 0x%lx %s %s\n", e->hpa.v, rights_text(rights, e->rights),
               pat_type_name(e->type));
        return;
    }
    format(to, "\n  because: %s", explain_rule_text(text, e));
    if (*explain_decided_text(text, e))
        format(to, " (%s)", text);
    if (*explain_section(e))
        format(to, "; %s", explain_section(e));
    format(to, "\n");
}
