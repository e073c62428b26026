/*
 * What the files of round trips (tests/property/rounds_*.c) have in common: one call with a batch
 * of its own, and what is expected of it.
 */
#ifndef QUIRE_TESTS_PROPERTY_ROUNDS_H
#define QUIRE_TESTS_PROPERTY_ROUNDS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/lock.h"
#include "mm/frames/buddy.h"
#include "mm/paging/page_source.h"
#include "mm/paging/table.h"
#include "tests/property/five_levels.h"
#include "tests/property/world.h"
#include "tests/unit/hosted.h"

#define RWX_WB attrs_of(RIGHT_RWX, MEM_WB)
#define RX_WB attrs_of(RIGHT_RX, MEM_WB)

/* A world with a CPU that has everything. Returns where its first block of 512 cells begins. */
uint64_t start(const struct land *land, uint64_t unit, uint64_t seed);

/* Each of these is the call of that name with a batch of its own, which is then committed. They
 * return what the call has said; do_map() maps with RWX_WB. */
int do_map(struct table *table, uint64_t in, uint64_t out, uint64_t size, unsigned flags);
int do_map_as(struct table *table, uint64_t in, hpa_t out, uint64_t size, struct attrs attrs,
              unsigned flags);
int do_unmap(struct table *table, uint64_t in, uint64_t size);
int do_protect(struct table *table, uint64_t in, uint64_t size, struct attrs attrs);
int do_split(struct table *table, uint64_t in, uint64_t size, unsigned level);
int do_merge(struct table *table, uint64_t in, uint64_t size);
int do_sweep(struct table *table, uint64_t *cursor);
int do_clone(struct table *to, struct table *from, uint64_t in, uint64_t size);
int do_harvest(struct table *table, uint64_t in, uint64_t size, unsigned clear, visit_fn fn,
               void *ctx);

/* Did the last of these calls leave anything in its batch? */
extern bool owed;

#define assert_ok(call) assert_int_equal(call, E_OK)

/* It succeeds, stores nothing, and needs no flush. */
#define assert_changes_nothing(call)                                                               \
    do {                                                                                           \
        w.stores = 0;                                                                              \
        assert_ok(call);                                                                           \
        assert_false(owed);                                                                        \
        assert_int_equal(w.stores, 0);                                                             \
    } while (0)

/* Takes A and D from all pages, as one who looks what is in use does. */
void clear_marks(struct table *table, uint64_t in, uint64_t size);

/* Frames of the buddy; a test that uses them begins with buddy_pages_init(). */
extern struct buddy_pages pages;

static inline bool is_there(uint64_t in)
{
    return world_look(w.table.root.v, in).present;
}

/* ---- Lists of leaves ---- */

#define LEAVES 4096

struct leaves {
    unsigned count;
    struct mapping leaf[LEAVES];
};

/* To be freed. */
struct leaves *leaves_of(struct table *table);

/* `with_ad`: A and D count as well. */
void assert_same_leaves(const struct leaves *a, const struct leaves *b, bool with_ad);

/* A visitor that counts its calls, and stops at one of them. */
struct stop_after {
    unsigned calls, limit;
};
int count_and_stop(void *ctx, const struct mapping *mapping);

/* ---- The tests ---- */

void test_split_then_merge_restores(void **state);
void test_split_of_a_part(void **state);
void test_split_from_before(void **state);
void test_merge_leaves_code_small(void **state);
void test_merge_refuses_unequal(void **state);
void test_merge_gathers_ad(void **state);
void test_merge_stays_in_its_range(void **state);
void test_merge_of_mixed_tables(void **state);
void test_sweep(void **state);
void test_visitor_reproduces(void **state);
void test_visitors_stop_when_told(void **state);
void test_visitors_skip_when_told(void **state);
void test_rights_of_all_levels(void **state);
void test_edges_are_refused(void **state);
void test_pieces_of_large_pages(void **state);
void test_protect_of_many_tables(void **state);
void test_protect_of_mixed_tables(void **state);
void test_marks_set_late_in_a_copy(void **state);
void test_protect_of_what_is_so(void **state);
void test_protect_below_a_pinned_root(void **state);
void test_harvest_stops(void **state);
void test_clone_at_the_end(void **state);
void test_clone_without_frames(void **state);
void test_lone_pages(void **state);
void test_lone_pages_share_a_batch(void **state);
void test_lone_pages_at_the_ends(void **state);
void test_lone_page_beside_copies(void **state);
void test_lone_page_comes_and_goes(void **state);
void test_lone_page_after_a_copy(void **state);
void test_marks_of_new_pages(void **state);
void test_leaf_sizes(void **state);
void test_tables_begin_and_share(void **state);
void test_without_records(void **state);
void test_any_number_of_tables_dies(void **state);
void test_batch_of_several_calls(void **state);
void test_batches(void **state);
void test_fresh_frames(void **state);
void test_fresh_frames_are_small(void **state);
void test_data_dies_after_the_flush(void **state);
void test_cursor_begins_in_its_space(void **state);
void test_cursor_maps_as_a_range_does(void **state);
void test_cursor_owes_until_its_end(void **state);
void test_cursor_names_each_page_that_it_unmaps(void **state);
void test_cursor_stays_where_it_was_refused(void **state);
void test_cursor_judges_each_page(void **state);
void test_cursor_splits_large_pages(void **state);
void test_cursor_changes_no_more_than_it_must(void **state);
void test_cursor_counts_each_node(void **state);
void test_cursor_protects_without_a_mark(void **state);
void test_cursor_tells_what_comes_next(void **state);

#endif
