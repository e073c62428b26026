/*
 * Ten thousand accesses of guests to memory of every kind, by chance: what each comes to is
 * foretold by the model (memory_model.h) and compared, while dirty tracking, snapshots, forks,
 * equal pages, memory that is shared and memory that is given back come and go between them.
 *
 * An access goes through, with the value that the model has; or it is refused, and the guest is
 * told so where it has announced it, with what it tried.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "guests/abi.h"
#include "lib/bits.h"
#include "lib/error.h"
#include "mm/paging/typed.h"
#include "tests/unit/memory_model.h"
#include "vm/dirty.h"
#include "vm/exits.h"
#include "vm/merge.h"
#include "vm/shared.h"
#include "vm/slot_change.h"
#include "vm/slots.h"
#include "vm/snapshot.h"

#define ACCESSES 10000u
#define BETWEEN 16u /* accesses from one change to the next */
#define RESUME 0x4321u

/* Pages of the areas, 16 each. */
#define AREA 16u
#define ROM 768u
#define NOEXEC 1024u
#define EXEC_ONLY 1280u
#define HOLE 1536u
#define RING 1792u
#define AREAS " mem=8M merge rom=3M+64K nox=4M+64K xo=5M+64K hole=6M+64K "

static uint64_t ring[AREA][2];
static bool exact[GUESTS]; /* nothing but writes has come since the guest was asked last */
static unsigned went, refused;

static bool is_ring(unsigned page)
{
    return page >= RING && page < RING + AREA;
}

static void set_rights(struct model *model, unsigned page, unsigned rights)
{
    for (unsigned i = 0; i < AREA; i++)
        model->page[page + i].rights = (uint8_t)rights;
}

static struct model *make_one(const char *options, unsigned ring_rights)
{
    struct model *model = make(options);

    set_rights(model, ROM, RIGHT_RX);
    set_rights(model, NOEXEC, RIGHT_RW);
    set_rights(model, EXEC_ONLY, RIGHT_X);
    set_rights(model, HOLE, RIGHT_NONE);
    set_rights(model, RING, ring_rights);
    return model;
}

static uint64_t *value_of(struct model *model, unsigned page, unsigned which)
{
    return is_ring(page) ? &ring[page - RING][which] : &model->page[page].stamp[which];
}

/* ---- One access ------------------------------------------------------------------------------ */

static void goes_through(struct model *model, unsigned page, unsigned which, unsigned access)
{
    uint64_t *word = reach(model->guest, place_of(page, which), access);

    assert_non_null(word);
    assert_int_not_equal(model->guest->cpu[0].is.expect_fault.size,
                         0); /* nobody was told of a fault */
    if (access != RIGHT_W && *word != *value_of(model, page, which))
        fail_msg("g%u, page 0x%x: 0x%lx, not 0x%lx", model->guest->number, page, *word,
                 *value_of(model, page, which));
    if (access == RIGHT_W) {
        *word = *value_of(model, page, which) = random_next(&chance) % 4; /* often the same */
        model->page[page].dirty = true;
    }
    went++;
}

static void is_refused(struct model *model, unsigned page, unsigned which, unsigned access)
{
    static const uint32_t bits[] = {
        [RIGHT_R] = QUIRE_FAULT_READ, [RIGHT_W] = QUIRE_FAULT_WRITE, [RIGHT_X] = QUIRE_FAULT_EXEC};
    struct guest *guest = model->guest;
    struct mapping leaf = {.attrs = {.rights = 0}};
    uint64_t told = guest->faults_refused;

    (void)gpa_translate(&guest->table, place_of(page, which), &leaf);
    assert_int_not_equal(access & ~(unsigned)leaf.attrs.rights, 0);
    struct vm_exit exit = {
        .kind = VM_EXIT_MEMORY,
        .rip = 0x7c00,
        .memory = {.gpa = place_of(page, which), .access = access, .allowed = leaf.attrs.rights},
    };
    assert_true(exit_dispatch(guest, &exit));
    assert_int_equal(guest->faults_refused, told + 1);
    assert_int_equal(guest->cpu[0].is.expect_fault.size, 0);
    assert_int_equal(fake_of(guest)->state.rip, RESUME);
    assert_int_equal(guest->vcpu->gpr[RAX], bits[access]);
    refused++;
}

