/* A guest's way out: see vm/saved.h. */
#include "lib/bits.h"
#include "lib/error.h"
#include "lib/format.h"
#include "lib/sha256.h"
#include "lib/string.h"
#include "mm/paging/typed.h"
#include "vm/saved_fields.h"
#include "vm/slots.h"

#define SECTION_MOST (SAVED_DEVICES_MOST > VCPU_FPU_MOST ? SAVED_DEVICES_MOST : VCPU_FPU_MOST)
_Static_assert(SECTION_MOST - VCPU_FPU_MOST > 1024 + SAVED_LAPIC_MOST,
               "a CPU's other registers and its local APIC fit as well");

static int put(struct save *save, const void *bytes, size_t size)
{
    int error = save->put(save->ctx, bytes, size);

    sha256_add(save->digest, bytes, size);
    save->bytes += size;
    return error;
}

static int put_section(struct save *save, enum saved_tag tag, const void *bytes, size_t size)
{
    uint32_t head[2] = {tag, (uint32_t)size};
    int error = put(save, head, sizeof(head));

    return error == E_OK && size != 0 ? put(save, bytes, size) : error;
}

static int put_fields(struct save *save, enum saved_tag tag, struct saved *saved,
                      saved_fields_fn fields, unsigned cpu)
{
    static uint8_t bytes[SECTION_MOST];
    struct saved_stream stream = {.to = bytes, .left = sizeof(bytes)};

    fields(&stream, saved, cpu);
    return put_section(save, tag, bytes, sizeof(bytes) - stream.left);
}

static int put_head(struct save *save, uint32_t version)
{
    const char *name = guests_backend()->name;
    uint32_t numbers[2] = {version, SAVED_HEAD};
    uint8_t head[SAVED_HEAD] = SAVED_MAGIC;

    memcpy(head + sizeof(SAVED_MAGIC), numbers, sizeof(numbers));
    memcpy(head + sizeof(SAVED_MAGIC) + sizeof(numbers), name,
           strlen(name) < SAVED_BACKEND ? strlen(name) : SAVED_BACKEND);
    return put(save, head, sizeof(head));
}

/* ---- What it is ------------------------------------------------------------------------------ */

static uint32_t flags_of(const struct guest *guest, const struct guest_life *life)
{
    const struct guest_options *options = &guest->options;

    return (options->pc ? SAVED_PC : 0) | (options->bare ? SAVED_BARE : 0) |
           (options->debug_exit ? SAVED_DEBUG_EXIT : 0) | (options->lazy ? SAVED_LAZY : 0) |
           (life->has_bios ? SAVED_BIOS : 0) | (life->cpu[0].halted ? SAVED_HALTED : 0) |
           (life->cpu[0].init ? SAVED_INIT : 0);
}

static int describe_cpu(struct guest_cpu *cpu, struct saved_cpu *saved)
{
    const struct vm_backend *backend = guests_backend();
    int error = backend->get_state(cpu->vcpu, &saved->state);

    return error == E_OK ? backend->get_rest(cpu->vcpu, &saved->rest) : error;
}

static int describe(struct guest *guest, struct saved *saved)
{
    static struct guest_life life;
    int error = E_OK;

    life_save(guest, &life);
    memset(saved, 0, sizeof(*saved));
    saved->version = guest->cpus == 1 ? SAVED_ONE_CPU : SAVED_VERSION;
    saved->memory = guest->memory;
    saved->clock = life.clock;
    saved->hz = life.devices.clock.hz;
    saved->flags = flags_of(guest, &life);
    saved->pages = guest->options.pages;
    saved->around = guest->options.around != 0 ? guest->options.around : 1;
    saved->devices = life.devices;
    for (unsigned i = 0; i < guest->slots; i++)
        if (guest->slot[i].kind != SLOT_DEVICE)
            saved->slot[saved->slots++] = guest->slot[i];
    saved->cpus = guest->cpus;
    for (unsigned i = 0; error == E_OK && i < guest->cpus; i++) {
        saved->cpu[i].is = life.cpu[i];
        error = describe_cpu(&guest->cpu[i], &saved->cpu[i]);
    }
    return error;
}

