/*
 * Memory maps as a loader may hand them over, well formed or not: the input is Multiboot 2 boot
 * information. What the parser takes becomes a memblock, the memblock a buddy with memory in use
 * beside it; each frame around each edge of any range must then be what the ranges themselves say
 * of it, read one by one.
 *
 * Input: the physical address width, the image's place and size in frames (two bytes each), then
 * the table; its first eight bytes, which only give its length, are written here.
 */
#include "boot/memory_map.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/bits.h"
#include "lib/log.h"
#include "lib/panic.h"
#include "mm/frames/buddy.h"
#include "mm/frames/early.h"

#define MOST 4096u
#define EDGES 4096u
#define MOST_RAM (UINT64_C(1) << 40)     /* above it the machine is built, and no buddy for it */
#define MOST_RECORDS (UINT64_C(1) << 16) /* of modules, a record a frame: more takes too long */

#define must(condition)                                                                            \
    ((condition) ? (void)0                                                                         \
                 : (fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition), abort()))

_Noreturn void panic(const char *format, ...)
{
    fprintf(stderr, "panic: %s\n", format);
    abort();
}

void log_line(const char *text, ...)
{
    (void)text;
}

static struct memory_map_input input;
static struct boot_info info;
static struct memblock memory;

static uint64_t edge[EDGES];
static unsigned edges;

/* ---- What the ranges say ---- */

static bool within(uint64_t at, uint64_t base, uint64_t size)
{
    return at - base < size;
}

/* -1: no memory. */
static int kind_at(uint64_t at)
{
    struct boot_region region;
    uint32_t cursor = 0;
    int kind = -1;

    if (at >> input.maxphyaddr)
        return -1;
    while (boot_region_next(&info, &cursor, &region))
        if (within(at, region.base, region.size) && (int)region.kind > kind)
            kind = (int)region.kind;
    return kind;
}

static bool occupied(uint64_t at)
{
    struct boot_region region;
    struct boot_module module;
    uint32_t cursor = 0;

    if (at < MiB || within(at, input.info_at.v, info.size) ||
        within(at, input.image.v, input.image_size) ||
        within(at, info.framebuffer.base.v, info.framebuffer.size))
        return true;
    while (boot_region_next(&info, &cursor, &region))
        if (within(at, region.base, region.size) &&
            (region.kind == MEMKIND_ACPI_RECLAIMABLE || region.kind == MEMKIND_ACPI_NVS))
            return true;
    for (cursor = 0; boot_module_next(&info, &cursor, &module);)
        if (within(at, module.base.v, module.size))
            return true;
    return false;
}

/* ---- Where something begins or ends ---- */

static void note(uint64_t at)
{
    if (edges < EDGES)
        edge[edges++] = at;
}

static void note_range(uint64_t base, uint64_t size)
{
    note(base);
    note(base + size);
}

static bool note_edges(void)
{
    struct boot_region region;
    struct boot_module module;
    uint32_t cursor = 0;

    edges = 0;
    note_range(0, MiB);
    note(UINT64_C(1) << input.maxphyaddr);
    note_range(input.info_at.v, info.size);
    note_range(input.image.v, input.image_size);
    note_range(info.framebuffer.base.v, info.framebuffer.size);
    while (boot_region_next(&info, &cursor, &region))
        note_range(region.base, region.size);
    for (cursor = 0; boot_module_next(&info, &cursor, &module);)
        note_range(module.base.v, module.size);
    return edges < EDGES;
}

/* ---- What came of it ---- */

enum frame { NO_RAM, FREE, IN_USE };

/* Of the bytes of one frame; within it something may change only at an edge. */
static enum frame frame_said(uint64_t at)
{
    bool used = false;

    if (kind_at(at) != MEMKIND_USABLE)
        return NO_RAM;
    used = occupied(at);
    for (unsigned i = 0; i < edges; i++)
        if (within(edge[i], at, PAGE_SIZE)) {
            if (kind_at(edge[i]) != MEMKIND_USABLE)
                return NO_RAM;
            used = used || occupied(edge[i]);
        }
    return used ? IN_USE : FREE;
}

