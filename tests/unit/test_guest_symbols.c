/*
 * A guest's symbols: right tables of both classes and right maps; each way of being damaged, by
 * cuts and by bytes, in blocks of exactly their size, so that the address sanitizer sees a read of
 * one byte too many; and which of its modules a guest is given.
 */
#include "vm/symbols.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "tests/unit/elf_image.h"
#include "tests/unit/fake_machine.h"
#include "tests/unit/random.h"
#include "vm/backtrace.h"
#include "vm/guest.h"
#include "x86/control.h"

/* --- An ELF file with symbols ----------------------------------------------------------------- */

#define BASE UINT64_C(0xc0100000)
#define SYMTAB 0x200
#define STRTAB 0x400
#define SECTIONS 0x600
#define IMAGE_SIZE 0x700

static const struct {
    const char *name;
    uint64_t value;
    unsigned info, section;
} table[] = {
    {"", 0, 0, 0},
    {"kernel.c", 0, 0x04, 0xfff1},     /* a file */
    {"start", BASE, 0x10, 1},          /* a label, and ... */
    {"_text", BASE, 0x10, 1},          /* ... another there */
    {"start.loop", BASE + 0x10, 0, 1}, /* a part of what is before it */
    {"main", BASE + 0x20, 0x12, 1},    /* a function */
    {"helper", BASE + 0x40, 0x02, 1},  /* a local one */
    {"helper", BASE + 0x60, 0x12, 1},
    {".Llabel", BASE + 0x20, 0x00, 1}, /* what a function is better than */
    {"SIZE", BASE + 0x30, 0x10, 0xfff1},
    {"elsewhere", BASE + 0x30, 0x12, 0},
    {"\033[2J", BASE + 0x30, 0x12, 1},
    {"data", BASE + 0x1000, 0x11, 2},
};
#define SYMBOLS (sizeof(table) / sizeof(table[0]))

static void put_section(uint8_t *at, bool is64, uint32_t type, uint64_t offset, uint64_t size,
                        uint32_t link, uint64_t entry)
{
    unsigned word = is64 ? 8 : 4;

    elf_put(at + 4, 4, type);
    elf_put(at + (is64 ? 24 : 16), word, offset);
    elf_put(at + (is64 ? 32 : 20), word, size);
    elf_put(at + (is64 ? 40 : 24), 4, link);
    elf_put(at + (is64 ? 56 : 36), word, entry);
}

static uint8_t *make_elf(bool is64)
{
    static const struct elf_part part = {1, 7, 0x100, BASE, 0x100000, 0x100, 0x300000};
    unsigned entry = is64 ? 24 : 16, header = is64 ? 64 : 40;
    uint8_t *image = calloc(1, IMAGE_SIZE);
    unsigned name = 1;

    assert_non_null(image);
    elf_image(image, is64, BASE, &part, 1);
    for (unsigned i = 0; i < SYMBOLS; i++) {
        uint8_t *at = image + SYMTAB + i * entry;

        elf_put(at, 4, *table[i].name ? name : 0);
        elf_put(at + (is64 ? 8 : 4), is64 ? 8 : 4, table[i].value);
        at[is64 ? 4 : 12] = (uint8_t)table[i].info;
        elf_put(at + (is64 ? 6 : 14), 2, table[i].section);
        strcpy((char *)image + STRTAB + name, table[i].name);
        name += (unsigned)strlen(table[i].name) + 1;
    }
    elf_put(image + (is64 ? 40 : 32), is64 ? 8 : 4, SECTIONS);
    elf_put(image + (is64 ? 58 : 46), 2, header);
    elf_put(image + (is64 ? 60 : 48), 2, 3);
    put_section(image + SECTIONS + header, is64, 2, SYMTAB, SYMBOLS * entry, 2, entry);
    put_section(image + SECTIONS + 2 * header, is64, 3, STRTAB, name, 0, 0);
    return image;
}

/* --- Asking ----------------------------------------------------------------------------------- */

static const char *name_at(const struct symbols *symbols, uint64_t address)
{
    static char text[SYMBOL_TEXT];
    struct symbol symbol;

    if (!symbols_at(symbols, address, &symbol))
        return "";
    snprintf(text, sizeof(text), "%.*s+0x%llx", (int)symbol.length, symbol.name,
             (unsigned long long)(address - symbol.address));
    return text;
}