/* Why it cannot be saved; NULL: it can. */
static const char *hindrance(const struct guest *guest)
{
    if (guest->has_disk)
        return "its image is its disk, which stays behind";
    for (unsigned i = 0; i < guest->slots; i++)
        if (guest->slot[i].kind == SLOT_SHARED)
            return "memory that it shares by name is others' as well";
    return NULL;
}

/* ---- Its memory ------------------------------------------------------------------------------ */

struct pages {
    struct save *save;
    int error;
};

static int put_page(struct save *save, uint64_t at, const uint8_t *page)
{
    static uint8_t bytes[sizeof(at) + PAGE_SIZE];
    unsigned size = saved_pack(page, bytes + sizeof(at));

    if (size == 0)
        return E_OK;
    memcpy(bytes, &at, sizeof(at));
    save->pages++;
    return put_section(save, SAVED_PAGE, bytes, sizeof(at) + size);
}

static int put_leaf(void *ctx, const struct mapping *leaf)
{
    struct pages *pages = ctx;
    uint64_t size = leaf->last - leaf->in + 1;

    for (uint64_t done = 0; pages->error == E_OK && done < size; done += PAGE_SIZE)
        pages->error = put_page(pages->save, leaf->in + done, direct(hpa_add(leaf->out, done)));
    return pages->error != E_OK;
}

/* In the order of its addresses, without what reads as zeroes. */
static int put_pages(struct save *save, struct guest *guest)
{
    struct pages pages = {.save = save};

    table_visit(&guest->table, guest->table.kind->input_first, guest->table.kind->input_last,
                VISIT_PAGES, put_leaf, &pages);
    return pages.error;
}

static int put_devices(struct save *save, const struct saved *saved)
{
    static uint8_t bytes[SAVED_DEVICES_MOST];

    return put_section(save, SAVED_DEVICES, bytes, saved_devices_put(&saved->devices, bytes));
}

static int put_all(struct save *save, struct guest *guest, struct saved *saved)
{
    int error = put_head(save, saved->version);

    if (error == E_OK)
        error = put_fields(save, SAVED_GUEST, saved, saved_guest_fields, 0);
    if (error == E_OK)
        error = put_fields(save, SAVED_SLOTS, saved, saved_slots_fields, 0);
    if (error == E_OK)
        error = put_fields(save, SAVED_CPU, saved, saved_cpu_fields, 0);
    if (error == E_OK)
        error = put_devices(save, saved);
    for (unsigned i = 1; error == E_OK && i < saved->cpus; i++)
        error = put_fields(save, SAVED_OTHER_CPU, saved, saved_other_cpu_fields, i);
    if (error == E_OK)
        error = put_pages(save, guest);
    return error == E_OK ? put_section(save, SAVED_END, NULL, 0) : error;
}

static struct saved saved; /* there is one console */

int guest_save_check(struct guest *guest, struct save *save)
{
    const char *why;
    int error;

    save->bytes = save->pages = 0;
    save->why[0] = '\0';
    if (guest->vcpu == NULL || guest_ended(guest) || guest->held_end != GUEST_READY)
        return E_STATE;
    why = hindrance(guest);
    error = why == NULL ? describe(guest, &saved) : E_UNSUPPORTED;
    if (error == E_UNSUPPORTED)
        format_buffer(save->why, sizeof(save->why), "%s",
                      why != NULL ? why : "its CPU has more state than is kept");
    return error;
}

int guest_save(struct guest *guest, struct save *save)
{
    uint8_t found[SHA256_BYTES];
    struct sha256 digest;
    int error = guest_save_check(guest, save);

    if (error != E_OK)
        return error;
    save->digest = &digest;
    sha256_begin(&digest);
    error = put_all(save, guest, &saved);
    sha256_end(&digest, found);
    save->digest = NULL;
    save->bytes += sizeof(found);
    return error == E_OK ? save->put(save->ctx, found, sizeof(found)) : error;
}
