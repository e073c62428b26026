/* See read_linear.h. */
#include "arch/x86_64/guest/read_linear.h"

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/mm/guest_walk.h"
#include "arch/x86_64/mm/physical.h"
#include "lib/string.h"
#include "mm/paging/typed.h"

/* Within one page. */
static bool read_physical(void *ctx, gpa_t from, void *to, unsigned size)
{
    struct mapping mapping;

    return gpa_translate(ctx, from, &mapping) == E_OK &&
           physical_load(NULL, hpa_add(mapping.out, from.v - mapping.in), to, size);
}

struct gva_context guest_gva_context(struct table *second, const struct vcpu_state *state)
{
    struct gva_context registers = {
        .cr0 = state->cr0,
        .cr3 = state->cr3,
        .cr4 = state->cr4,
        .efer = state->efer,
        .maxphyaddr = cpu_features.maxphyaddr,
        .page_1g = cpu_features.page1g,
        .read = read_physical,
        .ctx = second,
    };

    memcpy(registers.pdpte, state->pdpte, sizeof(registers.pdpte));
    return registers;
}

bool guest_read_linear(struct table *second, const struct vcpu_state *state, uint64_t at, void *to,
                       unsigned size)
{
    const struct gva_context registers = guest_gva_context(second, state);
    uint8_t *bytes = to;
    struct gva_walk walk;

    while (size > 0) {
        uint64_t room = PAGE_SIZE - at % PAGE_SIZE;
        unsigned piece = size < room ? size : (unsigned)room;

        if (gva_walk(&registers, gva(at), &walk) != E_OK ||
            !read_physical(second, walk.gpa, bytes, piece))
            return false;
        bytes += piece;
        at += piece;
        size -= piece;
    }
    return true;
}
