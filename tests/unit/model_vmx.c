/* See model_vmx.h. */
#define MODEL_ITSELF
#include "tests/unit/model_vmx.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "arch/x86_64/guest/legal.h"
#include "arch/x86_64/vmx/vcpu.h"
#include "arch/x86_64/vmx/vmx_caps.h"
#include "tests/unit/model_cpu.h"
#include "tests/unit/model_tlb.h"
#include "tests/unit/model_vmx_checks.h"

#define REGIONS 16
#define NONE (~UINT64_C(0))

static const uint32_t encodings[] = {
#define FIELD(name, encoding, text) encoding,
    VMCS_FIELDS(FIELD)
#undef FIELD
};
#define FIELDS (sizeof(encodings) / sizeof(encodings[0]))

struct region {
    uint64_t at;
    bool launched, active;
    unsigned cpu; /* that it is active on */
    uint64_t value[FIELDS];
};

static struct region regions[REGIONS];
static struct region *current_of[MODEL_VMX_CPUS];
#define current current_of[model_cpu.percpu.number]
struct model_vmx model_vmx;

static const struct vm_flags succeeds, invalid = {.invalid = true}, failed = {.valid = true};

static struct vm_flags fail_with(unsigned number)
{
    if (!current)
        return invalid;
    set_field(VMCS_INSTRUCTION_ERROR, number);
    return failed;
}

/* ---- The instructions ---------------------------------------------------------------------- */

static uint64_t *find(uint64_t encoding)
{
    for (unsigned i = 0; i < FIELDS; i++)
        if (encodings[i] == encoding)
            return &current->value[i];
    return NULL;
}

uint64_t field(enum vmcs_field encoding)
{
    assert_non_null(current);
    return *find(encoding);
}

/* A field is as wide as its encoding says. */
void set_field(enum vmcs_field encoding, uint64_t value)
{
    unsigned width = encoding >> 13 & 3;

    assert_non_null(current);
    *find(encoding) = width == 0 ? value & 0xffff : width == 2 ? value & 0xffffffff : value;
}

struct vm_flags model_vmread(uint64_t encoding, uint64_t *value)
{
    if (!current)
        return invalid;
    const uint64_t *at = find(encoding);
    if (!at)
        return fail_with(12);
    *value = *at;
    return succeeds;
}

struct vm_flags model_vmwrite(uint64_t encoding, uint64_t value)
{
    if (!current)
        return invalid;
    if (!find(encoding))
        return fail_with(12);
    if ((encoding >> 10 & 3) == VMCS_TYPE_EXIT)
        return fail_with(13);
    set_field((enum vmcs_field)encoding, value);
    return succeeds;
}

/* Of code that knows that the field is there. */
uint64_t model_vmread_whole(enum vmcs_field encoding);
uint64_t model_vmread_whole(enum vmcs_field encoding)
{
    uint64_t value = 0;
    struct vm_flags flags = model_vmread(encoding, &value);

    if (flags.invalid || flags.valid)
        fail_msg("VMREAD of field %#x fails", encoding);
    return value;
}

void model_vmwrite_whole(enum vmcs_field encoding, uint64_t value);
void model_vmwrite_whole(enum vmcs_field encoding, uint64_t value)
{
    struct vm_flags flags = model_vmwrite(encoding, value);

    if (flags.invalid || flags.valid)
        fail_msg("VMWRITE of field %#x fails", encoding);
}

static bool usable_region(uint64_t at, bool with_revision)
{
    return at && !(at & 0xfff) && !(at & BITS(63, cpu_features.maxphyaddr)) &&
           !(vmx_caps.basic.below_4g && at > UINT32_MAX) &&
           (!with_revision || *(uint32_t *)direct(hpa(at)) == vmx_caps.basic.revision);
}

static struct region *region_at(uint64_t at)
{
    struct region *unused = NULL;

    for (unsigned i = 0; i < REGIONS; i++) {
        if (regions[i].at == at)
            return &regions[i];
        if (regions[i].at == 0)
            unused = &regions[i];
    }
    assert_non_null(unused);
    memset(unused, 0, sizeof(*unused));
    unused->at = at;
    return unused;
}

