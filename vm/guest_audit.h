/*
 * Guests for the auditor (mm/audit/audit.h): what each one's table may show, and what else it
 * holds.
 */
#ifndef QUIRE_VM_GUEST_AUDIT_H
#define QUIRE_VM_GUEST_AUDIT_H

#include "mm/audit/audit.h"
#include "vm/guest.h"

#define GUEST_AUDIT_NAME (GUEST_NAME + 16)

/* Memory, the disk as it was written, and both of its snapshot. */
#define GUEST_AUDIT_TABLES 4

/* Describes the tables that the guest has; how many. Their names for people ("g1 hello") are
 * written into `name`, which has to stay for as long as `out`. */
unsigned guest_describe(struct guest *guest, char name[][GUEST_AUDIT_NAME],
                        struct audit_table out[]);

/* Judges the guest's table by itself, if it has one, and logs what breaks a rule, or that it came
 * no further until the clock was at `deadline`. */
void guest_audit(struct guest *guest, uint64_t deadline);

#endif
