/* See model_tlb.h. */
#define MODEL_ITSELF
#include "tests/unit/model_tlb.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "arch/x86_64/vmx/controls.h"
#include "arch/x86_64/vmx/vmx_caps.h"
#include "tests/unit/model_cpu.h"

#define CACHED_MOST 65536
#define READ 1u
#define WRITE 2u
#define EXECUTE 4u
#define USER 8u

struct cached {
    enum tlb_sort sort;
    bool leaf; /* else an entry that leads to the node `out` */
    bool global, dirty;
    uint16_t tag;
    uint64_t eptp;
    unsigned level; /* of the entry */
    unsigned rights, type;
    uint64_t in, bytes, out;
};

static struct cached all[CACHED_MOST];
static unsigned count;

/* Where each is found again: by address, tag and level. Numbers are one more than an index. */
#define BUCKETS 16384
static uint32_t bucket[BUCKETS], next[CACHED_MOST];

static uint32_t *bucket_of(const struct cached *c)
{
    uint64_t key = (c->in / PAGE_SIZE * 8 + c->level) * 64 + c->tag * 4u + (unsigned)c->sort;

    return &bucket[key * UINT64_C(0x9e3779b97f4a7c15) >> 50];
}

static void enlist(unsigned i)
{
    uint32_t *head = bucket_of(&all[i]);

    next[i] = *head;
    *head = i + 1;
}

typedef bool (*named_fn)(const struct cached *c, uint64_t a, uint64_t b);

static void drop(named_fn named, uint64_t a, uint64_t b)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < count; i++)
        if (!named(&all[i], a, b))
            all[kept++] = all[i];
    if (kept == count)
        return;
    count = kept;
    memset(bucket, 0, sizeof(bucket));
    for (unsigned i = 0; i < count; i++)
        enlist(i);
}

void tlb_empty(void)
{
    count = 0;
    memset(bucket, 0, sizeof(bucket));
}

static void add(const struct cached *c)
{
    for (uint32_t n = *bucket_of(c); n; n = next[n - 1]) {
        struct cached *known = &all[n - 1];

        if (known->sort == c->sort && known->tag == c->tag && known->eptp == c->eptp &&
            known->leaf == c->leaf && known->level == c->level && known->in == c->in &&
            known->global == c->global) {
            known->dirty |= c->dirty; /* what is there is used, and not walked anew */
            return;
        }
    }
    assert_true(count < CACHED_MOST);
    all[count++] = *c;
    enlist(count - 1);
}

/* ---- The manual's walk --------------------------------------------------------------------- */

static uint64_t bytes_at(unsigned level)
{
    return UINT64_C(1) << (12 + 9 * (level - 1));
}

static bool is_ept(const struct tlb_way *way)
{
    return way->sort == TLB_PHYSICAL || way->sort == TLB_COMBINED;
}

static bool is_present(const struct tlb_way *way, uint64_t entry)
{
    return (entry & (is_ept(way) ? 7u : 1u)) != 0;
}

static bool is_leaf(uint64_t entry, unsigned level)
{
    return level == 1 || (level <= 3 && (entry >> 7 & 1));
}

static unsigned rights_of(const struct tlb_way *way, uint64_t entry)
{
    if (is_ept(way))
        return (unsigned)(entry & 7);
    return READ | (entry >> 1 & 1 ? WRITE : 0) | (entry >> 2 & 1 ? USER : 0) |
           (entry >> 63 ? 0 : EXECUTE);
}

static unsigned type_of(const struct tlb_way *way, uint64_t entry, unsigned level)
{
    if (is_ept(way))
        return (unsigned)(entry >> 3 & 15);
    return (unsigned)(entry >> 3 & 3) | (unsigned)(entry >> (level == 1 ? 7 : 12) & 1) << 2;
}

static uint64_t *slot_of(uint64_t node, uint64_t in, unsigned level)
{
    return (uint64_t *)direct(hpa(node)) + (in >> (12 + 9 * (level - 1)) & 511);
}

