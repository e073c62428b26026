/*
 * The whole machine for the auditor (mm/audit/audit.h): the hypervisor's table with its guard pages
 * and CR3, and the table of every guest with its root register. Ring-3 programs have none while the
 * console runs.
 */
#ifndef QUIRE_MONITOR_MACHINE_AUDIT_H
#define QUIRE_MONITOR_MACHINE_AUDIT_H

#include "mm/audit/audit.h"

/* Judges the machine by every rule, for a command that a key may stop, or to the end. Returns
 * and reports as audit_run(); *tables receives how many tables there are. */
int machine_audit(bool by_key, audit_report_fn report, void *ctx, struct audit_totals *totals,
                  unsigned *tables);

/* The same with the findings, or that there are none, in the log. */
void machine_audit_log(void);

#endif
