/*
 * PVH kernels, and plain ELF files started at their entry point, on an array that plays the guest's
 * memory: what is found from inside, each reason to refuse one, and spoilt ones.
 */
#include "tests/unit/load_memory.h"

#define IMAGE 0x400
#define NOTES 0x180

static uint8_t image[IMAGE];

static unsigned put_note(unsigned at, const char *name, uint32_t type, unsigned size,
                         uint64_t value)
{
    unsigned name_size = (unsigned)strlen(name) + 1;

    elf_put(image + at, 4, name_size);
    elf_put(image + at + 4, 4, size);
    elf_put(image + at + 8, 4, type);
    memcpy(image + at + 12, name, name_size);
    at = (unsigned)align_up(at + 12 + name_size, 4);
    elf_put(image + at, size, value);
    return (unsigned)align_up(at + size, 4);
}

/* Linked high, loaded at 1 MiB; other notes before the one that counts. */
static void make(bool is64, unsigned entry_size, uint64_t entry)
{
    const struct elf_part parts[] = {
        {4, 4, NOTES, 0, 0, 0x60, 0x60},
        {1, 5, 0x200, is64 ? 0xffffffff80100000 : 0xc0100000, 0x100000, 0x100, 0x100},
        {1, 6, 0x300, is64 ? 0xffffffff80102000 : 0xc0102000, 0x102000, 0x100, 0x3000},
    };
    unsigned at;

    memset(image, 0, sizeof(image));
    memset(image + 0x200, 0x11, 0x100);
    memset(image + 0x300, 0x22, 0x100);
    elf_image(image, is64, parts[1].virtual + 0x40, parts, 3);
    at = put_note(NOTES, "GNU", 18, 4, 0x1234);
    at = put_note(at, "Xen", 5, 4, 0x4321);
    put_note(at, "Xen", 18, entry_size, entry);
}

static void check_start_info(uint64_t info, unsigned modules)
{
    uint64_t entries[8][3], map = memory_get(info + 40, 8);
    unsigned count = (unsigned)memory_get(info + 48, 4);

    assert_int_equal(memory_get(info, 4), 0x336ec578);
    assert_int_equal(memory_get(info + 4, 4), 1);
    assert_int_equal(memory_get(info + 8, 4), 0);
    assert_int_equal(memory_get(info + 12, 4), modules);
    assert_string_equal(memory_string(memory_get(info + 24, 8)), "name and words");
    assert_int_equal(memory_get(info + 32, 8), 0);
    assert_true(count <= ARRAY_SIZE(entries));
    for (unsigned i = 0; i < count; i++) {
        entries[i][0] = memory_get(map + i * 24, 8);
        entries[i][1] = memory_get(map + i * 24 + 8, 8);
        entries[i][2] = memory_get(map + i * 24 + 16, 4);
    }
    check_map((const uint64_t(*)[3])entries, count);
}

static void entered(void **state)
{
    (void)state;
    for (unsigned is64 = 0; is64 < 2; is64++) {
        struct loader loader;

        make(is64, is64 ? 8 : 4, 0x100080);
        loader = memory_loader(image, sizeof(image));
        must_load(&loader, LOAD_RECOGNISED);
        assert_string_equal(loader.kind, is64 ? "PVH ELF64" : "PVH ELF32");
        assert_int_equal(loader.state.rip, 0x100080); /* the note's, not the ELF header's */
        assert_int_equal(loader.state.cr0 & (BIT(0) | BIT(31)), BIT(0));
        assert_int_equal(loader.state.cr4 | loader.state.efer, 0);
        assert_int_equal(loader.state.rflags & (BIT(8) | BIT(9) | BIT(17)), 0);
        assert_int_equal(loader.state.segment[SEG_CS].access, 0xc09b);
        assert_memory_equal(memory + 0x100000, image + 0x200, 0x100);
        assert_memory_equal(memory + 0x102000, image + 0x300, 0x100);
        assert_int_equal(memory_get(0x104ff8, 8), 0);
        check_start_info(loader.state.gpr[RBX], 0);
        assert_int_equal(memory_get(0x413, 2), 639); /* a PC's BIOS data */
    }
}

