/* Exits by accesses to control registers, and by XSETBV. See exits.h; SDM Vol. 3, 26.1.3. */
#include "arch/x86_64/mm/tlb.h"
#include "arch/x86_64/vmx/exits.h"

#include "arch/x86_64/mm/guest_memory.h"
#include "arch/x86_64/vmx/state.h"
#include "arch/x86_64/vmx/vpid.h"
#include "mm/paging/typed.h"

/* ---- General registers --------------------------------------------------------------------- */

uint64_t vmx_get_gpr(const struct vmx_vcpu *v, unsigned gpr)
{
    uint64_t value = gpr == RSP ? vmread(VMCS_GUEST_RSP) : v->vcpu.gpr[gpr];
    return vmx_in_64bit_mode() ? value : value & UINT32_MAX;
}

void vmx_set_gpr(struct vmx_vcpu *v, unsigned gpr, uint64_t value)
{
    if (!vmx_in_64bit_mode())
        value &= UINT32_MAX;
    if (gpr == RSP)
        vmwrite(VMCS_GUEST_RSP, value);
    else
        v->vcpu.gpr[gpr] = value;
}

/* ---- Control registers --------------------------------------------------------------------- */

static struct cr_context cr_context(void)
{
    uint64_t tr = vmread(VMCS_GUEST_TR_ACCESS) & ACCESS_TYPE;
    return (struct cr_context){
        .cr0 = vmx_guest_cr0(),
        .cr3 = vmread(VMCS_GUEST_CR3),
        .cr4 = vmx_guest_cr4(),
        .efer = vmread(VMCS_GUEST_EFER),
        .cs_long = (vmread(VMCS_GUEST_CS_ACCESS) & ACCESS_LONG) != 0,
        .tr_16bit = tr == TSS_TYPE_BUSY_16,
    };
}

/* The bits a change of which makes MOV to CR invalidate translations (SDM Vol. 3, 4.10.4.1). */
#define CR0_TRANSLATION (CR0_PG | CR0_WP)
#define CR4_TRANSLATION (CR4_PSE | CR4_PAE | CR4_PGE | CR4_PCIDE | CR4_SMEP | CR4_SMAP)

/* Loads the PDPTEs that `cr3` points at into the VMCS. False: the exit has been told, as the CPU
 * tells it when the memory is missing, or #GP raised for a reserved bit. */
static bool load_pdptes(struct vmx_vcpu *v, uint64_t cr3, struct vm_exit *exit)
{
    struct guest_view view = {.table = v->table};
    uint64_t pdpte[4];
    gpa_t at = gpa(cr3 & BITS(31, 5));

    /* A load of PDPTEs is a read, whatever a walk counts as (29.3.5). */
    (void)guest_memory_mark(&view, at, false);
    if (gpa_read(v->table, at, RIGHT_R, pdpte, sizeof(pdpte)) != sizeof(pdpte)) {
        struct mapping page; /* all four PDPTEs lie in one */

        exit->kind = VM_EXIT_MEMORY;
        exit->memory.gpa = at;
        exit->memory.gva_valid = false;
        exit->memory.walk = true;
        exit->memory.access = RIGHT_R;
        exit->memory.allowed =
            gpa_translate(v->table, at, &page) == E_OK ? page.attrs.rights : RIGHT_NONE;
        exit->name = "load of PDPTEs";
        exit->qualification = exit->memory.access | exit->memory.allowed << 3;
        return false;
    }
    for (unsigned i = 0; i < 4; i++) {
        if (!pdpte_legal(pdpte[i], cpu_features.maxphyaddr)) {
            general_protection(v, exit);
            return false;
        }
    }
    for (unsigned i = 0; i < 4; i++)
        vmwrite(VMCS_GUEST_PDPTE0 + 2 * i, pdpte[i]);
    return true;
}

/* A change of CR0 or CR4 that has been found legal. */
static void change_crs(struct vmx_vcpu *v, const struct cr_context *now, uint64_t cr0, uint64_t cr4,
                       struct vm_exit *exit)
{
    bool lma = (now->efer & EFER_LME) && (cr0 & CR0_PG);

    if (pdptes_reload(now, cr0, cr4, lma) && !load_pdptes(v, now->cr3, exit))
        return;
    vmx_write_crs(cr0, cr4, now->efer);
    if (((now->cr0 ^ cr0) & CR0_TRANSLATION) || ((now->cr4 ^ cr4) & CR4_TRANSLATION))
        vpid_flush(v->vpid);
    emulated(v, exit);
}

