/* See space_check.h. */
#include "arch/x86_64/mm/space_check.h"

#include "arch/x86_64/mm/layout.h"
#include "lib/format.h"

/* The text is contiguous, here and in memory: a run of 4 KiB pages, one of 2 MiB, one of 4 KiB. */
#define EXECUTABLE_RUNS 3

struct check {
    struct table *table;
    const struct image_layout *image;
    char *why;
    size_t why_size;
    struct mapping executable[EXECUTABLE_RUNS];
    unsigned executables;
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

    format_buffer(check->why, check->why_size, "%#llx..%#llx -> %#llx %s %s: %s",
                  (unsigned long long)run->in, (unsigned long long)run->last,
                  (unsigned long long)run->out.v, rights_text(rights, run->attrs.rights),
                  mem_type_name((enum mem_type)run->attrs.type), rule);
    return E_STATE;
}

static int violation_at(struct check *check, uint64_t at, const char *rule)
{
    format_buffer(check->why, check->why_size, "%#llx: %s", (unsigned long long)at, rule);
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
    uint64_t first = DIRECT_BASE + run->out.v;

    /* Beyond the direct map there is no RAM to collide with. */
    if (run->out.v + run_size(run) <= DIRECT_SIZE &&
        table_visit(check->table, first, first + (run_size(run) - 1), VISIT_RUNS, any, NULL) != 0)
        return violation(check, run, "the MMIO window covers RAM");
    return 0;
}

static int check_stack(struct check *check, const struct mapping *run)
{
    uint64_t first = (run->in - STACKS_BASE) % STACK_STRIDE;

    /* A run of leaves that spans a guard reaches past the end of its slot. */
    if (first < STACK_GUARD || first + run_size(run) > STACK_STRIDE)
        return violation(check, run, "a stack's guard page is mapped");
    return 0;
}

static int check_window(struct check *check, const struct mapping *run)
{
    if (within(run, DIRECT_BASE, DIRECT_SIZE))
        return check_direct(check, run);
    if (within(run, MMIO_BASE, MMIO_SIZE))
        return check_mmio(check, run);
    if (within(run, STACKS_BASE, STACKS_SIZE))
        return check_stack(check, run);
    if (within(run, IMAGE_BASE, IMAGE_SIZE) || within(run, FIXMAP_BASE, FIXMAP_SIZE))
        return 0;
    return violation(check, run, "mapped outside every window");
}

static int check_run(void *ctx, const struct mapping *run)
{
    struct check *check = ctx;
    const struct image_range *text = &check->image->text;

    if (run->attrs.rights & RIGHT_U)
        return violation(check, run, "ring 3 can reach the upper half");
    if (run->attrs.rights & RIGHT_X) {
        if (run->attrs.rights & RIGHT_W)
            return violation(check, run, "writable and executable");
        if (!within(run, text->first, text->end - text->first))
            return violation(check, run, "executable, but not the image's text");
        if (run->out.v != run->in - IMAGE_BASE)
            return violation(check, run, "the text shows another frame here");
        if (check->executables == EXECUTABLE_RUNS)
            return violation(check, run, "the text is in more pieces than page sizes explain");
        check->executable[check->executables++] = *run;
        check->executable_bytes += run_size(run);
    }
    return check_window(check, run);
}

static int check_aliases(void *ctx, const struct mapping *run)
{
    struct check *check = ctx;
    const struct image_range *constant = &check->image->rodata;
    struct mapping rodata = {
        .in = constant->first,
        .last = constant->end - 1,
        .out = hpa(constant->first - IMAGE_BASE),
    };

    if (!(run->attrs.rights & RIGHT_W))
        return 0;
    for (unsigned i = 0; i < check->executables; i++)
        if (share_frames(run, &check->executable[i]))
            return violation(check, run, "writable here, executable at another address");
    if (share_frames(run, &rodata))
        return violation(check, run, "writable here, the image's read-only data");
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

int space_check(struct table *table, const struct image_layout *image, char *why, size_t why_size)
{
    struct check check = {.table = table, .image = image, .why = why, .why_size = why_size};
    struct mapping ignored;
    int broken = table_visit(table, UPPER_FIRST, UPPER_LAST, VISIT_RUNS, check_run, &check);

    if (broken == 0)
        broken = table_visit(table, UPPER_FIRST, UPPER_LAST, VISIT_RUNS, check_aliases, &check);
    if (broken == 0 && check.executable_bytes != image->text.end - image->text.first)
        broken = violation_at(&check, image->text.first, "part of the text is not executable");
    if (broken == 0 && image->guard != 0 && table_translate(table, image->guard, &ignored) == E_OK)
        broken = violation_at(&check, image->guard, "the guard page of the boot stack is mapped");
    if (broken == 0)
        broken = check_lower_half(&check);
    return broken == 0 ? E_OK : E_STATE;
}
