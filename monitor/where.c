/*
 * See monitor/where.h. Every access goes page by page to a physical address, with the rights of
 * each table on the way checked unless `force` is said: what is no RAM is never touched.
 */
#include "monitor/where.h"

#include "arch/x86_64/guest/read_linear.h"
#include "arch/x86_64/mm/kernel.h"
#include "arch/x86_64/mm/physical.h"
#include "lib/error.h"
#include "lib/string.h"
#include "mm/paging/typed.h"
#include "vm/cow.h"
#include "vm/guest.h"

/* A guest's registers, for SPACE_GVA. */
static int take_registers(const struct command *command, struct output *out, struct place *place)
{
    struct vcpu_state state;
    int error = command_state(command, out, place->guest, &state);

    if (error)
        return error;
    place->registers = guest_gva_context(&place->guest->table, &state);
    place->rflags = state.rflags;
    place->pat = state.pat;
    return E_OK;
}

static int take_guest(const struct command *command, struct output *out,
                      const struct arguments *args, struct place *place)
{
    const char *kind = args->word[2];
    int error = command_guest(command, out, args->word[1], &place->guest);

    if (error)
        return error;
    if (strcmp(kind, "gpa") != 0 && strcmp(kind, "gva") != 0)
        return command_refuse(command, out, E_INVAL,
                              "\"%.20s\" is no kind of address: a guest has gpa (physical) and gva "
                              "(virtual) ones",
                              kind);
    place->space = strcmp(kind, "gpa") == 0 ? SPACE_GPA : SPACE_GVA;
    if (!place->guest->has_table)
        return command_refuse(command, out, E_STATE, "g%u %s has no memory any more (%s)",
                              place->guest->number, place->guest->name,
                              guest_state_name(place->guest->state));
    return place->space == SPACE_GVA ? take_registers(command, out, place) : E_OK;
}

int place_take(const struct command *command, struct output *out, struct arguments *args,
               unsigned behind, struct place *place)
{
    bool is_hva = strcmp(args->word[1], "hva") == 0;
    bool is_host = is_hva || strcmp(args->word[1], "hpa") == 0;
    int error = E_OK;

    *place = (struct place){.space = is_hva ? SPACE_HVA : SPACE_HPA, .next = is_host ? 3 : 4};
    if (strcmp(args->word[args->count - 1], "force") == 0) {
        place->force = true;
        args->count--;
    }
    if (!is_host)
        error = take_guest(command, out, args, place);
    if (error)
        return error;
    if (args->count < place->next + behind)
        return command_refuse(command, out, E_INVAL,
                              "an argument is missing; usage: %s %s; for example: %s",
                              command->name, command->usage, command->example);
    const char *word = args->word[place->next - 1];
    if (place->space == SPACE_GVA)
        return command_gva(command, out, place->guest, word, "address", &place->at);
    return command_number(command, out, word, "address", &place->at);
}

static int from_mapping(const struct mapping *mapping, unsigned access, bool force,
                        struct stretch *stretch)
{
    uint64_t rest = mapping->last - stretch->at + 1;
    char rights[RIGHTS_TEXT];

    stretch->to = hpa_add(mapping->out, stretch->at - mapping->in);
    if (stretch->size > rest)
        stretch->size = rest;
    if (force || !(access & ~(unsigned)mapping->attrs.rights))
        return E_OK;
    format_buffer(stretch->why, sizeof(stretch->why),
                  "the table allows %s there; `force` at the end "
                  "goes past that",
                  rights_text(rights, mapping->attrs.rights));
    return E_PERM;
}

static int from_table(struct table *table, const struct guest *guest, unsigned access, bool force,
                      struct stretch *stretch)
{
    struct mapping mapping;
    int error = table_translate(table, stretch->at, &mapping);

    if (!error)
        return from_mapping(&mapping, access, force, stretch);
    const struct slot *slot = guest ? guest_slot_at(guest, gpa(stretch->at)) : NULL;
    if (slot && slot_kind_fills(slot->kind) && error == E_NOENT)
        format_buffer(stretch->why, sizeof(stretch->why),
                      "%s that has no frame: the guest has not touched it, or has given it back",
                      slot_kind_name(slot->kind));
    else if (error == E_RANGE)
        format_buffer(stretch->why, sizeof(stretch->why),
                      "no address of the %s table: those are 0x%lx to 0x%lx", table->kind->name,
                      table->kind->input_first, table->kind->input_last);
    else
        format_buffer(stretch->why, sizeof(stretch->why), "the %s table maps nothing there (%s)",
                      table->kind->name, error_text(error));
    return error;
}

