/*
 * The arithmetic of VMX: settling controls against capability MSRs, fixed bits of CR0 and CR4,
 * legal moves to them, exit qualifications, and what a failed entry is explained by. The capability
 * values are those that CPUs report.
 */
#include "arch/x86_64/vmx/controls.h"
#include "arch/x86_64/guest/debug.h"
#include "arch/x86_64/vmx/entry_check.h"
#include "arch/x86_64/vmx/names.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "lib/error.h"
#include "mm/paging/attrs.h"
#include "x86/control.h"

/* ---- Controls ------------------------------------------------------------------------------ */

#define ALLOWED(must, may) ((uint64_t)(may) << 32 | (must))

static void required_wanted_and_forced_bits_are_joined(void **state)
{
    uint32_t out = 0, missing = 1;
    (void)state;
    /* Bit 1 is forced; 0, 3, 5 and 6 may be set; 8 may not. */
    assert_int_equal(control_adjust(ALLOWED(0x2, 0x6b), BIT(0), BIT(3) | BIT(8), &out, &missing),
                     E_OK);
    assert_int_equal(out, 0x2 | BIT(0) | BIT(3));
    assert_int_equal(missing, 0);
}

static void a_required_control_that_is_missing_is_named(void **state)
{
    uint32_t out = 0xdead, missing = 0;
    (void)state;
    /* The secondary controls of a CPU with EPT and without unrestricted guest. */
    uint64_t lynnfield = ALLOWED(0, PROC2_VIRTUALIZE_APIC | PROC2_EPT | PROC2_VPID);
    assert_int_equal(
        control_adjust(lynnfield, PROC2_EPT | PROC2_UNRESTRICTED_GUEST, 0, &out, &missing),
        E_UNSUPPORTED);
    assert_int_equal(out, 0xdead);
    assert_int_equal(missing, PROC2_UNRESTRICTED_GUEST);
    assert_string_equal(control_name(CONTROLS_PROC2, lowest_bit(missing)), "unrestricted guest");
    assert_int_equal(control_adjust(lynnfield, PROC2_UNRESTRICTED_GUEST, 0, &out, NULL),
                     E_UNSUPPORTED);
}

/* For every bit and each way that a CPU may report it, against the definition in A.3. */
static void each_bit_alone_follows_the_definition(void **state)
{
    (void)state;
    for (unsigned bit = 0; bit < 32; bit++) {
        for (unsigned how = 0; how < 16; how++) {
            uint32_t b = (uint32_t)BIT(bit), out = 0, missing = 0;
            bool must = how & 1, may = (how & 2) || must, need = how & 4, want = how & 8;
            int error = control_adjust(ALLOWED(must ? b : 0, may ? b : 0), need ? b : 0,
                                       want ? b : 0, &out, &missing);
            if (need && !may) {
                assert_int_equal(error, E_UNSUPPORTED);
                assert_int_equal(missing, b);
            } else {
                assert_int_equal(error, E_OK);
                assert_int_equal(out, must || need || (want && may) ? b : 0);
            }
        }
    }
}

static void the_true_msrs_are_used_where_they_are(void **state)
{
    (void)state;
    assert_int_equal(control_msr(CONTROLS_PIN, false), 0x481);
    assert_int_equal(control_msr(CONTROLS_PROC, false), 0x482);
    assert_int_equal(control_msr(CONTROLS_EXIT, false), 0x483);
    assert_int_equal(control_msr(CONTROLS_ENTRY, false), 0x484);
    assert_int_equal(control_msr(CONTROLS_PIN, true), 0x48d);
    assert_int_equal(control_msr(CONTROLS_PROC, true), 0x48e);
    assert_int_equal(control_msr(CONTROLS_EXIT, true), 0x48f);
    assert_int_equal(control_msr(CONTROLS_ENTRY, true), 0x490);
    assert_int_equal(control_msr(CONTROLS_PROC2, false), 0x48b);
    assert_int_equal(control_msr(CONTROLS_PROC2, true), 0x48b);
}

static void every_control_has_a_name(void **state)
{
    (void)state;
    for (unsigned word = 0; word < CONTROLS_COUNT; word++) {
        for (unsigned bit = 0; bit < 32; bit++) {
            const char *name = control_name((enum control_word)word, bit);
            assert_non_null(name);
            for (unsigned other = 0; other < bit; other++)
                assert_string_not_equal(name, control_name((enum control_word)word, other));
        }
    }
    assert_true(control_is_named(CONTROLS_PIN, 3));
    assert_false(control_is_named(CONTROLS_PIN, 1));
    assert_false(control_is_named(CONTROLS_PIN, 32));
    assert_false(control_is_named(CONTROLS_COUNT, 0));
    assert_string_equal(control_name(CONTROLS_PIN, 3), "NMI exiting");
    assert_string_equal(control_name(CONTROLS_PIN, 1), "control 1");
    assert_string_equal(control_name(CONTROLS_PIN, 32), "no control");
    assert_string_equal(control_name(CONTROLS_COUNT, 0), "no control");
}

