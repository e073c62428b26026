/*
 * SVM of the CPU that hosted tests play (model_cpu.h): VMRUN with the manual's checks (APM Vol. 2,
 * 15.5.1 "Canonicalization and Consistency Checks"), what it flushes, and the exit that a test asks
 * for.
 */
#ifndef QUIRE_TESTS_UNIT_MODEL_SVM_H
#define QUIRE_TESTS_UNIT_MODEL_SVM_H

#include <stdbool.h>
#include <stdint.h>

struct vmcb;

/* The next exit, and what the guest has done before it. */
struct model_svm_exit {
    uint64_t code, info1, info2, event;
    void (*guest)(struct vmcb *vmcb); /* NULL: it does nothing */
};

struct model_svm {
    struct model_svm_exit next;
    unsigned entries;
    uint64_t event;      /* what the last of them has injected; 0: nothing */
    uint32_t interrupt;  /* the virtual interrupt, as the last of them had it */
    bool shadow;         /* it was told to begin in one, beside what the VMCB says */
    const char *refused; /* why the last one was not made; NULL */
    bool flush_by_asid;  /* the CPU has FlushByAsid */
};
extern struct model_svm model_svm;

/* What CPUID says of SVM; the MSRs that are there. */
void model_svm_start(uint32_t asids, bool nested_paging, bool flush_by_asid);

#endif
