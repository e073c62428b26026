/*
 * Single entries: what the mapper can say and what it refuses to say, and whether the product's
 * legality checker and the manual's (tests/property/sdm_rules.h) agree on entries good and bad.
 */
#include "mm/paging/table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "arch/x86_64/mm/ept.h"
#include "arch/x86_64/mm/host_entry.h"
#include "tests/property/world.h"

int vmcs_read(uint32_t field, uint64_t *out);
int vmcs_read(uint32_t field, uint64_t *out)
{
    (void)field;
    (void)out;
    return E_STATE;
}

int vmcs_write(uint32_t field, uint64_t value);
int vmcs_write(uint32_t field, uint64_t value)
{
    (void)field;
    (void)value;
    return E_STATE;
}

_Noreturn void world_fail(const char *message)
{
    fail_msg("%s", message);
    abort();
}

#define CPU_KINDS 64

/* The n-th of the CPUs that differ in what entries may say. */
static struct table_caps cpu(enum sdm_format format, unsigned n)
{
    static const uint8_t widths[] = {36, 40, 46, 52};
    struct table_caps caps = world_caps(format);

    caps.leaf_top = (uint8_t)(1 + n % 3);
    caps.maxphyaddr = widths[n / 16 % 4];
    caps.nx = format == SDM_EPT || n & 1;
    caps.global = format == SDM_HOST && n & 2;
    caps.execute_only = n & 4;
    caps.mode_based_execute = format == SDM_EPT && n & 8;
    if (n % 5 == 4)
        caps.mem_types = 1 << MEM_UC | 1 << MEM_WB;
    return caps;
}

static struct sdm_cpu manual(const struct table_caps *caps)
{
    return (struct sdm_cpu){.maxphyaddr = caps->maxphyaddr,
                            .page_2m = caps->leaf_top >= 2,
                            .page_1g = caps->leaf_top >= 3,
                            .nxe = caps->nx,
                            .execute_only = caps->execute_only,
                            .user_execute = caps->mode_based_execute};
}

/* Is there an entry that says exactly this, and does the way to it let it through? */
static bool can_be_said(const struct land *land, const struct table_caps *caps, unsigned rights,
                        unsigned type)
{
    bool r = rights & RIGHT_R, w_ = rights & RIGHT_W, x = rights & RIGHT_X, u = rights & RIGHT_U;

    if (rights > 31 || type > 6 || !(caps->mem_types & (1u << type)))
        return false;
    if (land->format == SDM_EPT) {
        if ((rights & RIGHT_G) || (u && !caps->mode_based_execute))
            return false;
        return r || (!w_ && (x || u) && caps->execute_only);
    }
    if (land->format == SDM_NPT && (u || (rights & RIGHT_G)))
        return false; /* all are the user's there, and none is global */
    if (u && land->kind->id == KIND_KERNEL)
        return false; /* the tables above are the supervisor's */
    if ((rights & RIGHT_G) && land->kind->id == KIND_USER)
        return false; /* it would be there for the next program, too */
    return r && (x || caps->nx) && (!(rights & RIGHT_G) || caps->global);
}

static unsigned said_rights(const struct sdm_entry *said)
{
    return (said->read ? RIGHT_R : 0u) | (said->write ? RIGHT_W : 0u) |
           (said->execute ? RIGHT_X : 0u) | (said->user ? RIGHT_U : 0u) |
           (said->global ? RIGHT_G : 0u);
}

