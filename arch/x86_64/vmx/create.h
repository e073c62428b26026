/*
 * How a virtual CPU comes to be, and its end.
 */
#ifndef QUIRE_ARCH_VMX_CREATE_H
#define QUIRE_ARCH_VMX_CREATE_H

#include "arch/x86_64/vmx/vcpu.h"

/* Once, before the first of them: their structures are small objects (mm/frames/slab.h). */
void vmx_vcpus_init(void);

int vmx_vcpu_create(struct guest *guest, struct table *table, owner_t owner, struct vcpu **out);
void vmx_vcpu_destroy(struct vcpu *vcpu);

#endif