static struct cached cached_of(const struct tlb_way *way, uint64_t entry, unsigned level,
                               uint64_t in, unsigned rights)
{
    bool leaf = is_leaf(entry, level);
    uint64_t bytes = bytes_at(level);

    return (struct cached){
        .sort = way->sort,
        .leaf = leaf,
        .global = leaf && way->sort == TLB_LINEAR && (model_cpu.cr4 & CR4_PGE) && (entry >> 8 & 1),
        .dirty = leaf && (entry >> (is_ept(way) ? 9 : 6) & 1),
        .tag = way->tag,
        .eptp = way->eptp & BITS(51, 12),
        .level = level,
        .rights = rights,
        .type = leaf ? type_of(way, entry, level) : 0,
        .in = in & ~(bytes - 1),
        .bytes = bytes,
        .out = entry & BITS(51, 12) & (leaf ? ~(bytes - 1) : ~UINT64_C(0)),
    };
}

/* The entry that ends the walk, or that stands at `stop`. False: nothing is present. */
static bool look(const struct tlb_way *way, uint64_t in, unsigned stop, bool use, bool write,
                 struct cached *out)
{
    uint64_t node = way->root.v;
    unsigned rights = READ | WRITE | EXECUTE | USER;
    unsigned shift = is_ept(way) ? 8 : 5;

    for (unsigned level = 4;; level--) {
        uint64_t *slot = slot_of(node, in, level);

        if (!is_present(way, *slot))
            return false;
        rights &= rights_of(way, *slot);
        if (use && way->keeps_ad)
            *slot |= UINT64_C(1) << shift;
        if (use && way->keeps_ad && write && is_leaf(*slot, level) && (rights & WRITE))
            *slot |= UINT64_C(2) << shift;
        *out = cached_of(way, *slot, level, in, rights);
        if (use)
            add(out);
        if (out->leaf || level == stop)
            return true;
        node = *slot & BITS(51, 12);
    }
}

void tlb_use(const struct tlb_way *way, uint64_t first, uint64_t last, bool write)
{
    struct cached found;

    for (uint64_t at = first; at <= last && at >= first;) {
        bool there = look(way, at, 0, true, write, &found);
        uint64_t bytes = there ? found.bytes : PAGE_SIZE;

        at = (at & ~(bytes - 1)) + bytes;
    }
}

void tlb_add(const struct tlb_way *way, uint64_t in, bool global)
{
    add(&(struct cached){.sort = way->sort,
                         .leaf = true,
                         .global = global,
                         .tag = way->tag,
                         .eptp = way->eptp & BITS(51, 12),
                         .level = 1,
                         .in = in,
                         .bytes = PAGE_SIZE});
}

/* ---- What may be used ---------------------------------------------------------------------- */

static bool is_of(const struct cached *c, const struct tlb_way *way)
{
    if (c->sort != way->sort)
        return false;
    switch (c->sort) {
    case TLB_LINEAR:
        return c->global || c->tag == way->tag;
    case TLB_PHYSICAL:
        return c->eptp == (way->eptp & BITS(51, 12));
    case TLB_COMBINED:
        return c->tag == way->tag && c->eptp == (way->eptp & BITS(51, 12));
    case TLB_NESTED:
        return c->tag == way->tag;
    }
    return false;
}

unsigned tlb_cached(const struct tlb_way *way)
{
    unsigned found = 0;

    for (unsigned i = 0; i < count; i++)
        found += is_of(&all[i], way);
    return found;
}

static const char *judge_leaf(const struct tlb_way *way, const struct cached *c, uint64_t at,
                              const struct cached *now)
{
    if (now->out + (at - now->in) != c->out + (at - c->in))
        return "leads elsewhere";
    if (c->rights & ~now->rights)
        return "gives a right that was taken";
    /* An EPT violation walks anew before it is told (29.4.3.1). */
    if ((now->rights & ~c->rights) && !is_ept(way))
        return "lacks a right that was given";
    if (c->type != now->type)
        return "has another memory type";
    if (way->keeps_ad && c->dirty && !now->dirty)
        return "would not set D again";
    return NULL;
}

