/*
 * The explanations of an access held against the manual's own cases: SDM Vol. 3, 4.6 and 4.7 for
 * the guest's tables, 29.3.2 and 29.3.3 for the EPT, 28.2.1 for the exit qualification, 12.5.2.2
 * and 29.3.7 for memory types. Guest and EPT are real tables in an arena that plays physical
 * memory.
 */
#include "arch/x86_64/mm/explain.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "arch/x86_64/mm/ept.h"
#include "arch/x86_64/mm/host_entry.h"
#include "lib/error.h"
#include "mm/frames/buddy.h"
#include "tests/unit/buddy_env.h"
#include "x86/control.h"

#define RAM (32 * MiB)
#define GUEST_AT (16 * MiB) /* where the guest's memory lies: gpa 0 */
#define PAT_AT_RESET UINT64_C(0x0007040600070406)

static uint8_t *arena;
static struct table ept;
static struct table_caps caps;
static struct gva_context regs;
static struct explain_query query;
static struct explanation e;

static bool load(void *ctx, hpa_t from, void *to, unsigned size)
{
    (void)ctx;
    if (from.v + size > RAM)
        return false;
    memcpy(to, arena + from.v, size);
    return true;
}

static void map_ept(uint64_t at, uint64_t size, unsigned rights)
{
    struct flush_batch batch;

    flush_begin(&batch, &ept);
    assert_int_equal(table_map(&ept, at, hpa(GUEST_AT + at), size, attrs_of(rights, MEM_WB),
                               MAP_REPLACE | MAP_CAP_4K, &batch),
                     E_OK);
    flush_commit(&batch);
}

static uint64_t *ept_entry(uint64_t at, unsigned level)
{
    struct walk walk;

    table_walk(&ept, at, &walk);
    assert_true(walk.count > 4 - level);
    return direct(walk.step[4 - level].address);
}

static void put8(uint64_t table, unsigned index, uint64_t entry)
{
    memcpy(arena + GUEST_AT + table + index * 8, &entry, 8);
}

static void put4(uint64_t table, unsigned index, uint32_t entry)
{
    memcpy(arena + GUEST_AT + table + index * 4, &entry, 4);
}

/* 4-level tables at 0x1000 .. 0x4000: page N of 0x8000000000 is the frame at 0x10000 + N * 4096,
 * with the bits `leaf`; PML4 entry 1. */
#define LINEAR UINT64_C(0x8000000000)
#define OPEN (PTE_P | PTE_RW | PTE_US | PTE_A)

static void leaf8(unsigned index, uint64_t bits)
{
    put8(0x4000, index, (0x10000 + index * 0x1000) | bits);
}

static int set_up(void **state)
{
    static void *metadata;
    uint64_t metadata_size = buddy_metadata_size(RAM);

    (void)state;
    if (!arena) {
        arena = aligned_alloc(2 * MiB, RAM);
        metadata = aligned_alloc(PAGE_SIZE, align_up(metadata_size, PAGE_SIZE));
    }
    memset(arena, 0, RAM);
    direct_base = (uint64_t)(uintptr_t)arena;
    assert_int_equal(buddy_init(metadata, metadata_size, RAM), E_OK);
    assert_int_equal(buddy_add(hpa(1 * MiB), GUEST_AT - 1 * MiB), E_OK);
    caps = (struct table_caps){.maxphyaddr = 40,
                               .leaf_top = 3,
                               .nx = true,
                               .accessed_dirty = true,
                               .execute_only = true,
                               .mem_types = 0x41};
    assert_int_equal(table_init(&ept, &ept_kind, &caps, &buddy_env, PURPOSE_EPT_TABLE, 17), E_OK);
    map_ept(0, 1 * MiB, RIGHT_RWX);
    put8(0x1000, 1, 0x2000 | OPEN);
    put8(0x2000, 0, 0x3000 | OPEN);
    put8(0x3000, 0, 0x4000 | OPEN);
    leaf8(0, OPEN | PTE_D);
    regs = (struct gva_context){.cr0 = CR0_PE | CR0_PG | CR0_WP,
                                .cr3 = 0x1000,
                                .cr4 = CR4_PAE,
                                .efer = EFER_LME | EFER_LMA | EFER_NXE,
                                .maxphyaddr = 40,
                                .page_1g = true};
    query = (struct explain_query){.registers = &regs,
                                   .second = &ept,
                                   .at = LINEAR,
                                   .access = RIGHT_R,
                                   .pat = PAT_AT_RESET,
                                   .load = load};
    return 0;
}