/* What a region holds is what VMCLEAR has left there; before the first one, anything. */
struct vm_flags model_vmclear(uint64_t region)
{
    if (!usable_region(region, false))
        return fail_with(2);
    struct region *cleared = region_at(region);
    if (cleared->active && cleared->cpu != model_cpu.percpu.number)
        fail_msg("VMCLEAR on CPU %u of a VMCS that is active on CPU %u", model_cpu.percpu.number,
                 cleared->cpu);
    if (cleared == current)
        current = NULL;
    cleared->launched = cleared->active = false;
    model_vmx.vmclears++;
    return succeeds;
}

struct vm_flags model_vmptrld(uint64_t region)
{
    if (!usable_region(region, false))
        return fail_with(9);
    if (!usable_region(region, true))
        return fail_with(11);
    struct region *loaded = region_at(region);
    if (loaded->active && loaded->cpu != model_cpu.percpu.number)
        fail_msg("VMPTRLD on CPU %u of a VMCS that is active on CPU %u", model_cpu.percpu.number,
                 loaded->cpu);
    loaded->active = true;
    loaded->cpu = model_cpu.percpu.number;
    current = loaded;
    return succeeds;
}

struct vm_flags model_vmxon(uint64_t region)
{
    if (!(model_cpu.cr4 & CR4_VMXE))
        model_fault("#UD: VMXON without CR4.VMXE");
    if (!cr_fits(model_cpu.cr0, vmx_caps.cr0) || !cr_fits(model_cpu.cr4, vmx_caps.cr4))
        model_fault("#GP: VMXON with these CR0 and CR4");
    return usable_region(region, true) ? succeeds : invalid;
}

/* ---- Entry and exit ------------------------------------------------------------------------ */

void vmx_exited(void)
{
    fail_msg("this is an address, and not a function to call");
}

void vmx_unblock_nmi(void)
{
    model_cpu.nmi_unblocked++;
}

/* 27.3 to 27.6: what the guest has then. */
static void enter(void)
{
    uint32_t event = (uint32_t)field(VMCS_ENTRY_INTERRUPTION);

    model_vmx.entries++;
    model_vmx.event = event & INTERRUPTION_VALID ? event : 0;
    model_vmx.code =
        event & INTERRUPTION_CODE_VALID ? (uint32_t)field(VMCS_ENTRY_EXCEPTION_CODE) : 0;
    model_vmx.event_length = (uint32_t)field(VMCS_ENTRY_LENGTH);
    model_vmx.pending_debug = field(VMCS_GUEST_PENDING_DEBUG);
    model_vmx.timer = field(VMCS_PREEMPTION_TIMER);
    if (model_vmx.event && (event >> 8 & 7) == INTERRUPTION_NMI)
        set_field(VMCS_GUEST_INTERRUPTIBILITY,
                  field(VMCS_GUEST_INTERRUPTIBILITY) | BLOCKING_BY_NMI);
    set_field(VMCS_GUEST_PENDING_DEBUG, 0);
    tlb_vmx_transition((uint16_t)(field(VMCS_PROC2_CONTROLS) & PROC2_VPID ? field(VMCS_VPID) : 0));
}

/* 28.2 to 28.5. */
static void leave(void)
{
    const struct model_exit *next = &model_vmx.next;

    set_field(VMCS_EXIT_REASON, next->reason);
    set_field(VMCS_EXIT_QUALIFICATION, next->qualification);
    set_field(VMCS_EXIT_LENGTH, next->length);
    set_field(VMCS_EXIT_INTERRUPTION, next->interruption);
    set_field(VMCS_EXIT_INTERRUPTION_CODE, next->interruption_code);
    set_field(VMCS_IDT_VECTORING, next->vectoring);
    set_field(VMCS_IDT_VECTORING_CODE, next->vectoring_code);
    set_field(VMCS_EXIT_INSTRUCTION, next->instruction);
    set_field(VMCS_GUEST_PHYSICAL_ADDRESS, next->guest_physical);
    set_field(VMCS_GUEST_LINEAR_ADDRESS, next->guest_linear);
    set_field(VMCS_ENTRY_INTERRUPTION,
              field(VMCS_ENTRY_INTERRUPTION) & ~(uint64_t)INTERRUPTION_VALID);

    tlb_vmx_transition((uint16_t)(field(VMCS_PROC2_CONTROLS) & PROC2_VPID ? field(VMCS_VPID) : 0));
    model_cpu.cr0 = field(VMCS_HOST_CR0);
    model_cpu.cr3 = field(VMCS_HOST_CR3);
    model_cpu.cr4 = field(VMCS_HOST_CR4);
    model_cpu.dr7 = 0x400;
    *model_msr(IA32_EFER) = field(VMCS_HOST_EFER);
    *model_msr(IA32_PAT) = field(VMCS_HOST_PAT);
    *model_msr(IA32_FS_BASE) = field(VMCS_HOST_FS_BASE);
    *model_msr(IA32_GS_BASE) = field(VMCS_HOST_GS_BASE);
    model_cpu.gdt = (struct descriptor_table){0xffff, field(VMCS_HOST_GDTR_BASE)};
    model_cpu.idt = (struct descriptor_table){0xffff, field(VMCS_HOST_IDTR_BASE)};
    model_vmx.host_rip = field(VMCS_HOST_RIP);
}