static unsigned any_page(void)
{
    static const unsigned areas[] = {0x98, 0xf8, ROM, NOEXEC, EXEC_ONLY, HOLE, RING};

    if (random_below(&chance, 2))
        return areas[random_below(&chance, ARRAY_SIZE(areas))] +
               (unsigned)random_below(&chance, AREA);
    return (unsigned)random_below(&chance, random_below(&chance, 2) ? 64 : PAGES);
}

static void access_one(struct model *model)
{
    static const unsigned accesses[] = {RIGHT_R, RIGHT_W, RIGHT_W, RIGHT_X};
    unsigned page = any_page(), which = (unsigned)random_below(&chance, 2);
    unsigned access = accesses[random_below(&chance, ARRAY_SIZE(accesses))];

    model->guest->cpu[0].is.expect_fault.base = 0;
    model->guest->cpu[0].is.expect_fault.size = UINT64_MAX;
    model->guest->cpu[0].is.expect_fault.resume = RESUME;
    if (access & ~(unsigned)model->page[page].rights)
        is_refused(model, page, which, access);
    else
        goes_through(model, page, which, access);
}

/* ---- What comes between ---------------------------------------------------------------------- */

static void switch_ring(struct model *model)
{
    unsigned rights = random_below(&chance, 2) ? RIGHT_RW : RIGHT_R;
    gpa_t at = gpa(RING * PAGE_SIZE);

    if (model->page[RING].rights != RIGHT_NONE) {
        assert_int_equal(slot_remove(model->guest, at, AREA * PAGE_SIZE), E_OK);
        rights = RIGHT_NONE;
    } else {
        assert_int_equal(slot_insert_shared(model->guest, "ring", at, AREA * PAGE_SIZE, rights),
                         E_OK);
    }
    set_rights(model, RING, rights);
}

static void sweep(void)
{
    struct merge merge;

    assert_int_equal(merge_begin(&merge), E_OK);
    while (!merge_step(&merge, 1000))
        continue;
    merge_end(&merge);
}

static void switch_something(struct model *model, const struct model *last)
{
    bool *is_exact = &exact[model - models];

    switch (random_below(&chance, 10)) {
    case 0:
    case 1:
        if (*is_exact || !model->asked)
            ask(model);
        else
            ask_again(model);
        *is_exact = true;
        break;
    case 2:
        ask_no_more(model);
        break;
    case 3:
        take_snapshot(model);
        break;
    case 4:
        go_back(model);
        *is_exact = false;
        break;
    case 5:
        make_fork(model);
        break;
    case 6:
        if (model != last && guests_alive() > 3)
            end_one(model);
        break;
    case 7:
        sweep();
        break;
    case 8:
        give_or_take(model, UINT64_MAX);
        *is_exact = false;
        break;
    default:
        if (model != last) {
            switch_ring(model);
            *is_exact = false;
        }
    }
}

static int is_small_or_data(void *ctx, const struct mapping *leaf)
{
    (void)ctx;
    return leaf->level > 1 && leaf->attrs.rights & RIGHT_X;
}

/* With `nx-huge`, whatever has been split, joined and shared. */
static void expect_small_code(void)
{
    for (unsigned i = 0; i < living; i++) {
        struct guest *guest = models[i].guest;

        if (guest != NULL && guest->options.nx_huge)
            assert_int_equal(table_visit(&guest->table, 0, guest->table.kind->input_last,
                                         VISIT_PAGES, is_small_or_data, NULL),
                             0);
    }
}

static void each_access_is_foretold(void **state)
{
    (void)state;
    for (enum way way = 0; way < WAYS; way++) {
        start_machine(way);
        chance.state = 77 + way;
        memset(ring, 0, sizeof(ring));
        memset(exact, 0, sizeof(exact));
        went = refused = 0;
        struct model *last = make_one("a" AREAS "share=ring:64K@7M", RIGHT_RW);
        make_one("b lazy" AREAS "share=ring:64K:r@7M", RIGHT_R);
        make_one("c pages=4K" AREAS "share=ring:64K@7M", RIGHT_RW);
        make_one("d nx-huge" AREAS "share=ring:64K@7M", RIGHT_RW);
        for (unsigned n = 0; n < ACCESSES; n++) {
            access_one(some_model());
            if (n % BETWEEN == 0) {
                switch_something(some_model(), last);
                audit_all();
                expect_small_code();
            }
        }
        assert_int_equal(went + refused, ACCESSES);
        assert_in_range(refused, ACCESSES / 5, ACCESSES / 2);
        for (unsigned i = 0; i < living; i++)
            if (models[i].guest != NULL)
                end_one(&models[i]);
        stop_machine();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_access_is_foretold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
