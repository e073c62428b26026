/* See vcpu.h. SDM Vol. 3, chapter 25 "Virtual machine control structures". */
#include "arch/x86_64/vmx/vcpu.h"

#include "arch/x86_64/mm/ept.h"
#include "arch/x86_64/mm/tlb.h"
#include "arch/x86_64/vmx/resident.h"
#include "lib/lock.h"
#include "lib/string.h"
#include "mm/frames/buddy.h"
#include "mm/frames/scrub.h"
#include "mm/frames/slab.h"

#define PAT_RESET UINT64_C(0x0007040600070406)
#define DR7_FIXED BIT(10)
#define EFER_GUEST (EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE)
#define LINK_NONE (~UINT64_C(0))

/* ---- VPIDs: 0 is the host's ---------------------------------------------------------------- */

#define VPID_COUNT 256

static struct {
    struct lock lock;
    uint64_t taken[VPID_COUNT / 64];
    uint64_t used[VPID_COUNT / 64]; /* since boot: translations may be left */
} vpids = {.taken[0] = 1};

/* 0, and the guest runs untagged, where VPIDs are not offered. E_FULL. */
static int vpid_take(uint16_t *out)
{
    *out = 0;
    if (!vmx_policy.vpid)
        return E_OK;
    lock_take(&vpids.lock);
    for (unsigned i = 0; i < ARRAY_SIZE(vpids.taken) && *out == 0; i++) {
        if (~vpids.taken[i] == 0)
            continue;
        unsigned bit = lowest_bit(~vpids.taken[i]);
        *out = (uint16_t)(i * 64 + bit);
        vpids.taken[i] |= BIT(bit);
    }
    bool stale = *out && (vpids.used[*out / 64] >> *out % 64 & 1);
    vpids.used[*out / 64] |= BIT(*out % 64);
    lock_drop(&vpids.lock);
    if (*out == 0)
        return E_FULL;
    /* What the tag's last holder left must not serve its next (29.4.3.3). */
    if (stale) {
        tlb_counters.invvpid++;
        invariant(invvpid(INVVPID_SINGLE_CONTEXT, *out, 0) == E_OK);
    }
    return E_OK;
}

static void vpid_give(uint16_t vpid)
{
    if (vpid == 0)
        return;
    lock_take(&vpids.lock);
    vpids.taken[vpid / 64] &= ~BIT(vpid % 64);
    lock_drop(&vpids.lock);
}

void vmx_flush_vpid(struct vmx_vcpu *v)
{
    /* Untagged translations do not survive an exit (29.4.3.1 "Operations that invalidate"). */
    if (v->vpid == 0)
        return;
    tlb_counters.invvpid++;
    invariant(invvpid(INVVPID_SINGLE_CONTEXT, v->vpid, 0) == E_OK);
}

/* ---- What every VMCS holds ----------------------------------------------------------------- */