static uint64_t address_of(const struct symbols *symbols, const char *name)
{
    uint64_t address = 0;

    return symbols_find(symbols, name, &address) ? address : UINT64_MAX;
}

static void elf_symbols(void **state)
{
    (void)state;
    for (unsigned is64 = 0; is64 < 2; is64++) {
        uint8_t *image = make_elf(is64);
        struct symbols symbols;

        assert_true(symbols_of_elf(&symbols, image, IMAGE_SIZE));
        assert_string_equal(name_at(&symbols, BASE), "start+0x0");
        assert_string_equal(name_at(&symbols, BASE + 0x1f), "start+0x1f");
        assert_string_equal(name_at(&symbols, BASE + 0x20), "main+0x0");
        assert_string_equal(name_at(&symbols, BASE + 0x3f), "main+0x1f");
        assert_string_equal(name_at(&symbols, BASE + 0x1004), "data+0x4");
        /* Behind the last, as far as a symbol reaches; never outside of the image. */
        assert_string_equal(name_at(&symbols, BASE + 0x1000 + SYMBOL_REACH - 1), "data+0xfffff");
        assert_string_equal(name_at(&symbols, BASE + 0x1000 + SYMBOL_REACH), "");
        assert_string_equal(name_at(&symbols, BASE - 1), "");
        assert_string_equal(name_at(&symbols, UINT64_MAX), "");
        assert_int_equal(address_of(&symbols, "main"), BASE + 0x20);
        assert_int_equal(address_of(&symbols, "helper"), BASE + 0x60);
        assert_int_equal(address_of(&symbols, "start.loop"), BASE + 0x10);
        assert_int_equal(address_of(&symbols, "SIZE"), UINT64_MAX);
        assert_int_equal(address_of(&symbols, "elsewhere"), UINT64_MAX);
        assert_int_equal(address_of(&symbols, "mai"), UINT64_MAX);
        assert_int_equal(address_of(&symbols, ""), UINT64_MAX);
        free(image);
    }
}

/* All that can be asked, of whatever is there. */
static void ask_everything(const struct symbols *symbols)
{
    struct symbol symbol;
    uint64_t at = 0, address, before = 0;

    while (symbols_next(symbols, &at, &symbol)) {
        assert_true(symbol.length > 0 && symbol.length < SYMBOL_NAME);
        for (unsigned i = 0; i < symbol.length; i++)
            assert_in_range(symbol.name[i], '!', '~');
        assert_true(at > before && at <= symbols->size);
        before = at;
    }
    (void)symbols_find(symbols, "main", &address);
    for (unsigned i = 0; i < 8; i++)
        if (symbols_at(symbols, BASE - 0x10 + 0x18 * i, &symbol))
            assert_in_range(BASE - 0x10 + 0x18 * i - symbol.address, 0, SYMBOL_REACH - 1);
}

static void damaged_elf(void **state)
{
    static const uint8_t values[] = {0, 1, 0x7f, 0x80, 0xff};
    struct symbols symbols;

    (void)state;
    for (unsigned is64 = 0; is64 < 2; is64++) {
        uint8_t *image = make_elf(is64);

        for (unsigned size = 0; size < IMAGE_SIZE; size += 3) {
            uint8_t *cut = malloc(size ? size : 1);
            memcpy(cut, image, size);
            if (symbols_of_elf(&symbols, cut, size))
                ask_everything(&symbols);
            free(cut);
        }
        for (unsigned i = 0; i < IMAGE_SIZE; i++) {
            uint8_t old = image[i];
            for (unsigned j = 0; j < sizeof(values); j++) {
                image[i] = values[j];
                if (symbols_of_elf(&symbols, image, IMAGE_SIZE))
                    ask_everything(&symbols);
            }
            image[i] = old;
        }
        struct random random = {7 + is64};
        for (unsigned round = 0; round < 20000; round++) {
            uint8_t *spoilt = malloc(IMAGE_SIZE);
            memcpy(spoilt, image, IMAGE_SIZE);
            for (unsigned n = 1 + random_below(&random, 6); n; n--)
                spoilt[random_below(&random, IMAGE_SIZE)] = (uint8_t)random_next(&random);
            if (symbols_of_elf(&symbols, spoilt, IMAGE_SIZE))
                ask_everything(&symbols);
            free(spoilt);
        }
        free(image);
    }
}

/* --- Maps ------------------------------------------------------------------------------------- */