/* ---- Capability MSRs ----------------------------------------------------------------------- */

static void basic_and_misc_are_decoded(void **state)
{
    (void)state;
    struct vmx_basic basic = vmx_basic_decode(0x00da040000000004);
    assert_int_equal(basic.revision, 4);
    assert_int_equal(basic.region_size, 1024);
    assert_int_equal(basic.memory_type, 6);
    assert_true(basic.true_controls);
    assert_true(basic.ins_outs_info);
    assert_false(basic.below_4g);
    basic = vmx_basic_decode(BIT(48) | BIT(31) | 0x7fffffff | UINT64_C(4096) << 32);
    assert_int_equal(basic.revision, 0x7fffffff);
    assert_int_equal(basic.region_size, 4096);
    assert_true(basic.below_4g);
    assert_false(basic.true_controls);

    struct vmx_misc misc = vmx_misc_decode(0x000401e5);
    assert_int_equal(misc.timer_shift, 5);
    assert_true(misc.stores_lma);
    assert_true(misc.activity_hlt);
    assert_int_equal(misc.cr3_targets, 4);
    assert_int_equal(misc.max_msr_list, 512);
    assert_false(misc.inject_length_0);
}

static void ept_and_vpid_capabilities_are_decoded(void **state)
{
    (void)state;
    struct ept_vpid_caps caps = ept_vpid_caps_decode(0x00000f0106334141); /* Skylake */
    assert_true(caps.execute_only && caps.walk_4 && caps.uc && caps.wb);
    assert_true(caps.page_2m && caps.page_1g && caps.accessed_dirty);
    assert_true(caps.invept && caps.invept_single && caps.invept_all);
    assert_true(caps.invvpid && caps.invvpid_address && caps.invvpid_single);
    assert_true(caps.invvpid_all && caps.invvpid_keep_globals);
    assert_false(caps.walk_5 || caps.advanced_exits);
    caps = ept_vpid_caps_decode(0);
    assert_false(caps.walk_4 || caps.wb || caps.invept || caps.invvpid);
}

static void invalidation_falls_back_to_the_wider_type(void **state)
{
    unsigned use = 9;
    (void)state;
    struct ept_vpid_caps none = {0},
                         all_only = {.invept = true,
                                     .invept_all = true,
                                     .invvpid = true,
                                     .invvpid_all = true},
                         every = ept_vpid_caps_decode(0x00000f0106334141);
    assert_int_equal(invept_choose(none, INVEPT_SINGLE_CONTEXT, &use), E_UNSUPPORTED);
    assert_int_equal(invept_choose(every, 0, &use), E_INVAL);
    assert_int_equal(invept_choose(every, 3, &use), E_INVAL);
    assert_int_equal(use, 9);
    assert_int_equal(invept_choose(every, INVEPT_SINGLE_CONTEXT, &use), E_OK);
    assert_int_equal(use, INVEPT_SINGLE_CONTEXT);
    assert_int_equal(invept_choose(all_only, INVEPT_SINGLE_CONTEXT, &use), E_OK);
    assert_int_equal(use, INVEPT_ALL_CONTEXTS);

    assert_int_equal(invvpid_choose(none, INVVPID_ADDRESS, &use), E_UNSUPPORTED);
    assert_int_equal(invvpid_choose(every, 4, &use), E_INVAL);
    for (unsigned type = 0; type < 4; type++) {
        assert_int_equal(invvpid_choose(every, type, &use), E_OK);
        assert_int_equal(use, type);
        assert_int_equal(invvpid_choose(all_only, type, &use), E_OK);
        assert_int_equal(use, INVVPID_ALL_CONTEXTS);
    }
    struct ept_vpid_caps single = {.invvpid = true, .invvpid_single = true};
    assert_int_equal(invvpid_choose(single, INVVPID_KEEP_GLOBALS, &use), E_OK);
    assert_int_equal(use, INVVPID_SINGLE_CONTEXT);
    /* One context is less than all of them. */
    assert_int_equal(invvpid_choose(single, INVVPID_ALL_CONTEXTS, &use), E_UNSUPPORTED);
}

static void the_timer_never_starts_at_zero(void **state)
{
    (void)state;
    assert_int_equal(timer_ticks(0, 0), 1);
    assert_int_equal(timer_ticks(31, 5), 1);
    assert_int_equal(timer_ticks(320, 5), 10);
    assert_int_equal(timer_ticks(UINT64_MAX, 0), UINT32_MAX);
    assert_int_equal(timer_ticks(UINT64_C(1) << 40, 5), UINT32_MAX);
}