/* By the guest's tables without their rights. */
static int force_gva(struct place *place, struct stretch *stretch)
{
    struct gva_walk walk;
    int error = gva_walk(&place->registers, gva(stretch->at), &walk);

    if (error) {
        format_buffer(stretch->why, sizeof(stretch->why),
                      "the guest's tables map nothing there (%s)", error_text(error));
        return error;
    }
    struct stretch physical = {.at = walk.gpa.v, .size = walk.walk.mapping.last - stretch->at + 1};
    if (physical.size > stretch->size)
        physical.size = stretch->size;
    error = from_table(&place->guest->table, place->guest, RIGHT_NONE, true, &physical);
    stretch->size = physical.size;
    stretch->to = physical.to;
    memcpy(stretch->why, physical.why, sizeof(stretch->why));
    return error;
}

/* As supervisor mode of the guest would: what the CPU would refuse is refused, with the reason. */
static int from_gva(struct place *place, unsigned access, struct stretch *stretch)
{
    static struct explanation e; /* large for a stack of 16 KiB; one console, one at a time */
    struct explain_query query = {
        .registers = &place->registers,
        .second = &place->guest->table,
        .at = stretch->at,
        .access = access,
        .rflags = place->rflags,
        .pat = place->pat,
        .load = physical_load,
    };
    char rule[EXPLAIN_TEXT];

    explain(&query, &e);
    if (e.outcome != EXPLAIN_ALLOWED) {
        format_buffer(stretch->why, sizeof(stretch->why), "%s: %s", explain_outcome_name(&e),
                      explain_rule_text(rule, &e));
        return E_PERM;
    }
    uint64_t rest = PAGE_SIZE - (stretch->at & (PAGE_SIZE - 1));
    stretch->to = e.hpa;
    if (stretch->size > rest)
        stretch->size = rest;
    return E_OK;
}

/* Others may hold the frame as well, or somebody wants to know what is written: then the table does
 * not let the guest write, though its slot does. What else is in the way is told by place_locate().
 */
static int make_own(struct place *place, struct stretch *stretch)
{
    struct mapping leaf;
    struct gva_walk walk;

    stretch->gpa = gpa(stretch->at);
    if (place->guest == NULL)
        return E_OK;
    if (place->space == SPACE_GVA) {
        if (gva_walk(&place->registers, gva(stretch->at), &walk) != E_OK)
            return E_OK;
        stretch->gpa = walk.gpa;
    }
    if (gpa_translate(&place->guest->table, stretch->gpa, &leaf) != E_OK)
        return E_OK;
    int error = place->force ? page_own(place->guest, stretch->gpa)
                             : page_open(place->guest, stretch->gpa, &leaf);
    if (error != E_NOMEM && error != E_QUOTA)
        return E_OK;
    format_buffer(stretch->why, sizeof(stretch->why),
                  "the frame has other holders, and there is none for a copy (%s)",
                  error_text(error));
    return error;
}

int place_locate(struct place *place, uint64_t at, uint64_t size, unsigned access,
                 struct stretch *stretch)
{
    uint64_t rest = PAGE_SIZE - (at & (PAGE_SIZE - 1));
    uint8_t byte;
    int error = E_OK;

    *stretch = (struct stretch){.at = at, .size = size < rest ? size : rest};
    if (access == RIGHT_W)
        error = make_own(place, stretch);
    if (error)
        return error;
    switch (place->space) {
    case SPACE_HPA:
        stretch->to = hpa(at);
        break;
    case SPACE_HVA:
        error = from_table(&kernel_table, NULL, access, place->force, stretch);
        break;
    case SPACE_GPA:
        error = from_table(&place->guest->table, place->guest, access, place->force, stretch);
        break;
    case SPACE_GVA:
        error = place->force ? force_gva(place, stretch) : from_gva(place, access, stretch);
        break;
    }
    if (!error && physical_read(stretch->to, &byte, 1) != 1) {
        format_buffer(stretch->why, sizeof(stretch->why),
                      "physical address 0x%lx is no RAM of the direct map, and a look at a device "
                      "could change it",
                      stretch->to.v);
        error = E_NOENT;
    }
    return error;
}

int place_refuse(const struct command *command, struct output *out, int error,
                 const struct stretch *stretch)
{
    return command_refuse(command, out, error, "0x%lx: %s", stretch->at, stretch->why);
}

int place_read(const struct command *command, struct output *out, struct place *place, uint64_t at,
               void *to, uint64_t size)
{
    struct stretch stretch;

    for (uint64_t done = 0; done < size; done += stretch.size) {
        int error = place_locate(place, at + done, size - done, RIGHT_R, &stretch);
        if (error)
            return place_refuse(command, out, error, &stretch);
        physical_read(stretch.to, (uint8_t *)to + done, stretch.size);
    }
    return E_OK;
}
