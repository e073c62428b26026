/* The BIOS (vm/bios.h) of a guest that calls one. */
#include "lib/error.h"
#include "vm/bios.h"
#include "vm/load_parts.h"

int load_bios(struct loader *loader)
{
    uint16_t vectors[BIOS_VECTORS][2];
    uint8_t rom[BIOS_ROM_SIZE];
    int error;

    for (unsigned i = 0; i < BIOS_VECTORS; i++) {
        vectors[i][0] = LOAD_NO_VECTOR;
        vectors[i][1] = 0;
    }
    bios_fill(rom, vectors);
    error = load_place(loader, BIOS_ROM, rom, sizeof(rom), sizeof(rom), "the BIOS");
    if (error == E_OK) /* they are occupied already */
        error = loader->place(loader->ctx, 0, vectors, sizeof(vectors));
    loader->bios = true;
    return error;
}
