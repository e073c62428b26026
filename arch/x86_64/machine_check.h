/*
 * Machine checks: what the CPU's banks say of one. SDM Vol. 3, chapter 16 "Machine-Check
 * Architecture"; APM Vol. 2, chapter 9, which agrees in all that is read here.
 */
#ifndef QUIRE_ARCH_MACHINE_CHECK_H
#define QUIRE_ARCH_MACHINE_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct machine_check {
    bool found; /* a bank has an error: */
    unsigned bank;
    uint64_t status, address; /* address: 0 where the bank has none */
    unsigned others;          /* banks with errors besides */
    bool corrupt;             /* one says that the CPU's state cannot be relied on (PCC) */
    uint64_t global;          /* IA32_MCG_STATUS */
};

/* Gathers what `banks` banks say: the first error that is not corrected, else the first. `read`
 * gives an MSR's value. */
void machine_check_gather(struct machine_check *out, unsigned banks,
                          uint64_t (*read)(uint32_t msr));

/* Gathers what this CPU's banks say, clears them, and ends the machine check (MCIP), so that the
 * next one does not shut the machine down. Without the architecture: nothing was found. */
void machine_check_take(struct machine_check *out);

/* "bank 4, status 0x..., address 0x...": for people. Returns `text`. */
#define MACHINE_CHECK_TEXT 128
const char *machine_check_text(char text[MACHINE_CHECK_TEXT], const struct machine_check *check);

#endif
