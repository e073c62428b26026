/* See model_cpu.h. */
#define MODEL_ITSELF
#include "tests/unit/model_cpu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "arch/x86_64/guest/resident.h"
#include "arch/x86_64/lapic.h"
#include "arch/x86_64/speculation.h"
#include "arch/x86_64/trap.h"
#include "lib/error.h"
#include "tests/unit/model_tlb.h"

struct model_cpu model_cpu;
struct cpu_features cpu_features;

static struct {
    uint32_t index;
    uint64_t value;
} msrs[64];
static struct {
    uint32_t leaf, out[4];
} leaves[16];

void model_cpu_start(void)
{
    memset(&model_cpu, 0, sizeof(model_cpu));
    memset(msrs, 0, sizeof(msrs));
    memset(leaves, 0, sizeof(leaves));
    cpu_features = (struct cpu_features){
        .maxphyaddr = 40,
        .linear_bits = 48,
        .nx = true,
        .page1g = true,
        .pge = true,
        .pcid = true,
        .invpcid = true,
        .smep = true,
        .smap = true,
        .umip = true,
        .mce = true,
        .fsgsbase = true,
        .vmx = true,
        .svm = true,
    };
    model_cpu.cr0 = CR0_PG | CR0_WP | CR0_NE | CR0_ET | CR0_PE;
    model_cpu.cr4 = CR4_PAE | CR4_PGE | CR4_MCE | CR4_OSFXSR;
    model_cpu.dr6 = 0xffff0ff0;
    model_cpu.xcr0 = 1;
    model_cpu.lapic = true;
    model_cpu.gdt = (struct descriptor_table){.limit = 0x77, .base = 0xffff800000001000};
    model_cpu.idt = (struct descriptor_table){.limit = 0xfff, .base = 0xffff800000002000};
    *model_msr(IA32_EFER) = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
    *model_msr(IA32_PAT) = PAT_HOST;
    *model_msr(IA32_FS_BASE) = 0xffff800000003000;
    *model_msr(IA32_GS_BASE) = 0xffff800000004000;
    tlb_empty();
}

void model_fault(const char *what)
{
    fail_msg("%s", what);
    __builtin_unreachable();
}

/* ---- Registers ----------------------------------------------------------------------------- */

#define PLAIN_REGISTER(name)                                                                       \
    uint64_t model_read_##name(void)                                                               \
    {                                                                                              \
        return model_cpu.name;                                                                     \
    }                                                                                              \
    void model_write_##name(uint64_t value)                                                        \
    {                                                                                              \
        model_cpu.name = value;                                                                    \
    }
PLAIN_REGISTER(cr2)
PLAIN_REGISTER(dr6)
PLAIN_REGISTER(dr7)

uint64_t model_read_cr0(void)
{
    return model_cpu.cr0;
}

void model_write_cr0(uint64_t value)
{
    if (((model_cpu.cr0 ^ value) & (CR0_PG | CR0_WP)) != 0)
        tlb_all_linear();
    model_cpu.cr0 = value;
}

uint64_t model_read_cr3(void)
{
    return model_cpu.cr3;
}

void model_write_cr3(uint64_t value)
{
    if ((value & BITS(62, cpu_features.maxphyaddr)) ||
        ((value & CR3_KEEP) && !(model_cpu.cr4 & CR4_PCIDE)))
        model_fault("#GP: a reserved bit of CR3");
    tlb_load_cr3(model_cpu.cr4, value);
    model_cpu.cr3 = value & ~CR3_KEEP;
}

uint64_t model_read_cr4(void)
{
    return model_cpu.cr4;
}

void model_write_cr4(uint64_t value)
{
    uint64_t changed = model_cpu.cr4 ^ value;

    if ((changed & value & CR4_PCIDE) && (model_cpu.cr3 & CR3_PCID))
        model_fault("#GP: CR4.PCIDE is set while CR3[11:0] is not 0");
    if (changed & (CR4_PGE | CR4_PCIDE | CR4_PAE | CR4_PSE | CR4_SMEP))
        tlb_all_linear();
    model_cpu.cr4 = value;
}

void model_cpuid(uint32_t leaf, uint32_t sub, uint32_t out[4])
{
    (void)sub;
    memset(out, 0, 4 * sizeof(*out));
    for (unsigned i = 0; i < ARRAY_SIZE(leaves); i++)
        if (leaves[i].leaf == leaf)
            memcpy(out, leaves[i].out, sizeof(leaves[i].out));
}

void model_set_cpuid(uint32_t leaf, const uint32_t out[4])
{
    for (unsigned i = 0; i < ARRAY_SIZE(leaves); i++)
        if (leaves[i].leaf == leaf || leaves[i].leaf == 0) {
            leaves[i].leaf = leaf;
            memcpy(leaves[i].out, out, sizeof(leaves[i].out));
            return;
        }
}