static const char map_text[] = "0000000000000000 D __per_cpu_start\n"
                               "0000000000001000 A a_constant\n"
                               "0000000000002000 d of_each_cpu\n"
                               "ffffffff81000000 T startup_64\n"
                               "ffffffff81000000 T _text\n"
                               "no line of a map\n"
                               "ffffffff81000100 t helper\r\n"
                               "ffffffff81000180 T helper\n"
                               "ffffffff81000200 T start_kernel\t[module]\n"
                               "\n"
                               "ffffffff81000300 B _end\n";

static void map_symbols(void **state)
{
    size_t size = strlen(map_text);
    struct symbols symbols;

    (void)state;
    for (unsigned newline = 0; newline < 2; newline++) {
        char *text = malloc(size - newline); /* with a last newline, and without */
        memcpy(text, map_text, size - newline);
        assert_true(symbols_of_map(&symbols, text, size - newline));
        assert_string_equal(name_at(&symbols, 0xffffffff81000000), "_text+0x0");
        assert_string_equal(name_at(&symbols, 0xffffffff810000ff), "_text+0xff");
        assert_string_equal(name_at(&symbols, 0xffffffff81000100), "helper+0x0");
        assert_string_equal(name_at(&symbols, 0xffffffff810001ff), "helper+0x7f");
        assert_string_equal(name_at(&symbols, 0xffffffff81000234), "start_kernel+0x34");
        assert_string_equal(name_at(&symbols, 0xffffffff81000300), "_end+0x0");
        assert_string_equal(name_at(&symbols, 0xffffffff81000301), "");
        assert_string_equal(name_at(&symbols, 0xffffffff80ffffff), "");
        /* No address of this kernel, whatever its variables of each CPU have as offsets. */
        assert_string_equal(name_at(&symbols, 0x2004), "");
        assert_int_equal(address_of(&symbols, "start_kernel"), 0xffffffff81000200);
        assert_int_equal(address_of(&symbols, "helper"), 0xffffffff81000180);
        assert_int_equal(address_of(&symbols, "a_constant"), UINT64_MAX);
        free(text);
    }
    assert_false(symbols_of_map(&symbols, "", 0));
    assert_false(symbols_of_map(&symbols, "no map\nat all", 13));
}

/* Bisection against a pass over all lines. */
static void large_map(void **state)
{
    unsigned lines = 20000, at = 0;
    char *text = malloc(lines * 40);
    struct random random = {11};
    uint64_t address = 0xffffffff81000000, *known = malloc(lines * sizeof(*known));
    struct symbols symbols;
    struct symbol symbol;

    (void)state;
    for (unsigned i = 0; i < lines; i++) {
        known[i] = address;
        at += (unsigned)sprintf(text + at, "%llx T f%u\n", (unsigned long long)address, i);
        address += 1 + random_below(&random, 200);
    }
    assert_true(symbols_of_map(&symbols, text, at));
    for (unsigned i = 0; i < lines; i += 7) {
        char name[16];

        assert_true(symbols_at(&symbols, known[i], &symbol));
        sprintf(name, "f%u", i);
        assert_int_equal(symbol.length, strlen(name));
        assert_memory_equal(symbol.name, name, symbol.length);
        if (i == 0)
            continue;
        assert_true(symbols_at(&symbols, known[i] - 1, &symbol));
        assert_int_equal(symbol.address, known[i - 1]);
    }
    free(known);
    free(text);
}

static void damaged_map(void **state)
{
    size_t size = strlen(map_text);
    struct random random = {3};
    struct symbols symbols;
    struct symbol symbol;

    (void)state;
    for (unsigned round = 0; round < 20000; round++) {
        size_t n = random_below(&random, (unsigned)size);
        char *text = malloc(n ? n : 1);

        memcpy(text, map_text, n);
        for (unsigned i = random_below(&random, 8); n && i; i--)
            text[random_below(&random, (unsigned)n)] = random_below(&random, 3)
                                                           ? "\n 0fT\t"[random_below(&random, 6)]
                                                           : (char)random_next(&random);
        if (symbols_of_map(&symbols, text, n)) {
            ask_everything(&symbols);
            for (unsigned i = 0; i < 8; i++)
                symbols_at(&symbols, 0xffffffff81000000 + 0x60 * i, &symbol);
        }
        free(text);
    }
}

/* --- Guests ----------------------------------------------------------------------------------- */

