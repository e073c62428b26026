/*
 * What RDMSR and WRMSR do in a guest, for the registers that the backend neither passes through
 * nor keeps in the guest's own state. A register that is not in the table raises #GP, as on a
 * CPU that does not have it; none of them ever reaches the host's.
 */
#ifndef QUIRE_VM_MSR_H
#define QUIRE_VM_MSR_H

#include <stdbool.h>
#include <stdint.h>

enum msr_read { MSR_READ_FAULT, MSR_READ_VALUE, MSR_READ_CLOCK };
enum msr_write {
    MSR_WRITE_FAULT,
    MSR_WRITE_IGNORE,
    MSR_WRITE_SAME, /* only the value that it reads as; anything else faults */
};

struct msr_policy {
    uint32_t first, last; /* inclusive */
    enum msr_read read;
    enum msr_write write;
    uint64_t value;
    const char *name;
};

/* On this CPU. NULL: no such register. */
const struct msr_policy *msr_policy_of(uint32_t index);

#endif