/* Every right and every type, at every level, on every CPU: said and read back, or refused. */
static void test_all_attributes(void **state)
{
    unsigned said_count = 0, refused = 0;

    (void)state;
    for (unsigned l = 0; l < LANDS; l++) {
        const struct land *land = &lands[l];
        for (unsigned n = 0; n < CPU_KINDS; n++) {
            struct table_caps caps = cpu(land->format, n);
            struct sdm_cpu by_manual = manual(&caps);

            world_start(land, 2 * MiB, &caps, 1);
            for (unsigned rights = 0; rights < 64; rights++)
                for (unsigned type = 0; type < 10; type++) {
                    unsigned level = 1 + (rights + type) % caps.leaf_top;
                    uint64_t in = w.base + 64 * w.unit, size = level_size(land->kind, level);
                    struct attrs attrs = attrs_of(rights, (enum mem_type)type);
                    struct flush_batch batch;
                    struct mapping mapping;

                    flush_begin(&batch, &w.table);
                    int error = table_map(&w.table, in, hpa(GiB), size, attrs, MAP_DEFAULT, &batch);
                    flush_commit(&batch);
                    if (!can_be_said(land, &caps, rights, type)) {
                        assert_int_equal(error, E_ILLEGAL);
                        assert_int_equal(w.table.table_frames, 1);
                        refused++;
                        continue;
                    }
                    assert_int_equal(error, E_OK);
                    said_count++;
                    assert_int_equal(table_translate(&w.table, in, &mapping), E_OK);
                    assert_int_equal(mapping.level, level);
                    assert_true(attrs_equal(mapping.attrs, attrs));
                    assert_int_equal(mapping.out.v, GiB);
                    struct sdm_entry said = sdm_judge(land->format, &by_manual, level, mapping.raw);
                    assert_int_equal(said.class, SDM_PAGE);
                    assert_int_equal(said.address, GiB);
                    assert_int_equal(said_rights(&said), rights);
                    assert_int_equal(said.type, type);
                    /* Protect is as choosy, and says it as exactly. */
                    flush_begin(&batch, &w.table);
                    assert_int_equal(table_protect(&w.table, in, size, attrs, &batch), E_OK);
                    assert_true(flush_empty(&batch)); /* as it was */
                    assert_int_equal(table_unmap(&w.table, in, size, &batch), E_OK);
                    flush_commit(&batch);
                }
            world_end();
        }
    }
    print_message("%u attributes said, %u refused\n", said_count, refused);
}

static void test_protect_refuses_likewise(void **state)
{
    (void)state;
    for (unsigned l = 0; l < LANDS; l++)
        for (unsigned n = 0; n < CPU_KINDS; n += 5) {
            struct table_caps caps = cpu(lands[l].format, n);
            struct attrs first = attrs_of(RIGHT_R | RIGHT_X, MEM_UC);
            struct flush_batch batch;

            world_start(&lands[l], PAGE_SIZE, &caps, 1);
            flush_begin(&batch, &w.table);
            assert_int_equal(
                table_map(&w.table, w.base, hpa(GiB), PAGE_SIZE, first, MAP_DEFAULT, &batch), E_OK);
            flush_commit(&batch);
            for (unsigned rights = 0; rights < 32; rights++)
                for (unsigned type = 0; type < 8; type++) {
                    bool can = can_be_said(&lands[l], &caps, rights, type);
                    struct mapping mapping;

                    w.stores = 0;
                    flush_begin(&batch, &w.table);
                    assert_int_equal(table_protect(&w.table, w.base, PAGE_SIZE,
                                                   attrs_of(rights, (enum mem_type)type), &batch),
                                     can ? E_OK : E_ILLEGAL);
                    assert_true(can || w.stores == 0);
                    flush_commit(&batch);
                    assert_int_equal(table_translate(&w.table, w.base, &mapping), E_OK);
                    if (can)
                        first = attrs_of(rights, (enum mem_type)type);
                    assert_true(attrs_equal(mapping.attrs, first));
                }
            world_end();
        }
}

/* ---- The two checkers
 * ----------------------------------------------------------------------------- */

static void compare(const struct land *land, const struct table_caps *caps,
                    const struct sdm_cpu *by_manual, unsigned level, uint64_t entry)
{
    enum rule rule = entry_rule(land->kind, caps, level, entry);
    struct sdm_entry said = sdm_judge(land->format, by_manual, level, entry);
    enum sdm_class class = rule == RULE_NOT_PRESENT ? SDM_ABSENT : SDM_BAD;
    bool leaf = level == 1 || (level <= 3 && (entry & land->kind->leaf_bit));

    if (rule == RULE_OK)
        class = leaf ? SDM_PAGE : SDM_TABLE;
    if (class != said.class)
        fail_msg("%s, level %u, %#lx: \"%s\" here, class %d (%s) in the manual", land->name, level,
                 entry, rule_text(rule), said.class, said.why ? said.why : "");
    if (class == SDM_PAGE) {
        struct attrs attrs = land->kind->decode(entry, level, caps);
        assert_int_equal(attrs.rights, said_rights(&said));
        assert_int_equal(attrs.type, said.type);
    } else if (class == SDM_TABLE) {
        assert_int_equal(land->kind->table_rights(entry, caps), said_rights(&said));
    }
}

