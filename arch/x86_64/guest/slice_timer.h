/*
 * The end of a time slice on a CPU without the VMX-preemption timer: the local APIC's timer, whose
 * interrupt is an exit whatever the guest's RFLAGS.IF is (26.2 "Other causes of VM exits").
 */
#ifndef QUIRE_ARCH_GUEST_SLICE_TIMER_H
#define QUIRE_ARCH_GUEST_SLICE_TIMER_H

#include <stdint.h>

/* Measures the timer against the TSC, once for the machine. lapic_enable() first. E_HARDWARE when
 * it does not run. */
int slice_timer_init(void);

/* One interrupt after about this many TSC ticks; slice_timer_stop() after the exit. */
void slice_timer_start(uint64_t tsc_ticks);
/* And again each time that as many have passed, should the first have been lost. SLICE_SHORTEST at
 * least: a shorter one would come again before the guest has run. */
#define SLICE_SHORTEST 65536
void slice_timer_repeat(uint64_t tsc_ticks);
/* The interrupt at once, for a slice that is over before it begins. NMIs must not come between:
 * they send too. */
void slice_timer_end_now(void);
void slice_timer_stop(void);

#endif