/* Those that have been asked for by a test are there. */
uint64_t *model_msr(uint32_t index)
{
    for (unsigned i = 0; i < ARRAY_SIZE(msrs); i++)
        if (msrs[i].index == index || msrs[i].index == 0) {
            msrs[i].index = index;
            return &msrs[i].value;
        }
    model_fault("too many MSRs");
}

static uint64_t *known_msr(uint32_t index)
{
    for (unsigned i = 0; i < ARRAY_SIZE(msrs); i++)
        if (msrs[i].index == index)
            return &msrs[i].value;
    return NULL;
}

uint64_t model_rdmsr(uint32_t index)
{
    const uint64_t *msr = known_msr(index);

    if (!msr)
        model_fault("#GP: RDMSR");
    return *msr;
}

void model_wrmsr(uint32_t index, uint64_t value)
{
    uint64_t *msr = known_msr(index);

    if (!msr)
        model_fault("#GP: WRMSR");
    *msr = value;
}

int rdmsr_safe(uint32_t index, uint64_t *out)
{
    const uint64_t *msr = known_msr(index);

    if (!msr)
        return E_UNSUPPORTED;
    *out = *msr;
    return E_OK;
}

int wrmsr_safe(uint32_t index, uint64_t value)
{
    uint64_t *msr = known_msr(index);

    if (!msr)
        return E_UNSUPPORTED;
    if (index == IA32_FEATURE_CONTROL && (*msr & 1))
        return E_UNSUPPORTED; /* locked */
    *msr = value;
    return E_OK;
}

uint64_t model_rdtsc(void)
{
    return model_cpu.tsc += 64;
}

uint64_t model_xgetbv(uint32_t index)
{
    if (index)
        model_fault("#GP: XGETBV");
    return model_cpu.xcr0;
}

void model_xsetbv(uint32_t index, uint64_t value)
{
    if (index || !(value & 1) || (value & ~cpu_features.xcr0))
        model_fault("#GP: XSETBV");
    model_cpu.xcr0 = value;
}

void model_lgdt(const struct descriptor_table *table)
{
    model_cpu.gdt = *table;
}

void model_lidt(const struct descriptor_table *table)
{
    model_cpu.idt = *table;
}

struct descriptor_table model_sgdt(void)
{
    return model_cpu.gdt;
}

struct descriptor_table model_sidt(void)
{
    return model_cpu.idt;
}

void model_open_interrupts(void)
{
    model_cpu.windows++;
}

void model_clear_gif(void)
{
}

struct percpu *model_this_cpu(void)
{
    return &model_cpu.percpu;
}

/* ---- The local APIC ------------------------------------------------------------------------ */

int lapic_enable(void)
{
    return model_cpu.lapic ? E_OK : E_UNSUPPORTED;
}

void lapic_end_of_interrupt(void)
{
    model_cpu.ended++;
}

void lapic_timer_start(uint32_t count)
{
    model_cpu.timer = count;
    model_cpu.timer_repeats = false;
}

void lapic_timer_repeat(uint32_t count)
{
    model_cpu.timer = count;
    model_cpu.timer_repeats = true;
}

uint32_t lapic_timer_left(void)
{
    model_cpu.timer -= model_cpu.timer < 512 ? model_cpu.timer : 512;
    return model_cpu.timer;
}

void lapic_timer_stop(void)
{
    model_cpu.timer = 0;
}

uint32_t lapic_id(void)
{
    return MODEL_LAPIC_ID;
}

int lapic_send_vector(uint32_t id, uint8_t vector)
{
    assert_int_equal(id, MODEL_LAPIC_ID);
    model_cpu.sent_itself = vector;
    return E_OK;
}

/* ---- What stays in the CPU between exits --------------------------------------------------- */

uint64_t resident_xcr0;
unsigned resident_fpu_order;

void resident_init(void)
{
    resident_xcr0 = cpu_features.xcr0;
}

void resident_reset(struct resident *v)
{
    v->xcr0 = 1;
}

const struct resident *resident_now(void)
{
    return model_cpu.resident;
}

void resident_switch(struct resident *next)
{
    model_cpu.resident = next;
}

uint64_t resident_xcr0_of(const struct resident *v)
{
    return resident_xcr0 && model_cpu.resident == v ? model_cpu.xcr0 : v->xcr0;
}

void resident_debug(uint64_t dr[4])
{
    memcpy(dr, model_cpu.dr, sizeof(model_cpu.dr));
}

void resident_set_debug(unsigned n, uint64_t value)
{
    model_cpu.dr[n] = value;
}

void resident_copy(struct resident *to, struct resident *from)
{
    resident_drop(from);
    resident_drop(to);
    to->xcr0 = from->xcr0;
}

/* ---- One CPU, which nothing has to be kept from -------------------------------------------- */

void (*cpus_nmi)(const struct trap_frame *frame);

const struct speculation_plan *speculation_plan(void)
{
    static const struct speculation_plan nothing;

    return &nothing;
}

void speculation_before_entry(void)
{
}

void resident_drop(struct resident *v)
{
    model_cpu.resident_drops++;
    if (model_cpu.resident == v)
        model_cpu.resident = NULL;
}