/* Good entries, each with every single bit turned round; and noise. */
static void test_checkers_agree(void **state)
{
    struct random random = {1};
    unsigned entries = 0;

    (void)state;
    for (unsigned l = 0; l < LANDS; l++)
        for (unsigned n = 0; n < CPU_KINDS; n++) {
            const struct table_kind *kind = lands[l].kind;
            struct table_caps caps = cpu(lands[l].format, n);
            struct sdm_cpu by_manual = manual(&caps);

            for (unsigned level = 1; level <= kind->levels; level++) {
                for (unsigned i = 0; i < 128; i++) {
                    uint64_t address = random_next(&random) & BITS(caps.maxphyaddr - 1, 12);
                    uint64_t good = address | kind->table_bits;

                    if (level <= caps.leaf_top && (level == 1 || i % 4)) {
                        unsigned rights = (unsigned)random_below(&random, 32);
                        static const uint8_t types[] = {0, 1, 4, 5, 6};
                        unsigned type = types[random_below(&random, 5)];
                        if (!can_be_said(&lands[l], &caps, rights, type))
                            continue;
                        good = (address & ~(level_size(kind, level) - 1)) |
                               kind->encode(attrs_of(rights, (enum mem_type)type), level, &caps);
                    } else if (level == 1) {
                        continue;
                    }
                    assert_int_equal(entry_rule(kind, &caps, level, good), RULE_OK);
                    compare(&lands[l], &caps, &by_manual, level, good);
                    for (unsigned bit = 0; bit < 64; bit++)
                        compare(&lands[l], &caps, &by_manual, level, good ^ BIT(bit));
                    entries += 65;
                }
                for (unsigned i = 0; i < 500; i++) {
                    uint64_t noise = random_next(&random);
                    /* Often one of the few that come close to being legal. */
                    if (i % 2)
                        noise &= random_next(&random) & random_next(&random);
                    if (i % 4 == 3)
                        noise &= ~BITS(51, 12) | (random_next(&random) & BITS(39, 30));
                    compare(&lands[l], &caps, &by_manual, level, noise);
                }
            }
        }
    print_message("%u entries judged alike\n", entries);
}