/* ---- CR0, CR4, XCR0 ------------------------------------------------------------------------ */

static const struct cr_fixed fixed0 = {CR0_PE | CR0_NE | CR0_PG, 0xffffffff};
static const struct cr_fixed fixed4 = {CR4_VMXE, 0x3727ff};

static void fixed_bits_are_forced(void **state)
{
    (void)state;
    struct cr_fixed free = cr0_fixed_unrestricted(fixed0);
    assert_false(cr_fits(CR0_NE, fixed0));
    assert_true(cr_fits(CR0_NE, free));
    assert_false(cr_fits(CR0_PE, free));
    assert_false(cr_fits(BIT(32) | CR0_NE, free));
    assert_int_equal(cr_force(0, free), CR0_NE);
    assert_int_equal(cr_force(BIT(40) | CR0_PE, free), CR0_NE | CR0_PE);
    assert_int_equal(cr_force(CR4_PAE | CR4_PKE, fixed4), CR4_PAE | CR4_VMXE);
}

static void illegal_moves_to_cr0_are_refused(void **state)
{
    (void)state;
    struct cr_context real = {.cr0 = CR0_ET};
    assert_null(cr0_refusal(&real, CR0_PE | CR0_ET | CR0_NE));
    assert_null(cr0_refusal(&real, CR0_PE | CR0_PG));
    assert_non_null(cr0_refusal(&real, CR0_PG));
    assert_non_null(cr0_refusal(&real, CR0_NW));
    assert_null(cr0_refusal(&real, CR0_NW | CR0_CD));
    assert_non_null(cr0_refusal(&real, BIT(32)));

    struct cr_context entering = {.cr0 = CR0_PE, .cr4 = CR4_PAE, .efer = EFER_LME};
    assert_null(cr0_refusal(&entering, CR0_PE | CR0_PG));
    entering.cr4 = 0;
    assert_non_null(cr0_refusal(&entering, CR0_PE | CR0_PG));
    entering.cr4 = CR4_PAE;
    entering.cs_long = true;
    assert_non_null(cr0_refusal(&entering, CR0_PE | CR0_PG));
    entering.cs_long = false;
    entering.tr_16bit = true;
    assert_non_null(cr0_refusal(&entering, CR0_PE | CR0_PG));

    struct cr_context inside = {
        .cr0 = CR0_PE | CR0_PG, .cr4 = CR4_PAE, .efer = EFER_LME | EFER_LMA};
    assert_null(cr0_refusal(&inside, CR0_PE)); /* from compatibility mode */
    assert_null(cr0_refusal(&inside, CR0_PE | CR0_PG | CR0_TS));
    inside.cs_long = true;
    assert_non_null(cr0_refusal(&inside, CR0_PE));
    inside.cs_long = false;
    inside.cr4 |= CR4_PCIDE;
    assert_non_null(cr0_refusal(&inside, CR0_PE));
}

static void illegal_moves_to_cr4_are_refused(void **state)
{
    (void)state;
    uint64_t allowed = CR4_PAE | CR4_PSE | CR4_PCIDE;
    struct cr_context flat = {.cr0 = CR0_PE};
    assert_null(cr4_refusal(&flat, CR4_PAE, allowed));
    assert_non_null(cr4_refusal(&flat, CR4_VMXE, allowed));
    assert_non_null(cr4_refusal(&flat, CR4_PCIDE, allowed));

    struct cr_context inside = {
        .cr0 = CR0_PE | CR0_PG, .cr4 = CR4_PAE, .cr3 = 0x1000, .efer = EFER_LME | EFER_LMA};
    assert_null(cr4_refusal(&inside, CR4_PAE | CR4_PCIDE, allowed));
    assert_non_null(cr4_refusal(&inside, CR4_PSE, allowed));
    inside.cr3 |= 5;
    assert_non_null(cr4_refusal(&inside, CR4_PAE | CR4_PCIDE, allowed));
    inside.cr4 |= CR4_PCIDE; /* on already: CR3 has a PCID in it */
    assert_null(cr4_refusal(&inside, CR4_PAE | CR4_PCIDE, allowed));
}

