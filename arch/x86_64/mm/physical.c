/* See physical.h. */
#include "arch/x86_64/mm/physical.h"

#include "arch/x86_64/mm/kernel.h"
#include "arch/x86_64/mm/layout.h"
#include "lib/string.h"
#include "mm/paging/typed.h"

/* How many of `size` bytes from `at` on lie in one page of the direct map that has `rights`. */
static uint64_t backed(hpa_t at, uint64_t size, unsigned rights)
{
    struct mapping page;

    if (at.v >= DIRECT_SIZE || hva_translate(&kernel_table, hva(DIRECT_BASE + at.v), &page) != E_OK)
        return 0;
    if (rights & ~(unsigned)page.attrs.rights)
        return 0;
    uint64_t rest = page.last - (DIRECT_BASE + at.v) + 1;
    return size < rest ? size : rest;
}

uint64_t physical_read(hpa_t from, void *to, uint64_t size)
{
    uint64_t done = 0, n;

    while (done < size && (n = backed(hpa_add(from, done), size - done, RIGHT_R))) {
        memcpy((uint8_t *)to + done, direct(hpa_add(from, done)), n);
        done += n;
    }
    return done;
}

uint64_t physical_write(hpa_t to, const void *from, uint64_t size)
{
    uint64_t done = 0, n;

    while (done < size && (n = backed(hpa_add(to, done), size - done, RIGHT_W))) {
        memcpy(direct(hpa_add(to, done)), (const uint8_t *)from + done, n);
        done += n;
    }
    return done;
}

bool physical_load(void *ctx, hpa_t from, void *to, unsigned size)
{
    (void)ctx;
    return physical_read(from, to, size) == size;
}