enum vmx_enter vmx_enter(uint64_t gpr[GPR_COUNT], struct vmx_live *live, bool launched)
{
    bool controls;

    (void)gpr;
    model_vmx.refused = NULL;
    if (!current)
        return VMX_FAIL_INVALID;
    live->host_rsp = 1; /* as entry.asm, which writes the field but once */
    set_field(VMCS_HOST_RSP, live->host_rsp);
    if (current->launched != launched) {
        model_vmx.refused = "VMLAUNCH of a launched VMCS, or VMRESUME of one that is clear";
        set_field(VMCS_INSTRUCTION_ERROR, launched ? 5 : 4);
        return VMX_FAIL_VALID;
    }
    model_vmx.refused = model_controls_rule();
    controls = model_vmx.refused != NULL;
    if (!controls)
        model_vmx.refused = model_host_rule();
    if (model_vmx.refused) {
        set_field(VMCS_INSTRUCTION_ERROR, controls ? 7 : 8);
        return VMX_FAIL_VALID;
    }
    model_vmx.refused = model_guest_rule();
    if (model_vmx.refused) {
        set_field(VMCS_EXIT_REASON, EXIT_REASON_ENTRY_FAILURE | EXIT_ENTRY_GUEST_STATE);
        set_field(VMCS_EXIT_QUALIFICATION, 0);
        return VMX_ENTERED; /* the CPU comes to the host's RIP */
    }
    current->launched = true;
    enter();
    if (model_vmx.next.guest)
        model_vmx.next.guest();
    leave();
    return VMX_ENTERED;
}

/* ---- The CPU at hand ------------------------------------------------------------------------ */

#define MUST(bits) ((uint64_t)(bits) << 32 | (bits))

void model_vmx_msrs(void)
{
    static const struct {
        uint32_t index;
        uint64_t value;
    } all[] = {
        {IA32_FEATURE_CONTROL, 5},
        {IA32_VMX_BASIC, 0x00da040000000004},
        {IA32_VMX_MISC, 0x000401e5},
        {IA32_VMX_CR0_FIXED0, 0x80000021},
        {IA32_VMX_CR0_FIXED1, 0xffffffff},
        {IA32_VMX_CR4_FIXED0, 0x2000},
        {IA32_VMX_CR4_FIXED1, 0x3767ff},
        {IA32_VMX_TRUE_PINBASED_CTLS, 0x0000007f00000016},
        {IA32_VMX_TRUE_PROCBASED_CTLS, 0xfff9fffe04006172},
        {IA32_VMX_TRUE_EXIT_CTLS, 0x01ffffff00036dfb},
        {IA32_VMX_TRUE_ENTRY_CTLS, 0x0003ffff000011fb},
        {IA32_VMX_PROCBASED_CTLS2, 0x0053ffff00000000},
        {IA32_VMX_EPT_VPID_CAP, 0x00000f0106334141},
    };

    for (unsigned i = 0; i < ARRAY_SIZE(all); i++)
        *model_msr(all[i].index) = all[i].value;
}

void model_vmx_start(void)
{
    memset(regions, 0, sizeof(regions));
    memset(&model_vmx, 0, sizeof(model_vmx));
    memset(current_of, 0, sizeof(current_of));
    model_vmx_msrs();
}