static void pdptes_are_reloaded_when_the_manual_says(void **state)
{
    (void)state;
    struct cr_context pae = {.cr0 = CR0_PE | CR0_PG, .cr4 = CR4_PAE};
    struct cr_context off = {.cr0 = CR0_PE, .cr4 = CR4_PAE};
    assert_true(pdptes_reload(&off, CR0_PE | CR0_PG, CR4_PAE, false));
    assert_false(pdptes_reload(&off, CR0_PE | CR0_PG, CR4_PAE, true));
    assert_false(pdptes_reload(&pae, CR0_PE, CR4_PAE, false));
    assert_false(pdptes_reload(&pae, CR0_PE | CR0_PG | CR0_TS, CR4_PAE, false));
    assert_true(pdptes_reload(&pae, CR0_PE | CR0_PG | CR0_CD, CR4_PAE, false));
    assert_true(pdptes_reload(&pae, CR0_PE | CR0_PG, CR4_PAE | CR4_PGE, false));
    assert_false(pdptes_reload(&pae, CR0_PE | CR0_PG, CR4_PAE | CR4_OSFXSR, false));

    assert_true(pdpte_legal(0x1ff006, 40)); /* absent: nothing is reserved */
    assert_true(pdpte_legal(0x1ff000 | 0x19, 40));
    assert_false(pdpte_legal(0x1ff000 | 3, 40));
    assert_false(pdpte_legal(0x1ff000 | 1 | BIT(7), 40));
    assert_false(pdpte_legal(1 | BIT(40), 40));
    assert_true(pdpte_legal(1 | BIT(40), 41));
}

static void xcr0_components_depend_on_one_another(void **state)
{
    (void)state;
    uint64_t all = XCR0_X87 | XCR0_SSE | XCR0_AVX | XCR0_AVX512;
    assert_true(xcr0_legal(1, all));
    assert_true(xcr0_legal(3, all));
    assert_true(xcr0_legal(7, all));
    assert_true(xcr0_legal(0xe7, all));
    assert_false(xcr0_legal(0, all));
    assert_false(xcr0_legal(2, all));
    assert_false(xcr0_legal(5, all));
    assert_false(xcr0_legal(0xe3, all));
    assert_false(xcr0_legal(0x67, all));
    assert_false(xcr0_legal(0x207, all));
    assert_false(xcr0_legal(7, 3));
    assert_false(xcr0_legal(1, 0)); /* no XSAVE */
}

static void pat_has_only_types_that_exist(void **state)
{
    (void)state;
    assert_true(pat_legal(UINT64_C(0x0007040600070406)));
    assert_true(pat_legal(0));
    for (unsigned byte = 0; byte < 8; byte++) {
        for (unsigned type = 0; type < 256; type++) {
            bool exists = type <= 1 || (type >= 4 && type <= 7);
            assert_int_equal(pat_legal((uint64_t)type << 8 * byte), exists);
        }
    }
}

/* ---- Exits --------------------------------------------------------------------------------- */

static void an_ept_violation_is_decoded(void **state)
{
    (void)state;
    /* A write to a readable, executable page, at the final address. */
    struct ept_violation v = ept_violation_decode(0x1aa);
    assert_int_equal(v.access, RIGHT_W);
    assert_int_equal(v.allowed, RIGHT_R | RIGHT_X);
    assert_true(v.gva_valid);
    assert_false(v.walk);
    assert_false(v.nmi_unblocked);
    v = ept_violation_decode(0x81 | BIT(12)); /* reading the guest's own tables */
    assert_int_equal(v.access, RIGHT_R);
    assert_int_equal(v.allowed, RIGHT_NONE);
    assert_true(v.walk && v.gva_valid && v.nmi_unblocked);
    v = ept_violation_decode(0x101); /* bit 8 means nothing without bit 7 */
    assert_true(v.walk);
    assert_false(v.gva_valid);
    v = ept_violation_decode(0x184);
    assert_int_equal(v.access, RIGHT_X);
}

static void cr_and_port_accesses_are_decoded(void **state)
{
    (void)state;
    struct cr_access cr = cr_access_decode(0x0f04);
    assert_int_equal(cr.kind, CR_ACCESS_MOV_TO);
    assert_int_equal(cr.cr, 4);
    assert_int_equal(cr.gpr, 15);
    cr = cr_access_decode(0x0018 | UINT64_C(0x300));
    assert_int_equal(cr.kind, CR_ACCESS_MOV_FROM);
    assert_int_equal(cr.cr, 8);
    assert_int_equal(cr.gpr, 3);
    assert_int_equal(cr_access_decode(0x20).kind, CR_ACCESS_CLTS);
    cr = cr_access_decode(0xabcd0030);
    assert_int_equal(cr.kind, CR_ACCESS_LMSW);
    assert_int_equal(cr.source, 0xabcd);

    struct io_access io = io_access_decode(0x03f80000);
    assert_int_equal(io.port, 0x3f8);
    assert_int_equal(io.width, 1);
    assert_false(io.in || io.string || io.rep);
    io = io_access_decode(UINT64_C(0xffff003b));
    assert_int_equal(io.port, 0xffff);
    assert_int_equal(io.width, 4);
    assert_true(io.in && io.string && io.rep);
    assert_int_equal(io_access_decode(1).width, 2);
}

