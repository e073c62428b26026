/* The first level's part of an explanation: a guest's own tables, or the host's. See
 * explain_rules.h.
 */
#include "arch/x86_64/mm/explain_rules.h"

#include "arch/x86_64/mm/host_entry.h"
#include "lib/error.h"
#include "x86/control.h"

/* 4.7 "Page-Fault Exceptions": what the access was, and by what it was refused. */
static void page_fault(const struct explain_query *query, struct explanation *e,
                       enum explain_rule rule, unsigned at)
{
    const struct gva_context *registers = query->registers;
    bool tells_fetch =
        ((registers->cr4 & CR4_PAE) && (registers->efer & EFER_NXE)) || (registers->cr4 & CR4_SMEP);

    explain_decide(e, EXPLAIN_PAGE_FAULT, rule, at);
    e->has_code = true;
    e->code = (rule == EXPLAIN_NOT_PRESENT ? 0 : PF_PRESENT) |
              (query->access & RIGHT_W ? PF_WRITE : 0) | (query->user ? PF_USER : 0) |
              (rule == EXPLAIN_ILLEGAL ? PF_RESERVED : 0) |
              (query->access & RIGHT_X && tells_fetch ? PF_FETCH : 0);
}

/* The walker asks for an entry of the first level: the second level is asked first, in its own
 * terms for the CPU's walks. */
static bool read_entry(void *ctx, gpa_t from, void *to, unsigned size)
{
    struct explainer *x = ctx;
    const struct explain_query *query = x->query;
    unsigned allowed = RIGHT_RWX;
    hpa_t at = hpa(from.v);

    if (query->second) {
        struct second_access how = {
            .access = x->second->walk_access(query->second),
            .during_walk = true,
        };
        struct mapping mapping;
        if (!explain_second(x, from, &how, &mapping, &allowed))
            return false;
        at = hpa_add(mapping.out, from.v - mapping.in);
    }
    if (!query->load(query->ctx, at, to, size)) {
        explain_decide(x->e, EXPLAIN_UNKNOWN, EXPLAIN_UNREADABLE, x->e->count);
        x->e->exit_gpa = from;
        x->ended = true;
        return false;
    }
    x->first[x->firsts++] = x->e->count;
    struct explain_step *step = explain_add_step(x->e, EXPLAIN_FIRST);
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
    struct explain_step *step = explain_add_step(e, EXPLAIN_REGISTER);

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

/* Where the walk only reads, the CPU still writes to set A or D in an entry of the guest's (4.8;
 * 29.3.3.2). False when it exits. */
static bool update_first(struct explainer *x)
{
    const struct explain_query *query = x->query;
    struct second_access how = {.access = RIGHT_W, .during_walk = true};

    if (!query->second || (x->second->walk_access(query->second) & RIGHT_W))
        return true;
    for (unsigned i = 0; i < x->firsts; i++) {
        const struct explain_step *step = &x->e->step[x->first[i]];
        bool leaf = step->entry.class == ENTRY_LEAF;
        bool sets =
            !step->entry.accessed || (leaf && (query->access & RIGHT_W) && !step->entry.dirty);

        if (sets && !(step->allowed & RIGHT_W)) {
            explain_exit(x, &how, gpa(step->entry.address.v), EXPLAIN_VIOLATION,
                         EXPLAIN_SECOND_UPDATE, x->first[i], step->allowed);
            return false;
        }
    }
    return true;
}

bool explain_first(struct explainer *x, struct gva_walk *walk)
{
    const struct explain_query *query = x->query;
    struct explanation *e = x->e;
    struct gva_context context = *query->registers;

    context.read = read_entry;
    context.ctx = x;
    e->mode = paging_mode_of(&context);
    context.pdpte_in_memory = x->second && x->second->pdpte_in_memory;
    if (e->mode == PAGING_PAE && !context.pdpte_in_memory && query->at <= UINT32_MAX)
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
        explain_decide(e, EXPLAIN_UNKNOWN, EXPLAIN_NOT_WALKED, e->count);
        return false;
    case E_RANGE:
        if (e->mode == PAGING_4LEVEL)
            explain_decide(e, EXPLAIN_GENERAL, EXPLAIN_NOT_CANONICAL, e->count);
        else
            explain_decide(e, EXPLAIN_UNKNOWN, EXPLAIN_BEYOND_32_BITS, e->count);
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

unsigned explain_first_rights(const struct explainer *x, unsigned rights)
{
    const struct explain_query *query = x->query;
    unsigned allowed = 0;

    if (!query->registers || x->e->mode == PAGING_NONE)
        return RIGHT_RWX;
    for (unsigned right = RIGHT_R; right <= RIGHT_X; right <<= 1)
        if (first_rule(query, right, rights) == EXPLAIN_RULE_NONE)
            allowed |= right;
    return allowed;
}
