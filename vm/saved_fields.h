/*
 * The fields of a saved guest's sections: one description each, for the way out and the way back.
 */
#ifndef QUIRE_VM_SAVED_FIELDS_H
#define QUIRE_VM_SAVED_FIELDS_H

#include "vm/saved.h"

/* Bytes that fields are put to, or taken from. `failed`: there were too few, or one had a value
 * that it cannot have. */
struct saved_stream {
    uint8_t *to;         /* NULL: taken */
    const uint8_t *from; /* NULL: put */
    uint64_t left;
    bool failed;
};

/* Of a section: `cpu` is whose it is, where it is a CPU's. */
typedef void (*saved_fields_fn)(struct saved_stream *stream, struct saved *saved, unsigned cpu);

void saved_guest_fields(struct saved_stream *stream, struct saved *saved, unsigned cpu);
void saved_slots_fields(struct saved_stream *stream, struct saved *saved, unsigned cpu);
void saved_cpu_fields(struct saved_stream *stream, struct saved *saved, unsigned cpu);
void saved_other_cpu_fields(struct saved_stream *stream, struct saved *saved, unsigned cpu);

/* A number of 4 bytes, little-endian, as all numbers are. */
void saved_number(struct saved_stream *stream, uint32_t *value);

#endif
