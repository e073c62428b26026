/*
 * VMX of the CPU that hosted tests play (model_cpu.h): VMCSs, the instructions on them, an entry
 * with the manual's checks (SDM Vol. 3, chapters 25 to 28), and the exit that a test asks for.
 * Written from the manual, not from arch/x86_64/vmx/.
 */
#ifndef QUIRE_TESTS_UNIT_MODEL_VMX_H
#define QUIRE_TESTS_UNIT_MODEL_VMX_H

#include <stdbool.h>
#include <stdint.h>

#include "arch/x86_64/vmx/vmcs_fields.h"

/* What is current is so on the CPU of model_cpu.percpu.number, below this. A VMCS that is active on
 * one of them must not be touched on another (25.11.1). */
#define MODEL_VMX_CPUS 2

/* The next exit, and what the guest has done before it. */
struct model_exit {
    uint32_t reason;
    uint64_t qualification;
    uint32_t length, interruption, interruption_code, vectoring, vectoring_code, instruction;
    uint64_t guest_physical, guest_linear;
    void (*guest)(void); /* called in between, to change fields; NULL: it does nothing */
};

struct model_vmx {
    struct model_exit next;
    unsigned entries;       /* that were made */
    uint32_t event, code;   /* what the last of them has injected; 0: nothing */
    uint32_t event_length;  /* ... of a software event */
    uint64_t pending_debug; /* as the last of them had it */
    const char *refused;    /* why the last one was not made; NULL */
    uint64_t host_rip;      /* where the last exit has gone */
    unsigned vmclears;
    uint64_t timer; /* as the last entry had it */
};
extern struct model_vmx model_vmx;

/* No VMCS is there. Fills vmx_caps with all that the controls of arch/x86_64/vmx/ may ask for. */
void model_vmx_start(void);

/* A field of the current VMCS, whatever it is: what VMREAD shows, and what a guest or an exit
 * changes. */
uint64_t field(enum vmcs_field encoding);
void set_field(enum vmcs_field encoding, uint64_t value);

/* The capability MSRs, as an Ice Lake has them. */
void model_vmx_msrs(void);

#endif