static void modules_and_acpi(void **state)
{
    uint8_t content[5000], pointer[36] = {0};
    struct loader loader;
    uint64_t info, list;

    (void)state;
    make(true, 8, 0x100080);
    memset(content, 0x77, sizeof(content));
    loader = memory_loader(image, sizeof(image));
    loader.module[0] = (struct load_module){content, sizeof(content), "first"};
    loader.module[1] = (struct load_module){content, 1, "second"};
    loader.modules = 2;
    must_load(&loader, LOAD_RECOGNISED);
    info = loader.state.gpr[RBX];
    check_start_info(info, 2);
    list = memory_get(info + 16, 8);
    for (unsigned i = 0; i < 2; i++, list += 32) {
        uint64_t at = memory_get(list, 8), size = memory_get(list + 8, 8);

        assert_int_equal(at % PAGE_SIZE, 0);
        assert_true(at >= 0x105000 || at + size <= 0x102000);
        assert_int_equal(size, loader.module[i].size);
        assert_memory_equal(memory + at, content, size);
        assert_string_equal(memory_string(memory_get(list + 16, 8)), loader.module[i].cmdline);
    }
    loader = memory_loader(image, sizeof(image));
    loader.rsdp.at = 0xf0000;
    loader.rsdp.bytes = pointer;
    loader.rsdp.size = sizeof(pointer);
    must_load(&loader, LOAD_RECOGNISED);
    assert_int_equal(memory_get(loader.state.gpr[RBX] + 32, 8), 0xf0000);
}

static void refusals(void **state)
{
    static const uint64_t outside[] = {0x50, 0xfffff, 0x105000, UINT64_C(0x100100080)};
    struct loader loader;

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(outside); i++) {
        make(true, 8, outside[i]);
        loader = memory_loader(image, sizeof(image));
        must_refuse(&loader, LOAD_RECOGNISED, E_FORMAT, "lies outside what the ELF file loads");
    }
    make(true, 2, 0); /* an entry of no size that there is: no such note */
    loader = memory_loader(image, sizeof(image));
    must_refuse(&loader, LOAD_RECOGNISED, E_FORMAT, "without a Multiboot header or a PVH note");
    make(false, 4, 0x100080);
    elf_put(image + 16, 2, 3); /* ET_DYN: its addresses hold */
    loader = memory_loader(image, sizeof(image));
    must_load(&loader, LOAD_RECOGNISED);
    elf_put(image + 52 + 32 + 12, 4, 0x1000);
    loader = memory_loader(image, sizeof(image));
    must_refuse(&loader, LOAD_RECOGNISED, E_UNSUPPORTED, "position-independent");
}

/* Notes that end in the middle, or say that they are huge. */
static void broken_notes(void **state)
{
    struct loader loader;

    (void)state;
    for (unsigned field = 0; field < 2; field++) {
        make(false, 4, 0x100080);
        elf_put(image + NOTES + 4 * field, 4, UINT32_MAX);
        loader = memory_loader(image, sizeof(image));
        must_refuse(&loader, LOAD_RECOGNISED, E_FORMAT, "without a Multiboot header or a PVH note");
    }
}

