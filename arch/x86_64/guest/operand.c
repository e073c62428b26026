/* The memory operand of an instruction carried out for a guest, as arch/x86_64/mm/operand.h judges
 * it. See access.h. */
#include "arch/x86_64/guest/access.h"

_Static_assert((int)OPERAND_ES == SEG_ES && (int)OPERAND_CS == SEG_CS &&
                   (int)OPERAND_SS == SEG_SS && (int)OPERAND_DS == SEG_DS &&
                   (int)OPERAND_FS == SEG_FS && (int)OPERAND_GS == SEG_GS,
               "one order of segment registers");

static int reach(void *ctx, gpa_t at, unsigned access, uint8_t **bytes, unsigned *allowed)
{
    struct guest_access *guest = ctx;

    return guest_memory_reach(&guest->memory, at, access, bytes, allowed);
}

static void mark(void *ctx, gpa_t at, bool write)
{
    struct guest_access *guest = ctx;

    (void)guest_memory_mark(&guest->memory, at, write);
}

struct operand_cpu guest_operand_cpu(struct guest_access *access)
{
    struct operand_cpu cpu;

    access->registers(access->vcpu, &cpu);
    cpu.reach = reach;
    cpu.mark = mark;
    cpu.ctx = access;
    return cpu;
}

struct operand_segment guest_operand_segment(const struct guest_access *access,
                                             enum segment_index index)
{
    struct segment segment;

    access->segment(access->vcpu, index, &segment);
    return (struct operand_segment){
        .base = segment.base,
        .limit = segment.limit,
        .access = segment.access,
        .unusable = segment.unusable,
    };
}

struct vm_event guest_fault(const struct operand_place *place)
{
    return (struct vm_event){
        .kind = VM_EVENT_EXCEPTION,
        .vector = place->fault.vector,
        .has_code = true,
        .code = place->fault.code,
        .address = place->fault.address,
    };
}

void guest_tell_refusal(const struct guest_access *access, const struct operand_place *place,
                        enum operand_outcome outcome, struct vm_exit *exit)
{
    if (outcome == OPERAND_ILLEGAL) {
        exit->kind = VM_EXIT_MISCONFIG;
        exit->memory.gpa = place->refused.gpa;
        return;
    }
    exit->kind = VM_EXIT_MEMORY;
    exit->memory.gpa = place->refused.gpa;
    exit->memory.gva = place->refused.gva;
    exit->memory.gva_valid = true;
    exit->memory.walk = place->refused.walk;
    exit->memory.access = place->refused.access;
    exit->memory.allowed = place->refused.allowed;
    exit->qualification = access->tell(place);
}

/* Elements in the page that has been reached, as far as each passes the checks that this one has
 * passed: within the segment, and by the offset's width not beyond its end. */
static unsigned run_in_page(const struct operand_cpu *cpu, const struct operand *operand,
                            const struct operand_place *place, int direction)
{
    uint64_t into = place->linear & (PAGE_SIZE - 1), bytes = operand->bytes, count;
    uint64_t offset = operand->offset, most = UINT64_MAX;

    if (operand->address_bytes < 8) {
        most = BITS(8 * operand->address_bytes - 1, 0);
        offset &= most;
    }
    if (!cpu->code64 && operand->segment.limit < most)
        most = operand->segment.limit;
    if (into + bytes > PAGE_SIZE || offset > most || most - offset < bytes - 1 ||
        (!cpu->code64 && segment_expands_down(&operand->segment)))
        return 1;
    if (direction > 0) {
        uint64_t left = (most - offset - (bytes - 1)) / bytes + 1;

        count = (PAGE_SIZE - into) / bytes;
        return (unsigned)(left < count ? left : count);
    }
    count = into / bytes + 1;
    return (unsigned)(offset / bytes + 1 < count ? offset / bytes + 1 : count);
}

enum vm_operand_outcome guest_operand(struct guest_access *access, const struct vm_exit *exit,
                                      const struct vm_operand *asked, struct vm_operand_place *out)
{
    struct operand_cpu cpu = guest_operand_cpu(access);
    struct operand_place place;
    struct operand operand = {
        .which = (enum operand_register)asked->segment,
        .segment = guest_operand_segment(access, asked->segment),
        .offset = asked->offset,
        .address_bytes = asked->address_bytes,
        .bytes = asked->bytes,
        .access = asked->access,
    };
    enum operand_outcome outcome = operand_reach(&cpu, &operand, &place);

    switch (outcome) {
    case OPERAND_REACHED:
        for (unsigned i = 0; i < ARRAY_SIZE(out->piece); i++) {
            out->piece[i].at = place.piece[i].at;
            out->piece[i].bytes = place.piece[i].bytes;
        }
        access->note_memory(access->vcpu, place.linear, asked->bytes,
                            (asked->access & RIGHT_W) != 0);
        out->run = asked->direction != 0 && !access->watches(access->vcpu)
                       ? run_in_page(&cpu, &operand, &place, asked->direction)
                       : 1;
        return VM_OPERAND_REACHED;
    case OPERAND_EXCEPTION:
        out->event = guest_fault(&place);
        return VM_OPERAND_EXCEPTION;
    case OPERAND_VIOLATION:
    case OPERAND_ILLEGAL:
        out->exit = *exit;
        guest_tell_refusal(access, &place, outcome, &out->exit);
        return VM_OPERAND_MEMORY;
    case OPERAND_AGAIN:
        break;
    }
    return VM_OPERAND_AGAIN;
}
