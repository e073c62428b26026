/* See vm/bios_rom.h. */
#include "vm/bios_rom.h"

#include "lib/string.h"

static const uint8_t stub[BIOS_STUB] = {
    0xe6, BIOS_PORT, /* call: out BIOS_PORT, al */
    0xcf,            /*       iret */
    0xfb,            /* wait: sti */
    0xf4,            /*       hlt */
    0xeb, 0xf9,      /*       jmp call */
    0xfb,            /* spin: sti */
    0xeb, 0xf6,      /*       jmp call */
};

/* The timer's, behind which others hook themselves at vector 0x1c. */
static const uint8_t timer_stub[BIOS_STUB] = {
    0xe6, BIOS_PORT, /* out BIOS_PORT, al */
    0xcd, 0x1c,      /* int 0x1c */
    0x50,            /* push ax */
    0xb0, PIC_END,   /* mov al, end of interrupt */
    0xe6, PIC_FIRST, /* out PIC_FIRST, al */
    0x58,            /* pop ax */
    0xcf,            /* iret */
};

/* At the ROM's end, where a CPU begins after a reset and FFFF:0000 leads, without a look at the
 * stack: a reset by the keyboard controller; a date; the model, an AT. */
#define RESET_VECTOR 0xff0
static const uint8_t rom_end[16] = {
    0xb0, 0xfe, /* mov al, pulse the reset line */
    0xe6, 0x64, /* out 0x64, al */
    0xf4,       /* hlt */
    '0',  '1',  '/', '0', '1', '/', '2', '6', 0, 0xfc,
};

bool bios_has_stub(unsigned vector)
{
    return (vector >= INT_TIMER && vector <= INT_TIME) ||
           (vector >= INT_SECOND && vector < INT_SECOND + 8);
}

void bios_fill(uint8_t rom[BIOS_ROM_SIZE], uint16_t vectors[BIOS_VECTORS][2])
{
    memset(rom, 0, BIOS_ROM_SIZE);
    for (unsigned i = 0; i < BIOS_VECTORS; i++) {
        if (!bios_has_stub(i))
            continue;
        memcpy(rom + i * BIOS_STUB, i == INT_TIMER ? timer_stub : stub, BIOS_STUB);
        vectors[i][0] = (uint16_t)(BIOS_ROM - BIOS_SEGMENT * 16 + i * BIOS_STUB);
        vectors[i][1] = BIOS_SEGMENT;
    }
    memcpy(rom + RESET_VECTOR, rom_end, sizeof(rom_end));
}
