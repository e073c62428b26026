/* See vm/guest_load.h. */
#include "vm/guest_load.h"

#include "lib/error.h"
#include "vm/acpi_tables.h"
#include "vm/bios.h"
#include "vm/cpuid.h"
#include "vm/report.h"
#include "vm/slots.h"
#include "vm/symbols.h"

static enum load_as how_to_load(const struct guest_options *options)
{
    if (options->flat)
        return LOAD_AS_FLAT;
    switch (options->entry) {
    case ENTRY_LINUX16:
        return LOAD_AS_LINUX16;
    case ENTRY_ELF32:
        return LOAD_AS_ELF32;
    case ENTRY_ELF64:
        return LOAD_AS_ELF64;
    case ENTRY_BY_IMAGE:
        break;
    }
    return LOAD_RECOGNISED;
}

/* Kernels that others start on a PC look below 1 MiB, whatever they are told. */
void guest_choose_machine(struct guest *guest)
{
    struct guest_options *options = &guest->options;
    enum load_as as = how_to_load(options);

    if (!options->bare &&
        (as == LOAD_AS_LINUX16 ||
         (as == LOAD_RECOGNISED && load_expects_pc(guest->image.bytes, guest->image.size))))
        options->pc = true;
}

static int place_in_guest(void *ctx, uint64_t at, const void *from, uint64_t size)
{
    return slots_place(ctx, gpa(at), from, size);
}

/* As each CPU tells it when it starts. */
static void describe_cpus(const struct guest *guest, struct loader *loader)
{
    const struct cpuid_context context = {
        .host = guests_backend()->cpuid,
        .cpus = guest->cpus,
        .xcr0_mask = guests_backend()->xcr0_mask(),
        .apic = true,
        .apic_enabled = true,
    };
    struct cpuid_regs features = cpuid_answer(1, 0, &context);

    loader->cpus = guest->cpus;
    loader->cpu_signature = features.eax;
    loader->cpu_features = features.edx;
}

static void describe_memory(const struct guest *guest, struct loader *loader)
{
    _Static_assert(GUEST_SLOTS <= LOAD_RANGES, "every slot has its region");

    for (unsigned i = 0; i < guest->slots; i++) {
        const struct slot *slot = &guest->slot[i];
        bool ram = slot->rights & RIGHT_W && slot->kind != SLOT_VIDEO && slot->kind != SLOT_SHARED;

        if (slot->kind != SLOT_DEVICE)
            loader->region[loader->regions++] = (struct load_region){slot->base.v, slot->size, ram};
    }
}

/* ACPI tables want a page of the firmware's ROM where they are searched for. */
static bool has_room_for_acpi(const struct guest *guest)
{
    const struct slot *slot = guest_slot_at(guest, gpa(ACPI_RSDP));

    return guest->options.pc && slot != NULL && slot->kind == SLOT_ROM_LAZY;
}

static int describe_modules(struct guest *guest, struct loader *loader)
{
    _Static_assert(OPTION_MODS <= LOAD_MODULES, "every module has its place");

    if (guest->options.mods > guest->image.module_count)
        return load_refuse(loader, E_INVAL, "mods=%u, but only %u modules follow",
                           guest->options.mods, guest->image.module_count);
    for (unsigned i = 0; i < guest->options.mods; i++) {
        const struct guest_image *module = &guest->image.modules[i];

        if (symbols_is_map(module->cmdline)) /* for the console alone */
            continue;
        loader->module[loader->modules++] =
            (struct load_module){module->bytes, module->size, module->cmdline};
    }
    return E_OK;
}

unsigned guest_memory_map(const struct guest *guest, struct load_region map[LOAD_MAP])
{
    struct loader loader = {.ebda = guest->options.pc};

    describe_memory(guest, &loader);
    return load_map(&loader, map);
}

int guest_load_image(struct guest *guest, struct vcpu_state *state)
{
    struct report report;
    struct loader loader = {
        .bytes = guest->image.bytes,
        .size = guest->image.size,
        .cmdline = guest->cmdline,
        .place = place_in_guest,
        .ctx = guest,
        .pc = guest->options.pc,
        .kind = NULL,
        .why = guest->reason,
        .why_size = sizeof(guest->reason),
        .details = &report.sink,
    };
    int error = describe_modules(guest, &loader);

    report_begin(&report, guest);
    describe_cpus(guest, &loader);
    describe_memory(guest, &loader);
    if (error == E_OK && has_room_for_acpi(guest))
        error = load_acpi_tables(&loader);
    if (error == E_OK)
        error = load_image(&loader, how_to_load(&guest->options));
    guest->kind = loader.kind;
    *state = loader.state;
    guest->has_bios = error == E_OK && loader.bios;
    guest->has_disk = error == E_OK && loader.disk;
    if (guest->has_bios)
        bios_start(guest);
    return error;
}