static void ask(uint64_t at, unsigned access, bool user)
{
    query.at = at;
    query.access = access;
    query.user = user;
    explain(&query, &e);
}

static void check_fault(uint32_t code, enum explain_rule rule, unsigned at_line)
{
    char text[EXPLAIN_TEXT];

    if (e.outcome == EXPLAIN_PAGE_FAULT && e.code == code && e.rule == rule)
        return;
    print_error("line %u: %s, code 0x%lx, rule %u: %s\n", at_line, explain_outcome_name(&e), e.code,
                e.rule, explain_rule_text(text, &e));
    fail();
}
#define faults(code, rule) check_fault(code, rule, __LINE__)

static void check_allowed(unsigned at_line)
{
    char text[EXPLAIN_TEXT];

    if (e.outcome == EXPLAIN_ALLOWED)
        return;
    print_error("line %u: %s: %s\n", at_line, explain_outcome_name(&e),
                explain_rule_text(text, &e));
    fail();
}
#define goes_through() check_allowed(__LINE__)

static void check_violation(uint64_t qualification, enum explain_rule rule, unsigned at_line)
{
    char text[EXPLAIN_TEXT];

    if (e.outcome == EXPLAIN_VIOLATION && e.qualification == qualification && e.rule == rule)
        return;
    print_error("line %u: %s, qualification 0x%lx: %s\n", at_line, explain_outcome_name(&e),
                e.qualification, explain_rule_text(text, &e));
    fail();
}
#define violates(qualification, rule) check_violation(qualification, rule, __LINE__)

/* ---- The walk ------------------------------------------------------------------------------- */

static void test_24_references(void **state)
{
    (void)state;
    ask(LINEAR + 0x123, RIGHT_R, false);
    goes_through();
    assert_int_equal(e.references, 24);
    assert_int_equal(e.count, 24);
    for (unsigned i = 0; i < 24; i++) {
        assert_int_equal(e.step[i].reference, i + 1);
        assert_int_equal(e.step[i].table, i % 5 == 4 ? EXPLAIN_FIRST : EXPLAIN_SECOND);
    }
    assert_int_equal(e.step[4].entry.address.v, 0x1008);
    assert_int_equal(e.step[4].hpa.v, GUEST_AT + 0x1008);
    assert_int_equal(e.step[4].entry.raw, 0x2000 | OPEN);
    assert_int_equal(e.step[4].to, 0x2000);
    assert_int_equal(e.step[19].entry.address.v, 0x4000);
    assert_int_equal(e.step[19].to, 0x10000);
    assert_int_equal(e.step[0].hpa.v, ept.root.v);
    assert_int_equal(e.step[23].to, GUEST_AT + 0x10000);
    assert_int_equal(e.gpa.v, 0x10123);
    assert_int_equal(e.hpa.v, GUEST_AT + 0x10123);
    assert_int_equal(e.page, PAGE_SIZE);
    assert_int_equal(e.rights, RIGHT_RWX);
    assert_int_equal(e.type, MEM_WB);
}

static void test_without_a_second_level(void **state)
{
    (void)state;
    query.second = NULL;
    regs.cr3 = GUEST_AT + 0x1000; /* its entries still say 0x2000: nothing is there */
    ask(LINEAR, RIGHT_R, false);
    faults(0, EXPLAIN_NOT_PRESENT);
    assert_int_equal(e.references, 2);
    regs.cr3 = 2 * RAM;
    ask(LINEAR, RIGHT_R, false);
    assert_int_equal(e.outcome, EXPLAIN_UNKNOWN);
    assert_int_equal(e.rule, EXPLAIN_UNREADABLE);
}

static void test_no_paging(void **state)
{
    (void)state;
    regs.cr0 = CR0_PE;
    query.user = false;
    ask(0x10123, RIGHT_X, true);
    goes_through();
    assert_int_equal(e.references, 4);
    assert_string_equal(explain_section(&e), "SDM Vol. 3, 29.3.3.2"); /* the EPT's word alone */
    assert_int_equal(e.hpa.v, GUEST_AT + 0x10123);
    assert_int_equal(e.rights, RIGHT_RWX);
    ask(0x100000000, RIGHT_R, false);
    assert_int_equal(e.rule, EXPLAIN_BEYOND_32_BITS);
    query.advanced = true; /* 28.2.1: as a writable, executable user-mode address */
    ask(2 * MiB, RIGHT_R, false);
    violates(0x781, EXPLAIN_SECOND_ABSENT);
}

