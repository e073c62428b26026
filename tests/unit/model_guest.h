/*
 * A guest for hosted tests of the backends: a small physical memory with the real buddy on it, a
 * second-level table that maps the guest's first megabyte to it, and a vCPU, on the CPU of
 * model_cpu.h.
 */
#ifndef QUIRE_TESTS_UNIT_MODEL_GUEST_H
#define QUIRE_TESTS_UNIT_MODEL_GUEST_H

#include "mm/paging/table.h"
#include "vm/backend.h"

#define GUEST_OWNER 9
#define GUEST_BYTES (UINT64_C(1) << 20)

struct model_guest {
    const struct vm_backend *backend;
    struct table table;
    struct vcpu *vcpu;
    uint8_t *bytes; /* the guest's memory */
    struct vm_exit exit;
};
extern struct model_guest g;

/* A memory and a CPU, with no backend yet. */
void model_machine_start(void);
void model_machine_stop(void);

/* The guest of that backend, in real mode. */
void model_guest_start(const struct vm_backend *backend);
/* One more vCPU, which shares the table. E_* as the backend says it. */
int model_guest_add(struct vcpu **out);
void model_guest_stop(void);

/* What is free of memory. */
uint64_t model_free_frames(void);

/* Its state is read, changed and set. */
struct vcpu_state model_state(void);
void model_set(const struct vcpu_state *state);

/* 64-bit code in ring 0 with paging, at `rip`: linear addresses of the first megabyte are physical
 * ones. 32-bit code in ring 0 without paging. */
struct vcpu_state model_long_mode(uint64_t rip);
struct vcpu_state model_flat_mode(uint32_t rip);

/* Runs until the exit that the model has in store; the test fails when it is refused. */
void model_run(void);

#endif