static void plain_elf32(void **state)
{
    struct loader loader;
    uint64_t gdt;

    (void)state;
    make(false, 2, 0);
    loader = memory_loader(image, sizeof(image));
    must_load(&loader, LOAD_AS_ELF32);
    assert_string_equal(loader.kind, "ELF32");
    assert_int_equal(loader.state.rip, 0x100040); /* virtual, followed to its physical place */
    assert_int_equal(loader.state.cr0 & (BIT(0) | BIT(31)), BIT(0));
    check_start_info(loader.state.gpr[RBX], 0);
    gdt = loader.state.gdt_base;
    assert_int_equal(loader.state.gdt_limit, 23);
    assert_int_equal(memory_get(gdt + 8, 8), 0x00cf9b000000ffff);
    /* One that is no virtual address is a physical one. */
    elf_put(image + 24, 4, 0x102004);
    loader = memory_loader(image, sizeof(image));
    must_load(&loader, LOAD_AS_ELF32);
    assert_int_equal(loader.state.rip, 0x102004);
    elf_put(image + 24, 4, 0x108000);
    loader = memory_loader(image, sizeof(image));
    must_refuse(&loader, LOAD_AS_ELF32, E_FORMAT, "0x108000 lies in no segment");
    loader = memory_loader(image, sizeof(image));
    must_refuse(&loader, LOAD_AS_ELF64, E_UNSUPPORTED,
                "entry=elf64, but the ELF file is a 32-bit one: entry=elf32 starts it");
}

static void plain_elf64(void **state)
{
    struct loader loader;
    const struct vcpu_state *cpu = &loader.state;
    uint64_t pml4, pdpt;

    (void)state;
    make(true, 2, 0);
    loader = memory_loader(image, sizeof(image));
    must_load(&loader, LOAD_AS_ELF64);
    assert_string_equal(loader.kind, "ELF64");
    assert_int_equal(cpu->rip, 0x100040);
    assert_int_equal(cpu->cr0 & (BIT(0) | BIT(31)), BIT(0) | BIT(31));
    assert_int_equal(cpu->cr4, BIT(5));
    assert_int_equal(cpu->efer, BIT(8) | BIT(10));
    assert_int_equal(cpu->segment[SEG_CS].access, 0xa09b); /* L, not D */
    assert_int_equal(cpu->gpr[RDI], cpu->gpr[RBX]);
    check_start_info(cpu->gpr[RBX], 0);
    assert_int_equal(memory_get(cpu->gdt_base + 8, 8), 0x00af9b000000ffff);
    /* All of 4 GiB leads to itself, and nothing else is mapped. */
    pml4 = cpu->cr3;
    assert_true(pml4 >= 0x1000 && pml4 < 0x9f000);
    pdpt = memory_get(pml4, 8);
    assert_int_equal(pdpt & 0xfff, 3);
    for (unsigned i = 1; i < 512; i++)
        assert_int_equal(memory_get(pml4 + i * 8, 8), 0);
    for (unsigned i = 0; i < 512; i++) {
        uint64_t pd = memory_get((pdpt & ~0xfffull) + i * 8, 8);

        assert_int_equal(pd & 0xfff, i < 4 ? 3 : 0);
        for (unsigned j = 0; i < 4 && j < 512; j++)
            assert_int_equal(memory_get((pd & ~0xfffull) + j * 8, 8),
                             (i * GiB + j * 2 * MiB) | 0x83);
    }
    loader = memory_loader(image, sizeof(image));
    must_refuse(&loader, LOAD_AS_ELF32, E_UNSUPPORTED, "the ELF file is a 64-bit one");
    loader = memory_loader((const uint8_t *)"text", 4);
    must_refuse(&loader, LOAD_AS_ELF64, E_FORMAT, "not an ELF image");
}

static void spoilt(void **state)
{
    (void)state;
    for (unsigned is64 = 0; is64 < 2; is64++) {
        make(is64, is64 ? 8 : 4, 0x100080);
        spoil(image, 0x220, LOAD_RECOGNISED);
        spoil(image, 0x220, is64 ? LOAD_AS_ELF64 : LOAD_AS_ELF32);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entered),     cmocka_unit_test(modules_and_acpi),
        cmocka_unit_test(refusals),    cmocka_unit_test(broken_notes),
        cmocka_unit_test(plain_elf32), cmocka_unit_test(plain_elf64),
        cmocka_unit_test(spoilt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