static void test_canonical(void **state)
{
    (void)state;
    ask(0x0000800000000000, RIGHT_R, false);
    assert_int_equal(e.outcome, EXPLAIN_GENERAL);
    assert_int_equal(e.rule, EXPLAIN_NOT_CANONICAL);
    regs.cr4 |= CR4_LA57;
    ask(LINEAR, RIGHT_R, false);
    assert_int_equal(e.rule, EXPLAIN_NOT_WALKED);
}

/* ---- Page faults ------------------------------------------------------------------------------
 */

static void test_not_present(void **state)
{
    (void)state;
    ask(LINEAR + 0x1000, RIGHT_R, false);
    faults(0, EXPLAIN_NOT_PRESENT);
    assert_int_equal(e.step[e.decided].entry.level, 1);
    ask(LINEAR + 0x1000, RIGHT_W, false);
    faults(PF_WRITE, EXPLAIN_NOT_PRESENT);
    ask(LINEAR + 0x1000, RIGHT_W, true);
    faults(PF_WRITE | PF_USER, EXPLAIN_NOT_PRESENT);
    ask(LINEAR + 0x1000, RIGHT_X, true);
    faults(PF_FETCH | PF_USER, EXPLAIN_NOT_PRESENT);
    ask(0, RIGHT_R, false);
    faults(0, EXPLAIN_NOT_PRESENT);
    assert_int_equal(e.references, 5);
    /* Without NXE and SMEP the code does not tell a fetch (4.7). */
    regs.efer &= ~EFER_NXE;
    ask(LINEAR + 0x1000, RIGHT_X, false);
    faults(0, EXPLAIN_NOT_PRESENT);
    regs.cr4 |= CR4_SMEP;
    ask(LINEAR + 0x1000, RIGHT_X, false);
    faults(PF_FETCH, EXPLAIN_NOT_PRESENT);
}

static void test_reserved_bits(void **state)
{
    (void)state;
    leaf8(1, OPEN | BIT(40)); /* beyond MAXPHYADDR */
    ask(LINEAR + 0x1000, RIGHT_W, true);
    faults(PF_PRESENT | PF_WRITE | PF_USER | PF_RESERVED, EXPLAIN_ILLEGAL);
    assert_int_equal(e.entry_rule, RULE_BEYOND_MAXPHYADDR);

    leaf8(1, OPEN | PTE_NX);
    regs.efer &= ~EFER_NXE;
    ask(LINEAR + 0x1000, RIGHT_R, false);
    faults(PF_PRESENT | PF_RESERVED, EXPLAIN_ILLEGAL);
    regs.efer |= EFER_NXE;

    put8(0x3000, 1, 0x200000 | OPEN | PTE_PS | BIT(13));
    ask(LINEAR + 2 * MiB, RIGHT_X, false);
    faults(PF_PRESENT | PF_RESERVED | PF_FETCH, EXPLAIN_ILLEGAL);

    put8(0x2000, 1, OPEN | PTE_PS); /* 1 GiB at 0 */
    ask(LINEAR + GiB + 0x5000, RIGHT_R, false);
    goes_through();
    assert_int_equal(e.gpa.v, 0x5000);
    regs.page_1g = false;
    ask(LINEAR + GiB + 0x5000, RIGHT_R, false);
    faults(PF_PRESENT | PF_RESERVED, EXPLAIN_ILLEGAL);

    put8(0x1000, 1, 0x2000 | OPEN | PTE_PS);
    ask(LINEAR, RIGHT_R, false);
    faults(PF_PRESENT | PF_RESERVED, EXPLAIN_ILLEGAL);
}

/* Every case of 4.6.1, for a page with these bits: R W X of supervisor mode, then of user mode. */
static void check_rights(uint64_t leaf, const char *expected, unsigned at_line)
{
    static const unsigned access[] = {RIGHT_R, RIGHT_W, RIGHT_X};
    char got[7] = "------";

    leaf8(0, leaf);
    for (unsigned i = 0; i < 6; i++) {
        ask(LINEAR, access[i % 3], i >= 3);
        if (e.outcome == EXPLAIN_ALLOWED) {
            got[i] = "rwx"[i % 3];
            assert_true(e.rights & access[i % 3]);
            continue;
        }
        assert_int_equal(e.outcome, EXPLAIN_PAGE_FAULT);
        assert_int_equal(e.code, PF_PRESENT | (i % 3 == 1 ? PF_WRITE : 0) | (i >= 3 ? PF_USER : 0) |
                                     (i % 3 == 2 ? PF_FETCH : 0));
        assert_int_equal(e.step[e.decided].table, EXPLAIN_FIRST);
    }
    if (strcmp(got, expected) != 0)
        fail_msg("line %u: %s instead of %s", at_line, got, expected);
}
#define rights_are(leaf, expected) check_rights(leaf, expected, __LINE__)

