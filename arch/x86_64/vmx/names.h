/*
 * What the numbers of VMX are called in the manual.
 */
#ifndef QUIRE_ARCH_VMX_NAMES_H
#define QUIRE_ARCH_VMX_NAMES_H

#include "arch/x86_64/vmx/controls.h"

const char *control_word_name(enum control_word word); /* "pin-based" */
/* The manual's name of one control, "control N" for one that this file does not know. */
const char *control_name(enum control_word word, unsigned bit);
bool control_is_named(enum control_word word, unsigned bit);

/* "EPT violation"; "exit reason without a name" for a number that the manual leaves open. */
const char *exit_reason_name(unsigned basic);
/* VM-instruction error numbers (31.4). */
const char *vm_instruction_error_name(uint32_t error);
/* The qualification of a VM-entry failure by invalid guest state (27.8). */
const char *entry_failure_name(uint64_t qualification);

#endif
