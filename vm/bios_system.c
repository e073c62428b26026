/* INT 0x15: how much memory there is (ACPI 6.5, 15.1 "INT 15H, E820H"), A20, which is open,
 * waiting, switching off, and copying beyond 1 MiB (IBM "Personal System/2 and Personal Computer
 * BIOS Interface Technical Reference", INT 15H, AH=87H). */
#include "lib/bits.h"
#include "lib/string.h"
#include "vm/bios.h"
#include "vm/clock.h"
#include "vm/guest_load.h"
#include "vm/load_parts.h"
#include "vm/reset.h"

#define SMAP 0x534d4150u
#define UNSUPPORTED 0x86
#define BELOW_16M (15 * 1024) /* KiB from 1 MiB on */
#define BELOW_64M (63 * 1024)

/* APM 1.2: APM BIOS Interface Specification, "APM BIOS Functions". */
#define POWER 0x53
#define POWER_VERSION 0x0102
#define POWER_ALL 1
#define POWER_OFF 3
#define POWER_UNKNOWN 0x0c
enum {
    POWER_CHECK = 0x00,
    POWER_CONNECT = 0x01,
    POWER_DISCONNECT = 0x04,
    POWER_SET = 0x07,
    POWER_ENABLE = 0x08,
    POWER_VERSION_OF = 0x0e,
};

#define WAIT 0x86
#define MICROSECONDS 1000000

#define MOVE_BLOCK 0x87
#define MOVE_MOST 0x10000 /* bytes of one call */
#define PIECE 512         /* bytes at a time */
enum { MOVE_FROM = 2, MOVE_TO = 3, MOVE_DESCRIPTORS = 6 };
enum move { MOVED = 0, MOVE_INTERRUPTED = 2 };

struct range {
    uint64_t base, size;
    uint32_t type;
} __attribute__((packed));

static uint32_t high_kib(const struct bios_call *call)
{
    struct load_region map[LOAD_MAP];
    unsigned count = guest_memory_map(call->guest, map);
    uint64_t at = LOAD_HIGH_FIRST;

    for (unsigned i = 0; i < count; i++) {
        if (map[i].ram && map[i].base == at)
            at += map[i].size;
    }
    if (at > LOAD_LAST_32BIT)
        at = LOAD_LAST_32BIT + 1;
    return (uint32_t)((at - LOAD_HIGH_FIRST) / KiB);
}

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* EBX: the number of the range, and of the next one, 0 behind the last. ES:DI: where to. */
static bool memory_range(struct bios_call *call)
{
    uint64_t *gpr = call->gpr, to = call->state.segment[SEG_ES].base + bios_word(call, RDI);
    struct load_region map[LOAD_MAP];
    unsigned count = guest_memory_map(call->guest, map), i = (uint32_t)gpr[RBX];
    struct range range;

    if ((uint32_t)gpr[RDX] != SMAP || (uint32_t)gpr[RCX] < sizeof(range) || i >= count)
        return false;
    range = (struct range){map[i].base, map[i].size, load_map_type(&map[i])};
    if (guest_write(call->guest, gpa(to), &range, sizeof(range)) != sizeof(range))
        return false;
    gpr[RAX] = SMAP;
    gpr[RCX] = sizeof(range);
    gpr[RBX] = i + 1 < count ? i + 1 : 0;
    return true;
}

static bool memory_sizes(struct bios_call *call)
{
    uint32_t kib = high_kib(call), first = smaller(kib, BELOW_16M);

    bios_set_word(call, RAX, (uint16_t)first);
    bios_set_word(call, RBX, (uint16_t)smaller((kib - first) / 64, UINT16_MAX));
    bios_set_word(call, RCX, bios_word(call, RAX));
    bios_set_word(call, RDX, bios_word(call, RBX));
    return true;
}

static bool gate_a20(struct bios_call *call)
{
    switch (bios_low(call, RAX)) {
    case 0x01: /* open it */
        break;
    case 0x02:
        bios_set_low(call, RAX, 1);
        break;
    case 0x03: /* by which ways it can be opened: the 8042, port 0x92 */
        bios_set_word(call, RBX, 3);
        break;
    default: /* it cannot be closed */
        return false;
    }
    bios_set_high(call, RAX, 0);
    return true;
}

/* Of the descriptors, as the CPU has them: SDM Vol. 3, 3.4.5. */
struct descriptor {
    uint16_t limit, base;
    uint8_t base_middle, access, limit_high, base_high;
};

static uint64_t base_of(const struct descriptor *descriptor)
{
    return descriptor->base | (uint64_t)descriptor->base_middle << 16 |
           (uint64_t)descriptor->base_high << 24;
}

