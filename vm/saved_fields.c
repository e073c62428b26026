/* See vm/saved_fields.h; docs/SAVED-GUEST.md is what this is, in words. */
#include "vm/saved_fields.h"

#include "lib/bits.h"
#include "lib/string.h"

static void field(struct saved_stream *stream, void *value, uint64_t size)
{
    if (stream->failed || size > stream->left) {
        stream->failed = true;
        return;
    }
    if (stream->to != NULL) {
        memcpy(stream->to, value, size);
        stream->to += size;
    } else {
        memcpy(value, stream->from, size);
        stream->from += size;
    }
    stream->left -= size;
}

static void number64(struct saved_stream *stream, uint64_t *value)
{
    field(stream, value, sizeof(*value));
}

void saved_number(struct saved_stream *stream, uint32_t *value)
{
    field(stream, value, sizeof(*value));
}

static void number16(struct saved_stream *stream, uint16_t *value)
{
    field(stream, value, sizeof(*value));
}

/* A flag, as a number of 2 bytes. */
static void flag(struct saved_stream *stream, bool *value)
{
    uint16_t number = *value;

    number16(stream, &number);
    stream->failed = stream->failed || number > 1;
    *value = number == 1;
}

static void numbers64(struct saved_stream *stream, uint64_t *value, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        number64(stream, &value[i]);
}

static void fault_fields(struct saved_stream *stream, struct expected_fault *fault)
{
    number64(stream, &fault->base);
    number64(stream, &fault->size);
    number64(stream, &fault->resume);
}

void saved_guest_fields(struct saved_stream *stream, struct saved *saved, unsigned cpu)
{
    (void)cpu;
    number64(stream, &saved->memory);
    number64(stream, &saved->clock);
    number64(stream, &saved->hz);
    saved_number(stream, &saved->flags);
    saved_number(stream, &saved->pages);
    saved_number(stream, &saved->around);
    fault_fields(stream, &saved->cpu[0].is.expect_fault);
}

void saved_slots_fields(struct saved_stream *stream, struct saved *saved, unsigned cpu)
{
    uint32_t count = saved->slots;

    (void)cpu;
    saved_number(stream, &count);
    stream->failed = stream->failed || count > GUEST_SLOTS;
    for (unsigned i = 0; !stream->failed && i < count; i++) {
        struct slot *slot = &saved->slot[i];
        uint32_t kind = slot->kind, rights = slot->rights;

        number64(stream, &slot->base.v);
        number64(stream, &slot->size);
        saved_number(stream, &kind);
        saved_number(stream, &rights);
        stream->failed = stream->failed || kind > SLOT_SHARED || (rights & ~(uint32_t)RIGHT_RWX);
        slot->kind = stream->failed ? SLOT_RAM : (enum slot_kind)kind;
        slot->rights = (uint8_t)rights;
    }
    saved->slots = stream->failed ? 0 : count;
}

static void segment_fields(struct saved_stream *stream, struct segment *segment)
{
    number64(stream, &segment->base);
    saved_number(stream, &segment->limit);
    number16(stream, &segment->selector);
    number16(stream, &segment->access);
    flag(stream, &segment->unusable);
}

static void state_fields(struct saved_stream *stream, struct vcpu_state *state)
{
    numbers64(stream, state->gpr, GPR_COUNT);
    number64(stream, &state->rip);
    number64(stream, &state->rflags);
    number64(stream, &state->cr0);
    number64(stream, &state->cr2);
    number64(stream, &state->cr3);
    number64(stream, &state->cr4);
    number64(stream, &state->efer);
    numbers64(stream, state->pdpte, 4);
    for (unsigned i = 0; i < SEG_COUNT; i++)
        segment_fields(stream, &state->segment[i]);
    number64(stream, &state->gdt_base);
    saved_number(stream, &state->gdt_limit);
    number64(stream, &state->idt_base);
    saved_number(stream, &state->idt_limit);
    number64(stream, &state->dr7);
    flag(stream, &state->halted);
}

static void rest_fields(struct saved_stream *stream, struct vcpu_rest *rest)
{
    number64(stream, &rest->star);
    number64(stream, &rest->lstar);
    number64(stream, &rest->cstar);
    number64(stream, &rest->fmask);
    number64(stream, &rest->kernel_gs_base);
    number64(stream, &rest->sysenter_cs);
    number64(stream, &rest->sysenter_esp);
    number64(stream, &rest->sysenter_eip);
    number64(stream, &rest->pat);
    number64(stream, &rest->xcr0);
    numbers64(stream, rest->dr, 4);
    number64(stream, &rest->dr6);
    number64(stream, &rest->pending_debug);
    saved_number(stream, &rest->event);
    saved_number(stream, &rest->event_code);
    saved_number(stream, &rest->event_length);
    saved_number(stream, &rest->blocked);
    saved_number(stream, &rest->traps);
    saved_number(stream, &rest->cr8);
    saved_number(stream, &rest->fpu_size);
    if (rest->fpu_size > VCPU_FPU_MOST)
        stream->failed = true;
    else
        field(stream, rest->fpu, rest->fpu_size);
}

void saved_cpu_fields(struct saved_stream *stream, struct saved *saved, unsigned cpu)
{
    state_fields(stream, &saved->cpu[cpu].state);
    rest_fields(stream, &saved->cpu[cpu].rest);
}

static void condition_fields(struct saved_stream *stream, struct cpu_condition *is)
{
    uint32_t flags = (is->halted ? SAVED_HALTED : 0) | (is->init ? SAVED_INIT : 0) |
                     (is->waits ? SAVED_WAITS : 0) | (is->sipi ? SAVED_SIPI : 0);
    uint32_t vector = is->vector;

    saved_number(stream, &flags);
    saved_number(stream, &vector);
    if ((flags & ~(SAVED_HALTED | SAVED_INIT | SAVED_WAITS | SAVED_SIPI)) || vector > UINT8_MAX)
        stream->failed = true;
    is->halted = (flags & SAVED_HALTED) != 0;
    is->init = (flags & SAVED_INIT) != 0;
    is->waits = (flags & SAVED_WAITS) != 0;
    is->sipi = (flags & SAVED_SIPI) != 0;
    is->vector = (uint8_t)vector;
    fault_fields(stream, &is->expect_fault);
}

static void lapic_fields(struct saved_stream *stream, struct dev_lapic *lapic)
{
    uint8_t bytes[SAVED_LAPIC_MOST];
    unsigned size = saved_lapic_put(lapic, bytes);

    field(stream, bytes, size);
    if (!stream->failed && saved_lapic_take(lapic, bytes, size) != NULL)
        stream->failed = true;
}

void saved_other_cpu_fields(struct saved_stream *stream, struct saved *saved, unsigned cpu)
{
    condition_fields(stream, &saved->cpu[cpu].is);
    lapic_fields(stream, &saved->devices.lapic[cpu]);
    saved_cpu_fields(stream, saved, cpu);
}