/* The rule that is named is the one that was broken. */
static void test_rules_by_name(void **state)
{
    static const struct {
        unsigned land, level;
        uint64_t entry;
        enum rule rule;
    } cases[] = {
        {0, 1, 0, RULE_NOT_PRESENT},
        {0, 1, PTE_RW | PTE_NX, RULE_NOT_PRESENT},
        {0, 1, PTE_P | PTE_PAT_4K, RULE_OK},
        {0, 2, PTE_P | PTE_PS | PTE_PAT_LARGE, RULE_OK},
        {0, 2, PTE_P | PTE_PS | BIT(13), RULE_MISALIGNED_LEAF},
        {0, 3, PTE_P | PTE_PS | BIT(29), RULE_MISALIGNED_LEAF},
        {0, 3, PTE_P | PTE_PS | BIT(30), RULE_OK},
        {0, 4, PTE_P | PTE_PS, RULE_NO_SUCH_LEAF},
        {3, 5, PTE_P | PTE_PS, RULE_NO_SUCH_LEAF},
        {0, 4, PTE_P | PTE_PAT_LARGE, RULE_OK},
        {0, 1, PTE_P | BIT(40), RULE_BEYOND_MAXPHYADDR},
        {0, 1, PTE_P | BIT(39), RULE_OK},
        {0, 1, PTE_P | BIT(51), RULE_BEYOND_MAXPHYADDR},
        {0, 1, PTE_P | BIT(52), RULE_OK},
        {0, 1, PTE_P | PTE_NX, RULE_OK},
        {2, 1, 0, RULE_NOT_PRESENT},
        {2, 1, EPT_W, RULE_WRITE_ONLY},
        {2, 4, EPT_W | EPT_X, RULE_WRITE_ONLY},
        {2, 1, EPT_X, RULE_OK},
        {2, 1, EPT_R | 2 << EPT_TYPE_SHIFT, RULE_MEM_TYPE},
        {2, 1, EPT_R | 3 << EPT_TYPE_SHIFT, RULE_MEM_TYPE},
        {2, 2, EPT_R | EPT_LEAF | 7 << EPT_TYPE_SHIFT, RULE_MEM_TYPE},
        {2, 2, EPT_R | EPT_LEAF | BIT(12), RULE_MISALIGNED_LEAF},
        {2, 3, EPT_R | EPT_LEAF | BIT(29), RULE_MISALIGNED_LEAF},
        {2, 2, EPT_R | BIT(6), RULE_RESERVED_BITS},
        {2, 4, EPT_R | BIT(3), RULE_RESERVED_BITS},
        {2, 4, EPT_R | EPT_LEAF, RULE_NO_SUCH_LEAF},
        {2, 1, EPT_R | BIT(40), RULE_BEYOND_MAXPHYADDR},
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        const struct land *land = &lands[cases[i].land];
        struct table_caps caps = world_caps(land->format);
        enum rule rule = entry_rule(land->kind, &caps, cases[i].level, cases[i].entry);

        if (rule != cases[i].rule)
            fail_msg("case %u: \"%s\", and \"%s\" was expected", i, rule_text(rule),
                     rule_text(cases[i].rule));
    }
    /* What this CPU has, and that one has not. */
    struct table_caps less = world_caps(SDM_HOST);
    less.nx = less.execute_only = false;
    less.leaf_top = 2;
    assert_int_equal(entry_rule(&kernel_kind, &less, 1, PTE_P | PTE_NX), RULE_NX_DISABLED);
    assert_int_equal(entry_rule(&kernel_kind, &less, 4, PTE_P | PTE_NX), RULE_NX_DISABLED);
    assert_int_equal(entry_rule(&kernel_kind, &less, 3, PTE_P | PTE_PS), RULE_NO_SUCH_LEAF);
    assert_int_equal(entry_rule(&ept_kind, &less, 3, EPT_R | EPT_LEAF), RULE_NO_SUCH_LEAF);
    assert_int_equal(entry_rule(&ept_kind, &less, 1, EPT_X), RULE_EXECUTE_ONLY);
    less.mode_based_execute = true;
    assert_int_equal(entry_rule(&ept_kind, &less, 1, EPT_XU), RULE_EXECUTE_ONLY);
    less.leaf_top = 1;
    assert_int_equal(entry_rule(&ept_kind, &less, 2, EPT_R | EPT_LEAF), RULE_NO_SUCH_LEAF);

    /* A format in which a bit of every present entry must be 1. */
    struct table_kind strict = kernel_kind;
    strict.required_bits = PTE_US;
    assert_int_equal(entry_rule(&strict, &less, 1, PTE_P | PTE_US), RULE_OK);
    assert_int_equal(entry_rule(&strict, &less, 1, PTE_P), RULE_REQUIRED_BITS);
    assert_int_equal(entry_rule(&strict, &less, 4, PTE_P | PTE_RW), RULE_REQUIRED_BITS);
    assert_int_equal(entry_rule(&strict, &less, 4, PTE_RW), RULE_NOT_PRESENT);

    for (unsigned rule = 0; rule < RULE_COUNT; rule++) {
        assert_string_not_equal(rule_text((enum rule)rule), rule_text(RULE_COUNT));
        assert_non_null(rule_section(KIND_EPT, (enum rule)rule));
        assert_string_not_equal(rule_section(KIND_EPT, (enum rule)rule),
                                rule_section(KIND_KERNEL, (enum rule)rule));
    }
    assert_string_equal(rule_text(RULE_COUNT), "unknown rule");
    assert_string_equal(level_name(1), "PT");
    assert_string_equal(level_name(5), "PML5");
    assert_string_equal(level_name(6), "?");
}

static void test_words(void **state)
{
    static const char *const types[] = {"UC", "WC", "??", "??", "WT", "WP", "WB", "??"};
    char text[RIGHTS_TEXT];

    (void)state;
    for (unsigned type = 0; type < 8; type++)
        assert_string_equal(mem_type_name((enum mem_type)type), types[type]);
    assert_string_equal(rights_text(text, RIGHT_NONE), "-----");
    assert_string_equal(rights_text(text, RIGHT_RWX | RIGHT_G), "rwx-g");
    assert_string_equal(rights_text(text, RIGHT_U), "---u-");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_attributes), cmocka_unit_test(test_protect_refuses_likewise),
        cmocka_unit_test(test_checkers_agree), cmocka_unit_test(test_rules_by_name),
        cmocka_unit_test(test_words),
    };
    return cmocka_run_group_tests_name("mapper entries", tests, NULL, NULL);
}