static void write_controls(const struct vmx_vcpu *v)
{
    uint32_t proc2 = vmx_policy.control[CONTROLS_PROC2];

    vmwrite(VMCS_PIN_CONTROLS, vmx_policy.control[CONTROLS_PIN]);
    vmwrite(VMCS_PROC_CONTROLS, vmx_policy.control[CONTROLS_PROC]);
    vmwrite(VMCS_PROC2_CONTROLS, proc2);
    vmwrite(VMCS_EXIT_CONTROLS, vmx_policy.control[CONTROLS_EXIT]);
    vmwrite(VMCS_ENTRY_CONTROLS, vmx_policy.control[CONTROLS_ENTRY]);

    /* A machine check is the host's. #DB and #AC may raise themselves while they are delivered, in
     * a loop that no interrupt ends: they have to come by here. */
    vmwrite(VMCS_EXCEPTION_BITMAP, BIT(VECTOR_MC) | BIT(VECTOR_DB) | BIT(VECTOR_AC));
    vmwrite(VMCS_PF_CODE_MASK, 0);
    vmwrite(VMCS_PF_CODE_MATCH, 0);
    vmwrite(VMCS_CR3_TARGET_COUNT, 0);
    vmwrite(VMCS_MSR_BITMAP, vmx_policy.msr_bitmap.v);
    vmwrite(VMCS_EXIT_MSR_STORE_COUNT, 0);
    vmwrite(VMCS_EXIT_MSR_LOAD_COUNT, 0);
    vmwrite(VMCS_ENTRY_MSR_LOAD_COUNT, 0);
    vmwrite(VMCS_ENTRY_INTERRUPTION, 0);
    vmwrite(VMCS_ENTRY_EXCEPTION_CODE, 0);
    vmwrite(VMCS_ENTRY_LENGTH, 0);
    vmwrite(VMCS_CR0_MASK, ~(uint64_t)CR0_GUEST_OWNED);
    vmwrite(VMCS_CR4_MASK, ~cr4_guest_owned());
    if (v->vpid)
        vmwrite(VMCS_VPID, v->vpid);
    if (proc2 & PROC2_ENCLS_EXITING)
        vmwrite(VMCS_ENCLS_EXITING, ~UINT64_C(0));
}

/* What may have changed in the host since this CPU last held the VMCS: a ring-3 program's table,
 * bits that boot sets late. */
static void write_changing_host_state(void)
{
    vmwrite(VMCS_HOST_CR3, read_cr3());
    vmwrite(VMCS_HOST_CR4, read_cr4());
    vmwrite(VMCS_HOST_EFER, rdmsr(IA32_EFER));
}

/* The CPU's own, wherever the vCPU runs next (25.5, 27.2.2). */
static void write_host_state(const struct vmx_cpu *cpu)
{
    /* TS: see resident.h. */
    vmwrite(VMCS_HOST_CR0, read_cr0() | CR0_TS);
    write_changing_host_state();
    vmwrite(VMCS_HOST_PAT, rdmsr(IA32_PAT));

    vmwrite(VMCS_HOST_CS_SELECTOR, SELECTOR_KERNEL_CODE);
    vmwrite(VMCS_HOST_SS_SELECTOR, SELECTOR_KERNEL_DATA);
    vmwrite(VMCS_HOST_DS_SELECTOR, 0);
    vmwrite(VMCS_HOST_ES_SELECTOR, 0);
    vmwrite(VMCS_HOST_FS_SELECTOR, 0);
    vmwrite(VMCS_HOST_GS_SELECTOR, 0);
    vmwrite(VMCS_HOST_TR_SELECTOR, SELECTOR_TSS);
    vmwrite(VMCS_HOST_FS_BASE, rdmsr(IA32_FS_BASE));
    vmwrite(VMCS_HOST_GS_BASE, rdmsr(IA32_GS_BASE));
    vmwrite(VMCS_HOST_TR_BASE, (uint64_t)(uintptr_t)&this_cpu()->tss);
    vmwrite(VMCS_HOST_GDTR_BASE, cpu->gdt.base);
    vmwrite(VMCS_HOST_IDTR_BASE, cpu->idt.base);
    vmwrite(VMCS_HOST_SYSENTER_CS, 0);
    vmwrite(VMCS_HOST_SYSENTER_ESP, 0);
    vmwrite(VMCS_HOST_SYSENTER_EIP, 0);
    vmwrite(VMCS_HOST_RIP, (uint64_t)(uintptr_t)vmx_exited);
}

/* What vm/ has no say in. The rest comes by vmx_set_state(). */
static void write_fixed_guest_state(void)
{
    vmwrite(VMCS_LINK_POINTER, LINK_NONE);
    vmwrite(VMCS_GUEST_DEBUGCTL, 0);
    vmwrite(VMCS_GUEST_PAT, PAT_RESET);
    vmwrite(VMCS_GUEST_SYSENTER_CS, 0);
    vmwrite(VMCS_GUEST_SYSENTER_ESP, 0);
    vmwrite(VMCS_GUEST_SYSENTER_EIP, 0);
}