static enum frame frame_in_memblock(uint64_t at)
{
    struct memframes run;

    if (!memblock_next_frames(&memory, at, &run) || run.base != at)
        return NO_RAM;
    return run.reserved ? IN_USE : FREE;
}

static enum frame frame_in_buddy(uint64_t at)
{
    struct frame_info frame;

    if (frame_query(hpa(at), &frame, NULL) != E_OK)
        return NO_RAM;
    return frame.state == FRAME_FREE ? FREE : IN_USE;
}

static void compare(enum frame (*frame_is)(uint64_t at))
{
    for (unsigned i = 0; i < edges; i++) {
        uint64_t at = align_down(edge[i], PAGE_SIZE);

        for (int n = -1; n <= 1; n++)
            must(frame_is(at + (uint64_t)n * PAGE_SIZE) ==
                 frame_said(at + (uint64_t)n * PAGE_SIZE));
    }
}

static void compare_bytes(void)
{
    for (unsigned i = 0; i < edges; i++)
        for (int n = -1; n <= 0; n++) {
            uint64_t at = edge[i] + (uint64_t)n;

            must(memblock_is_usable(&memory, at, 1) == (kind_at(at) == MEMKIND_USABLE));
        }
}

static uint64_t frames_of_modules(void)
{
    struct boot_module module;
    uint64_t frames = info.size / PAGE_SIZE;

    for (uint32_t cursor = 0; boot_module_next(&info, &cursor, &module);)
        frames += module.size / PAGE_SIZE + 2;
    return frames;
}

static void hand_over(void)
{
    uint64_t end = memblock_ram_end(&memory), size = buddy_metadata_size(end);
    uint64_t handed, recorded;
    struct early early;
    struct buddy_stats stats;
    char why[160] = "";
    hpa_t frame;

    if (end > MOST_RAM || frames_of_modules() > MOST_RECORDS)
        return;
    void *metadata = mmap(NULL, size, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    must(metadata != MAP_FAILED);
    must(buddy_init(metadata, size, end) == E_OK);
    early_init(&early, &memory, 0, UINT64_MAX);
    must(early_hand_over(&early, &handed, &recorded) == E_OK);
    must(early_verify_hand_over(&early, &frame) == E_OK);
    buddy_stats(&stats);
    must(stats.free_frames == handed && stats.total_frames == handed + recorded);
    compare(frame_in_buddy);
    if (buddy_verify(why, sizeof(why)) != E_OK) {
        fprintf(stderr, "%s\n", why);
        abort();
    }
    must(munmap(metadata, size) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static _Alignas(8) uint8_t table[MOST];
    char why[MULTIBOOT2_WHY] = "";

    if (size < 5 + 16 || size - 5 > MOST)
        return 0;
    uint32_t length = (uint32_t)(size - 5);
    memcpy(table, data + 5, length);
    memcpy(table, &length, sizeof(length));
    memset(table + 4, 0, 4);
    input = (struct memory_map_input){
        .info = &info,
        .info_at = hpa(0x9000 + 8 * (uint64_t)data[0]),
        .image = hpa((uint64_t)(data[1] | data[2] << 8) * PAGE_SIZE),
        .image_size = (uint64_t)(data[3] | data[4] << 8) * 64 + 1,
        .maxphyaddr = 32 + data[0] % 21,
    };
    int error = multiboot2_parse(table, length, &info, why, sizeof(why));
    must((error == E_OK) == (why[0] == 0));
    if (error != E_OK || !note_edges())
        return 0;
    error = memory_map_build(&memory, &input);
    must(error == E_OK || error == E_NOENT);
    compare_bytes();
    compare(frame_in_memblock);
    if (error == E_OK && memblock_ram_end(&memory) >= PAGE_SIZE)
        hand_over();
    return 0;
}