static void test_rights(void **state)
{
    const uint64_t supervisor = PTE_P | PTE_A | PTE_D, user = supervisor | PTE_US;

    (void)state;
    rights_are(supervisor, "r-x---");
    rights_are(supervisor | PTE_RW, "rwx---");
    rights_are(supervisor | PTE_NX, "r-----");
    rights_are(user, "r-xr-x");
    rights_are(user | PTE_RW, "rwxrwx");
    rights_are(user | PTE_RW | PTE_NX, "rw-rw-");
    regs.cr0 &= ~CR0_WP;
    rights_are(supervisor, "rwx---");
    rights_are(user, "rwxr-x");
    regs.cr0 |= CR0_WP;
    regs.cr4 |= CR4_SMEP;
    rights_are(supervisor, "r-x---");
    rights_are(user | PTE_RW, "rw-rwx");
    regs.cr4 |= CR4_SMAP;
    rights_are(user | PTE_RW, "---rwx");
    rights_are(supervisor | PTE_RW, "rwx---");
    query.rflags = RFLAGS_AC;
    rights_are(user | PTE_RW, "rw-rwx");
    rights_are(user, "r--r-x");
    regs.cr4 &= ~CR4_SMEP;
    query.rflags = 0;
    rights_are(user | PTE_RW, "--xrwx");
}

/* A right counts only when every level has it. */
static void test_rights_of_all_levels(void **state)
{
    (void)state;
    put8(0x3000, 0, 0x4000 | PTE_P | PTE_US | PTE_A);
    ask(LINEAR, RIGHT_W, false);
    faults(PF_PRESENT | PF_WRITE, EXPLAIN_READ_ONLY);
    assert_int_equal(e.step[e.decided].entry.level, 2);
    put8(0x2000, 0, 0x3000 | PTE_P | PTE_RW | PTE_A);
    ask(LINEAR, RIGHT_R, true);
    faults(PF_PRESENT | PF_USER, EXPLAIN_SUPERVISOR);
    assert_int_equal(e.step[e.decided].entry.level, 3);
    regs.cr4 |= CR4_SMAP; /* it is a supervisor-mode address */
    ask(LINEAR, RIGHT_R, false);
    goes_through();
    put8(0x1000, 1, 0x2000 | OPEN | PTE_NX);
    ask(LINEAR, RIGHT_X, false);
    faults(PF_PRESENT | PF_FETCH, EXPLAIN_NO_EXECUTE);
    assert_int_equal(e.step[e.decided].entry.level, 4);
}

static void test_32bit(void **state)
{
    (void)state;
    regs = (struct gva_context){
        .cr0 = CR0_PE | CR0_PG, .cr3 = 0x1000, .cr4 = CR4_PSE, .maxphyaddr = 40};
    memset(arena + GUEST_AT + 0x1000, 0, 0x3000);
    put4(0x1000, 1, 0x2000 | OPEN);
    put4(0x2000, 3, 0x10000 | PTE_P | PTE_A);
    put4(0x1000, 2, OPEN | PTE_PS);
    put4(0x1000, 3, OPEN | PTE_PS | BIT(21));
    ask(0x403010, RIGHT_X, false);
    goes_through();
    assert_int_equal(e.mode, PAGING_32BIT);
    assert_int_equal(e.references, 14);
    assert_int_equal(e.gpa.v, 0x10010);
    ask(0x403010, RIGHT_W, false); /* WP is 0 */
    goes_through();
    ask(0x403010, RIGHT_R, true);
    faults(PF_PRESENT | PF_USER, EXPLAIN_SUPERVISOR);
    ask(0x403010, RIGHT_X, true);
    faults(PF_PRESENT | PF_USER, EXPLAIN_SUPERVISOR); /* no NXE here */
    ask(0x810000, RIGHT_W, true);
    goes_through();
    assert_int_equal(e.gpa.v, 0x10000);
    assert_int_equal(e.references, 9);
    ask(0xc00000, RIGHT_R, false);
    faults(PF_PRESENT | PF_RESERVED, EXPLAIN_ILLEGAL);
    ask(0x1000000, RIGHT_W, false);
    faults(PF_WRITE, EXPLAIN_NOT_PRESENT);
}

