/*
 * Images of guests, well formed or not: the input is an image of any format. Refused with a reason,
 * or loaded: then all that was placed lies in the guest's memory, no two parts on each other, and
 * the CPU begins within it.
 *
 * Input: how it is started, and with what (one byte, below), then the image.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/bits.h"
#include "lib/error.h"
#include "vm/load_parts.h"

#define MEMORY (4 * MiB)
#define MODULE 5000

/* The first byte. */
#define HOW 3 /* enum load_as */
#define A_PC 4
#define WITH_MODULES 8
#define WITH_ACPI 16
#define LITTLE_MEMORY 32

#define must(condition)                                                                            \
    ((condition) ? (void)0                                                                         \
                 : (fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition), abort()))

static uint8_t memory[MEMORY];
static const uint8_t content[MODULE];
static const struct loader *current;

static bool is_memory(uint64_t first, uint64_t last)
{
    for (unsigned i = 0; i < current->regions && first <= last; i++) {
        const struct load_region *region = &current->region[i];
        if (first >= region->base && first - region->base < region->size)
            first = region->base + region->size;
    }
    return first > last;
}

/* Loaders place only what they have found to be memory. */
static int place(void *ctx, uint64_t at, const void *from, uint64_t size)
{
    (void)ctx;
    must(size == 0 || (at + size > at && is_memory(at, at + size - 1)));
    if (from != NULL)
        memcpy(memory + at, from, size);
    else
        memset(memory + at, 0, size);
    return E_OK;
}

static void check_loaded(const struct loader *loader)
{
    const struct vcpu_state *state = &loader->state;

    must(loader->kind != NULL);
    for (unsigned i = 0; i < loader->used_count; i++) {
        must(loader->used[i].first <= loader->used[i].last);
        for (unsigned j = 0; j < i; j++)
            must(loader->used[i].first > loader->used[j].last ||
                 loader->used[j].first > loader->used[i].last);
    }
    must(state->rip <= LOAD_LAST_32BIT);
    must(state->gdt_base + state->gdt_limit < MEMORY);
    must(!(state->efer & BIT(10)) || is_memory(state->cr3, state->cr3 + 6 * PAGE_SIZE - 1));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static const uint8_t rsdp[36];
    char why[160] = "";
    struct loader loader = {
        .region = {{0, 0xa0000, true}, {0xa0000, 0x60000, false}, {MiB, 3 * MiB, true}},
        .regions = 3,
        .cmdline = "words of its own",
        .place = place,
        .why = why,
        .why_size = sizeof(why),
    };
    uint8_t *image;
    int error;

    if (size == 0)
        return 0;
    image = malloc(size > 1 ? size - 1 : 1); /* its end is guarded */
    must(image != NULL);
    memcpy(image, bytes + 1, size - 1);
    loader.bytes = image;
    loader.size = size - 1;
    loader.pc = bytes[0] & A_PC;
    if (!loader.pc) {
        loader.region[1] = loader.region[2];
        loader.regions = 2;
    }
    if (bytes[0] & LITTLE_MEMORY)
        loader.region[loader.regions - 1].size = 16 * PAGE_SIZE;
    for (unsigned i = 0; bytes[0] & WITH_MODULES && i < 3; i++)
        loader.module[loader.modules++] = (struct load_module){content, MODULE / (i + 1), "module"};
    if (bytes[0] & WITH_ACPI) {
        loader.rsdp.at = 0xe0000;
        loader.rsdp.bytes = rsdp;
        loader.rsdp.size = sizeof(rsdp);
    }
    current = &loader;
    (void)load_expects_pc(image, size - 1);
    error = load_image(&loader, (enum load_as)(bytes[0] & HOW));
    if (error == E_OK)
        check_loaded(&loader);
    else
        must(why[0] != '\0');
    free(image);
    return 0;
}
