/*
 * AMD-V with nested paging as a backend for guests (vm/backend.h): whether this machine can, and
 * switching it on.
 */
#ifndef QUIRE_ARCH_SVM_SVM_H
#define QUIRE_ARCH_SVM_SVM_H

#include "lib/format.h"
#include "vm/backend.h"

/* As vmx_init(): E_OK and the backend, or why guests cannot run, in one sentence. */
int svm_init(const struct vm_backend **backend, const char **why_not);

/* SVM on the CPU that runs this, svm_init() having succeeded on the first one, which waits: a
 * cpu_enable_fn (arch/x86_64/cpus.h). */
int svm_enable_cpu(char *why_not);

/* For the console. */
void svm_show(struct sink *to);

extern const struct vm_backend svm_backend;

#endif
