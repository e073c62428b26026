/* What is decided for CPUs that there are, by their CPUID and IA32_ARCH_CAPABILITIES. */
#include "arch/x86_64/speculation.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"

#define INTEL(m) .vendor = SPECULATION_INTEL, .family = 6, .model = (m)
#define AMD(f, m) .vendor = SPECULATION_AMD, .family = (f), .model = (m)
#define NEW_MICROCODE .md_clear = true, .ibpb = true, .flush_l1d = true

/* RDCL_NO, IBRS_ALL, SKIP_L1DFL_VMENTRY, MDS_NO, IF_PSCHANGE_MC_NO, TAA_NO. */
#define RDCL_NO BIT(0)
#define IBRS_ALL BIT(1)
#define SKIP_L1D BIT(3)
#define MDS_NO BIT(5)
#define PSCHANGE_NO BIT(6)
#define TSX_CTRL BIT(7)
#define TAA_NO BIT(8)

#define U SPECULATION_UNAFFECTED
#define D SPECULATION_DEFENDED
#define O SPECULATION_OPEN

static const struct {
    const char *name;
    struct speculation_facts facts;
    enum speculation_state state[ISSUE_COUNT]; /* L1TF, MDS, branches, returns, page sizes */
} cpus[] = {
    {"Skylake, as it was sold", {INTEL(0x5e)}, {O, O, O, D, D}},
    {"Skylake", {INTEL(0x5e), NEW_MICROCODE}, {D, D, D, D, D}},
    {"Skylake server", {INTEL(0x55), NEW_MICROCODE}, {D, D, D, D, D}},
    {"Haswell server", {INTEL(0x3f), NEW_MICROCODE}, {D, D, D, D, D}},
    {"Cascade Lake",
     {INTEL(0x55), NEW_MICROCODE,
      .capabilities = RDCL_NO | IBRS_ALL | SKIP_L1D | MDS_NO | TSX_CTRL},
     {U, D, D, D, D}}, /* TAA is left, and page sizes */
    {"Ice Lake server",
     {INTEL(0x6a), NEW_MICROCODE,
      .capabilities = RDCL_NO | IBRS_ALL | SKIP_L1D | MDS_NO | PSCHANGE_NO | TAA_NO},
     {U, U, D, D, U}},
    {"Alder Lake",
     {INTEL(0x97), NEW_MICROCODE,
      .capabilities = RDCL_NO | IBRS_ALL | SKIP_L1D | MDS_NO | PSCHANGE_NO | TAA_NO},
     {U, U, D, D, U}},
    {"Skylake, shown by a hypervisor that flushes",
     {INTEL(0x5e), NEW_MICROCODE, .virtual = true, .capabilities = SKIP_L1D},
     {U, D, D, D, U}},
    {"Zen 2", {AMD(0x17, 0x31), .ibpb = true}, {U, U, D, D, U}},
    {"Zen 3", {AMD(0x19, 0x01), .ibpb = true}, {U, U, D, D, U}},
    {"Zen, with its first microcode", {AMD(0x17, 0x01)}, {U, U, O, D, U}},
    {"Bochs's Ice Lake", {INTEL(0x7e), .emulated = true}, {U, U, U, U, U}},
    {"QEMU without KVM", {AMD(0xf, 0x6b), .emulated = true, .virtual = true}, {U, U, U, U, U}},
};

static void cpus_that_there_are(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(cpus); i++) {
        struct speculation_plan plan = speculation_decide(&cpus[i].facts);

        for (enum speculation_issue issue = 0; issue < ISSUE_COUNT; issue++)
            if (plan.state[issue] != cpus[i].state[issue])
                fail_msg("%s: %s is %s", cpus[i].name, speculation_issue_name(issue),
                         speculation_state_name(plan.state[issue]));
    }
}

/* What is called defended is done, and nothing else is; no MSR is written that is not there. */
static void the_plan_is_what_is_said(void **state)
{
    (void)state;
    for (unsigned bits = 0; bits < 1u << 12; bits++) {
        struct speculation_facts facts = {
            .vendor = (enum speculation_vendor)(bits % 3),
            .family = 6,
            .model = bits & 4 ? 0x5e : 0x6a,
            .emulated = bits >> 3 & 1,
            .virtual = bits >> 4 & 1,
            .md_clear = bits >> 5 & 1,
            .ibpb = bits >> 6 & 1,
            .flush_l1d = bits >> 7 & 1,
            .capabilities = (bits >> 8 & 1 ? RDCL_NO : 0) | (bits >> 9 & 1 ? SKIP_L1D : 0) |
                            (bits >> 10 & 1 ? MDS_NO | TAA_NO : 0) |
                            (bits >> 11 & 1 ? PSCHANGE_NO : 0),
        };
        struct speculation_plan plan = speculation_decide(&facts);

        assert_int_equal(plan.flush_l1d_at_entry, plan.state[ISSUE_L1TF] == D);
        assert_int_equal(plan.verw_at_entry, plan.state[ISSUE_MDS] == D);
        assert_int_equal(plan.ibpb_between_guests, plan.state[ISSUE_BRANCHES] == D);
        assert_int_equal(plan.stuff_returns, plan.state[ISSUE_RETURNS] == D);
        assert_int_equal(plan.small_leaves, plan.state[ISSUE_MULTIHIT] == D);
        assert_true(!plan.flush_l1d_at_entry || facts.flush_l1d);
        assert_true(!plan.ibpb_between_guests || facts.ibpb);
        assert_true(!plan.verw_at_entry || facts.md_clear);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cpus_that_there_are),
        cmocka_unit_test(the_plan_is_what_is_said),
    };
    return cmocka_run_group_tests_name("speculation", tests, NULL, NULL);
}
