/*
 * Explanations over AMD's nested tables, held against the manual's own cases: APM Vol. 2, 15.25.5
 * for what refuses and in which order, 15.25.6 for the error code, 15.25.8 for memory types,
 * 15.25.10 for PAE. On the memory that the test of the EPT plays, whose own tests run there.
 */
#define main test_explain_main
#define set_up set_up_ept
#include "tests/unit/test_explain.c"
#undef main
#undef set_up

#include "arch/x86_64/mm/npt.h"

#define FINAL NPT_FAULT_FINAL
#define WALK NPT_FAULT_WALK
#define NPT_OPEN (PTE_P | PTE_RW | PTE_US | PTE_A)

static int set_up(void **state)
{
    set_up_ept(state);
    caps.mem_types = 0x73;
    assert_int_equal(table_init(&ept, &npt_kind, &caps, &buddy_env, PURPOSE_NPT_TABLE, 18), E_OK);
    map_ept(0, 1 * MiB, RIGHT_RWX);
    return 0;
}

static void check_nested(enum explain_outcome outcome, uint64_t code, enum explain_rule rule,
                         unsigned at_line)
{
    char text[EXPLAIN_TEXT];

    if (e.outcome == outcome && e.has_code && !e.has_qualification && e.code == code &&
        e.rule == rule)
        return;
    print_error("line %u: %s, code 0x%lx, rule %u: %s\n", at_line, explain_outcome_name(&e), e.code,
                e.rule, explain_rule_text(text, &e));
    fail();
}
#define nests(code, rule) check_nested(EXPLAIN_VIOLATION, code, rule, __LINE__)
#define misnests(code) check_nested(EXPLAIN_MISCONFIG, code, EXPLAIN_ILLEGAL, __LINE__)

static void test_24_nested_references(void **state)
{
    (void)state;
    ask(LINEAR + 0x123, RIGHT_R, false);
    goes_through();
    assert_int_equal(e.references, 24);
    assert_int_equal(e.hpa.v, GUEST_AT + 0x10123);
    assert_int_equal(e.rights, RIGHT_RWX);
    assert_string_equal(explain_table_name(&e, &e.step[0]), "NPT");
    assert_string_equal(explain_table_name(&e, &e.step[4]), "guest");
}

/* U/S is always set in the code, RW and ID by the access, P by whether something is there. */
static void test_codes_at_the_final_address(void **state)
{
    (void)state;
    map_ept(0x10000, PAGE_SIZE, RIGHT_R);
    ask(LINEAR, RIGHT_R, false);
    goes_through();
    ask(LINEAR, RIGHT_W, false);
    nests(FINAL | PF_PRESENT | PF_WRITE | PF_USER, EXPLAIN_SECOND_NO_WRITE);
    assert_int_equal(e.exit_gpa.v, 0x10000);
    assert_int_equal(e.decided, 23);
    assert_string_equal(explain_section(&e), "APM Vol. 2, 15.25.5");
    ask(LINEAR, RIGHT_X, true);
    nests(FINAL | PF_PRESENT | PF_USER | PF_FETCH, EXPLAIN_SECOND_NO_EXECUTE);
    *ept_entry(0x10000, 1) = 0;
    ask(LINEAR, RIGHT_R, false);
    nests(FINAL | PF_USER, EXPLAIN_SECOND_ABSENT);
    ask(LINEAR, RIGHT_W, true);
    nests(FINAL | PF_USER | PF_WRITE, EXPLAIN_SECOND_ABSENT);
    /* Without the host's EFER.NXE no code tells a fetch. */
    ept.caps.nx = false;
    ask(LINEAR, RIGHT_X, false);
    nests(FINAL | PF_USER, EXPLAIN_SECOND_ABSENT);
    query.registers = NULL;
    ask(BIT(48), RIGHT_R, false);
    nests(FINAL | PF_USER, EXPLAIN_SECOND_BEYOND);
}

