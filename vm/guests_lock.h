/*
 * The guests' lock, around everything in vm/ and monitor/ (vm/sched.h). A vCPU knows it by
 * struct vcpu's `lock`: the backend drops it for as long as guest code runs.
 */
#ifndef QUIRE_VM_GUESTS_LOCK_H
#define QUIRE_VM_GUESTS_LOCK_H

#include "lib/lock.h"

extern struct wide_lock guests_lock;

#endif
