/*
 * Why the CPU did not enter a guest: VMfail (the controls or the host state are wrong, 27.2) or a
 * failed entry (the guest state is, 27.8), each told in words as far as can be told.
 */
#include "arch/x86_64/vmx/entry_check.h"
#include "arch/x86_64/vmx/exits.h"
#include "arch/x86_64/vmx/names.h"

/* Names the first setting that the CPU's capability MSRs do not allow, which the number of VMfail
 * does not. Empty when all of them are allowed. */
static void name_wrong_control(char *text, size_t size)
{
    text[0] = '\0';
    for (enum control_word word = 0; word < CONTROLS_COUNT; word++) {
        uint64_t allowed = vmx_caps.control[word];
        uint32_t value = (uint32_t)vmread(vmcs_control_field[word]);
        uint32_t wrong = ((uint32_t)allowed & ~value) | (value & ~(uint32_t)(allowed >> 32));
        if (wrong) {
            unsigned bit = lowest_bit(wrong);
            format_buffer(text, size, ": the %s control \"%s\" must not be %u",
                          control_word_name(word), control_name(word, bit), value >> bit & 1);
            return;
        }
    }
}

void vmx_explain_fail(struct vmx_vcpu *v, enum vmx_enter outcome, struct vm_exit *exit)
{
    char control[100], event[40] = "";

    exit->kind = VM_EXIT_BAD_STATE;
    exit->name = "VMfailInvalid: no VMCS is current";
    if (outcome == VMX_FAIL_INVALID)
        return;
    uint32_t error = (uint32_t)vmread(VMCS_INSTRUCTION_ERROR);
    uint32_t info = (uint32_t)vmread(VMCS_ENTRY_INTERRUPTION);
    exit->raw = error;
    exit->bad.error = error;
    exit->rip = vmread(VMCS_GUEST_RIP);
    name_wrong_control(control, sizeof(control));
    if (info & INTERRUPTION_VALID)
        format_buffer(event, sizeof(event), ", with event 0x%x to inject", info);
    format_buffer(v->failure, sizeof(v->failure), "%s%s%s", vm_instruction_error_name(error),
                  control, event);
    exit->name = v->failure;
}

static void read_entry_state(struct entry_state *s)
{
    *s = (struct entry_state){
        .cr0 = vmread(VMCS_GUEST_CR0),
        .cr3 = vmread(VMCS_GUEST_CR3),
        .cr4 = vmread(VMCS_GUEST_CR4),
        .efer = vmread(VMCS_GUEST_EFER),
        .dr7 = vmread(VMCS_GUEST_DR7),
        .pat = vmread(VMCS_GUEST_PAT),
        .debugctl = vmread(VMCS_GUEST_DEBUGCTL),
        .rip = vmread(VMCS_GUEST_RIP),
        .rflags = vmread(VMCS_GUEST_RFLAGS),
        .sysenter_esp = vmread(VMCS_GUEST_SYSENTER_ESP),
        .sysenter_eip = vmread(VMCS_GUEST_SYSENTER_EIP),
        .gdt_base = vmread(VMCS_GUEST_GDTR_BASE),
        .idt_base = vmread(VMCS_GUEST_IDTR_BASE),
        .gdt_limit = (uint32_t)vmread(VMCS_GUEST_GDTR_LIMIT),
        .idt_limit = (uint32_t)vmread(VMCS_GUEST_IDTR_LIMIT),
        .activity = (uint32_t)vmread(VMCS_GUEST_ACTIVITY),
        .interruptibility = (uint32_t)vmread(VMCS_GUEST_INTERRUPTIBILITY),
        .pending_debug = vmread(VMCS_GUEST_PENDING_DEBUG),
        .link_pointer = vmread(VMCS_LINK_POINTER),
        .entry_controls = (uint32_t)vmread(VMCS_ENTRY_CONTROLS),
        .event = (uint32_t)vmread(VMCS_ENTRY_INTERRUPTION),
        .unrestricted = true,
        .virtual_nmis = vmx_virtual_nmis(),
        .cr0_fixed = vmx_caps.cr0,
        .cr4_fixed = vmx_caps.cr4,
        .maxphyaddr = cpu_features.maxphyaddr,
        .linear_bits = cpu_features.linear_bits,
        .lam = cpu_features.lam,
    };
    for (unsigned i = 0; i < 4; i++)
        s->pdpte[i] = vmread(VMCS_GUEST_PDPTE0 + 2 * i);
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        unsigned offset = i * VMCS_SEGMENT_STRIDE;
        s->segment[i].base = vmread(VMCS_GUEST_ES_BASE + offset);
        s->segment[i].limit = (uint32_t)vmread(VMCS_GUEST_ES_LIMIT + offset);
        s->segment[i].access = (uint32_t)vmread(VMCS_GUEST_ES_ACCESS + offset);
        s->segment[i].selector = (uint16_t)vmread(VMCS_GUEST_ES_SELECTOR + offset);
    }
}

/* The fields of the guest state are as they were written: a failed entry saves nothing (27.8). */
void vmx_explain_entry(struct vmx_vcpu *v, uint32_t reason, struct vm_exit *exit)
{
    unsigned basic = (unsigned)(reason & EXIT_REASON_BASIC);
    const char *rule = NULL;

    exit->kind = VM_EXIT_BAD_STATE;
    exit->raw = reason;
    exit->qualification = vmread(VMCS_EXIT_QUALIFICATION);
    exit->rip = vmread(VMCS_GUEST_RIP);
    exit->bad.error = basic;
    if (basic == EXIT_ENTRY_GUEST_STATE) {
        struct entry_state state;
        read_entry_state(&state);
        rule = entry_state_rule(&state);
        if (!rule && exit->qualification)
            rule = entry_failure_name(exit->qualification);
    }
    format_buffer(v->failure, sizeof(v->failure), "%s%s%s", exit_reason_name(basic),
                  rule ? ": " : "", rule ? rule : "");
    exit->name = v->failure;
}
