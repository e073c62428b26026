/* See space_check.h. */
#include "arch/x86_64/mm/space_check.h"

#include "arch/x86_64/mm/layout.h"
#include "lib/error.h"
#include "lib/format.h"
#include "mm/paging/typed.h"

struct check {
    struct table *table;
    const struct image_layout *image;
    char *why;
    size_t why_size;
    bool noted; /* the auditor's first finding */
    uint64_t executable_bytes;
};

static uint64_t run_size(const struct mapping *run)
{
    return run->last - run->in + 1;
}

static bool within(const struct mapping *run, uint64_t first, uint64_t size)
{
    return run->in >= first && run->last <= first + (size - 1);
}

static bool share_frames(const struct mapping *a, const struct mapping *b)
{
    return a->out.v < b->out.v + run_size(b) && b->out.v < a->out.v + run_size(a);
}

static int violation(struct check *check, const struct mapping *run, const char *rule)
{
    char rights[RIGHTS_TEXT];

    format_buffer(check->why, check->why_size, "%#lx..%#lx -> %#lx %s %s: %s", run->in, run->last,
                  run->out.v, rights_text(rights, run->attrs.rights),
                  mem_type_name((enum mem_type)run->attrs.type), rule);
    return E_STATE;
}

static int violation_at(struct check *check, uint64_t at, const char *rule)
{
    format_buffer(check->why, check->why_size, "%#lx: %s", at, rule);
    return E_STATE;
}

static int any(void *ctx, const struct mapping *run)
{
    (void)ctx;
    (void)run;
    return 1;
}

static int check_direct(struct check *check, const struct mapping *run)
{
    if (run->in - DIRECT_BASE != run->out.v)
        return violation(check, run, "the direct map shows another frame here");
    if (run->attrs.type != MEM_WB)
        return violation(check, run, "RAM in the direct map is not write-back");
    return 0;
}

static int check_mmio(struct check *check, const struct mapping *run)
{
    hva_t first = hva(DIRECT_BASE + run->out.v);

    /* Beyond the direct map there is no RAM to collide with. */
    if (run->out.v + run_size(run) <= DIRECT_SIZE &&
        hva_visit(check->table, first, hva_add(first, run_size(run) - 1), VISIT_RUNS, any, NULL) !=
            0)
        return violation(check, run, "the MMIO window covers RAM");
    return 0;
}

static int check_window(struct check *check, const struct mapping *run)
{
    if (within(run, DIRECT_BASE, DIRECT_SIZE))
        return check_direct(check, run);
    if (within(run, MMIO_BASE, MMIO_SIZE))
        return check_mmio(check, run);
    if (within(run, STACKS_BASE, STACKS_SIZE) || within(run, IMAGE_BASE, IMAGE_SIZE) ||
        within(run, FIXMAP_BASE, FIXMAP_SIZE))
        return 0;
    return violation(check, run, "mapped outside every window");
}

static int check_run(void *ctx, const struct mapping *run)
{
    struct check *check = ctx;
    const struct image_range *text = &check->image->text, *constant = &check->image->rodata;
    struct mapping rodata = {
        .in = constant->first,
        .last = constant->end - 1,
        .out = hpa(constant->first - IMAGE_BASE),
    };

    if (run->attrs.rights & RIGHT_U)
        return violation(check, run, "ring 3 can reach the upper half");
    if (run->attrs.rights & RIGHT_X) {
        if (!within(run, text->first, text->end - text->first))
            return violation(check, run, "executable, but not the image's text");
        if (run->out.v != run->in - IMAGE_BASE)
            return violation(check, run, "the text shows another frame here");
        check->executable_bytes += run_size(run);
    }
    if ((run->attrs.rights & RIGHT_W) && share_frames(run, &rodata))
        return violation(check, run, "writable here, the image's read-only data");
    if (check_window(check, run) != 0)
        return E_STATE;
    /* INVLPG drops what the current PCID has cached, and what is global; programs see the upper
     * half under PCIDs of their own (SDM Vol. 3, 4.10.4.1). */
    if (check->table->caps.global && !(run->attrs.rights & RIGHT_G))
        return violation(check, run, "not global, so that a flush leaves it to other PCIDs");
    return 0;
}

/* The kernel kind maps the upper half alone, so the lower half of its root is nobody's to walk:
 * all that can be asked is whether each slot is 0. */
static int check_lower_half(struct check *check)
{
    const uint64_t *root = direct(check->table->root);
    unsigned half = 1u << (check->table->kind->index_bits - 1);

    for (unsigned i = 0; i < half; i++) {
        if (__atomic_load_n(&root[i], __ATOMIC_RELAXED) != 0)
            return violation_at(check, (uint64_t)i << level_shift(check->table->kind, 4),
                                "the lower half of the kernel's table is not empty");
    }
    return 0;
}

/* Keeps the first finding. */
static void note_finding(void *ctx, const struct audit_finding *finding)
{
    struct check *check = ctx;

    if (!check->noted)
        violation_at(check, finding->in, finding->detail);
    check->noted = true;
}

/* The rules that are not this address space's alone are the auditor's. */
static int check_general_rules(struct check *check)
{
    struct audit_guard guard[SPACE_GUARDS];
    struct audit_table described;
    struct audit audit = {.rules = AUDIT_ADDRESS_SPACE, .table = &described, .tables = 1};
    struct audit_totals totals;

    audit.guard = guard;
    audit.guards = space_describe(check->table, check->image, &described, guard);
    int error = audit_run(&audit, note_finding, check, &totals);
    if (error != E_OK && !check->noted)
        format_buffer(check->why, check->why_size, "not judged to the end: %s", error_text(error));
    return error;
}

unsigned space_describe(struct table *table, const struct image_layout *image,
                        struct audit_table *out, struct audit_guard guard[SPACE_GUARDS])
{
    *out = (struct audit_table){
        .table = table,
        .name = "host",
        .write_xor_execute = true,
        .others = AUDIT_UNKNOWN,
    };
    guard[0] = (struct audit_guard){
        .table = table,
        .table_name = out->name,
        .name = "a stack's guard page",
        .first = STACKS_BASE,
        .stride = STACK_STRIDE,
        .count = STACK_SLOTS,
    };
    guard[1] = (struct audit_guard){
        .table = table,
        .table_name = out->name,
        .name = "the guard page of the boot stack",
        .first = image->guard,
        .count = 1,
    };
    return image->guard != 0 ? 2 : 1;
}

int space_check(struct table *table, const struct image_layout *image, char *why, size_t why_size)
{
    struct check check = {.table = table, .image = image, .why = why, .why_size = why_size};
    int error = hva_visit(table, hva(UPPER_FIRST), hva(UPPER_LAST), VISIT_RUNS, check_run, &check);

    if (error == E_OK)
        error = check_general_rules(&check);
    if (error == E_OK && check.executable_bytes != image->text.end - image->text.first)
        error = violation_at(&check, image->text.first, "part of the text is not executable");
    if (error == E_OK)
        error = check_lower_half(&check);
    return error;
}
