/*
 * A kernel that is not Quire, on Quire's memory manager. GRUB boots it. It gives memory to the
 * buddy, has the mapper build its page table, loads CR3, says what is mapped where, touches memory
 * through a mapping of its own, and switches the machine off.
 *
 * It is small on purpose: one CPU, the first GiB of memory, no interrupts.
 */
#include <stdarg.h>

#include "arch/x86_64/mm/kernel.h"
#include "lib/format.h"
#include "lib/panic.h"
#include "mm/frames/buddy.h"
#include "mm/paging/table.h"

#define KERNEL_BASE UINT64_C(0xffffffff80000000) /* kernel.ld */
#define DIRECT_MAP UINT64_C(0xffff800000000000)  /* start.asm maps the first GiB of it */
#define WINDOW UINT64_C(0xffffa00000000000)      /* for the trial */
#define MULTIBOOT2 0x36d76289
#define TAG_MEMORY_MAP 6
#define MEMORY_USABLE 1
#define COM1 0x3f8

extern const char text_start[], rodata_start[], data_start[], kernel_end[]; /* kernel.ld */

/* ---- The machine ---- */

static void outb(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static void outw(uint16_t port, uint16_t value)
{
    __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port));
}

static uint8_t inb(uint16_t port)
{
    uint8_t value;

    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static void cpuid(uint32_t leaf, uint32_t out[4])
{
    __asm__("cpuid" : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3]) : "a"(leaf), "c"(0));
}

static void load_cr3(hpa_t root)
{
    __asm__ volatile("mov %0, %%cr3" : : "r"(root.v) : "memory");
}

/* 115200 baud, 8N1. */
static void start_serial(void)
{
    outb(COM1 + 3, 0x80); /* line control: the divisor latch */
    outb(COM1 + 0, 1);
    outb(COM1 + 1, 0);
    outb(COM1 + 3, 0x03);
    outb(COM1 + 4, 0x03); /* modem control: DTR, RTS */
}

static void serial_write(struct sink *sink, const char *bytes, size_t n)
{
    (void)sink;
    for (size_t i = 0; i < n; i++) {
        while (!(inb(COM1 + 5) & 0x20)) /* line status: holding register empty */
            ;
        outb(COM1, (uint8_t)bytes[i]);
    }
}

static struct sink serial = {serial_write};

/* QEMU ends by isa-debug-exit, Bochs by the return to its debugger. */
static _Noreturn void power_off(uint8_t status)
{
    while (!(inb(COM1 + 5) & 0x40)) /* line status: all sent */
        ;
    outb(0xf4, status);
    outw(0x8a00, 0x8a00);
    outw(0x8a00, 0x8ae0);
    for (;;)
        __asm__ volatile("cli; hlt");
}

/* ---- What the memory manager asks of its host ---- */

_Noreturn void panic(const char *text, ...)
{
    va_list args;

    va_start(args, text);
    format(&serial, "panic: ");
    vformat(&serial, text, args);
    format(&serial, "\n");
    va_end(args);
    power_off(1);
}

static int take(const struct table_env *env, struct table *table, hpa_t *out)
{
    (void)env;
    return buddy_alloc(0, table->purpose, table->owner, out);
}

static void give(const struct table_env *env, struct table *table, hpa_t frame)
{
    (void)env;
    invariant(buddy_free(frame, 0, table->owner) == E_OK);
}

/* One CPU and no global pages: a load of CR3 forgets everything. */
static void flush(const struct table_env *env, struct table *table, const struct flush_batch *batch)
{
    (void)env;
    (void)batch;
    load_cr3(table->root);
}

static const struct table_env env = {.take = take,
                                     .give = give,
                                     .flush = flush,
                                     .frame_records = true};

static struct table_caps cpu_caps(void)
{
    uint32_t extended[4], widths[4];

    cpuid(0x80000001, extended);
    cpuid(0x80000008, widths);
    return (struct table_caps){
        .maxphyaddr = (uint8_t)widths[0],
        .leaf_top = extended[3] & 1u << 26 ? 3 : 2, /* 1 GiB pages */
        .nx = true,                                 /* EFER.NXE: start.asm */
        .accessed_dirty = true,
        .mem_types = 1u << MEM_WB | 1u << MEM_UC, /* as the PAT stands after a reset */
    };
}

/* ---- Memory ---- */

static void must(int error, const char *what)
{
    if (error != E_OK)
        panic("%s: %s", what, error_text(error));
}

struct region {
    uint64_t base, size;
};
static struct region records, region[16]; /* the buddy's own; what it hands out */
static unsigned regions;

/* The tag of this type in the boot information (Multiboot2 Specification 2.0, 3.6), or NULL: a
 * tag is its type, its size, and what it says. */
static const uint32_t *find_tag(const uint8_t *info, uint32_t type)
{
    uint64_t total = *(const uint32_t *)info;

    for (uint64_t at = 8; at + 8 <= total;) {
        const uint32_t *tag = (const uint32_t *)(info + at);

        if (tag[0] == type)
            return tag;
        at += align_up(tag[1] > 8 ? tag[1] : 8, 8);
    }
    return NULL;
}

