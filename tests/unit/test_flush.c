/* What each kind has this CPU forget, told by the instructions that it asks for. */
#include "arch/x86_64/mm/tlb.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "arch/x86_64/mm/ept.h"
#include "arch/x86_64/mm/npt.h"

static struct {
    unsigned pages, current, pcid, all, ept, asid;
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

void tlb_flush_asid(uint16_t asid)
{
    done.asid += asid;
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

/* The ASID is the table's tag. */
static void test_npt(void **state)
{
    struct table table = bare_table(&npt_kind);

    (void)state;
    table.tag = 5;
    for (unsigned i = 0; i < 4; i++) {
        flush(&table, i & 1, i & 2);
        assert_int_equal(done.asid, 5);
        assert_int_equal(done.pages + done.current + done.pcid + done.all + done.ept, 0);
    }
}

static void test_ncr3(void **state)
{
    struct ncr3 root;

    (void)state;
    assert_int_equal(ncr3_compose(hpa(0x12345000)), 0x12345000);
    assert_int_equal(ncr3_decode(0x12345000, 40, &root), E_OK);
    assert_int_equal(root.root.v, 0x12345000);
    assert_int_equal(root.type, MEM_WB);
    assert_int_equal(ncr3_decode(0x12345000 | NCR3_PWT | NCR3_PCD, 40, &root), E_OK);
    assert_int_equal(root.root.v, 0x12345000);
    assert_int_equal(root.type, MEM_UC);
    assert_int_equal(ncr3_decode(0x12345001, 40, &root), E_ILLEGAL);
    assert_int_equal(ncr3_decode(0x12345020, 40, &root), E_ILLEGAL);
    assert_int_equal(ncr3_decode(UINT64_C(1) << 40, 40, &root), E_ILLEGAL);
    assert_int_equal(ncr3_decode(UINT64_C(1) << 40, 52, &root), E_OK);
    assert_int_equal(ncr3_decode(UINT64_C(1) << 63, 52, &root), E_ILLEGAL);
}

/* Every kind that is written says how; user tables ask CR3, which no hosted program may read. */
static void test_all_say_how(void **state)
{
    (void)state;
    assert_non_null(kernel_kind.flush);
    assert_non_null(user_kind.flush);
    assert_non_null(ept_kind.flush);
    assert_non_null(npt_kind.flush);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kernel),      cmocka_unit_test(test_ept),
        cmocka_unit_test(test_npt),         cmocka_unit_test(test_ncr3),
        cmocka_unit_test(test_all_say_how),
    };
    return cmocka_run_group_tests_name("flush", tests, NULL, NULL);
}