int vmx_vcpu_load(struct vmx_vcpu *v)
{
    struct vmx_cpu *cpu = vmx_cpu();
    hpa_t current;

    if (!cpu || !cpu->on || (v->cpu && v->cpu != cpu))
        return E_STATE;
    if (v->cpu == cpu && vmcs_current(&current) && current.v == v->vmcs.v)
        return E_OK;
    int error = vmcs_load(v->vmcs);
    if (error != E_OK)
        return error;
    if (v->cpu == cpu) {
        write_changing_host_state();
    } else {
        v->cpu = cpu;
        v->live.host_rsp = 0;
        write_host_state(cpu);
    }
    return E_OK;
}

void vmx_vcpu_put(struct vmx_vcpu *v)
{
    if (!v->cpu)
        return;
    invariant(v->cpu == vmx_cpu());
    if (v->cpu->resident == v)
        resident_switch(NULL);
    invariant(vmcs_clear(v->vmcs) == E_OK);
    v->launched = false;
    v->cpu = NULL;
}

/* ---- Creation ------------------------------------------------------------------------------ */

static struct slab_cache vcpus;

void vmx_vcpus_init(void)
{
    invariant(slab_init(&vcpus, "vCPUs", sizeof(struct vmx_vcpu), 64) == E_OK);
    slab_register(&vcpus);
}

/* A zeroed block for the structures of a vCPU. VMCS regions may have to lie below 4 GiB (A.1). */
static int take_block(unsigned order, owner_t owner, hpa_t *out)
{
    uint64_t last = vmx_caps.basic.below_4g ? UINT32_MAX : UINT64_MAX;
    int error = vmx_caps.basic.below_4g
                    ? buddy_alloc_within(order, 0, last, PURPOSE_VCPU, owner, out)
                    : buddy_alloc(order, PURPOSE_VCPU, owner, out);
    if (error == E_OK)
        scrub_block(*out, PAGE_SIZE << order);
    return error;
}

static void give_block(hpa_t block, unsigned order, owner_t owner)
{
    if (block.v)
        invariant(buddy_free(block, order, owner) == E_OK);
}

static void release(struct vmx_vcpu *v)
{
    give_block(v->fpu_frame, v->fpu_order, v->owner);
    give_block(v->vmcs, 0, v->owner);
    vpid_give(v->vpid);
    invariant(slab_free(&vcpus, v) == E_OK);
}

static int prepare(struct vmx_vcpu *v)
{
    int error = take_block(0, v->owner, &v->vmcs);
    if (error == E_OK)
        error = take_block(v->fpu_order, v->owner, &v->fpu_frame);
    if (error == E_OK)
        error = vpid_take(&v->vpid);
    if (error != E_OK)
        return error;
    v->fpu = direct(v->fpu_frame);
    resident_reset(v);

    *(uint32_t *)direct(v->vmcs) = vmx_caps.basic.revision;
    error = vmcs_clear(v->vmcs);
    if (error == E_OK)
        error = vmx_vcpu_load(v);
    if (error != E_OK)
        return error;
    write_controls(v);
    write_fixed_guest_state();
    v->table->tag = v->vpid;
    if (!vmx_caps.ept_vpid.invept_all) {
        tlb_counters.invept_single++;
        error = invept(INVEPT_SINGLE_CONTEXT, ept_eptp(v->table));
        if (error != E_OK)
            return error;
    }
    return ept_root_set(v->table);
}

