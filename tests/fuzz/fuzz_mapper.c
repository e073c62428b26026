/*
 * Sequences of operations on a table, chosen by libFuzzer, in the world of tests/property/world.h:
 * after each operation the table is what the flat model says, whatever CPUs did meanwhile.
 *
 * Input: two bytes for the world, then eight for each operation: what, where, how long, to what,
 * with which attributes and flags, and how many frames are refused first.
 */
#include <stdio.h>
#include <stdlib.h>
#include <stdarg.h>

#include "lib/lock.h"
#include "lib/panic.h"
#include "tests/property/world.h"

#define MOST_OPERATIONS 24

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

_Noreturn void world_fail(const char *message)
{
    fprintf(stderr, "fuzz: %s\n", message);
    abort();
}

_Noreturn void panic(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    abort();
}

static struct attrs attrs_by(uint8_t byte)
{
    static const uint8_t types[] = {MEM_WB, MEM_UC, MEM_WT, MEM_WC};
    static const uint8_t rights[] = {RIGHT_R, RIGHT_RW, RIGHT_RX, RIGHT_RWX};
    const struct table_caps *caps = &w.table.caps;
    unsigned chosen = rights[byte & 3];
    enum mem_type type = (enum mem_type)types[byte >> 2 & 3];

    if (!caps->nx)
        chosen |= RIGHT_X;
    if (w.land->kind->id == KIND_USER && (byte & 16))
        chosen |= RIGHT_U;
    if (w.land->kind->id == KIND_KERNEL && caps->global && (byte & 32))
        chosen |= RIGHT_G;
    if (w.land->kind->id == KIND_EPT && caps->execute_only && (byte & 64))
        chosen = RIGHT_X;
    return attrs_of(chosen, type);
}

static void start(uint8_t land, uint8_t cpu)
{
    struct table_caps caps = world_caps(lands[land % LANDS].format);

    caps.leaf_top = cpu & 1 ? 2 : 3;
    if (lands[land % LANDS].format == SDM_EPT) {
        caps.accessed_dirty = !(cpu & 2);
        caps.execute_only = !(cpu & 4);
    } else {
        caps.nx = !(cpu & 2);
        caps.global = !(cpu & 4);
    }
    locks_needed = cpu & 8;
    world_start(&lands[land % LANDS], cpu & 16 ? 2 * MiB : PAGE_SIZE, &caps, 1 + (cpu >> 5));
    if (lands[land % LANDS].kind->id == KIND_KERNEL && (land & 128) &&
        table_preallocate(&w.table) != E_OK)
        abort();
}

static struct world_call call_by(const uint8_t *bytes)
{
    struct world_call call = {
        /* The cursor came last: inputs that were kept before go on meaning what they did. */
        .op = bytes[0] < 220 ? (enum world_op)(bytes[0] % OP_CURSOR) : OP_CURSOR,
        .first = (unsigned)(bytes[1] | bytes[2] << 8) % CELLS,
        .count = 1 + bytes[3] * (bytes[2] & 0x80 ? 8u : 1u),
        .attrs = attrs_by(bytes[5]),
        .flags = bytes[6],
        .refuse = bytes[7] % 8,
    };

    if (bytes[2] & 0x40) { /* a whole block */
        call.first = bytes[1] & 1 ? 64 : 64 + 512;
        call.count = 512;
    }
    if (call.first + call.count > CELLS)
        call.count = CELLS - call.first;
    call.out = bytes[4] & 1 ? (w.base + call.first * w.unit) & BITS(34, 12) : bytes[4] * w.unit;
    world_tame(&call);
    return call;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 10)
        return 0;
    start(data[0], data[1]);
    unsigned operations = 0;
    for (size_t at = 2; at + 8 <= size && operations < MOST_OPERATIONS; at += 8, operations++) {
        struct world_call call = call_by(data + at);

        world_fill_caches();
        world_run(&call);
    }
    world_end();
    return 0;
}