static int set_up(void **state)
{
    (void)state;
    machine_start(64 * MiB);
    guests_init(&machine_backend, NULL);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    machine_stop();
    return 0;
}

static void which_modules_are_maps(void **state)
{
    (void)state;
    assert_true(symbols_is_map("System.map"));
    assert_true(symbols_is_map("System.map-6.1.0-13-amd64"));
    assert_true(symbols_is_map(" symbols of my kernel"));
    assert_true(symbols_is_map("symbols"));
    assert_false(symbols_is_map("symbols.bin"));
    assert_false(symbols_is_map("initrd System.map"));
    assert_false(symbols_is_map(""));
}

/* A map is for the console: a format that takes no modules starts with it, as without. */
static void a_map_is_not_handed_over(void **state)
{
    static uint8_t sector[512];
    static const char text[] = "7c00 T boot\n7c10 T main\n";
    char symbol[SYMBOL_TEXT];
    const struct guest_image modules[] = {
        {.bytes = sector, .size = sizeof(sector), .cmdline = "one flat mem=1M mods=1"},
        {.bytes = (const uint8_t *)text, .size = strlen(text), .cmdline = "System.map"},
        {.bytes = sector, .size = sizeof(sector), .cmdline = "two flat mem=1M mods=1"},
        {.bytes = (const uint8_t *)text, .size = strlen(text), .cmdline = "text"},
    };

    (void)state;
    sector[510] = 0x55;
    sector[511] = 0xaa;
    assert_int_equal(guests_create(modules, 4), 2);
    struct guest *one = guest_by_number(1), *two = guest_by_number(2);
    assert_int_equal(one->state, GUEST_RUNNING);
    assert_string_equal(symbol_text(symbol, one, 0x7c12), "");
    assert_string_equal(symbol_text(symbol, one, 0x7c10), "main");
    assert_string_equal(symbol_text(symbol, one, 0x7c0f), "boot+0xf");
    /* Where a call that is a function's last instruction would return to. */
    assert_string_equal(symbol_text_of_return(symbol, one, 0x7c10), "boot+0x10");
    assert_string_equal(symbol_text_of_return(symbol, one, 0), "");
    assert_int_equal(two->state, GUEST_REFUSED);
    assert_string_equal(symbol_text(symbol, two, 0x7c10), "");
    assert_int_equal(guest_kill(one), E_OK);
}

/* --- Backtraces: memory of a flat guest, one to one ------------------------------------------- */

static struct guest *flat_guest(struct vcpu_state *cpu)
{
    static uint8_t sector[512] = {[510] = 0x55, [511] = 0xaa};
    const struct guest_image image = {
        .bytes = sector, .size = sizeof(sector), .cmdline = "flat flat mem=1M"};
    struct guest *guest;

    assert_int_equal(guest_create(&image, &guest), E_OK);
    assert_int_equal(guests_backend()->get_state(guest->vcpu, cpu), E_OK);
    return guest;
}

static void put(struct guest *guest, uint64_t at, unsigned width, uint64_t value)
{
    assert_int_equal(guest_write(guest, gpa(at), &value, width), width);
}

/* Frames at 0x8000, 0x8100, 0x8200 ... that return to 0x7c01, 0x7c02, ... */
static void put_frames(struct guest *guest, unsigned width, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        put(guest, 0x8000 + 0x100 * i, width, i + 1 < count ? 0x8100 + 0x100 * i : 0);
        put(guest, 0x8000 + 0x100 * i + width, width, 0x7c01 + i);
    }
}

