/* See emulate.h. */
#include "arch/x86_64/mm/emulate.h"

#include "lib/string.h"
#include "x86/control.h"

_Static_assert((int)OPERAND_ES == INSN_ES && (int)OPERAND_GS == INSN_GS, "one order of segments");

static enum emulate_outcome protection(struct emulation *out)
{
    out->place[0].fault.vector = VECTOR_GP;
    out->place[0].fault.code = 0;
    return EMULATE_EXCEPTION;
}

/* ---- Fetching ------------------------------------------------------------------------------ */

/* Where code lies: CS has no base in 64-bit mode. */
static uint64_t code_address(const struct emulate_cpu *cpu, uint64_t offset)
{
    if (cpu->mode == INSN_CODE64)
        return offset;
    return (cpu->segment(cpu->ctx, OPERAND_CS).base + offset) & UINT32_MAX;
}

uint64_t emulate_code_address(const struct emulate_cpu *cpu)
{
    return code_address(cpu, cpu->state.rip);
}

/* The second page is fetched only where the instruction goes on there. */
enum emulate_outcome emulate_decode(const struct emulate_cpu *cpu, struct emulation *out)
{
    uint8_t bytes[INSN_LONGEST];
    unsigned count = cpu->fetched_bytes, more;
    enum insn_verdict verdict = INSN_TRUNCATED;

    if (count != 0) {
        memcpy(bytes, cpu->fetched, count);
        verdict = insn_decode(bytes, count, cpu->mode, &out->insn);
    }
    while (verdict == INSN_TRUNCATED && count < INSN_LONGEST) {
        enum operand_outcome outcome =
            operand_fetch(&cpu->access, code_address(cpu, cpu->state.rip + count),
                          INSN_LONGEST - count, bytes + count, &more, &out->place[0]);

        if (outcome != OPERAND_REACHED)
            return (enum emulate_outcome)outcome;
        count += more;
        verdict = insn_decode(bytes, count, cpu->mode, &out->insn);
        if (more == 0)
            break;
    }
    if (verdict == INSN_DECODED)
        return EMULATE_DONE;
    insn_explain(verdict, &out->insn, bytes, count, out->why);
    return EMULATE_UNKNOWN;
}

/* ---- Reading and writing ------------------------------------------------------------------- */

struct pass {
    struct emulate_cpu *cpu;
    struct emulation *out;
};

/* What insn_execute() asks for is one of the places that were reached. */
static const struct operand_place *reached(const struct pass *pass, const struct insn_place *asked)
{
    for (unsigned i = 0; i + 1 < pass->out->places; i++) {
        const struct insn_place *place = &pass->out->asked[i];

        if (place->segment == asked->segment && place->offset == asked->offset &&
            place->access == asked->access)
            return &pass->out->place[i];
    }
    return &pass->out->place[pass->out->places - 1];
}

/* The largest access that is aligned at `at` and has at most `left` bytes. */
static unsigned aligned_bytes(gpa_t at, unsigned left)
{
    unsigned bytes = 8;

    while (bytes > left || at.v % bytes != 0)
        bytes /= 2;
    return bytes;
}

static void read_piece(const struct pass *pass, const struct operand_piece *piece, uint8_t *to)
{
    if (piece->at != NULL) {
        memcpy(to, piece->at, piece->bytes);
        return;
    }
    for (unsigned done = 0, bytes; done < piece->bytes; done += bytes) {
        gpa_t at = gpa_add(piece->gpa, done);

        bytes = aligned_bytes(at, piece->bytes - done);
        uint64_t value = pass->cpu->read(pass->cpu->ctx, at, bytes);
        memcpy(to + done, &value, bytes);
    }
}

static void write_piece(const struct pass *pass, const struct operand_piece *piece,
                        const uint8_t *from)
{
    if (piece->at != NULL) {
        memcpy(piece->at, from, piece->bytes);
        return;
    }
    for (unsigned done = 0, bytes; done < piece->bytes; done += bytes) {
        gpa_t at = gpa_add(piece->gpa, done);
        uint64_t value = 0;

        bytes = aligned_bytes(at, piece->bytes - done);
        memcpy(&value, from + done, bytes);
        pass->cpu->write(pass->cpu->ctx, at, bytes, value);
    }
}

static int read_place(void *ctx, const struct insn_place *asked, uint64_t value[2])
{
    const struct operand_place *place = reached(ctx, asked);
    uint8_t *to = (uint8_t *)value;

    value[0] = value[1] = 0;
    read_piece(ctx, &place->piece[0], to);
    if (place->piece[1].bytes != 0)
        read_piece(ctx, &place->piece[1], to + place->piece[0].bytes);
    return 0;
}

static int write_place(void *ctx, const struct insn_place *asked, const uint64_t value[2])
{
    const struct operand_place *place = reached(ctx, asked);
    const uint8_t *from = (const uint8_t *)value;

    write_piece(ctx, &place->piece[0], from);
    if (place->piece[1].bytes != 0)
        write_piece(ctx, &place->piece[1], from + place->piece[0].bytes);
    return 0;
}

/* ---- The whole ----------------------------------------------------------------------------- */

/* In 64-bit mode nothing is asked of the other segments. */
static struct operand_segment segment_of(const struct emulate_cpu *cpu, enum operand_register which)
{
    if (cpu->access.code64 && which != OPERAND_FS && which != OPERAND_GS)
        return (struct operand_segment){0};
    return cpu->segment(cpu->ctx, which);
}

struct operand emulate_operand(const struct emulate_cpu *cpu, const struct insn_place *place)
{
    return (struct operand){
        .which = (enum operand_register)place->segment,
        .segment = segment_of(cpu, (enum operand_register)place->segment),
        .offset = place->offset,
        .address_bytes = place->address_bytes,
        .bytes = place->bytes,
        .access = (place->access & INSN_READ ? RIGHT_R : 0u) |
                  (place->access & INSN_WRITE ? RIGHT_W : 0u),
    };
}

static enum emulate_outcome reach_place(const struct emulate_cpu *cpu,
                                        const struct insn_place *place, struct operand_place *out)
{
    const struct operand operand = emulate_operand(cpu, place);

    return (enum emulate_outcome)operand_reach(&cpu->access, &operand, out);
}

enum emulate_outcome emulate_step(struct emulate_cpu *cpu, struct emulation *out)
{
    struct pass pass = {.cpu = cpu, .out = out};
    const struct insn_bus bus = {read_place, write_place, &pass};

    out->places = insn_places(&out->insn, &cpu->state, out->asked);
    for (unsigned i = 0; i < out->places; i++) {
        enum emulate_outcome outcome = reach_place(cpu, &out->asked[i], &out->place[i]);

        if (outcome != EMULATE_DONE) {
            out->place[0] = out->place[i];
            return outcome;
        }
        if (out->asked[i].aligned && out->place[i].linear % out->asked[i].bytes != 0)
            return protection(out);
    }
    switch (insn_execute(&out->insn, &cpu->state, &bus)) {
    case INSN_PROTECTION:
        return protection(out);
    case INSN_REPEATS:
        return EMULATE_REPEATS;
    default:
        return EMULATE_DONE;
    }
}
