/*
 * Exit codes in words.
 */
#ifndef QUIRE_ARCH_SVM_NAMES_H
#define QUIRE_ARCH_SVM_NAMES_H

#include <stdbool.h>
#include <stdint.h>

const char *svm_exit_name(uint64_t code);

/* An instruction that CPUID does not offer to guests. */
bool svm_exit_undefined(uint64_t code);

#endif
