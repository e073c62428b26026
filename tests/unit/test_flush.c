/* What each kind has this CPU forget, told by the instructions that it asks for. */
#include "arch/x86_64/mm/tlb.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "arch/x86_64/mm/ept.h"

static struct {
    unsigned pages, current, pcid, all, ept;
    uint64_t eptp;
} done;

void tlb_flush_pages(const struct flush_batch *batch)
{
    done.pages += batch->count;
}

void tlb_flush_current(void)
{
    done.current++;
}

void tlb_flush_pcid(uint16_t pcid)
{
    (void)pcid;
    done.pcid++;
}

void tlb_flush_all(void)
{
    done.all++;
}

void tlb_flush_ept(uint64_t eptp)
{
    done.ept++;
    done.eptp = eptp;
}

/* A table that no walk is made of. */
static struct table bare_table(const struct table_kind *kind)
{
    return (struct table){.kind = kind,
                          .root = hpa(0x7000),
                          .caps = {.mem_types = 1u << MEM_WB, .accessed_dirty = true}};
}

static void flush(struct table *table, bool whole, bool tables_died)
{
    struct flush_batch batch = {.table = table,
                                .whole = whole,
                                .tables_died = tables_died,
                                .count = whole ? 0 : 2,
                                .range = {{0x1000, 0x1fff, 1}, {0x200000, 0x3fffff, 2}}};
    memset(&done, 0, sizeof(done));
    table->kind->flush(table, &batch);
}

/* Pages one by one, unless that leaves paging-structure caches of other PCIDs behind. */
static void test_kernel(void **state)
{
    struct table table = bare_table(&kernel_kind);

    (void)state;
    flush(&table, false, false);
    assert_int_equal(done.pages, 2);
    assert_int_equal(done.all, 0);
    flush(&table, true, false);
    assert_int_equal(done.pages, 0);
    assert_int_equal(done.all, 1);
    flush(&table, false, true);
    assert_int_equal(done.pages, 0);
    assert_int_equal(done.all, 1);
}

static void test_ept(void **state)
{
    struct table table = bare_table(&ept_kind);

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        flush(&table, i & 1, i & 2);
        assert_int_equal(done.ept, 1);
        assert_int_equal(done.eptp, eptp_compose(hpa(0x7000), MEM_WB, 4, true));
        assert_int_equal(done.pages + done.current + done.pcid + done.all, 0);
    }
}

/* Every kind that is written says how; user tables ask CR3, which no hosted program may read. */
static void test_all_say_how(void **state)
{
    (void)state;
    assert_non_null(kernel_kind.flush);
    assert_non_null(user_kind.flush);
    assert_non_null(ept_kind.flush);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kernel),
        cmocka_unit_test(test_ept),
        cmocka_unit_test(test_all_say_how),
    };
    return cmocka_run_group_tests_name("flush", tests, NULL, NULL);
}