/* The usable regions above `first` and within the first GiB, in whole frames. Returns how many. */
static unsigned read_memory_map(const uint8_t *info, uint64_t first, struct region *out, unsigned n)
{
    const uint32_t *tag = find_tag(info, TAG_MEMORY_MAP);
    unsigned count = 0;

    if (tag == NULL || tag[2] < 24)
        panic("no memory map");
    for (uint64_t at = 16; at + tag[2] <= tag[1] && count < n; at += tag[2]) {
        const uint64_t *entry = (const uint64_t *)((const uint8_t *)tag + at);
        uint64_t base = align_up(entry[0], PAGE_SIZE);
        uint64_t end = align_down(entry[0] + entry[1], PAGE_SIZE);

        base = base < first ? first : base;
        end = end > GiB ? GiB : end;
        if ((uint32_t)entry[2] == MEMORY_USABLE && base < end)
            out[count++] = (struct region){base, end - base};
    }
    return count;
}

/* The buddy's records lie behind the kernel. GRUB's memory map may lie there too: it is read
 * before. */
static void start_memory(const uint8_t *info)
{
    uint64_t first = (uint64_t)(uintptr_t)kernel_end - KERNEL_BASE;

    records = (struct region){first, align_up(buddy_metadata_size(GiB), PAGE_SIZE)};
    regions = read_memory_map(info, first + records.size, region, ARRAY_SIZE(region));
    direct_base = DIRECT_MAP;
    must(buddy_init(direct(hpa(first)), records.size, GiB), "buddy_init");
    for (unsigned i = 0; i < regions; i++)
        must(buddy_add(hpa(region[i].base), region[i].size), "buddy_add");
}

static void map(uint64_t in, uint64_t out, uint64_t size, unsigned rights)
{
    struct flush_batch batch;

    flush_begin(&batch, &kernel_table);
    must(
        table_map(&kernel_table, in, hpa(out), size, attrs_of(rights, MEM_WB), MAP_DEFAULT, &batch),
        "table_map");
    flush_commit(&batch);
}

static void map_image(const char *first, const char *end, unsigned rights)
{
    uint64_t in = (uint64_t)(uintptr_t)first;

    map(in, in - KERNEL_BASE, (uint64_t)(end - first), rights);
}

static void start_paging(void)
{
    struct table_caps caps = cpu_caps();

    must(table_init(&kernel_table, &kernel_kind, &caps, &env, PURPOSE_HOST_TABLE, OWNER_HOST),
         "table_init");
    map(DIRECT_MAP + records.base, records.base, records.size, RIGHT_RW);
    for (unsigned i = 0; i < regions; i++)
        map(DIRECT_MAP + region[i].base, region[i].base, region[i].size, RIGHT_RW);
    map_image(text_start, rodata_start, RIGHT_RX);
    map_image(rodata_start, data_start, RIGHT_R);
    map_image(data_start, kernel_end, RIGHT_RW);
    load_cr3(kernel_table.root);
}

static int print_run(void *ctx, const struct mapping *run)
{
    char rights[RIGHTS_TEXT], size[SIZE_TEXT];

    (void)ctx;
    format(&serial, "%#lx %s %s to %#lx by %s\n", run->in, size_text(size, run->last - run->in + 1),
           rights_text(rights, run->attrs.rights), run->out.v, level_name(run->level));
    return 0;
}

/* A frame written under an address of its own is seen in the direct map, and gone when unmapped. */
static void touch(void)
{
    volatile uint64_t *seen = (volatile uint64_t *)WINDOW;
    struct flush_batch batch;
    struct mapping page;
    hpa_t frame;

    must(buddy_alloc(0, PURPOSE_HEAP, OWNER_HOST, &frame), "a frame");
    map(WINDOW, frame.v, PAGE_SIZE, RIGHT_RW);
    *seen = 0x5157495245;
    format(&serial, "written at %#lx: %#lx in the direct map\n", WINDOW,
           *(volatile uint64_t *)direct(frame));
    flush_begin(&batch, &kernel_table);
    must(table_unmap(&kernel_table, WINDOW, PAGE_SIZE, &batch), "table_unmap");
    flush_commit(&batch);
    format(&serial, "unmapped: %s\n", error_text(table_translate(&kernel_table, WINDOW, &page)));
    must(buddy_free(frame, 0, OWNER_HOST), "the frame back");
}

_Noreturn void kernel_main(uint32_t magic, uint64_t info);

_Noreturn void kernel_main(uint32_t magic, uint64_t info)
{
    struct buddy_stats before, after;
    char why[128];

    start_serial();
    if (magic != MULTIBOOT2)
        panic("not started by a Multiboot 2 loader");
    start_memory((const uint8_t *)info);
    start_paging();
    format(&serial, "CR3 is the mapper's: %#lx\n", kernel_table.root.v);
    table_visit(&kernel_table, kernel_kind.input_first, kernel_kind.input_last, VISIT_RUNS,
                print_run, NULL);
    buddy_stats(&before);
    touch();
    buddy_stats(&after);
    must(buddy_verify(why, sizeof(why)), "the buddy's invariants");
    format(&serial, "frames free: before %lu, after %lu\n", before.free_frames, after.free_frames);
    format(&serial, "kernel: done\n");
    power_off(before.free_frames == after.free_frames ? 0 : 1);
}