/* Whatever the access is, the walk of the guest's tables is a user write. */
static void test_walks_are_user_writes(void **state)
{
    static const unsigned access[] = {RIGHT_R, RIGHT_W, RIGHT_X};

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        map_ept(0x3000, PAGE_SIZE, RIGHT_RX);
        ask(LINEAR, access[i], false);
        nests(WALK | PF_PRESENT | PF_WRITE | PF_USER, EXPLAIN_SECOND_WALK);
        assert_true(e.during_walk);
        assert_int_equal(e.exit_gpa.v, 0x3000);
        /* No execution is asked for: NX is no hindrance to a walk. */
        map_ept(0x3000, PAGE_SIZE, RIGHT_RW);
        ask(LINEAR, access[i], false);
        goes_through();
    }
    *ept_entry(0x2000, 1) = 0;
    put8(0x2000, 0, 0);
    ask(LINEAR, RIGHT_X, true);
    nests(WALK | PF_WRITE | PF_USER, EXPLAIN_SECOND_ABSENT);
    /* The capability to keep A and D has no say, unlike the EPT's. */
    map_ept(0x2000, PAGE_SIZE, RIGHT_RX);
    ept.caps.accessed_dirty = false;
    ask(LINEAR, RIGHT_R, false);
    nests(WALK | PF_PRESENT | PF_WRITE | PF_USER, EXPLAIN_SECOND_WALK);
}

/* A guest's page fault comes before the nested one at the final address, and after those at its
 * tables. */
static void test_nested_order(void **state)
{
    (void)state;
    *ept_entry(0x10000, 1) = 0;
    leaf8(0, PTE_P | PTE_A);
    ask(LINEAR, RIGHT_W, false);
    faults(PF_PRESENT | PF_WRITE, EXPLAIN_READ_ONLY);
    ask(LINEAR, RIGHT_R, true);
    faults(PF_PRESENT | PF_USER, EXPLAIN_SUPERVISOR);
    ask(LINEAR, RIGHT_R, false);
    nests(FINAL | PF_USER, EXPLAIN_SECOND_ABSENT);
}

/* A clear U/S is a right that is missing, not a reserved bit: P is 1, RSV 0; and what lies behind
 * it, absent or illegal, is told before it. */
static void test_user_all_the_way(void **state)
{
    uint64_t *pd = ept_entry(0x10000, 2), *pt = ept_entry(0x10000, 1), leaf = *pt;

    (void)state;
    query.registers = NULL; /* the guest's own tables lie behind the same entry */
    *pt &= ~PTE_US;
    ask(0x10000, RIGHT_R, false);
    nests(FINAL | PF_PRESENT | PF_USER, EXPLAIN_SECOND_SUPERVISOR);
    assert_int_equal(e.step[e.decided].entry.level, 1);
    *pt = leaf;
    *pd &= ~PTE_US;
    ask(0x10000, RIGHT_W, false);
    nests(FINAL | PF_PRESENT | PF_WRITE | PF_USER, EXPLAIN_SECOND_SUPERVISOR);
    assert_int_equal(e.step[e.decided].entry.level, 2);
    assert_int_equal(e.references, 4);
    *pt = 0;
    ask(0x10000, RIGHT_R, false);
    nests(FINAL | PF_USER, EXPLAIN_SECOND_ABSENT);
    assert_int_equal(e.step[e.decided].entry.level, 1);
    *pt = leaf | BIT(45);
    ask(0x10000, RIGHT_R, false);
    misnests(FINAL | PF_PRESENT | PF_USER | PF_RESERVED);
    assert_int_equal(e.entry_rule, RULE_BEYOND_MAXPHYADDR);
}