static const char *judge(const struct tlb_way *way, const struct cached *c)
{
    struct cached now;

    if (!c->leaf) {
        if (!look(way, c->in, c->level, false, false, &now) || now.leaf || now.out != c->out)
            return "leads to a node that is no longer there";
        return (c->rights & ~now.rights) ? "gives a right that was taken" : NULL;
    }
    for (uint64_t at = c->in; at - c->in < c->bytes;) {
        if (!look(way, at, 0, false, false, &now))
            return "is no longer there";
        const char *wrong = judge_leaf(way, c, at, &now);
        if (wrong)
            return wrong;
        at = now.in + now.bytes;
    }
    uint64_t entry_accessed = UINT64_C(1) << (is_ept(way) ? 8 : 5);
    uint64_t node = way->root.v;
    for (unsigned level = 4; level > now.level; level--)
        node = *slot_of(node, now.in, level) & BITS(51, 12);
    if (way->keeps_ad && !(*slot_of(node, now.in, now.level) & entry_accessed))
        return "would not set A again";
    return NULL;
}

void tlb_check(const struct tlb_way *way, uint64_t first, uint64_t last)
{
    static const char *const names[] = {"linear", "guest-physical", "combined", "nested"};

    for (unsigned i = 0; i < count; i++) {
        const struct cached *c = &all[i];

        if (!is_of(c, way) || c->in > last || c->in + (c->bytes - 1) < first)
            continue;
        const char *wrong = judge(way, c);
        if (wrong)
            fail_msg("the CPU holds a %s %s of %#lx (tag %u, level %u) that %s", names[c->sort],
                     c->leaf ? "translation" : "paging-structure entry", c->in, c->tag, c->level,
                     wrong);
    }
}

void tlb_check_freed(hpa_t frame)
{
    for (unsigned i = 0; i < count; i++)
        if (all[i].sort != TLB_NESTED && !all[i].leaf && all[i].out == frame.v)
            fail_msg("frame %#lx is given back while the CPU walks through it", frame.v);
}

/* ---- Linear translations of the host (4.10.4.1) -------------------------------------------- */

static uint64_t current_pcid(void)
{
    return model_cpu.cr4 & CR4_PCIDE ? model_cpu.cr3 & CR3_PCID : 0;
}

static bool by_page(const struct cached *c, uint64_t address, uint64_t pcid)
{
    if (c->sort != TLB_LINEAR)
        return false;
    if (!c->leaf)
        return c->tag == pcid;
    return (c->global || c->tag == pcid) && address - c->in < c->bytes;
}

static bool by_pcid(const struct cached *c, uint64_t pcid, uint64_t unused)
{
    (void)unused;
    return c->sort == TLB_LINEAR && !c->global && c->tag == pcid;
}

static bool linear(const struct cached *c, uint64_t globals, uint64_t unused)
{
    (void)unused;
    return c->sort == TLB_LINEAR && (globals || !c->global);
}

void model_invlpg(uint64_t address)
{
    drop(by_page, address, current_pcid());
}

void model_invpcid(enum invpcid_type type, uint16_t pcid, uint64_t address)
{
    if (!cpu_features.invpcid)
        model_fault("#UD: no INVPCID");
    if (pcid > CR3_PCID || (type <= INVPCID_SINGLE && pcid && !(model_cpu.cr4 & CR4_PCIDE)))
        model_fault("#GP: the PCID of INVPCID");
    switch (type) {
    case INVPCID_ADDRESS:
        drop(by_page, address, pcid);
        return;
    case INVPCID_SINGLE:
        drop(by_pcid, pcid, 0);
        return;
    case INVPCID_ALL_GLOBAL:
        drop(linear, true, 0);
        return;
    case INVPCID_ALL:
        drop(linear, false, 0);
        return;
    }
    model_fault("#GP: the type of INVPCID");
}