static void write_cr0_of(struct vmx_vcpu *v, uint64_t value, struct vm_exit *exit)
{
    struct cr_context now = cr_context();

    if (cr0_refusal(&now, value))
        general_protection(v, exit);
    else
        change_crs(v, &now, value, now.cr4, exit);
}

static void write_cr4_of(struct vmx_vcpu *v, uint64_t value, struct vm_exit *exit)
{
    struct cr_context now = cr_context();

    if (cr4_refusal(&now, value, vmx_policy.guest_cr4))
        general_protection(v, exit);
    else
        change_crs(v, &now, now.cr0, value, exit);
}

bool vmx_load_cr3(struct vmx_vcpu *v, uint64_t value, struct vm_exit *exit)
{
    struct cr_context now = cr_context();
    bool pae = (now.cr0 & CR0_PG) && (now.cr4 & CR4_PAE) && !(now.efer & EFER_LMA);
    bool keep = (now.cr4 & CR4_PCIDE) && (value & CR3_KEEP);

    if (now.cr4 & CR4_PCIDE)
        value &= ~CR3_KEEP;
    if (!cr3_legal(value, cpu_features.maxphyaddr, cpu_features.lam)) {
        general_protection(v, exit);
        return false;
    }
    if (pae && !load_pdptes(v, value, exit))
        return false;
    vmwrite(VMCS_GUEST_CR3, value);
    if (!keep && v->vpid) {
        tlb_count()->guest_tag++;
        invariant(invvpid(INVVPID_KEEP_GLOBALS, v->vpid, 0) == E_OK);
    }
    return true;
}

/* Only on a CPU that insists on these exits (its TRUE controls are missing). */
static void write_cr3_of(struct vmx_vcpu *v, uint64_t value, struct vm_exit *exit)
{
    if (vmx_load_cr3(v, value, exit))
        emulated(v, exit);
}

static void write_cr8_of(struct vmx_vcpu *v, uint64_t value, struct vm_exit *exit)
{
    if (value & ~UINT64_C(0xf)) {
        general_protection(v, exit);
        return;
    }
    v->vcpu.cr8 = (uint8_t)value;
    emulated(v, exit);
}

static void mov_to_cr(struct vmx_vcpu *v, const struct cr_access *access, struct vm_exit *exit)
{
    uint64_t value = vmx_get_gpr(v, access->gpr);

    switch (access->cr) {
    case 0:
        write_cr0_of(v, value, exit);
        return;
    case 3:
        write_cr3_of(v, value, exit);
        return;
    case 4:
        write_cr4_of(v, value, exit);
        return;
    case 8:
        write_cr8_of(v, value, exit);
        return;
    }
    undefined_opcode(v, exit);
}

static void mov_from_cr(struct vmx_vcpu *v, const struct cr_access *access, struct vm_exit *exit)
{
    if (access->cr != 3 && access->cr != 8) {
        undefined_opcode(v, exit); /* reads of the others never exit */
        return;
    }
    vmx_set_gpr(v, access->gpr, access->cr == 3 ? vmread(VMCS_GUEST_CR3) : v->vcpu.cr8);
    emulated(v, exit);
}

void vmx_cr_access_exit(struct vmx_vcpu *v, struct vm_exit *exit)
{
    struct cr_access access = cr_access_decode(exit->qualification);
    uint64_t cr0 = vmx_guest_cr0();
    uint64_t low = CR0_MP | CR0_EM | CR0_TS;

    switch (access.kind) {
    case CR_ACCESS_MOV_TO:
        mov_to_cr(v, &access, exit);
        return;
    case CR_ACCESS_MOV_FROM:
        mov_from_cr(v, &access, exit);
        return;
    case CR_ACCESS_CLTS:
        write_cr0_of(v, cr0 & ~CR0_TS, exit);
        return;
    case CR_ACCESS_LMSW: /* sets PE, never clears it */
        write_cr0_of(v, (cr0 & ~low) | (access.source & (low | CR0_PE)), exit);
        return;
    }
}

void vmx_xsetbv_exit(struct vmx_vcpu *v, struct vm_exit *exit)
{
    uint64_t value = (v->vcpu.gpr[RDX] & UINT32_MAX) << 32 | (v->vcpu.gpr[RAX] & UINT32_MAX);

    /* Privilege and CR4.OSXSAVE were judged before the exit. */
    if ((uint32_t)v->vcpu.gpr[RCX] != 0 || !xcr0_legal(value, resident_xcr0)) {
        general_protection(v, exit);
        return;
    }
    v->resident.xcr0 = value;
    xsetbv(0, value); /* the vCPU is resident: this is its XCR0 */
    emulated(v, exit);
}