static void test_nested_reserved_bits(void **state)
{
    uint64_t *entry = ept_entry(0x10000, 1), leaf = *entry;

    (void)state;
    *entry = leaf | BIT(40);
    ask(LINEAR, RIGHT_W, false);
    misnests(FINAL | PF_PRESENT | PF_WRITE | PF_USER | PF_RESERVED);
    assert_string_equal(explain_section(&e), "APM Vol. 2, 15.25.5 Nested Table Walk");
    *entry = leaf | PTE_NX;
    ept.caps.nx = false; /* bit 63 is reserved then */
    ask(LINEAR, RIGHT_R, false);
    misnests(FINAL | PF_PRESENT | PF_USER | PF_RESERVED);
    ept.caps.nx = true;
    *ept_entry(0x3000, 4) |= PTE_G; /* on every way */
    ask(LINEAR, RIGHT_R, false);
    misnests(WALK | PF_PRESENT | PF_WRITE | PF_USER | PF_RESERVED);
}

/* A PAE guest's PDPTEs are read at each walk: a reference through the nested table, and neither
 * registers nor entries with rights. */
static void test_nested_pae(void **state)
{
    (void)state;
    regs = (struct gva_context){.cr0 = CR0_PE | CR0_PG | CR0_WP,
                                .cr3 = 0x1020,
                                .cr4 = CR4_PAE,
                                .efer = EFER_NXE,
                                .maxphyaddr = 40,
                                .pdpte = {0x7001, 0x7001, 0x7001, 0x7001}};
    put8(0x1000, 4, 0);
    put8(0x1000, 5, 0x3000 | PTE_P);
    put8(0x1000, 6, 0x3000 | PTE_P | PTE_RW);
    leaf8(2, OPEN | PTE_D | PTE_NX);
    ask(0x40002008, RIGHT_W, true);
    goes_through();
    assert_int_equal(e.mode, PAGING_PAE);
    assert_int_equal(e.references, 19); /* 3 x (4 + 1) + 4 */
    assert_int_equal(e.step[4].table, EXPLAIN_FIRST);
    assert_int_equal(e.step[4].entry.level, 3);
    assert_int_equal(e.step[4].entry.index, 1);
    assert_int_equal(e.step[4].entry.address.v, 0x1028);
    assert_int_equal(e.step[4].to, 0x3000);
    assert_int_equal(e.step[9].entry.level, 2);
    assert_int_equal(e.gpa.v, 0x12008);
    ask(0x40002000, RIGHT_X, false);
    faults(PF_PRESENT | PF_FETCH, EXPLAIN_NO_EXECUTE);
    ask(0x2000, RIGHT_R, false);
    faults(0, EXPLAIN_NOT_PRESENT);
    assert_int_equal(e.references, 5);
    assert_int_equal(e.decided, 4);
    ask(0x80002000, RIGHT_R, false);
    faults(PF_PRESENT | PF_RESERVED, EXPLAIN_ILLEGAL);
    assert_int_equal(e.decided, 4);
    map_ept(0x1000, PAGE_SIZE, RIGHT_R);
    ask(0x40002000, RIGHT_R, false);
    nests(WALK | PF_PRESENT | PF_WRITE | PF_USER, EXPLAIN_SECOND_WALK);
    assert_int_equal(e.exit_gpa.v, 0x1028);
    ask(0x100000000, RIGHT_R, false);
    assert_int_equal(e.rule, EXPLAIN_BEYOND_32_BITS);
}

/* The table of 15.25.8 where the MTRRs say write-back. Rows: the guest's PAT, columns: the
 * nested entry's. */
static void test_nested_types(void **state)
{
    static const unsigned guest[] = {MEM_UC, 7, MEM_WC, MEM_WP, MEM_WT, MEM_WB};
    static const unsigned host[] = {MEM_UC, MEM_WC, MEM_WP, MEM_WT, MEM_WB};
    static const unsigned expected[6][5] = {
        {MEM_UC, MEM_UC, MEM_UC, MEM_UC, MEM_UC}, {MEM_UC, MEM_WC, MEM_UC, MEM_UC, MEM_UC},
        {MEM_WC, MEM_WC, MEM_WC, MEM_WC, MEM_WC}, {MEM_UC, MEM_WC, MEM_WP, MEM_UC, MEM_WP},
        {MEM_UC, MEM_WC, MEM_UC, MEM_WT, MEM_WT}, {MEM_UC, MEM_WC, MEM_WP, MEM_WT, MEM_WB},
    };
    uint64_t *entry = ept_entry(0x10000, 1);

    (void)state;
    for (unsigned i = 0; i < 6; i++)
        for (unsigned j = 0; j < 5; j++) {
            query.pat = guest[i];
            *entry = (*entry & ENTRY_ADDRESS) |
                     npt_kind.encode(attrs_of(RIGHT_RWX, (enum mem_type)host[j]), 1, &caps);
            ask(LINEAR, RIGHT_R, false);
            goes_through();
            assert_int_equal(e.type, expected[i][j]);
        }
}