int vmx_vcpu_create(struct guest *guest, struct table *table, owner_t owner, struct vcpu **out)
{
    static const struct vcpu_state reset = {
        .rflags = RFLAGS_FIXED,
        .rip = 0xfff0,
        .cr0 = CR0_ET,
        .segment =
            {
                /* Real mode as after a reset but for CS, whose base lies within 1 MiB. */
                [SEG_ES] = {.limit = 0xffff, .access = 0x93},
                [SEG_CS] = {.limit = 0xffff, .access = 0x9b, .selector = 0xf000, .base = 0xf0000},
                [SEG_SS] = {.limit = 0xffff, .access = 0x93},
                [SEG_DS] = {.limit = 0xffff, .access = 0x93},
                [SEG_FS] = {.limit = 0xffff, .access = 0x93},
                [SEG_GS] = {.limit = 0xffff, .access = 0x93},
                [SEG_LDTR] = {.limit = 0xffff, .access = 0x82},
                [SEG_TR] = {.limit = 0xffff, .access = 0x8b},
            },
        .idt_limit = 0xffff,
        .gdt_limit = 0xffff,
        .dr7 = DR7_FIXED,
    };

    if (!vmx_cpu() || !vmx_cpu()->on)
        return E_STATE;
    if (table->kind != &ept_kind)
        return E_INVAL;
    struct vmx_vcpu *v = slab_alloc(&vcpus);
    if (v == NULL)
        return E_NOMEM;
    v->vcpu.guest = guest;
    v->table = table;
    v->owner = owner;
    v->fpu_order = vmx_policy.fpu_order;
    v->vcpu.frames = 1 + (UINT64_C(1) << v->fpu_order); /* the VMCS and the XSAVE area */

    int error = prepare(v);
    if (error == E_OK)
        error = vmx_set_state(&v->vcpu, &reset);
    if (error != E_OK) {
        vmx_vcpu_put(v);
        release(v);
        return error;
    }
    *out = &v->vcpu;
    return E_OK;
}

void vmx_vcpu_destroy(struct vcpu *vcpu)
{
    struct vmx_vcpu *v = vmx_vcpu_of(vcpu);

    vmx_vcpu_put(v);
    release(v);
}

/* ---- State --------------------------------------------------------------------------------- */

uint64_t vmx_guest_cr0(void)
{
    uint64_t owned = CR0_GUEST_OWNED;
    return (vmread(VMCS_GUEST_CR0) & owned) | (vmread(VMCS_CR0_SHADOW) & ~owned);
}

uint64_t vmx_guest_cr4(void)
{
    uint64_t owned = cr4_guest_owned();
    return (vmread(VMCS_GUEST_CR4) & owned) | (vmread(VMCS_CR4_SHADOW) & ~owned);
}

void vmx_write_crs(uint64_t cr0, uint64_t cr4, uint64_t efer)
{
    struct cr_fixed fixed0 = cr0_fixed_unrestricted(vmx_caps.cr0);
    uint64_t entry = vmread(VMCS_ENTRY_CONTROLS) & ~ENTRY_IA32E_GUEST;
    uint64_t host_cr4 = CR4_VMXE | (cpu_features.mce ? CR4_MCE : 0);

    efer &= ~EFER_LMA;
    if ((efer & EFER_LME) && (cr0 & CR0_PG)) {
        efer |= EFER_LMA;
        entry |= ENTRY_IA32E_GUEST;
    }
    /* A guest's CD and NW are kept from the CPU: they would disable its neighbours' caches. */
    vmwrite(VMCS_GUEST_CR0, cr_force(cr0 & ~(CR0_CD | CR0_NW), fixed0));
    vmwrite(VMCS_CR0_SHADOW, cr0 | CR0_ET);
    vmwrite(VMCS_GUEST_CR4, cr_force(cr4 | host_cr4, vmx_caps.cr4));
    vmwrite(VMCS_CR4_SHADOW, cr4);
    vmwrite(VMCS_GUEST_EFER, efer);
    vmwrite(VMCS_ENTRY_CONTROLS, entry);
}

bool vmx_in_64bit_mode(void)
{
    return (vmread(VMCS_GUEST_EFER) & EFER_LMA) && (vmread(VMCS_GUEST_CS_ACCESS) & ACCESS_LONG);
}