/* Without CR4.PSE bit 7 of a directory's entry is ignored, and shown as it is; that of a table's
 * entry selects the memory type, even where the table is the directory. */
static void test_32bit_without_large_pages(void **state)
{
    (void)state;
    regs = (struct gva_context){.cr0 = CR0_PE | CR0_PG | CR0_WP, .cr3 = 0x1000, .maxphyaddr = 40};
    query.pat = (PAT_AT_RESET & ~(UINT64_C(0xff) << 32)) | (uint64_t)MEM_WT << 32;
    memset(arena + GUEST_AT + 0x1000, 0, 0x3000);
    put4(0x1000, 1, 0x2000 | OPEN | PTE_PS);
    put4(0x2000, 3, 0x10000 | OPEN | PTE_D);
    put4(0x1000, 1023, 0x1000 | OPEN | PTE_PS);
    ask(0x403010, RIGHT_W, false);
    goes_through();
    assert_int_equal(e.gpa.v, 0x10010);
    assert_int_equal(e.step[9].type, MEM_WB);
    assert_int_equal(e.step[4].entry.raw, 0x2000 | OPEN | PTE_PS);
    assert_int_equal(e.step[4].entry.class, ENTRY_TABLE);
    ask(0xffc01000, RIGHT_R, false); /* by the directory as a table: its entry 1 */
    goes_through();
    assert_int_equal(e.gpa.v, 0x2000);
    assert_int_equal(e.step[9].type, MEM_WT);
    assert_int_equal(e.step[9].entry.raw, 0x2000 | OPEN | PTE_PS);
    regs.cr4 = CR4_PSE; /* a large page, with bit 13 for bit 32 of its address */
    ask(0x403010, RIGHT_R, false);
    assert_int_equal(e.rule, EXPLAIN_SECOND_ABSENT);
    assert_int_equal(e.exit_gpa.v, 0x100003010);
}

static void test_pae(void **state)
{
    (void)state;
    regs.efer = EFER_NXE;
    regs.pdpte[1] = 0x3000 | PTE_P;
    leaf8(2, OPEN | PTE_NX);
    ask(0x40000008, RIGHT_W, true);
    goes_through();
    assert_int_equal(e.mode, PAGING_PAE);
    assert_int_equal(e.references, 14);
    assert_int_equal(e.step[0].table, EXPLAIN_REGISTER);
    assert_int_equal(e.step[0].entry.index, 1);
    assert_int_equal(e.gpa.v, 0x10008);
    ask(0x40002000, RIGHT_X, false);
    faults(PF_PRESENT | PF_FETCH, EXPLAIN_NO_EXECUTE);
    ask(0x1000, RIGHT_R, false);
    faults(0, EXPLAIN_NOT_PRESENT);
    assert_int_equal(e.references, 0);
    assert_int_equal(e.decided, 0);
    leaf8(3, OPEN | BIT(52));
    ask(0x40003000, RIGHT_R, false);
    faults(PF_PRESENT | PF_RESERVED, EXPLAIN_ILLEGAL);
    ask(0x100000000, RIGHT_R, false);
    assert_int_equal(e.rule, EXPLAIN_BEYOND_32_BITS);
}

/* ---- EPT --------------------------------------------------------------------------------------
 */

static void test_violations_at_the_final_address(void **state)
{
    (void)state;
    map_ept(0x10000, PAGE_SIZE, RIGHT_R);
    ask(LINEAR, RIGHT_R, false);
    goes_through();
    assert_int_equal(e.rights, RIGHT_R);
    ask(LINEAR, RIGHT_W, false);
    violates(0x18a, EXPLAIN_SECOND_NO_WRITE);
    assert_int_equal(e.exit_gpa.v, 0x10000);
    assert_false(e.during_walk);
    assert_int_equal(e.decided, 23);
    ask(LINEAR, RIGHT_X, true);
    violates(0x18c, EXPLAIN_SECOND_NO_EXECUTE);
    map_ept(0x10000, PAGE_SIZE, RIGHT_X);
    ask(LINEAR, RIGHT_R, false);
    violates(0x1a1, EXPLAIN_SECOND_NO_READ);
    ask(LINEAR, RIGHT_X, false);
    goes_through();
    *ept_entry(0x10000, 1) = 0;
    ask(LINEAR, RIGHT_W, true);
    violates(0x182, EXPLAIN_SECOND_ABSENT);
    /* Advanced information: a user-mode, writable address that may not be executed. */
    query.advanced = true;
    leaf8(0, OPEN | PTE_D | PTE_NX);
    ask(LINEAR, RIGHT_W, true);
    violates(0xf82, EXPLAIN_SECOND_ABSENT);
}