static void event_information_is_composed(void **state)
{
    (void)state;
    assert_int_equal(interruption(INTERRUPTION_EXCEPTION, 13, true), 0x80000b0d);
    assert_int_equal(interruption(INTERRUPTION_EXTERNAL, 0x20, false), 0x80000020);
    assert_int_equal(interruption(INTERRUPTION_NMI, 2, false), 0x80000202);
    assert_int_equal(interruption_type(0x80000b0d), INTERRUPTION_EXCEPTION);
    for (unsigned type = 0; type < 8; type++)
        assert_int_equal(interruption_has_length((uint32_t)(type << 8)), type >= 4 && type <= 6);
    uint32_t with_code = 0;
    for (unsigned vector = 0; vector < 256; vector++) {
        if (exception_has_code((uint8_t)vector)) {
            assert_in_range(vector, 0, 31);
            with_code |= 1u << vector;
        }
    }
    assert_int_equal(with_code, 0x27d00); /* 8, 10..14, 17 */
}

static void numbers_have_names(void **state)
{
    (void)state;
    assert_string_equal(exit_reason_name(48), "EPT violation");
    assert_string_equal(exit_reason_name(0), "exception or NMI");
    assert_string_equal(exit_reason_name(35), "exit reason without a name");
    assert_string_equal(exit_reason_name(0xffff), "exit reason without a name");
    assert_string_equal(vm_instruction_error_name(7), "VM entry with invalid control fields");
    assert_string_equal(vm_instruction_error_name(14), "VM-instruction error without a name");
    assert_string_equal(vm_instruction_error_name(UINT32_MAX),
                        "VM-instruction error without a name");
    assert_string_equal(entry_failure_name(4), "the VMCS link pointer");
}

/* ---- Why an entry failed ------------------------------------------------------------------- */

#define FLAT_CODE 0xc09b
#define FLAT_DATA 0xc093

static struct entry_state flat_32bit(void)
{
    struct entry_state s = {
        .cr0 = CR0_PE | CR0_NE | CR0_ET,
        .cr4 = CR4_VMXE,
        .dr7 = 0x400,
        .pat = UINT64_C(0x0007040600070406),
        .rip = 0x100000,
        .rflags = RFLAGS_FIXED,
        .link_pointer = ~UINT64_C(0),
        .entry_controls = ENTRY_LOAD_DEBUG_CONTROLS | ENTRY_LOAD_PAT | ENTRY_LOAD_EFER,
        .unrestricted = true,
        .virtual_nmis = true,
        .cr0_fixed = fixed0,
        .cr4_fixed = fixed4,
        .maxphyaddr = 40,
        .linear_bits = 48,
    };
    for (unsigned i = SEG_ES; i <= SEG_GS; i++) {
        s.segment[i].limit = 0xffffffff;
        s.segment[i].access = i == SEG_CS ? FLAT_CODE : FLAT_DATA;
    }
    s.segment[SEG_TR].limit = 0xffff;
    s.segment[SEG_TR].access = 0x8b;
    s.segment[SEG_LDTR].access = ACCESS_UNUSABLE;
    return s;
}

static struct entry_state real_mode(void)
{
    struct entry_state s = flat_32bit();
    s.cr0 = CR0_NE | CR0_ET;
    for (unsigned i = SEG_ES; i <= SEG_GS; i++) {
        s.segment[i].limit = 0xffff;
        s.segment[i].access = i == SEG_CS ? 0x9b : 0x93;
    }
    return s;
}

static struct entry_state long_mode(void)
{
    struct entry_state s = flat_32bit();
    s.cr0 |= CR0_PG;
    s.cr4 |= CR4_PAE;
    s.efer = EFER_LME | EFER_LMA;
    s.entry_controls |= ENTRY_IA32E_GUEST;
    s.segment[SEG_CS].access = 0xa09b;
    s.rip = UINT64_C(0xffff800000000000);
    return s;
}

static void states_that_a_cpu_accepts_break_no_rule(void **state)
{
    (void)state;
    struct entry_state s = flat_32bit();
    assert_null(entry_state_rule(&s));
    s = real_mode();
    assert_null(entry_state_rule(&s));
    s = long_mode();
    assert_null(entry_state_rule(&s));
    s.lam = true;
    s.cr3 = CR3_LAM_U57 | CR3_LAM_U48 | 0x1000;
    assert_null(entry_state_rule(&s));
    s = real_mode();
    s.segment[SEG_CS].access = 0x93; /* as after a reset; only an unrestricted guest */
    assert_null(entry_state_rule(&s));
    s.unrestricted = false;
    assert_non_null(entry_state_rule(&s));
    s = flat_32bit();
    s.rflags |= RFLAGS_VM;
    for (unsigned i = SEG_ES; i <= SEG_GS; i++) {
        s.segment[i].selector = 0x1000;
        s.segment[i].base = 0x10000;
        s.segment[i].limit = 0xffff;
        s.segment[i].access = 0xf3;
    }
    assert_null(entry_state_rule(&s));
    s.segment[SEG_FS].limit = 0xfffff;
    assert_non_null(entry_state_rule(&s));
}

