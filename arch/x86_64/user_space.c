/* See user_space.h. Runs hosted as well. */
#include "arch/x86_64/user_space.h"

#include "arch/x86_64/mm/layout.h"
#include "lib/panic.h"
#include "lib/string.h"
#include "mm/frames/buddy.h"
#include "mm/frames/scrub.h"
#include "mm/paging/cursor.h"
#include "mm/paging/typed.h"
#include "vm/elf.h"

#define STACK_TOP (USER_LAST + 1)
#define STACK_BOTTOM (STACK_TOP - USER_STACK_SIZE)
#define SEGMENTS_LAST (STACK_BOTTOM - PAGE_SIZE - 1)

static int refuse(int error, const char **why, const char *text)
{
    *why = text;
    return error;
}

/* A frame of zeroes of the program's own, mapped at the cursor. */
static int add_page(struct table_cursor *c, unsigned rights, void **page)
{
    hpa_t frame;
    int error = scrub_alloc(0, PURPOSE_USER_RAM, c->table->owner, &frame);

    if (error != E_OK)
        return error;
    *page = direct(frame);
    error = table_cursor_map(c, frame, attrs_of(rights | RIGHT_U, MEM_WB));
    if (error != E_OK)
        invariant(buddy_free(frame, 0, c->table->owner) == E_OK);
    return error;
}

/* The part of the segment's file bytes that belongs on the page at `at`. */
static void fill_page(uint8_t *page, uint64_t at, const struct elf_segment *segment)
{
    uint64_t first = segment->virtual > at ? segment->virtual : at;
    uint64_t end = segment->virtual + segment->file_size;

    if (end > at + PAGE_SIZE)
        end = at + PAGE_SIZE;
    if (first < end)
        memcpy(page + (first - at), segment->bytes + (first - segment->virtual), end - first);
}

static int load_segment(struct table *table, const struct elf_segment *segment, uint64_t *memory,
                        const char **why)
{
    uint64_t last = segment->virtual + (segment->memory_size - 1);

    if (!segment->load || segment->memory_size == 0)
        return E_OK;
    if (segment->virtual < USER_FIRST || last > SEGMENTS_LAST)
        return refuse(E_RANGE, why, "a segment lies outside a program's address space");
    if ((segment->rights & (RIGHT_W | RIGHT_X)) == (RIGHT_W | RIGHT_X))
        return refuse(E_UNSUPPORTED, why, "a segment is writable and executable");
    if (segment->memory_size > USER_MEMORY_MAX - *memory)
        return refuse(E_RANGE, why, "its segments need more than 16M");
    *memory += segment->memory_size;

    uint64_t at = align_down(segment->virtual, PAGE_SIZE);
    struct table_cursor c;
    int error = table_cursor_begin(&c, table, at, last | (PAGE_SIZE - 1));
    invariant(error == E_OK);
    for (; error == E_OK && at <= last; at += PAGE_SIZE) {
        void *page;

        /* x86 has no page that cannot be read. */
        error = add_page(&c, segment->rights | RIGHT_R, &page);
        if (error == E_OK)
            fill_page(page, at, segment);
    }
    table_cursor_end(&c);
    if (error == E_EXIST)
        return refuse(error, why, "two segments share a page");
    return error == E_OK ? E_OK : refuse(error, why, "no memory for its segments");
}

static int load_segments(struct user_space *space, const struct elf *elf, const char **why)
{
    uint64_t memory = 0;
    struct mapping entry;

    for (unsigned i = 0; i < elf->segments; i++) {
        struct elf_segment segment;
        int error = elf_segment(elf, i, &segment, why);

        if (error == E_OK)
            error = load_segment(&space->table, &segment, &memory, why);
        if (error != E_OK)
            return error;
    }
    if (hva_translate(&space->table, hva(elf->entry), &entry) != E_OK ||
        !(entry.attrs.rights & RIGHT_X))
        return refuse(E_FORMAT, why, "its entry point is not in an executable segment");
    space->entry = elf->entry;
    return E_OK;
}

static int add_stack(struct user_space *space, const char **why)
{
    struct table_cursor c;
    int error = table_cursor_begin(&c, &space->table, STACK_BOTTOM, STACK_TOP - 1);

    invariant(error == E_OK);
    for (uint64_t at = STACK_BOTTOM; error == E_OK && at < STACK_TOP; at += PAGE_SIZE) {
        void *page;

        error = add_page(&c, RIGHT_RW, &page);
    }
    table_cursor_end(&c);
    if (error != E_OK)
        return refuse(error, why, "no memory for its stack");
    space->stack_top = STACK_TOP;
    return E_OK;
}

int user_space_load(struct user_space *space, const struct user_space_setup *setup,
                    const uint8_t *image, uint64_t size, const char **why)
{
    struct elf elf;
    int error = elf_parse(image, size, &elf, why);

    if (error != E_OK)
        return error;
    if (!elf.is64)
        return refuse(E_UNSUPPORTED, why, "a ring-3 program must be ELF64 for x86-64");
    error = table_init(&space->table, &user_kind, &setup->kernel->caps, setup->env,
                       PURPOSE_USER_TABLE, setup->owner);
    if (error != E_OK)
        return refuse(error, why, "no memory for its table");
    space->table.tag = setup->pcid;
    *why = "the kernel's half cannot be shared";
    error = table_share_upper(&space->table, setup->kernel);
    if (error == E_OK)
        error = load_segments(space, &elf, why);
    if (error == E_OK)
        error = add_stack(space, why);
    if (error != E_OK)
        user_space_destroy(space);
    return error;
}

static int free_page(void *ctx, const struct mapping *page)
{
    flush_free_after(ctx, page->out);
    return 0;
}

void user_space_destroy(struct user_space *space)
{
    struct flush_batch batch;

    flush_begin(&batch, &space->table);
    hva_visit(&space->table, hva(USER_FIRST), hva(USER_LAST), VISIT_PAGES, free_page, &batch);
    invariant(hva_unmap(&space->table, hva(USER_FIRST), USER_LAST - USER_FIRST + 1, &batch) ==
              E_OK);
    flush_commit(&batch);
    invariant(table_destroy(&space->table) == E_OK);
}

uint64_t user_space_read(struct user_space *space, uint64_t from, void *to, uint64_t size)
{
    /* A range that wraps ends above what the user kind translates. */
    return hva_read(&space->table, hva(from), RIGHT_R | RIGHT_U, to, size);
}

void user_space_describe(struct user_space *space, const struct table *kernel, const char *name,
                         struct audit_table *out)
{
    *out = (struct audit_table){
        .table = &space->table,
        .name = name,
        .shows = BIT(PURPOSE_USER_RAM),
        .write_xor_execute = true,
        .upper = kernel,
    };
}