/* nCR3 has CR3's format (15.25.3, 5.3.2): the address below MAXPHYADDR and bits 4:3, nothing else.
 */
static void test_root_register(void **state)
{
    struct ncr3 root;

    (void)state;
    assert_int_equal(ncr3_decode(ncr3_compose(hpa(0x123000)), 40, &root), E_OK);
    assert_int_equal(root.root.v, 0x123000);
    assert_int_equal(root.type, MEM_WB);
    for (unsigned bit = 0; bit < 64; bit++) {
        bool legal = bit == 3 || bit == 4 || (bit >= 12 && bit < 40);

        assert_int_equal(ncr3_decode(BIT(bit), 40, &root), legal ? E_OK : E_ILLEGAL);
        assert_int_equal(root.raw, BIT(bit));
    }
    assert_int_equal(ncr3_decode(BIT(51), 52, &root), E_OK);
    assert_int_equal(ncr3_decode(NCR3_PCD | NCR3_PWT, 40, &root), E_OK);
    assert_int_equal(root.type, MEM_UC);
}

static void test_nested_text(void **state)
{
    static struct text_sink to = {.sink = {text_write}};

    (void)state;
    map_ept(0x10000, PAGE_SIZE, RIGHT_R);
    ask(LINEAR, RIGHT_W, true);
    explain_print(&to.sink, &e);
    assert_non_null(strstr(to.text, "user write to GVA 0x8000000000: nested page fault, error code "
                                    "0x100000007 (present, write, user; at the final address)\n"));
    assert_non_null(strstr(to.text, "because: a write that the NPT does not allow (NPT PT entry "
                                    "16); APM Vol. 2, 15.25.5\n"));
    to.n = 0;
    *ept_entry(0x3000, 1) = 0;
    ask(LINEAR, RIGHT_R, false);
    explain_print(&to.sink, &e);
    assert_non_null(strstr(to.text, "error code 0x200000006 (not present, write, user; at a table "
                                    "of the guest's)\n  because: the NPT entry is not present: P "
                                    "is 0 (NPT PT entry 3, on the way to a table of the guest's "
                                    "at 0x3000); APM Vol. 2, 15.25.6\n"));
    for (enum explain_rule rule = EXPLAIN_RULE_NONE; rule < EXPLAIN_RULES; rule++) {
        char text[EXPLAIN_TEXT];
        e.rule = rule;
        e.entry_rule = RULE_REQUIRED_BITS;
        assert_true(strlen(explain_rule_text(text, &e)) > 10);
        assert_null(strchr(text, '%'));
        assert_non_null(explain_section(&e));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_24_nested_references, set_up),
        cmocka_unit_test_setup(test_codes_at_the_final_address, set_up),
        cmocka_unit_test_setup(test_walks_are_user_writes, set_up),
        cmocka_unit_test_setup(test_nested_order, set_up),
        cmocka_unit_test_setup(test_user_all_the_way, set_up),
        cmocka_unit_test_setup(test_nested_reserved_bits, set_up),
        cmocka_unit_test_setup(test_nested_pae, set_up),
        cmocka_unit_test_setup(test_nested_types, set_up),
        cmocka_unit_test(test_root_register),
        cmocka_unit_test_setup(test_nested_text, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