/* Changes one thing in a good state and wants the rule that names it. */
#define BREAKS(base, change, words)                                                                \
    do {                                                                                           \
        struct entry_state s = base();                                                             \
        change;                                                                                    \
        const char *rule = entry_state_rule(&s);                                                   \
        assert_non_null(rule);                                                                     \
        if (!strstr(rule, words))                                                                  \
            fail_msg("%s: \"%s\" does not name \"%s\"", #change, rule, words);                     \
    } while (0)

static void each_broken_rule_is_named(void **state)
{
    (void)state;
    BREAKS(flat_32bit, s.cr0 &= ~CR0_NE, "CR0");
    BREAKS(flat_32bit, s.cr0 = (s.cr0 | CR0_PG) & ~CR0_PE, "CR0.PG");
    BREAKS(flat_32bit, s.cr4 = 0, "CR4");
    BREAKS(flat_32bit, s.cr4 |= BIT(30), "CR4");
    BREAKS(flat_32bit, s.cr4 |= CR4_PCIDE, "PCIDE");
    BREAKS(flat_32bit, s.cr3 = BIT(40), "CR3");
    BREAKS(long_mode, s.cr3 = CR3_LAM_U57, "CR3");
    BREAKS(long_mode, (s.lam = true, s.cr3 = BIT(60)), "CR3");
    BREAKS(flat_32bit, s.dr7 = BIT(32), "DR7");
    BREAKS(flat_32bit, s.pat = 2, "IA32_PAT");
    BREAKS(flat_32bit, s.efer = EFER_SVME, "IA32_EFER");
    BREAKS(flat_32bit, s.efer = EFER_LMA, "LMA");
    BREAKS(long_mode, s.efer = EFER_LMA, "LME");
    BREAKS(long_mode, s.cr4 &= ~CR4_PAE, "IA-32e");
    BREAKS(long_mode, s.entry_controls &= ~(uint32_t)ENTRY_IA32E_GUEST, "LMA");
    BREAKS(flat_32bit, s.sysenter_eip = BIT(47), "SYSENTER");
    BREAKS(flat_32bit, s.segment[SEG_CS].access |= ACCESS_UNUSABLE, "CS is unusable");
    BREAKS(flat_32bit, s.segment[SEG_CS].access = 0xc09a, "type of CS");
    BREAKS(flat_32bit, s.segment[SEG_CS].access |= 3 << 5, "DPL of CS");
    BREAKS(long_mode, s.segment[SEG_CS].access |= ACCESS_DB, "both L and D");
    BREAKS(flat_32bit, s.segment[SEG_SS].access = 0xc091, "SS");
    BREAKS(real_mode, (s.segment[SEG_SS].access = 0xf3, s.segment[SEG_CS].access = 0x93), "SS");
    BREAKS(flat_32bit, s.segment[SEG_DS].access &= ~1u, "accessed");
    BREAKS(flat_32bit, s.segment[SEG_ES].base = BIT(32), "DS or ES");
    BREAKS(flat_32bit, s.segment[SEG_FS].limit = 0xffffe, "granularity");
    BREAKS(real_mode, s.segment[SEG_FS].limit = 0x100000, "granularity");
    BREAKS(flat_32bit, s.segment[SEG_GS].access |= BIT(9), "reserved bit");
    BREAKS(flat_32bit, s.segment[SEG_GS].base = BIT(50), "FS or GS");
    BREAKS(flat_32bit, s.segment[SEG_TR].access = 0x89, "busy TSS");
    BREAKS(flat_32bit, s.segment[SEG_TR].access |= ACCESS_UNUSABLE, "TR is unusable");
    BREAKS(long_mode, s.segment[SEG_TR].access = 0x83, "busy TSS");
    BREAKS(flat_32bit, s.segment[SEG_LDTR].access = 0x83, "LDTR");
    BREAKS(flat_32bit, s.gdt_base = BIT(47), "GDTR");
    BREAKS(flat_32bit, s.idt_limit = 0x10000, "IDTR");
    BREAKS(flat_32bit, s.rip = BIT(32), "RIP");
    BREAKS(long_mode, s.rip = BIT(47), "canonical");
    BREAKS(flat_32bit, s.rflags = 0, "RFLAGS");
    BREAKS(flat_32bit, s.rflags |= BIT(3), "RFLAGS");
    BREAKS(long_mode, s.rflags |= RFLAGS_VM, "virtual-8086");
    BREAKS(real_mode, s.rflags |= RFLAGS_VM, "virtual-8086");
    BREAKS(flat_32bit, s.event = interruption(INTERRUPTION_EXTERNAL, 32, false), "RFLAGS.IF");
    BREAKS(flat_32bit, s.interruptibility = BLOCKING_BY_STI, "STI");
    BREAKS(flat_32bit, s.interruptibility = 0x20, "reserved bit");
    BREAKS(flat_32bit, s.interruptibility = BLOCKING_BY_SMI, "SMI");
    BREAKS(
        flat_32bit,
        (s.event = interruption(INTERRUPTION_NMI, 2, false), s.interruptibility = BLOCKING_BY_NMI),
        "blocked by NMI");
    BREAKS(flat_32bit, s.activity = 7, "activity");
    BREAKS(flat_32bit,
           (s.activity = ACTIVITY_HLT, s.segment[SEG_SS].access = 0xc0f3,
            s.segment[SEG_CS].access = 0xc0fb),
           "halted");
    BREAKS(flat_32bit, s.pending_debug = BIT(5), "pending debug");
    BREAKS(flat_32bit, (s.activity = ACTIVITY_HLT, s.rflags |= RFLAGS_TF), "single step");
    BREAKS(flat_32bit, s.link_pointer = 0x1001, "link pointer");
    BREAKS(flat_32bit, (s.cr0 |= CR0_PG, s.cr4 |= CR4_PAE, s.pdpte[2] = 3), "PDPTE");
}

/* Every kind, length, offset and size against the bytes that they have in common. */
static void breakpoints_are_matched_by_their_bytes(void **state)
{
    static const uint8_t lengths[4] = {1, 2, 8, 4};
    uint64_t dr[4];

    (void)state;
    for (unsigned n = 0; n < 4; n++) {
        for (unsigned kind = 0; kind < 4; kind++) {
            for (unsigned length = 0; length < 4; length++) {
                uint64_t dr7 = BIT(2 * n) | (uint64_t)(kind | length << 2) << (16 + 4 * n);
                uint64_t first = align_down(0x100d, lengths[length]);
                uint64_t last = first + lengths[length] - 1;

                for (unsigned i = 0; i < 4; i++)
                    dr[i] = i == n ? 0x100d : 0;
                for (uint64_t at = 0x1000; at < 0x1020; at++) {
                    for (unsigned bytes = 1; bytes <= 8; bytes *= 2) {
                        bool meets = at <= last && at + bytes - 1 >= first;
                        unsigned met = meets ? 1u << n : 0;

                        assert_int_equal(debug_matches(dr, dr7, DEBUG_PORT, at, bytes),
                                         kind == 2 ? met : 0);
                        assert_int_equal(debug_matches(dr, dr7, DEBUG_READ, at, bytes),
                                         kind == 3 ? met : 0);
                        assert_int_equal(debug_matches(dr, dr7, DEBUG_WRITE, at, bytes),
                                         kind & 1 ? met : 0);
                        assert_int_equal(debug_matches(dr, dr7, DEBUG_FETCH, at, bytes),
                                         kind == 0 ? met : 0);
                        assert_int_equal(
                            debug_matches(dr, dr7 & ~BITS(7, 0), DEBUG_WRITE, at, bytes), 0);
                    }
                }
            }
        }
    }
    /* The end of the address space. */
    for (unsigned i = 0; i < 4; i++)
        dr[i] = UINT64_MAX;
    assert_int_equal(debug_matches(dr, 0xff | UINT64_C(0x11110000), DEBUG_WRITE, UINT64_MAX, 1),
                     15);
}

static void a_breakpoint_among_the_guests(void **state)
{
    (void)state;
    assert_int_equal(debug_spare(0x400), 3);
    assert_int_equal(debug_spare(0x400 | 1 << 6), 2);     /* L3 */
    assert_int_equal(debug_spare(0x400 | 2 << 6 | 2), 2); /* G3, G0 */
    assert_int_equal(debug_spare(0x400 | 0x58), 0);
    assert_int_equal(debug_spare(0x400 | 0x55), -1);
    assert_int_equal(debug_spare(0x400 | 0xaa), -1);
    /* What is left in a register that is not enabled has no part in it, and comes back. */
    uint64_t own = 0x400 | 1 | BITS(31, 28) | 0x50000;
    assert_int_equal(debug_armed(own, 3), 0x400 | 1 | 0x50000 | 0x80);
    assert_int_equal(debug_disarmed(debug_armed(own, 3), own, 3), own);
    /* What a task switch has cleared of the guest's own stays so. */
    assert_int_equal(debug_disarmed(debug_armed(own, 3) & ~UINT64_C(1), own, 3), own - 1);
}

/* 4 and 5 are 6 and 7 without CR4.DE. */
static void registers_are_moved(void **state)
{
    struct debug_registers r = {{1, 2, 3, 0x123456789a}, 0xffff0ff1, 0x400};
    const uint64_t read[] = {1, 2, 3, 0x123456789a, 0xffff0ff1, 0x400, 0xffff0ff1, 0x400};

    (void)state;
    for (unsigned dr = 0; dr < 8; dr++) {
        struct debug_move move = {.dr = dr, .bytes = 8, .value = 99};

        assert_int_equal(debug_move(&r, &move), DEBUG_MOVED);
        assert_int_equal(move.value, read[dr]);
        move.extensions = true;
        move.cpl = 3;
        assert_int_equal(debug_move(&r, &move),
                         dr == 4 || dr == 5 ? DEBUG_UNDEFINED : DEBUG_PROTECTION);
    }
    struct debug_move narrow = {.dr = 3, .bytes = 4};
    assert_int_equal(debug_move(&r, &narrow), DEBUG_MOVED);
    assert_int_equal(narrow.value, 0x3456789a);
    struct debug_move move = {.dr = 2, .write = true, .bytes = 8, .value = UINT64_MAX};
    assert_int_equal(debug_move(&r, &move), DEBUG_MOVED);
    assert_int_equal(r.dr[2], UINT64_MAX);
    move.bytes = 4;
    assert_int_equal(debug_move(&r, &move), DEBUG_MOVED);
    assert_int_equal(r.dr[2], UINT32_MAX);
    move.dr = 4;
    assert_int_equal(debug_move(&r, &move), DEBUG_MOVED);
    assert_int_equal(r.dr6, 0xffffefff);
    move.value = 0;
    assert_int_equal(debug_move(&r, &move), DEBUG_MOVED);
    assert_int_equal(r.dr6, 0xffff0ff0);
    move = (struct debug_move){.dr = 7, .write = true, .bytes = 8, .value = UINT32_MAX & ~BIT(13)};
    assert_int_equal(debug_move(&r, &move), DEBUG_MOVED);
    assert_int_equal(r.dr7, 0xffff07ff);
    move.value = BIT(32);
    assert_int_equal(debug_move(&r, &move), DEBUG_PROTECTION);
    assert_int_equal(r.dr7, 0xffff07ff);
}

static void general_detect(void **state)
{
    struct debug_registers r = {{0}, 0xffff0ff3, 0x2401};
    struct debug_move move = {.dr = 1, .write = true, .bytes = 8, .value = 5};

    (void)state;
    assert_int_equal(debug_move(&r, &move), DEBUG_DETECTED);
    assert_int_equal(r.dr[1], 0);
    assert_int_equal(r.dr6, 0xffff2ff0);
    assert_int_equal(r.dr7, 0x401);
    assert_int_equal(debug_move(&r, &move), DEBUG_MOVED);
    assert_int_equal(r.dr[1], 5);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(required_wanted_and_forced_bits_are_joined),
        cmocka_unit_test(a_required_control_that_is_missing_is_named),
        cmocka_unit_test(each_bit_alone_follows_the_definition),
        cmocka_unit_test(the_true_msrs_are_used_where_they_are),
        cmocka_unit_test(every_control_has_a_name),
        cmocka_unit_test(basic_and_misc_are_decoded),
        cmocka_unit_test(ept_and_vpid_capabilities_are_decoded),
        cmocka_unit_test(invalidation_falls_back_to_the_wider_type),
        cmocka_unit_test(the_timer_never_starts_at_zero),
        cmocka_unit_test(fixed_bits_are_forced),
        cmocka_unit_test(illegal_moves_to_cr0_are_refused),
        cmocka_unit_test(illegal_moves_to_cr4_are_refused),
        cmocka_unit_test(pdptes_are_reloaded_when_the_manual_says),
        cmocka_unit_test(xcr0_components_depend_on_one_another),
        cmocka_unit_test(pat_has_only_types_that_exist),
        cmocka_unit_test(an_ept_violation_is_decoded),
        cmocka_unit_test(cr_and_port_accesses_are_decoded),
        cmocka_unit_test(event_information_is_composed),
        cmocka_unit_test(numbers_have_names),
        cmocka_unit_test(states_that_a_cpu_accepts_break_no_rule),
        cmocka_unit_test(each_broken_rule_is_named),
        cmocka_unit_test(breakpoints_are_matched_by_their_bytes),
        cmocka_unit_test(a_breakpoint_among_the_guests),
        cmocka_unit_test(registers_are_moved),
        cmocka_unit_test(general_detect),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
