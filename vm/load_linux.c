/*
 * Linux kernels: a bzImage by the Linux/x86 boot protocol, version 2.05 and above, entered at its
 * 32-bit entry point. Whatever else speaks the protocol is loaded likewise (memtest86+); what has
 * no such entry, by the 16-bit one (vm/load_linux16.c).
 *
 * Where things go: the kernel where it prefers to be, else, where it can be moved, to the lowest
 * free RAM that fits; its initrd, all modules one behind the other, page-aligned in the lowest free
 * RAM from 1 MiB; the boot parameters, the command line and a GDT in low memory.
 */
#include "lib/bits.h"
#include "lib/error.h"
#include "lib/format.h"
#include "lib/string.h"
#include "vm/load_linux.h"
#include "x86/control.h"

#define MAGIC 0x53726448u /* HdrS */
#define SECTOR 512
#define SETUP_SECTS_DEFAULT 4
#define CMDLINE_SIZE_BEFORE 255
#define RAMDISK_MAX_BEFORE 0x37ffffff

/* Of the boot parameters besides, which are one page. */
enum {
    SCREEN_MODE = 0x006,
    SCREEN_COLUMNS = 0x007,
    SCREEN_ROWS = 0x00e,
    SCREEN_IS_VGA = 0x00f,
    SCREEN_POINTS = 0x010, /* lines of a character */
    ACPI_RSDP_ADDRESS = 0x070,
    E820_COUNT = 0x1e8,
    SETUP_HEADER = 0x1f1,
    E820_TABLE = 0x2d0,
};
#define PARAMETERS 4096
struct e820_entry {
    uint64_t base, size;
    uint32_t type;
} __attribute__((packed));
_Static_assert(E820_TABLE + LOAD_MAP * sizeof(struct e820_entry) <= PARAMETERS, "they fit");

/* "The 32-bit boot protocol": flat segments by these selectors, and a GDT that has them. */
#define CODE_SELECTOR 0x10
#define DATA_SELECTOR 0x18

enum load_verdict linux_recognise(const uint8_t *bytes, uint64_t size, char *why, size_t why_size)
{
    if (size < VERSION + 2 || linux_get(bytes, HEADER_MAGIC, 4) != MAGIC) {
        format_buffer(why, why_size, "no \"HdrS\" at 0x202");
        return LOAD_NO;
    }
    if (linux_get(bytes, BOOT_FLAG, 2) == 0xaa55)
        return LOAD_YES;
    format_buffer(why, why_size,
                  "a Linux image without its boot signature 55 AA at 0x1fe: is the file whole?");
    return LOAD_NEARLY;
}

uint64_t linux_version(const struct loader *loader)
{
    return linux_get(loader->bytes, VERSION, 2);
}

uint64_t linux_setup_size(const struct loader *loader)
{
    uint64_t sectors = loader->bytes[SETUP_SECTS];

    return (1 + (sectors != 0 ? sectors : SETUP_SECTS_DEFAULT)) * SECTOR;
}

static int check_header(struct loader *loader)
{
    uint64_t end = HEADER_MAGIC + loader->bytes[HEADER_LENGTH];

    if (loader->size < linux_setup_size(loader) + 1 || loader->size < PARAMETERS ||
        end > PARAMETERS)
        return load_refuse(loader, E_TRUNC, "the Linux image ends in its setup code");
    return E_OK;
}

bool linux_has_entry32(const struct loader *loader)
{
    return loader->size >= HEADER_MOST && linux_version(loader) >= VERSION_RELOCATABLE &&
           loader->bytes[LOAD_FLAGS] & FLAG_HIGH && linux_get(loader->bytes, CODE32_START, 4) != 0;
}

/* What the kernel needs from its load address on until it has set up its own memory. */
static uint64_t kernel_room(const struct loader *loader)
{
    uint64_t file = loader->size - linux_setup_size(loader);
    uint64_t init =
        linux_version(loader) >= VERSION_PREFERRED ? linux_get(loader->bytes, INIT_SIZE, 4) : 0;

    return init > file ? init : file;
}

int linux_place_kernel(struct loader *loader, uint64_t *at)
{
    bool prefers = linux_version(loader) >= VERSION_PREFERRED;
    bool relocatable = linux_version(loader) >= VERSION_RELOCATABLE && loader->bytes[RELOCATABLE];
    uint64_t preferred = prefers ? linux_get(loader->bytes, PREFERRED, 8) : LOAD_HIGH_FIRST;
    uint64_t room = kernel_room(loader), align = linux_get(loader->bytes, KERNEL_ALIGNMENT, 4),
             found;
    uint64_t file = loader->size - linux_setup_size(loader);

    if (relocatable && (align == 0 || (align & (align - 1))))
        return load_refuse(loader, E_FORMAT, "the kernel's alignment 0x%lx is no power of two",
                           align);
    *at = preferred;
    if (relocatable &&
        (load_find(loader, room, align, preferred, LOAD_LAST_32BIT, &found) == E_OK ||
         load_find(loader, room, align, LOAD_HIGH_FIRST, LOAD_LAST_32BIT, &found) == E_OK))
        *at = found;
    if (load_find(loader, room, 1, *at, *at + room - 1, &found) != E_OK)
        return load_refuse(loader, E_NOMEM,
                           "the kernel needs 0x%lx bytes of RAM at 0x%lx; mem=%luM would do", room,
                           *at, (*at + room + MiB - 1) / MiB + 1);
    return load_place(loader, *at, loader->bytes + linux_setup_size(loader), file, room,
                      "the kernel");
}