void tlb_load_cr3(uint64_t cr4, uint64_t value)
{
    if (!(cr4 & CR4_PCIDE))
        drop(linear, false, 0);
    else if (!(value & CR3_KEEP))
        drop(by_pcid, value & CR3_PCID, 0);
}

void tlb_all_linear(void)
{
    drop(linear, true, 0);
}

/* ---- VMX (29.4.3) -------------------------------------------------------------------------- */

static bool by_eptp(const struct cached *c, uint64_t eptp, uint64_t all_of_them)
{
    return (c->sort == TLB_PHYSICAL || c->sort == TLB_COMBINED) &&
           (all_of_them || c->eptp == (eptp & BITS(51, 12)));
}

static bool by_vpid(const struct cached *c, uint64_t vpid, uint64_t globals)
{
    return c->sort == TLB_COMBINED && c->tag == vpid && (globals || !c->global);
}

static bool by_vpid_page(const struct cached *c, uint64_t vpid, uint64_t address)
{
    return c->sort == TLB_COMBINED && c->tag == vpid && address - c->in < c->bytes;
}

static bool combined(const struct cached *c, uint64_t a, uint64_t b)
{
    (void)a;
    (void)b;
    return c->sort == TLB_COMBINED;
}

static const struct vm_flags succeeds, fails = {.valid = true};

struct vm_flags model_invept(uint64_t type, uint64_t low, uint64_t high)
{
    const struct ept_vpid_caps *caps = &vmx_caps.ept_vpid;

    if (!caps->invept)
        model_fault("#UD: no INVEPT");
    if (high || !(type == 1 ? caps->invept_single : type == 2 && caps->invept_all))
        return fails;
    if (type == 1 &&
        ((low & 7) != 6 || (low >> 3 & 7) != 3 || (low & BITS(11, 7)) ||
         (low & BITS(63, cpu_features.maxphyaddr)) || ((low & BIT(6)) && !caps->accessed_dirty)))
        return fails;
    drop(by_eptp, low, type == 2);
    return succeeds;
}

struct vm_flags model_invvpid(uint64_t type, uint64_t low, uint64_t high)
{
    const struct ept_vpid_caps *caps = &vmx_caps.ept_vpid;
    const bool offered[] = {caps->invvpid_address, caps->invvpid_single, caps->invvpid_all,
                            caps->invvpid_keep_globals};

    if (!caps->invvpid)
        model_fault("#UD: no INVVPID");
    if (type > 3 || !offered[type] || (low & BITS(63, 16)) || (type != 2 && low == 0))
        return fails;
    if (type == INVVPID_ADDRESS)
        drop(by_vpid_page, low, high);
    else if (type == INVVPID_ALL_CONTEXTS)
        drop(combined, 0, 0);
    else
        drop(by_vpid, low, type == INVVPID_SINGLE_CONTEXT);
    return succeeds;
}

/* 29.4.3.1: without VPIDs every entry and exit drops what is tagged with VPID 0: the host's as
 * well. Guest-physical translations stay. */
void tlb_vmx_transition(uint16_t vpid)
{
    if (vpid == 0) {
        drop(by_vpid, 0, true);
        tlb_all_linear();
    }
}

/* ---- SVM ----------------------------------------------------------------------------------- */

static bool by_asid(const struct cached *c, uint64_t asid, uint64_t everything)
{
    return everything || (c->sort == TLB_NESTED && c->tag == asid);
}

void tlb_vmrun(uint16_t asid, uint8_t control, bool flush_by_asid)
{
    if (control != 0 && control != 1 && !(flush_by_asid && control == 3))
        model_fault("VMRUN: the TLB control is none of this CPU's");
    if (control)
        drop(by_asid, asid, control == 1);
}
