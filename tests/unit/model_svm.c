/* See model_svm.h. */
#define MODEL_ITSELF
#include "tests/unit/model_svm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "arch/x86_64/svm/vcpu.h"
#include "tests/unit/model_cpu.h"
#include "tests/unit/model_tlb.h"

#define refuse_if(condition, why)                                                                  \
    do {                                                                                           \
        if (condition)                                                                             \
            return why;                                                                            \
    } while (0)

struct model_svm model_svm;
const char kernel_text[1], kernel_text_end[1]; /* the host's own instructions: none */

void model_svm_start(uint32_t asids, bool nested_paging, bool flush_by_asid)
{
    uint32_t leaf[4] = {1, asids, 0, (nested_paging ? 1u : 0) | (flush_by_asid ? 0x40u : 0)};

    memset(&model_svm, 0, sizeof(model_svm));
    model_svm.flush_by_asid = flush_by_asid;
    model_set_cpuid(0x8000000a, leaf);
    *model_msr(0xc0010114) = 0; /* VM_CR */
    *model_msr(0xc0010117) = 0; /* VM_HSAVE_PA */
}

static bool wide(uint64_t value)
{
    return (value >> 32) != 0;
}

/* 15.20: the event must be one that exists, and has an error code exactly if the CPU pushes one. */
static const char *event_rule(const struct vmcb *v)
{
    unsigned type = (unsigned)(v->event >> 8 & 7), vector = (unsigned)(v->event & 0xff);
    bool protected = v->cr0 & CR0_PE, code = v->event >> 11 & 1;
    bool has_code = vector == 8 || (vector >= 10 && vector <= 14) || vector == 17;

    refuse_if(!(v->event >> 31 & 1), NULL);
    refuse_if(type == 1 || type > 4, "event: a type that is reserved");
    refuse_if(type == 3 && (vector == 2 || vector > 31), "event: no exception");
    refuse_if(code != (type == 3 && has_code && protected), "event: an error code, or none");
    refuse_if((type == 0 || type == 2) && (v->shadow & 1), "event: in a shadow");
    refuse_if(type == 0 && !(v->rflags & RFLAGS_IF), "event: an interrupt while IF is 0");
    return NULL;
}

static const char *rule(const struct vmcb *v)
{
    bool pg = v->cr0 & CR0_PG, pae = v->cr4 & CR4_PAE;

    refuse_if(!(*model_msr(IA32_EFER) & EFER_SVME), "#UD: EFER.SVME of the host");
    refuse_if(!(v->efer & EFER_SVME), "EFER.SVME");
    refuse_if(v->efer & ~UINT64_C(0x1d01), "EFER: a reserved bit");
    refuse_if((v->cr0 & CR0_NW) && !(v->cr0 & CR0_CD), "CR0.NW without CD");
    refuse_if(wide(v->cr0), "CR0");
    refuse_if(v->cr3 & BITS(63, cpu_features.maxphyaddr), "CR3");
    refuse_if(v->cr4 & (CR4_VMXE | CR4_SMXE | BITS(63, 25)), "CR4");
    refuse_if(wide(v->dr6) || wide(v->dr7), "DR6 or DR7");
    refuse_if((v->efer & EFER_LME) && pg && !pae, "long mode without PAE");
    refuse_if((v->efer & EFER_LME) && pg && !(v->cr0 & CR0_PE), "long mode without PE");
    refuse_if((v->efer & EFER_LME) && pg && pae && (v->cs.attributes & 0x200) &&
                  (v->cs.attributes & 0x400),
              "CS has L and D");
    refuse_if(!(v->intercept2 & 1), "VMRUN is not intercepted");
    refuse_if(v->asid == 0, "ASID 0");
    refuse_if(!(v->nested & 1) || (v->ncr3 & 0xfe7) || (v->ncr3 >> cpu_features.maxphyaddr),
              "nCR3");
    refuse_if((v->iopm & 0xfff) || (v->msrpm & 0xfff), "a permission map's address");
    return event_rule(v);
}

void svm_enter(uint64_t gpr[GPR_COUNT], uint64_t guest, uint64_t host, bool shadow)
{
    struct vmcb *v = direct(hpa(guest));

    (void)gpr;
    assert_true(host && !(host & 0xfff));
    assert_int_not_equal(*model_msr(0xc0010117), 0);
    model_svm.refused = rule(v);
    if (model_svm.refused) {
        v->exit_code = SVM_EXIT_INVALID;
        return;
    }
    tlb_vmrun((uint16_t)v->asid, v->tlb_control, model_svm.flush_by_asid);
    model_svm.entries++;
    model_svm.event = v->event & EVENT_VALID ? v->event : 0;
    model_svm.interrupt = v->interrupt;
    model_svm.shadow = shadow;
    v->event &= ~EVENT_VALID;
    v->exit_code = model_svm.next.code;
    v->exit_info1 = model_svm.next.info1;
    v->exit_info2 = model_svm.next.info2;
    v->exit_event = model_svm.next.event;
    if (model_svm.next.guest)
        model_svm.next.guest(v);
}