/* Up to the end of a page: memory that was never touched cannot be read, and is zero. */
static bool copy_piece(struct guest *guest, uint64_t from, uint64_t to, uint64_t size)
{
    uint8_t bytes[PIECE] = {0};

    if (guest_slot_at(guest, gpa(from)) == NULL)
        return false;
    (void)guest_read(guest, gpa(from), bytes, size);
    return guest_write(guest, gpa(to), bytes, size) == size;
}

/* ES:SI: six descriptors, the third of which is the source and the fourth the destination. CX: how
 * many words. Where there is no memory an interrupt would have occurred. */
static bool move_block(struct bios_call *call)
{
    uint64_t at = call->state.segment[SEG_ES].base + bios_word(call, RSI), size, from, to;
    struct descriptor table[MOVE_DESCRIPTORS];
    enum move status = MOVED;

    size = bios_word(call, RCX) * 2u;
    if (guest_read(call->guest, gpa(at), table, sizeof(table)) != sizeof(table) ||
        size > MOVE_MOST) {
        bios_set_high(call, RAX, MOVE_INTERRUPTED);
        return false;
    }
    from = base_of(&table[MOVE_FROM]);
    to = base_of(&table[MOVE_TO]);
    if (size > table[MOVE_FROM].limit + 1u || size > table[MOVE_TO].limit + 1u)
        status = MOVE_INTERRUPTED;
    for (uint64_t done = 0; done < size && status == MOVED;) {
        uint64_t left = PAGE_SIZE - (from + done) % PAGE_SIZE, piece = size - done;

        piece = piece < left ? piece : left;
        piece = piece < PIECE ? piece : PIECE;
        if (!copy_piece(call->guest, from + done, to + done, piece))
            status = MOVE_INTERRUPTED;
        done += piece;
    }
    bios_set_high(call, RAX, status);
    return status == MOVED;
}

/* The calls that lead to switching off, by the real-mode interface alone: BX the device, 0 the BIOS
 * and 1 all; CX the state. What else there is has an error of APM's own in AH. */
static bool power(struct bios_call *call)
{
    uint16_t device = bios_word(call, RBX);

    switch (bios_low(call, RAX)) {
    case POWER_CHECK:
        bios_set_word(call, RAX, POWER_VERSION);
        bios_set_word(call, RBX, 'P' << 8 | 'M');
        bios_set_word(call, RCX, 0); /* neither protected-mode interface, and not switched off */
        return true;
    case POWER_CONNECT:
    case POWER_DISCONNECT:
    case POWER_ENABLE:
        return true;
    case POWER_VERSION_OF:
        bios_set_word(call, RAX, POWER_VERSION);
        return true;
    case POWER_SET:
        if (device == POWER_ALL && bios_word(call, RCX) == POWER_OFF)
            guest_power_off(call->guest, "APM");
        return true;
    }
    bios_set_high(call, RAX, POWER_UNKNOWN);
    return false;
}

/* CX:DX: microseconds. The data area has when it is over, by a clock of 32 bits of these, and that
 * somebody waits; the stub asks again and again until then. */
static bool wait_for(struct bios_call *call)
{
    struct guest *guest = call->guest;
    uint64_t passed = guest_now(guest) - guest->devices.clock.started;
    uint32_t now = (uint32_t)clock_counts(passed, guest->devices.clock.hz, MICROSECONDS);
    uint32_t asked = (uint32_t)bios_word(call, RCX) << 16 | bios_word(call, RDX);

    if (!(bios_data(call, BDA_WAITS, 1) & BIT(0))) {
        bios_set_data(call, BDA_WAIT_UNTIL, 4, now + smaller(asked, INT32_MAX));
        bios_set_data(call, BDA_WAITS, 1, 1);
    }
    call->spin = (int32_t)(bios_data(call, BDA_WAIT_UNTIL, 4) - now) > 0;
    if (!call->spin)
        bios_set_data(call, BDA_WAITS, 1, 0);
    return true;
}

static bool serve(struct bios_call *call)
{
    switch (bios_word(call, RAX)) {
    case 0xe820:
        return memory_range(call);
    case 0xe801:
        return memory_sizes(call);
    }
    switch (bios_high(call, RAX)) {
    case 0x24:
        return gate_a20(call);
    case 0x88:
        bios_set_word(call, RAX, (uint16_t)smaller(high_kib(call), BELOW_64M));
        return true;
    }
    return false;
}

void bios_system(struct bios_call *call)
{
    bool done;

    switch (bios_high(call, RAX)) {
    case MOVE_BLOCK: /* they say themselves what went wrong */
        bios_carry(call, !move_block(call));
        return;
    case POWER:
        bios_carry(call, !power(call));
        return;
    case WAIT:
        bios_carry(call, !wait_for(call));
        return;
    }
    done = serve(call);
    if (!done)
        bios_set_high(call, RAX, UNSUPPORTED);
    bios_carry(call, !done);
}
