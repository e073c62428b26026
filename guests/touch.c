/*
 * touch: writes a pattern over every available byte above its image and reads it all back. Run with
 * `lazy`, each page gets its frame at the first write.
 */
#include "guests/guest.h"

#define PAGE 4096u
#define WORDS (PAGE / sizeof(uint32_t))

/* Differs from word to word and from page to page, so that two pages on one frame are found out. */
static uint32_t pattern(uint32_t address)
{
    return address * 2654435761u ^ 0x51554952u;
}

static uint32_t backing(uint32_t address)
{
    return hypercall(QUIRE_HC_BACKING, address, 0, 0, 0);
}

static void fill(uint32_t first, uint32_t end)
{
    for (uint32_t at = first; at < end; at += sizeof(uint32_t))
        *(volatile uint32_t *)(uintptr_t)at = pattern(at);
}

static uint32_t wrong_words(uint32_t first, uint32_t end)
{
    uint32_t wrong = 0;

    for (uint32_t at = first; at < end; at += sizeof(uint32_t))
        wrong += *(volatile uint32_t *)(uintptr_t)at != pattern(at);
    return wrong;
}

static bool all_zero(uint32_t page)
{
    const volatile uint32_t *word = (const volatile uint32_t *)(uintptr_t)page;

    for (unsigned i = 0; i < WORDS; i++)
        if (word[i])
            return false;
    return true;
}

static void touch_region(uint32_t first, uint32_t end)
{
    uint32_t last_page = end - PAGE;

    print("touching ");
    print_hex(first);
    print("..");
    print_hex(end - 1);
    print(", ");
    print_number((end - first) / PAGE);
    print(" pages\n");
    bool lazy = backing(last_page) == QUIRE_BACKING_LAZY_ABSENT;
    print(lazy ? "the last page has no frame yet\n" : "the last page has its frame already\n");
    check(all_zero(last_page), "a page that was never written reads as zero");
    check(backing(last_page) == QUIRE_BACKING_RAM, "it has a frame after that read");
    fill(first, end);
    check(wrong_words(first, end) == 0, "every word reads back as it was written");
    check(backing(first) == QUIRE_BACKING_RAM, "the first page has a frame");
}

void guest_main(const struct multiboot_info *info)
{
    /* The loader's structures may lie anywhere below 1 MiB or behind the image: whoever has them in
     * the way of the pattern has overwritten them, so the map is copied first. */
    struct {
        uint32_t first, end;
    } region[16];
    unsigned regions = 0;

    if (!check(info != NULL && info->flags & MULTIBOOT_INFO_MMAP, "memory map given"))
        guest_end();
    for (uint32_t at = 0; at < info->mmap_length && regions < 16;) {
        const struct multiboot_mmap *entry =
            (const struct multiboot_mmap *)(uintptr_t)(info->mmap_addr + at);
        uint64_t first = entry->base, end = entry->base + entry->length;

        if (first < (uintptr_t)image_end)
            first = (uintptr_t)image_end;
        if (end > 0xfffff000u)
            end = 0xfffff000u;
        first = (first + PAGE - 1) & ~(uint64_t)(PAGE - 1);
        end &= ~(uint64_t)(PAGE - 1);
        if (entry->type == MULTIBOOT_MEMORY_AVAILABLE && entry->base >= 0x100000 && first < end) {
            region[regions].first = (uint32_t)first;
            region[regions++].end = (uint32_t)end;
        }
        at += entry->size + 4;
    }
    check(regions > 0, "there is memory above 1 MiB");
    for (unsigned i = 0; i < regions; i++)
        touch_region(region[i].first, region[i].end);
    guest_end();
}
