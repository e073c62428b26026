/* See keep.h. The XSAVE area: SDM Vol. 1, 13.4 "XSAVE area"; its MXCSR: 11.6.6. */
#include "arch/x86_64/guest/keep.h"

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/guest/legal.h"
#include "arch/x86_64/mm/operand.h"
#include "lib/error.h"
#include "lib/string.h"

#define MXCSR_AT 24
#define MXCSR_MASK_AT 28
#define MXCSR_MASK_DEFAULT 0xffbf
#define HEADER_AT 512
#define HEADER_SIZE 64

int resident_keep(struct resident *v, struct vcpu_rest *out)
{
    uint64_t size = PAGE_SIZE << resident_fpu_order;

    if (size > VCPU_FPU_MOST)
        return E_UNSUPPORTED;
    resident_drop(v);
    out->star = v->msr[SHARED_STAR];
    out->lstar = v->msr[SHARED_LSTAR];
    out->cstar = v->msr[SHARED_CSTAR];
    out->fmask = v->msr[SHARED_FMASK];
    out->kernel_gs_base = v->msr[SHARED_KERNEL_GS_BASE];
    out->xcr0 = v->xcr0;
    memcpy(out->dr, v->dr, sizeof(out->dr));
    out->dr6 = v->dr6;
    out->fpu_size = (uint32_t)size;
    memcpy(out->fpu, v->fpu, size);
    return E_OK;
}

static uint32_t word_at(const uint8_t *area, unsigned at)
{
    uint32_t value;

    memcpy(&value, area + at, sizeof(value));
    return value;
}

/* XRSTOR faults on reserved bits of MXCSR and on a header that is not of the standard form with
 * components that XCR0 has (SDM Vol. 1, 13.8). */
static bool area_is_legal(const struct resident *v, const struct vcpu_rest *in)
{
    uint32_t mask = word_at(v->fpu, MXCSR_MASK_AT);
    uint64_t components;

    if (in->fpu_size != PAGE_SIZE << resident_fpu_order)
        return false;
    if (word_at(in->fpu, MXCSR_AT) & ~(mask != 0 ? mask : MXCSR_MASK_DEFAULT))
        return false;
    if (resident_xcr0 == 0)
        return true;
    memcpy(&components, in->fpu + HEADER_AT, sizeof(components));
    for (unsigned i = sizeof(components); i < HEADER_SIZE; i++)
        if (in->fpu[HEADER_AT + i] != 0)
            return false;
    return (components & ~resident_xcr0) == 0;
}

int resident_take(struct resident *v, const struct vcpu_rest *in)
{
    if (resident_xcr0 != 0 && !xcr0_legal(in->xcr0, resident_xcr0))
        return E_UNSUPPORTED;
    if (!linear_is_canonical(in->lstar) || !linear_is_canonical(in->cstar) ||
        !linear_is_canonical(in->kernel_gs_base) || in->fmask >> 32 != 0 || in->dr6 >> 32 != 0)
        return E_ILLEGAL;
    resident_drop(v);
    if (!area_is_legal(v, in))
        return E_ILLEGAL;
    v->msr[SHARED_STAR] = in->star;
    v->msr[SHARED_LSTAR] = in->lstar;
    v->msr[SHARED_CSTAR] = in->cstar;
    v->msr[SHARED_FMASK] = in->fmask;
    v->msr[SHARED_KERNEL_GS_BASE] = in->kernel_gs_base;
    if (resident_xcr0 != 0)
        v->xcr0 = in->xcr0;
    memcpy(v->dr, in->dr, sizeof(v->dr));
    v->dr6 = in->dr6;
    memcpy(v->fpu, in->fpu, in->fpu_size);
    return E_OK;
}
