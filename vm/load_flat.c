/*
 * Flat 16-bit images: the bytes go to 0x7c00 and are entered there in real mode, as a PC's firmware
 * enters a boot sector, only that all of the image is there already. There is no firmware behind
 * it: every interrupt vector leads to one IRET.
 */
#include "lib/error.h"
#include "lib/format.h"
#include "lib/string.h"
#include "vm/load_parts.h"
#include "x86/control.h"

#define FLAT_ENTRY 0x7c00
#define FLAT_END 0x80000 /* where a PC's free low memory may end */
#define FLAT_SIGNATURE 510

#define BOOT_DISK 0x80 /* in DL: the first hard disk */

/* Real mode's segments as after reset (SDM Vol. 3, 9.1.4), and the tables that the CPU wants. */
#define ACCESS_DATA16 0x93
#define ACCESS_CODE16 0x9b
#define ACCESS_LDT 0x82
#define ACCESS_TSS 0x8b
#define REAL_LIMIT 0xffff
#define IVT_LIMIT 0x3ff

enum load_verdict flat_recognise(const uint8_t *bytes, uint64_t size, char *why, size_t why_size)
{
    if (size >= FLAT_SIGNATURE + 2 && bytes[FLAT_SIGNATURE] == 0x55 &&
        bytes[FLAT_SIGNATURE + 1] == 0xaa)
        return LOAD_YES;
    format_buffer(why, why_size, "no boot signature 55 AA at 510 (option `flat` does without)");
    return LOAD_NO;
}

static struct segment real_segment(uint16_t access)
{
    return (struct segment){.limit = REAL_LIMIT, .access = access};
}

static void enter_real_mode(struct vcpu_state *state)
{
    memset(state, 0, sizeof(*state));
    for (unsigned i = 0; i < SEG_COUNT; i++)
        state->segment[i] = real_segment(ACCESS_DATA16);
    state->segment[SEG_CS] = real_segment(ACCESS_CODE16);
    state->segment[SEG_LDTR] = real_segment(ACCESS_LDT);
    state->segment[SEG_TR] = real_segment(ACCESS_TSS);
    state->gpr[RDX] = BOOT_DISK;
    state->gpr[RSP] = FLAT_ENTRY;
    state->rip = FLAT_ENTRY;
    state->rflags = RFLAGS_FIXED;
    state->cr0 = CR0_ET;
    state->gdt_limit = REAL_LIMIT;
    state->idt_limit = IVT_LIMIT;
    state->dr7 = LOAD_DR7_RESET;
}

int load_flat(struct loader *loader)
{
    int error;

    loader->kind = "flat 16-bit";
    if (loader->size > FLAT_END - FLAT_ENTRY)
        return load_refuse(loader, E_RANGE,
                           "a flat image of 0x%lx bytes does not fit into 0x7c00..0x7ffff: one "
                           "with a Multiboot header may be larger",
                           loader->size);
    if (loader->modules != 0)
        return load_refuse(loader, E_UNSUPPORTED, "mods=: a flat guest takes no modules");
    error = load_pc_area(loader, true);
    if (error == E_OK)
        error = load_place(loader, FLAT_ENTRY, loader->bytes, loader->size, loader->size,
                           "the flat image");
    if (error == E_OK)
        enter_real_mode(&loader->state);
    return error;
}