/* The rights of all levels of the EPT count, and the first that lacks one is named. */
static void test_violation_by_an_upper_entry(void **state)
{
    (void)state;
    *ept_entry(0, 2) &= ~EPT_X;
    ask(LINEAR, RIGHT_X, false);
    violates(0x19c, EXPLAIN_SECOND_NO_EXECUTE);
    assert_int_equal(e.step[e.decided].entry.level, 2);
    assert_int_equal(e.decided, 22);
}

/* A page fault comes before an EPT violation at the final address, a violation at a table of the
 * guest's before the entry in it is looked at (29.3.3.3). */
static void test_order(void **state)
{
    (void)state;
    *ept_entry(0x10000, 1) = 0;
    leaf8(0, PTE_P | PTE_A);
    ask(LINEAR, RIGHT_W, false);
    faults(PF_PRESENT | PF_WRITE, EXPLAIN_READ_ONLY);
    ask(LINEAR, RIGHT_R, false);
    violates(0x181, EXPLAIN_SECOND_ABSENT);
    put8(0x2000, 0, 0);
    *ept_entry(0x2000, 1) = 0;
    ask(LINEAR, RIGHT_R, false);
    violates(0x083, EXPLAIN_SECOND_ABSENT);
    assert_true(e.during_walk);
    assert_int_equal(e.exit_gpa.v, 0x2000);
}

static void test_walk_counts_as_write(void **state)
{
    (void)state;
    map_ept(0x3000, PAGE_SIZE, RIGHT_RX);
    ask(LINEAR, RIGHT_X, false);
    violates(0x0ab, EXPLAIN_SECOND_WALK);
    assert_int_equal(e.exit_gpa.v, 0x3000);
    assert_int_equal(e.step[e.decided].entry.level, 1);

    /* Without A/D for EPT it is a read ... */
    ept.caps.accessed_dirty = false;
    ask(LINEAR, RIGHT_X, false);
    goes_through();
    map_ept(0x3000, PAGE_SIZE, RIGHT_X);
    ask(LINEAR, RIGHT_X, false);
    violates(0x0a1, EXPLAIN_SECOND_NO_READ);
    /* ... but for an entry whose A or D is to be set. */
    map_ept(0x3000, PAGE_SIZE, RIGHT_RX);
    put8(0x3000, 0, 0x4000 | (OPEN & ~PTE_A));
    ask(LINEAR, RIGHT_R, false);
    violates(0x0aa, EXPLAIN_SECOND_UPDATE);
    put8(0x3000, 0, 0x4000 | OPEN);
    map_ept(0x4000, PAGE_SIZE, RIGHT_RX);
    leaf8(0, OPEN);
    ask(LINEAR, RIGHT_R, false);
    goes_through();
    ask(LINEAR, RIGHT_W, false);
    violates(0x0aa, EXPLAIN_SECOND_UPDATE);
}

static void check_misconfig(uint64_t entry, unsigned level, enum rule rule, unsigned at_line)
{
    uint64_t *slot = ept_entry(0x10000, level), old = *slot;

    *slot = entry;
    ask(LINEAR, RIGHT_R, false);
    *slot = old;
    if (e.outcome != EXPLAIN_MISCONFIG || e.entry_rule != rule)
        fail_msg("line %u: %s by %s", at_line, explain_outcome_name(&e), rule_text(e.entry_rule));
}
#define misconfigures(entry, level, rule) check_misconfig(entry, level, rule, __LINE__)

