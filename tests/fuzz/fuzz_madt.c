/*
 * ACPI tables as a firmware may have them, well formed or not: the input is the memory that they
 * lie in, behind a byte that says whether the root pointer names an XSDT and which tables get their
 * checksums right. What the reader takes must be within its limits, and what it refuses explained.
 */
#include "boot/madt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BASE 0xe0000u
#define LIST_AT 0u /* the RSDT or XSDT */
#define SIZE 1024u

#define must(condition)                                                                            \
    ((condition) ? (void)0                                                                         \
                 : (fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition), abort()))

static uint8_t *memory;
static size_t bytes;

static const void *reach(void *ctx, uint64_t at, uint64_t size)
{
    (void)ctx;
    return at >= BASE && at - BASE <= bytes && size <= bytes - (at - BASE) ? memory + (at - BASE)
                                                                           : NULL;
}

/* The byte at 9 makes the sum 0. */
static void seal(size_t at)
{
    uint32_t length;
    uint8_t sum = 0;

    if (at + 10 > bytes)
        return;
    memcpy(&length, memory + at + 4, 4);
    if (length > bytes - at)
        return;
    memory[at + 9] = 0;
    for (uint32_t i = 0; i < length; i++)
        sum = (uint8_t)(sum + memory[at + i]);
    memory[at + 9] = (uint8_t)-sum;
}

/* Each "APIC" first, then the list in front, which may contain them. */
static void seal_all(void)
{
    for (size_t at = 36; at + 4 <= bytes; at++)
        if (memcmp(memory + at, "APIC", 4) == 0)
            seal(at);
    seal(LIST_AT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct madt madt;
    char why[MADT_WHY] = "";

    if (size < 1 || size > SIZE)
        return 0;
    bytes = size - 1;
    memory = malloc(bytes ? bytes : 1); /* of this size, so that a byte beyond is noticed */
    must(memory != NULL);
    memcpy(memory, data + 1, bytes);
    if (data[0] & 2)
        seal_all();
    struct boot_rsdp rsdp = {.present = true, .rsdt = hpa(BASE + LIST_AT)};
    if (data[0] & 1)
        rsdp.xsdt = rsdp.rsdt;
    int error = madt_read(&rsdp, reach, NULL, &madt, why, sizeof(why));
    must(madt.count <= MADT_CPUS);
    must(error == E_OK || (why[0] != 0 && madt.count == 0));
    for (unsigned i = 0; i < madt.count; i++)
        for (unsigned k = 0; k < i; k++)
            must(madt.cpu[i].apic_id != madt.cpu[k].apic_id);
    free(memory);
    return 0;
}