void vmx_read_segment(unsigned index, struct segment *out)
{
    unsigned offset = index * VMCS_SEGMENT_STRIDE;
    uint64_t access = vmread(VMCS_GUEST_ES_ACCESS + offset);

    *out = (struct segment){
        .base = vmread(VMCS_GUEST_ES_BASE + offset),
        .limit = (uint32_t)vmread(VMCS_GUEST_ES_LIMIT + offset),
        .selector = (uint16_t)vmread(VMCS_GUEST_ES_SELECTOR + offset),
        .access = (uint16_t)access,
        .unusable = (access & ACCESS_UNUSABLE) != 0,
    };
}

/* As the load of the register from a descriptor would leave it: accessed, or a busy TSS. */
static void write_segment(unsigned index, const struct segment *in)
{
    unsigned offset = index * VMCS_SEGMENT_STRIDE;
    uint64_t access = in->access;

    if (in->unusable)
        access |= ACCESS_UNUSABLE; /* the DPL of an unusable SS still counts */
    else if (index == SEG_TR)
        access |= BIT(1);
    else if (access & ACCESS_CODE_OR_DATA)
        access |= ACCESS_ACCESSED;
    vmwrite(VMCS_GUEST_ES_BASE + offset, in->base);
    vmwrite(VMCS_GUEST_ES_LIMIT + offset, in->limit);
    vmwrite(VMCS_GUEST_ES_SELECTOR + offset, in->selector);
    vmwrite(VMCS_GUEST_ES_ACCESS + offset, access);
}

int vmx_get_state(struct vcpu *vcpu, struct vcpu_state *out)
{
    struct vmx_vcpu *v = vmx_vcpu_of(vcpu);
    int error = vmx_vcpu_load(v);
    if (error != E_OK)
        return error;

    memcpy(out->gpr, vcpu->gpr, sizeof(out->gpr));
    out->gpr[RSP] = vmread(VMCS_GUEST_RSP);
    out->rip = vmread(VMCS_GUEST_RIP);
    out->rflags = vmread(VMCS_GUEST_RFLAGS);
    out->cr0 = vmx_guest_cr0();
    out->cr2 = v->live.cr2;
    out->cr3 = vmread(VMCS_GUEST_CR3);
    out->cr4 = vmx_guest_cr4();
    out->efer = vmread(VMCS_GUEST_EFER);
    for (unsigned i = 0; i < 4; i++)
        out->pdpte[i] = vmread(VMCS_GUEST_PDPTE0 + 2 * i);
    for (unsigned i = 0; i < SEG_COUNT; i++)
        vmx_read_segment(i, &out->segment[i]);
    out->gdt_base = vmread(VMCS_GUEST_GDTR_BASE);
    out->gdt_limit = (uint32_t)vmread(VMCS_GUEST_GDTR_LIMIT);
    out->idt_base = vmread(VMCS_GUEST_IDTR_BASE);
    out->idt_limit = (uint32_t)vmread(VMCS_GUEST_IDTR_LIMIT);
    out->dr7 = vmread(VMCS_GUEST_DR7);
    out->pat = vmread(VMCS_GUEST_PAT);
    out->xcr0 = v->xcr0;
    out->halted = vmread(VMCS_GUEST_ACTIVITY) == ACTIVITY_HLT;
    return E_OK;
}

/* E_INVAL for what MOV to CR or WRMSR would refuse whatever the rest is; a combination that only
 * the CPU finds wrong comes back as a failed entry, explained. E_UNSUPPORTED for CR4 bits that this
 * CPU does not offer to guests. The whole state is replaced: an event that was on its way is
 * dropped. */