static void test_misconfigurations(void **state)
{
    uint64_t good = GUEST_AT + 0x10000, type = (uint64_t)MEM_WB << EPT_TYPE_SHIFT;

    (void)state;
    misconfigures(good | type | EPT_W, 1, RULE_WRITE_ONLY);
    misconfigures(good | type | EPT_W | EPT_X, 1, RULE_WRITE_ONLY);
    misconfigures(good | EPT_R | (UINT64_C(2) << EPT_TYPE_SHIFT), 1, RULE_MEM_TYPE);
    misconfigures(good | EPT_R | (UINT64_C(7) << EPT_TYPE_SHIFT), 1, RULE_MEM_TYPE);
    misconfigures(good | type | EPT_R | BIT(40), 1, RULE_BEYOND_MAXPHYADDR);
    misconfigures((*ept_entry(0x10000, 2)) | BIT(3), 2, RULE_RESERVED_BITS);
    misconfigures(EPT_R | type | EPT_LEAF | BIT(12), 2, RULE_MISALIGNED_LEAF);
    ept.caps.execute_only = false;
    misconfigures(good | type | EPT_X, 1, RULE_EXECUTE_ONLY);
}

static void test_guest_physical(void **state)
{
    (void)state;
    query.registers = NULL;
    ask(0x10123, RIGHT_W, false);
    goes_through();
    assert_int_equal(e.references, 4);
    assert_int_equal(e.hpa.v, GUEST_AT + 0x10123);
    map_ept(0x10000, PAGE_SIZE, RIGHT_RX);
    ask(0x10123, RIGHT_W, false);
    violates(0x2a, EXPLAIN_SECOND_NO_WRITE); /* nothing about a linear address */
    ask(BIT(48), RIGHT_R, false);
    violates(1, EXPLAIN_SECOND_BEYOND);
}

static void test_large_pages(void **state)
{
    struct flush_batch batch;

    (void)state;
    put8(0x3000, 1, 0x400000 | OPEN | PTE_PS | PTE_D);
    flush_begin(&batch, &ept);
    assert_int_equal(table_map(&ept, 0x400000, hpa(GUEST_AT + 0x400000), 2 * MiB,
                               attrs_of(RIGHT_RW, MEM_WB), MAP_DEFAULT, &batch),
                     E_OK);
    flush_commit(&batch);
    ask(LINEAR + 2 * MiB + 0x12345, RIGHT_W, false);
    goes_through();
    assert_int_equal(e.references, 18); /* 3 x (4 + 1) + 3 */
    assert_int_equal(e.page, 2 * MiB);
    assert_int_equal(e.hpa.v, GUEST_AT + 0x412345);
    assert_int_equal(e.rights, RIGHT_RW);
}

/* ---- Memory types -----------------------------------------------------------------------------
 */

static void test_effective_types(void **state)
{
    static const unsigned mtrr[] = {MEM_UC, MEM_WC, MEM_WT, MEM_WP, MEM_WB};
    static const unsigned pat[] = {MEM_UC, 7, MEM_WC, MEM_WT, MEM_WB, MEM_WP};
    static const unsigned expected[5][6] = {
        {MEM_UC, MEM_UC, MEM_WC, MEM_UC, MEM_UC, MEM_UC},
        {MEM_UC, MEM_WC, MEM_WC, MEM_UC, MEM_WC, MEM_UC},
        {MEM_UC, MEM_UC, MEM_WC, MEM_WT, MEM_WT, MEM_WP},
        {MEM_UC, MEM_WC, MEM_WC, MEM_WT, MEM_WP, MEM_WP},
        {MEM_UC, MEM_UC, MEM_WC, MEM_WT, MEM_WB, MEM_WP},
    };

    (void)state;
    for (unsigned i = 0; i < 5; i++)
        for (unsigned j = 0; j < 6; j++)
            assert_int_equal(effective_memory_type(mtrr[i], pat[j]), expected[i][j]);
}

static void test_types_of_both_levels(void **state)
{
    uint64_t *entry = ept_entry(0x10000, 1);

    (void)state;
    for (unsigned level = 1; level <= 3; level++) /* whatever maps memory, in pages of any size */
        assert_true(ept_kind.encode(attrs_of(RIGHT_RWX, MEM_WB), level, &caps) & EPT_IGNORE_PAT);
    assert_true(*entry & EPT_IGNORE_PAT);
    leaf8(0, OPEN | PTE_PCD); /* PAT entry 2: UC- */
    ask(LINEAR, RIGHT_R, false);
    assert_int_equal(e.type, MEM_WB); /* our EPT ignores the PAT */
    assert_string_equal(pat_type_name(e.step[19].type), "UC-");
    *entry &= ~EPT_IGNORE_PAT;
    ask(LINEAR, RIGHT_R, false);
    assert_int_equal(e.type, MEM_UC);
    *entry = (*entry & ~EPT_TYPE) | ((uint64_t)MEM_WP << EPT_TYPE_SHIFT);
    ask(LINEAR, RIGHT_R, false);
    assert_int_equal(e.type, MEM_WC);
    leaf8(0, OPEN | PTE_PAT_4K); /* PAT entry 4: the guest's own */
    query.pat = (PAT_AT_RESET & ~(UINT64_C(0xff) << 32)) | (uint64_t)MEM_WT << 32;
    ask(LINEAR, RIGHT_R, false);
    assert_int_equal(e.type, MEM_WT);
}

