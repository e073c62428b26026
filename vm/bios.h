/*
 * A BIOS for boot sectors, and for kernels by their 16-bit entry: what is behind the interrupt
 * vectors that they call. In the guest's ROM there is a stub for each; all that it does is to write
 * to a port, by which the hypervisor carries the service out on the guest's registers and memory.
 *
 * Whatever the guest does with stubs and port, only its own registers and memory are concerned, and
 * no call does more than a bounded piece of work.
 */
#ifndef QUIRE_VM_BIOS_H
#define QUIRE_VM_BIOS_H

#include <stdint.h>

#include "vm/guest.h"

/* The last page of the ROM: a stub of 16 bytes for each vector. */
#define BIOS_ROM UINT64_C(0xff000)
#define BIOS_ROM_SIZE 0x1000
#define BIOS_STUB 16
#define BIOS_VECTORS 256
#define BIOS_SEGMENT 0xf000
#define BIOS_PORT 0xb4 /* no device of a PC's */

/* For the loader: the page's bytes, and the vectors that lead there (offset, segment); the others
 * stay as they are. */
void bios_fill(uint8_t rom[BIOS_ROM_SIZE], uint16_t vectors[BIOS_VECTORS][2]);

/* Brings the devices into the state that a BIOS leaves: interrupt controllers at vectors 8 and
 * 0x70, the timer at 18.2 Hz. */
void bios_start(struct guest *guest);

/* ---- Within the BIOS ------------------------------------------------------------------------- */

/* A call: the guest is at a stub, in real mode. */
struct bios_call {
    struct guest *guest;
    uint64_t *gpr;
    struct vcpu_state state;            /* its segments; changing it changes nothing */
    uint16_t from_segment, from_offset; /* behind the INT */
    uint16_t flags;                     /* what the caller gets back, and ... */
    uint64_t flags_at;                  /* ... where they lie on its stack */
    bool wait;                          /* the stub waits for an interrupt, and calls again */
    bool spin;                          /* it calls again at once, interrupts open */
};

uint8_t bios_low(const struct bios_call *call, enum gpr reg); /* AL, BL, ... */
uint8_t bios_high(const struct bios_call *call, enum gpr reg);
uint16_t bios_word(const struct bios_call *call, enum gpr reg);
void bios_set_low(struct bios_call *call, enum gpr reg, uint8_t value);
void bios_set_high(struct bios_call *call, enum gpr reg, uint8_t value);
void bios_set_word(struct bios_call *call, enum gpr reg, uint16_t value);
void bios_carry(struct bios_call *call, bool set); /* CF for the caller */

/* Words and bytes of the BIOS data area, by their offsets in it. */
enum {
    BDA_EQUIPMENT = 0x10,
    BDA_MEMORY = 0x13,
    BDA_SHIFT = 0x17,
    BDA_KEY_HEAD = 0x1a,
    BDA_KEY_TAIL = 0x1c,
    BDA_KEYS = 0x1e,
    BDA_KEYS_END = 0x3e,
    BDA_DISK_STATUS = 0x74,
    BDA_VIDEO_MODE = 0x49,
    BDA_COLUMNS = 0x4a,
    BDA_CURSOR = 0x50,
    BDA_CURSOR_SHAPE = 0x60,
    BDA_TICKS = 0x6c,
    BDA_MIDNIGHT = 0x70,
    BDA_WAIT_UNTIL = 0x9c,
    BDA_WAITS = 0xa0,
};
uint32_t bios_data(const struct bios_call *call, unsigned offset, unsigned width);
void bios_set_data(struct bios_call *call, unsigned offset, unsigned width, uint32_t value);

/* The services, each by its vector. */
void bios_video(struct bios_call *call);   /* 0x10 */
void bios_disk(struct bios_call *call);    /* 0x13 */
void bios_system(struct bios_call *call);  /* 0x15 */
void bios_keys(struct bios_call *call);    /* 0x16 */
void bios_key_irq(struct bios_call *call); /* 0x09 */
/* For the timer's tick: a key code that had no room and waits at the controller, should the guest
 * have taken keys by itself since. */
void bios_key_left(struct bios_call *call);

#endif