int vmx_set_state(struct vcpu *vcpu, const struct vcpu_state *in)
{
    struct vmx_vcpu *v = vmx_vcpu_of(vcpu);

    if ((in->cr0 & BITS(63, 32)) || ((in->cr0 & CR0_PG) && !(in->cr0 & CR0_PE)))
        return E_INVAL;
    if ((in->efer & ~EFER_GUEST) || (in->dr7 & BITS(63, 32)))
        return E_INVAL;
    if (in->cr4 & ~vmx_policy.guest_cr4)
        return E_UNSUPPORTED;
    int error = vmx_vcpu_load(v);
    if (error != E_OK)
        return error;

    memcpy(vcpu->gpr, in->gpr, sizeof(vcpu->gpr));
    v->live.cr2 = in->cr2;
    vmwrite(VMCS_GUEST_RSP, in->gpr[RSP]);
    vmwrite(VMCS_GUEST_RIP, in->rip);
    vmwrite(VMCS_GUEST_RFLAGS, in->rflags | RFLAGS_FIXED);
    vmwrite(VMCS_GUEST_CR3, in->cr3);
    vmx_write_crs(in->cr0, in->cr4, in->efer);
    for (unsigned i = 0; i < 4; i++)
        vmwrite(VMCS_GUEST_PDPTE0 + 2 * i, in->pdpte[i]);
    for (unsigned i = 0; i < SEG_COUNT; i++)
        write_segment(i, &in->segment[i]);
    vmwrite(VMCS_GUEST_GDTR_BASE, in->gdt_base);
    vmwrite(VMCS_GUEST_GDTR_LIMIT, in->gdt_limit);
    vmwrite(VMCS_GUEST_IDTR_BASE, in->idt_base);
    vmwrite(VMCS_GUEST_IDTR_LIMIT, in->idt_limit);
    vmwrite(VMCS_GUEST_DR7, in->dr7 | DR7_FIXED);

    vmwrite(VMCS_GUEST_INTERRUPTIBILITY, 0);
    vmwrite(VMCS_GUEST_PENDING_DEBUG, 0);
    vmwrite(VMCS_ENTRY_INTERRUPTION, 0);
    vmwrite(VMCS_GUEST_ACTIVITY, ACTIVITY_ACTIVE);
    if (in->halted)
        vmx_set_halted(vcpu, true);
    vmx_flush_vpid(v);
    return E_OK;
}

/* Controls and exit information that are not zero, two a line; the guest's registers are shown by
 * vm/. */
void vmx_dump(struct vcpu *vcpu, struct sink *to)
{
    static const struct {
        uint32_t field;
        const char *text;
    } fields[] = {
#define FIELD(name, encoding, words) {encoding, words},
        VMCS_FIELDS(FIELD)
#undef FIELD
    };
    struct vmx_vcpu *v = vmx_vcpu_of(vcpu);
    unsigned shown = 0;

    if (vmx_vcpu_load(v) != E_OK) {
        format(to, "VMCS: not on this CPU\n");
        return;
    }
    format(to, "VMCS at 0x%lx, VPID %u, %lu entries, %lu events delivered again\n", v->vmcs.v,
           v->vpid, vcpu->entries, v->reinjected);
    for (unsigned i = 0; i < ARRAY_SIZE(fields); i++) {
        enum vmcs_type type = vmcs_field_type(fields[i].field);
        bool wanted = type == VMCS_TYPE_CONTROL ||
                      (type == VMCS_TYPE_EXIT && fields[i].field != VMCS_INSTRUCTION_ERROR) ||
                      fields[i].field == VMCS_GUEST_INTERRUPTIBILITY ||
                      fields[i].field == VMCS_GUEST_ACTIVITY ||
                      fields[i].field == VMCS_GUEST_PENDING_DEBUG;
        uint64_t value;
        /* A field that this CPU does not have is one that was not asked for; the failure to read it
         * replaces the VM-instruction error, which is why that one is left out. */
        if (!wanted || vmcs_read(fields[i].field, &value) != E_OK || value == 0)
            continue;
        format(to, "  %-33s %16lx%s", fields[i].text, value, ++shown % 2 ? "" : "\n");
    }
    if (shown % 2)
        format(to, "\n");
}