/* ---- Words -------------------------------------------------------------------------------------
 */

struct text_sink {
    struct sink sink;
    char text[8192];
    size_t n;
};

static void text_write(struct sink *sink, const char *bytes, size_t n)
{
    struct text_sink *to = (struct text_sink *)sink;

    assert_true(to->n + n < sizeof(to->text));
    memcpy(to->text + to->n, bytes, n);
    to->n += n;
    to->text[to->n] = 0;
}

static void test_text(void **state)
{
    static struct text_sink to = {.sink = {text_write}};

    (void)state;
    map_ept(0x10000, PAGE_SIZE, RIGHT_R);
    ask(LINEAR, RIGHT_W, true);
    explain_print(&to.sink, &e);
    assert_non_null(strstr(to.text, "   5 guest PML4[  1] at GPA 0x1008, 0x1001008: "
                                    "0x2027 table rwxu- A\n"));
    assert_non_null(strstr(to.text, "user write to GVA 0x8000000000: EPT violation, qualification "
                                    "0x18a (write; the table gives r--; linear address known; at "
                                    "the final address)\n"));
    assert_non_null(strstr(to.text,
                           "because: a write that the EPT does not allow (EPT PT entry 16); "
                           "SDM Vol. 3, 29.3.3.2\n"));
    to.n = 0;
    ask(LINEAR + 0x1000, RIGHT_X, false);
    explain_print(&to.sink, &e);
    assert_non_null(strstr(to.text,
                           "supervisor instruction fetch from GVA 0x8000001000: #PF, error "
                           "code 0x10 (not present, fetch)\n  because: the entry is not "
                           "present (guest PT entry 1); SDM Vol. 3, 4.7\n"));
    to.n = 0;
    ask(LINEAR, RIGHT_R, false);
    explain_print(&to.sink, &e);
    assert_non_null(strstr(to.text, ": allowed, HPA 0x1010000 r---- WB\n"));
    for (enum explain_rule rule = EXPLAIN_RULE_NONE; rule < EXPLAIN_RULES; rule++) {
        char text[EXPLAIN_TEXT];
        e.rule = rule;
        e.entry_rule = RULE_MEM_TYPE;
        assert_true(strlen(explain_rule_text(text, &e)) > 10);
        assert_non_null(explain_section(&e));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_24_references, set_up),
        cmocka_unit_test_setup(test_without_a_second_level, set_up),
        cmocka_unit_test_setup(test_no_paging, set_up),
        cmocka_unit_test_setup(test_canonical, set_up),
        cmocka_unit_test_setup(test_not_present, set_up),
        cmocka_unit_test_setup(test_reserved_bits, set_up),
        cmocka_unit_test_setup(test_rights, set_up),
        cmocka_unit_test_setup(test_rights_of_all_levels, set_up),
        cmocka_unit_test_setup(test_32bit, set_up),
        cmocka_unit_test_setup(test_32bit_without_large_pages, set_up),
        cmocka_unit_test_setup(test_pae, set_up),
        cmocka_unit_test_setup(test_violations_at_the_final_address, set_up),
        cmocka_unit_test_setup(test_violation_by_an_upper_entry, set_up),
        cmocka_unit_test_setup(test_order, set_up),
        cmocka_unit_test_setup(test_walk_counts_as_write, set_up),
        cmocka_unit_test_setup(test_misconfigurations, set_up),
        cmocka_unit_test_setup(test_guest_physical, set_up),
        cmocka_unit_test_setup(test_large_pages, set_up),
        cmocka_unit_test_setup(test_effective_types, set_up),
        cmocka_unit_test_setup(test_types_of_both_levels, set_up),
        cmocka_unit_test_setup(test_text, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