/* All modules, one behind the other, each from a multiple of four on as the kernel wants it. */
int linux_place_initrd(struct loader *loader, uint8_t *header, bool highest)
{
    uint64_t size = 0, at, max = RAMDISK_MAX_BEFORE;
    int error;

    if (linux_version(loader) >= VERSION_RAMDISK_MAX)
        max = linux_get(header, RAMDISK_MAX, 4);
    for (unsigned i = 0; i < loader->modules; i++)
        size = align_up(size, 4) + loader->module[i].size;
    if (size == 0)
        return E_OK;
    error = highest ? load_find_highest(loader, size, PAGE_SIZE, LOAD_HIGH_FIRST, max, &at)
                    : load_find(loader, size, PAGE_SIZE, LOAD_HIGH_FIRST, max, &at);
    if (error != E_OK)
        return load_refuse(loader, E_NOMEM,
                           "no room below 0x%lx for an initrd of 0x%lx bytes; more mem= would do",
                           max, size);
    linux_put(header, RAMDISK_IMAGE, 4, at);
    linux_put(header, RAMDISK_SIZE, 4, size);
    for (unsigned i = 0; i < loader->modules; i++) {
        const struct load_module *module = &loader->module[i];

        error = load_place(loader, at, module->bytes, module->size, align_up(module->size, 4),
                           "the initrd");
        if (error != E_OK)
            return error;
        at += align_up(module->size, 4);
    }
    return E_OK;
}

static int place_low(struct loader *loader, const void *bytes, uint64_t size, const char *what,
                     uint64_t *at)
{
    if (load_find(loader, size, 16, LOAD_LOW_FIRST, LOAD_EBDA - 1, at) != E_OK)
        return load_refuse(loader, E_NOMEM, "no low memory for %s", what);
    return load_place(loader, *at, bytes, size, size, what);
}

int linux_check_cmdline(struct loader *loader)
{
    uint64_t length = strlen(loader->cmdline), most = CMDLINE_SIZE_BEFORE;

    if (linux_version(loader) >= VERSION_CMDLINE_SIZE)
        most = linux_get(loader->bytes, CMDLINE_SIZE, 4);
    if (length > most)
        return load_refuse(loader, E_RANGE,
                           "a command line of %lu characters; this kernel takes %lu", length, most);
    return E_OK;
}

static int place_cmdline(struct loader *loader, uint8_t *parameters)
{
    uint64_t at = 0;
    int error = linux_check_cmdline(loader);

    if (error == E_OK)
        error = place_low(loader, loader->cmdline, strlen(loader->cmdline) + 1, "the command line",
                          &at);
    linux_put(parameters, CMDLINE_POINTER, 4, at);
    return error;
}

static void put_map(const struct loader *loader, uint8_t *parameters)
{
    struct load_region map[LOAD_MAP];
    unsigned count = load_map(loader, map);

    for (unsigned i = 0; i < count; i++) {
        struct e820_entry entry = {map[i].base, map[i].size, load_map_type(&map[i])};
        memcpy(parameters + E820_TABLE + i * sizeof(entry), &entry, sizeof(entry));
    }
    parameters[E820_COUNT] = (uint8_t)count;
}

/* The VGA as a PC's firmware leaves it, and where the ACPI tables begin. */
static void put_machine(const struct loader *loader, uint8_t *parameters)
{
    if (loader->pc) {
        linux_put(parameters, SCREEN_MODE, 1, 3);
        linux_put(parameters, SCREEN_COLUMNS, 1, LOAD_TEXT_COLUMNS);
        linux_put(parameters, SCREEN_ROWS, 1, LOAD_TEXT_ROWS);
        linux_put(parameters, SCREEN_IS_VGA, 1, 1);
        linux_put(parameters, SCREEN_POINTS, 2, 16);
    }
    if (loader->rsdp.size != 0)
        linux_put(parameters, ACPI_RSDP_ADDRESS, 8, loader->rsdp.at);
}

static void enter(struct vcpu_state *state, uint64_t entry, uint64_t parameters, uint64_t gdt)
{
    load_enter_flat32(state, CODE_SELECTOR, DATA_SELECTOR);
    state->gdt_base = gdt;
    state->gdt_limit = DATA_SELECTOR + 7;
    state->gpr[RSI] = parameters;
    state->rip = entry;
}

int load_linux(struct loader *loader)
{
    static const uint64_t gdt[] = {0, 0, 0x00cf9b000000ffff, 0x00cf93000000ffff};
    uint8_t parameters[PARAMETERS];
    uint64_t entry = 0, parameters_at = 0, gdt_at = 0;
    int error;

    loader->kind = "Linux bzImage";
    memset(&loader->state, 0, sizeof(loader->state));
    error = check_header(loader);
    if (error == E_OK)
        error = load_pc_area(loader, false);
    if (error != E_OK)
        return error;
    memset(parameters, 0, sizeof(parameters));
    memcpy(parameters + SETUP_HEADER, loader->bytes + SETUP_HEADER,
           HEADER_MAGIC + loader->bytes[HEADER_LENGTH] - SETUP_HEADER);
    parameters[LOADER_TYPE] = LOADER_UNKNOWN;
    error = linux_place_kernel(loader, &entry);
    linux_put(parameters, CODE32_START, 4, entry);
    if (error == E_OK)
        error = linux_place_initrd(loader, parameters, false);
    if (error == E_OK)
        error = place_cmdline(loader, parameters);
    if (error == E_OK)
        error = place_low(loader, gdt, sizeof(gdt), "a GDT", &gdt_at);
    if (error == E_OK) {
        put_map(loader, parameters);
        put_machine(loader, parameters);
        error = place_low(loader, parameters, sizeof(parameters), "the boot parameters",
                          &parameters_at);
    }
    if (error == E_OK)
        enter(&loader->state, entry, parameters_at, gdt_at);
    return error;
}