static void backtraces(void **state)
{
    static const struct {
        unsigned width;
        uint16_t access;
        uint64_t efer;
    } modes[] = {{2, 0x9b, 0}, {4, 0xc09b, 0}, {8, 0xa09b, EFER_LMA}, {4, 0xc09b, EFER_LMA}};
    static struct backtrace trace;
    struct vcpu_state cpu;
    struct guest *guest = flat_guest(&cpu);

    (void)state;
    for (unsigned i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        put_frames(guest, modes[i].width, 3);
        cpu.efer = modes[i].efer;
        cpu.segment[SEG_CS] = (struct segment){.access = modes[i].access};
        cpu.segment[SEG_SS] = (struct segment){.access = 0xc093};
        cpu.rip = 0x7c00;
        cpu.gpr[RBP] = 0x8000;
        if (modes[i].width < 8)
            cpu.gpr[RBP] |= UINT64_C(0xabcd00000000); /* what the mode does not have */
        backtrace_take(guest->vcpu, &cpu, &trace);
        assert_int_equal(trace.count, 4);
        assert_int_equal(trace.end, BACKTRACE_OUTERMOST);
        for (unsigned k = 0; k < 4; k++)
            assert_int_equal(trace.frame[k].at, 0x7c00 + k);
        assert_false(trace.frame[0].framed);
        assert_int_equal(trace.frame[3].frame, 0x8200);
    }
    /* By segments: code at 0x7000, stack at 0x6000. */
    cpu.efer = 0;
    cpu.segment[SEG_CS] = (struct segment){.access = 0x9b, .base = 0x7000};
    cpu.segment[SEG_SS] = (struct segment){.access = 0x93, .base = 0x6000};
    cpu.rip = 0xc00;
    cpu.gpr[RBP] = 0x2000;
    put(guest, 0x8000, 2, 0);
    put(guest, 0x8002, 2, 0xc33);
    backtrace_take(guest->vcpu, &cpu, &trace);
    assert_int_equal(trace.count, 2);
    assert_int_equal(trace.frame[0].at, 0x7c00);
    assert_int_equal(trace.frame[1].at, 0x7c33);
    assert_int_equal(guest_kill(guest), E_OK);
}

static void how_backtraces_end(void **state)
{
    static struct backtrace trace;
    char text[BACKTRACE_END];
    struct vcpu_state cpu;
    struct guest *guest = flat_guest(&cpu);

    (void)state;
    cpu.efer = EFER_LMA;
    cpu.segment[SEG_CS] = (struct segment){.access = 0xa09b};
    cpu.gpr[RBP] = 0;
    backtrace_take(guest->vcpu, &cpu, &trace);
    assert_int_equal(trace.count, 1);
    assert_int_equal(trace.end, BACKTRACE_OUTERMOST);
    cpu.gpr[RBP] = 0x123456789;
    backtrace_take(guest->vcpu, &cpu, &trace);
    assert_int_equal(trace.count, 1);
    assert_string_equal(backtrace_end_text(text, &trace),
                        "no memory at 0x123456789: RBP is no frame pointer there");
    cpu.gpr[RBP] = UINT64_MAX - 3; /* the return address lies at 4 */
    backtrace_take(guest->vcpu, &cpu, &trace);
    assert_int_equal(trace.end, BACKTRACE_UNREADABLE);

    put_frames(guest, 8, 3);
    cpu.gpr[RBP] = 0x8000;
    put(guest, 0x8200, 8, 0x8000); /* a loop */
    backtrace_take(guest->vcpu, &cpu, &trace);
    assert_int_equal(trace.count, 4);
    assert_int_equal(trace.end, BACKTRACE_DESCENDS);
    assert_int_equal(trace.end_at, 0x8000);
    put(guest, 0x8200, 8, 0x8200); /* of one */
    backtrace_take(guest->vcpu, &cpu, &trace);
    assert_int_equal(trace.count, 4);
    put(guest, 0x8108, 8, 0xffff800000000000);
    backtrace_take(guest->vcpu, &cpu, &trace);
    assert_int_equal(trace.count, 2);
    assert_int_equal(trace.end, BACKTRACE_NO_CODE);
    put(guest, 0x8108, 8, 0);
    backtrace_take(guest->vcpu, &cpu, &trace);
    assert_int_equal(trace.end, BACKTRACE_OUTERMOST);

    put_frames(guest, 8, BACKTRACE_FRAMES + 6);
    backtrace_take(guest->vcpu, &cpu, &trace);
    assert_int_equal(trace.count, BACKTRACE_FRAMES);
    assert_int_equal(trace.end, BACKTRACE_FULL);
    assert_int_equal(trace.end_at, 0x8000 + 0x100 * (BACKTRACE_FRAMES - 1));
    assert_int_equal(guest_kill(guest), E_OK);
}

int main(void)
{
#define WITH_MACHINE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(elf_symbols),          cmocka_unit_test(damaged_elf),
        cmocka_unit_test(map_symbols),          cmocka_unit_test(large_map),
        cmocka_unit_test(damaged_map),          cmocka_unit_test(which_modules_are_maps),
        WITH_MACHINE(a_map_is_not_handed_over), WITH_MACHINE(backtraces),
        WITH_MACHINE(how_backtraces_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
