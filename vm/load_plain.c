/*
 * Plain ELF files, started at their entry point because somebody says so: `entry=elf32` in flat
 * 32-bit mode, `entry=elf64` in 64-bit mode with the first 4 GiB mapped one to one. Registers are 0
 * but RBX, and RDI, the first argument of a function of the System V ABI for x86-64, which have the
 * address of PVH's start information. There is a GDT, and no stack.
 */
#include "lib/bits.h"
#include "lib/error.h"
#include "lib/string.h"
#include "vm/load_parts.h"

/* PML4, PDPT, and a page directory of 2 MiB pages for each of 4 GiB (SDM Vol. 3, 4.5 "4-level
 * paging"). */
#define TABLES 6
#define ENTRIES 512
#define P_W (BIT(0) | BIT(1))
#define LARGE BIT(7)
#define LARGE_SIZE (2 * MiB)

static const uint64_t gdt32[] = {0, 0x00cf9b000000ffff, 0x00cf93000000ffff};
static const uint64_t gdt64[] = {0, 0x00af9b000000ffff, 0x00cf93000000ffff};

static int place_gdt(struct loader *loader, bool is64)
{
    uint64_t at;

    if (load_find(loader, sizeof(gdt32), sizeof(uint64_t), LOAD_LOW_FIRST, LOAD_LAST_32BIT, &at) !=
        E_OK)
        return load_refuse(loader, E_NOMEM, "no memory for a GDT");
    loader->state.gdt_base = at;
    loader->state.gdt_limit = sizeof(gdt32) - 1;
    return load_place(loader, at, is64 ? gdt64 : gdt32, sizeof(gdt32), sizeof(gdt32), "the GDT");
}

static int place_tables(struct loader *loader, uint64_t *out)
{
    uint64_t page[ENTRIES] = {0}, at;
    int error;

    if (load_find(loader, TABLES * PAGE_SIZE, PAGE_SIZE, LOAD_LOW_FIRST, LOAD_LAST_32BIT, &at) !=
        E_OK)
        return load_refuse(loader, E_NOMEM, "no memory for page tables: give more by mem=");
    *out = at;
    error = load_place(loader, at, NULL, 0, TABLES * PAGE_SIZE, "the page tables");
    page[0] = (at + PAGE_SIZE) | P_W;
    if (error == E_OK)
        error = loader->place(loader->ctx, at, page, sizeof(page[0]));
    for (unsigned i = 0; i < TABLES - 2; i++)
        page[i] = (at + (2 + i) * PAGE_SIZE) | P_W;
    if (error == E_OK)
        error = loader->place(loader->ctx, at + PAGE_SIZE, page, (TABLES - 2) * sizeof(page[0]));
    for (unsigned i = 0; i < TABLES - 2 && error == E_OK; i++) {
        for (unsigned j = 0; j < ENTRIES; j++)
            page[j] = ((uint64_t)i * ENTRIES + j) * LARGE_SIZE | P_W | LARGE;
        error = loader->place(loader->ctx, at + (2 + i) * PAGE_SIZE, page, sizeof(page));
    }
    return error;
}

static int check(struct loader *loader, const struct load_elf *elf, bool is64)
{
    loader->kind = is64 ? "ELF64" : "ELF32";
    if (elf->elf.is64 != is64)
        return load_refuse(loader, E_UNSUPPORTED,
                           "entry=%s, but the ELF file is a %s-bit one: entry=%s starts it",
                           is64 ? "elf64" : "elf32", is64 ? "32" : "64", is64 ? "elf32" : "elf64");
    return load_elf_entry(loader, elf, &loader->state.rip);
}

int load_plain_elf(struct loader *loader, bool is64)
{
    struct load_elf elf;
    uint64_t tables = 0, info = 0;
    int error = load_elf_read(loader, false, &elf);

    memset(&loader->state, 0, sizeof(loader->state));
    if (error == E_OK)
        error = check(loader, &elf, is64);
    if (error == E_OK)
        error = load_elf_place(loader, &elf, 0);
    if (error == E_OK)
        error = load_pc_area(loader, false);
    if (error == E_OK)
        error = load_start_info(loader, &info);
    if (error == E_OK)
        error = place_gdt(loader, is64);
    if (error == E_OK && is64)
        error = place_tables(loader, &tables);
    if (is64)
        load_enter_long(&loader->state, tables);
    else
        load_enter_flat32(&loader->state, LOAD_CODE, LOAD_DATA);
    loader->state.gpr[RBX] = loader->state.gpr[RDI] = info;
    return error;
}
