/* A saved guest's way back: see vm/saved.h. */
#include "lib/bits.h"
#include "lib/error.h"
#include "lib/format.h"
#include "lib/string.h"
#include "mm/frames/buddy.h"
#include "vm/clock.h"
#include "vm/quota.h"
#include "vm/saved.h"
#include "vm/slots.h"

#define REFUSE(guest, error, ...)                                                                  \
    (format_buffer((guest)->reason, sizeof((guest)->reason), __VA_ARGS__), (error))

/* What the module's command line may not say, for the file does. */
static int judge_options(struct guest *guest)
{
    const struct guest_options *options = &guest->options;

    if (options->memory != OPTION_DEFAULT_MEMORY || options->areas != 0 || options->mods != 0 ||
        options->lazy || options->flat || options->pc || options->bare || options->debug_exit ||
        options->cpus != 1 || options->pages != 0 || options->entry != ENTRY_BY_IMAGE)
        return REFUSE(guest, E_INVAL,
                      "a saved guest brings its memory and its machine: besides its name only "
                      "quota=, expect=, paused, merge, reset= and stray= may be given");
    return E_OK;
}

static int judge_machine(struct guest *guest, const struct saved *saved)
{
    const struct vm_backend *backend = guests_backend();

    if (strncmp(saved->backend, backend->name, sizeof(saved->backend)) != 0)
        return REFUSE(guest, E_UNSUPPORTED,
                      "it was saved by %.8s, and this CPU runs guests by %s, which shows them "
                      "another CPU: start it where it was saved",
                      saved->backend, backend->name);
    if (saved->hz != clock_tsc_hz() || saved->devices.clock.hz != saved->hz)
        return REFUSE(guest, E_UNSUPPORTED,
                      "its TSC ran at %lu Hz, and that of this CPU runs at %lu", saved->hz,
                      clock_tsc_hz());
    return E_OK;
}

static void take_options(struct guest *guest, const struct saved *saved)
{
    guest->memory = guest->options.memory = saved->memory;
    guest->options.pc = (saved->flags & SAVED_PC) != 0;
    guest->options.bare = (saved->flags & SAVED_BARE) != 0;
    guest->options.debug_exit = (saved->flags & SAVED_DEBUG_EXIT) != 0;
    guest->options.lazy = (saved->flags & SAVED_LAZY) != 0;
    guest->options.cpus = saved->cpus;
    guest->options.pages = saved->pages;
    guest->options.around = saved->around;
}

static int take_slot(struct guest *guest, const struct slot *saved)
{
    uint64_t end = guest_addresses_end();
    int error = saved->base.v < end && saved->size <= end - saved->base.v ? E_OK : E_RANGE;

    if (error == E_OK && saved->kind == SLOT_EXEC_ONLY && !guest->table.caps.execute_only)
        error = E_UNSUPPORTED;
    if (error == E_OK)
        error = slot_add(guest, saved->base, saved->size, saved->kind);
    if (error != E_OK)
        return REFUSE(guest, error, "its slot at 0x%lx+0x%lx cannot be here: %s", saved->base.v,
                      saved->size, error_text(error));
    slot_at(guest, saved->base)->rights = saved->rights;
    return E_OK;
}

static int take_slots(struct guest *guest, const struct saved *saved)
{
    int error = E_OK;

    guest->slots = 0;
    for (unsigned i = 0; error == E_OK && i < saved->slots; i++)
        error = take_slot(guest, &saved->slot[i]);
    if (error == E_OK && guest->options.pc) {
        error = slots_windows(guest);
        if (error != E_OK)
            return REFUSE(guest, error, "its memory lies where a PC has its devices");
    }
    return error;
}

static int take_pages(struct guest *guest, struct saved *saved)
{
    static uint8_t page[PAGE_SIZE];
    int error = slots_back(guest);
    gpa_t at;

    while (error == E_OK && saved_next_page(saved, &at, page))
        error = slots_place(guest, at, page, PAGE_SIZE);
    if (error != E_OK)
        return REFUSE(guest, error, "its memory has no room here: %s", error_text(error));
    return E_OK;
}

static int take_memory(struct guest *guest, struct saved *saved)
{
    int error;

    buddy_set_quota(guest_owner(guest), quota_at_start(guest));
    error = guest_table_init(guest, &guest->table);
    if (error != E_OK) {
        quota_says_no_table(guest, error);
        return error;
    }
    guest->has_table = true;
    error = take_slots(guest, saved);
    return error == E_OK ? take_pages(guest, saved) : error;
}

static int take_cpus(struct guest *guest, const struct saved *saved)
{
    const struct vm_backend *backend = guests_backend();
    int error;

    guest_cpus_count(guest, saved->cpus);
    error = guest_cpus_create(guest);
    if (error != E_OK) {
        guest_cpus_refused(guest, error);
        return error;
    }
    for (unsigned i = 0; error == E_OK && i < guest->cpus; i++) {
        error = backend->set_state(guest->cpu[i].vcpu, &saved->cpu[i].state);
        if (error == E_OK)
            error = backend->set_rest(guest->cpu[i].vcpu, &saved->cpu[i].rest);
    }
    if (error != E_OK)
        return REFUSE(guest, error, "its registers are not what this CPU can take: %s",
                      error_text(error));
    return E_OK;
}

static void take_life(struct guest *guest, const struct saved *saved)
{
    static struct guest_life life;

    memset(&life, 0, sizeof(life));
    life.devices = saved->devices;
    life.has_bios = (saved->flags & SAVED_BIOS) != 0;
    for (unsigned i = 0; i < saved->cpus; i++)
        life.cpu[i] = saved->cpu[i].is;
    life.clock = saved->clock;
    life_restore(guest, &life);
    for (unsigned i = 0; i < guest->cpus; i++) {
        struct guest_cpu *cpu = &guest->cpu[i];

        cpu->is.deaf = cpu->is.halted && !guests_backend()->interrupts_open(cpu->vcpu);
    }
}

int guest_restore(struct guest *guest)
{
    static struct saved saved;
    int error = judge_options(guest);

    guest->kind = "saved guest";
    if (error == E_OK)
        error = saved_read(guest->image.bytes, guest->image.size, &saved, guest->reason,
                           sizeof(guest->reason));
    if (error == E_OK)
        error = judge_machine(guest, &saved);
    if (error != E_OK)
        return error;
    take_options(guest, &saved);
    error = take_memory(guest, &saved);
    if (error == E_OK)
        error = take_cpus(guest, &saved);
    if (error == E_OK)
        take_life(guest, &saved);
    guest_note_frames(guest);
    return error;
}
