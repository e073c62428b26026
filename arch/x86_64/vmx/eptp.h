/*
 * The root register of EPT tables: the EPTP field of the current VMCS. What its bits mean is the
 * kind's (arch/x86_64/mm/ept.h).
 */
#ifndef QUIRE_ARCH_VMX_EPTP_H
#define QUIRE_ARCH_VMX_EPTP_H

#include "arch/x86_64/mm/ept.h"

/* The EPTP of the current VMCS, by VMREAD, decoded. E_STATE when there is no current VMCS. */
int ept_root_current(struct eptp *out);

/* Makes `table` the second-level table of the current VMCS, by VMWRITE. E_STATE as above, E_INVAL
 * when the table is of another kind. */
int ept_root_set(const struct table *table);

#endif
