/*
 * INT 0x13: a boot sector's image as its only disk, which cannot be written. An image of a
 * diskette's size is drive 0 with that diskette's geometry; any other is drive 0x80. By cylinder,
 * head and sector, or by the extensions (Phoenix "BIOS Enhanced Disk Drive Specification" 1.1).
 */
#include "vm/bios.h"

#include "lib/bits.h"
#include "lib/string.h"
#include "vm/bios_disk.h"

#define SECTOR BIOS_SECTOR
#define PACKET_MOST 127 /* sectors of one call by the extensions */

enum status {
    OK = 0x00,
    BAD_COMMAND = 0x01,
    WRITE_PROTECTED = 0x03,
    NOT_FOUND = 0x04,
    BOUNDARY = 0x09, /* memory that is not there */
};

enum {
    RESET = 0x00,
    LAST_STATUS = 0x01,
    READ = 0x02,
    WRITE = 0x03,
    VERIFY = 0x04,
    FORMAT = 0x05,
    PARAMETERS = 0x08,
    RECALIBRATE = 0x11,
    DISK_TYPE = 0x15,
    EXTENSIONS = 0x41,
    READ_PACKET = 0x42,
    WRITE_PACKET = 0x43,
    VERIFY_PACKET = 0x44,
    SEEK_PACKET = 0x47,
    PACKET_PARAMETERS = 0x48,
};

struct packet {
    uint8_t size, reserved;
    uint16_t count, offset, segment;
    uint64_t sector;
};

struct packet_parameters {
    uint16_t size, flags;
    uint32_t cylinders, heads, sectors;
    uint64_t total;
    uint16_t sector_size;
} __attribute__((packed));

static enum status copy_sectors(struct bios_call *call, uint64_t sector, unsigned count,
                                uint64_t to)
{
    const struct guest_image *image = &call->guest->image;
    uint8_t last[SECTOR];

    for (unsigned i = 0; i < count; i++, to += SECTOR) {
        uint64_t at = (sector + i) * SECTOR;
        const uint8_t *bytes = image->bytes + at;

        if (image->size - at < SECTOR) { /* the last one may be cut off */
            memset(last, 0, sizeof(last));
            memcpy(last, bytes, image->size - at);
            bytes = last;
        }
        if (guest_write(call->guest, gpa(to), bytes, SECTOR) != SECTOR)
            return BOUNDARY;
    }
    return OK;
}

/* CH, CL, DH: cylinder, sector from 1, head. AL: how many; ES:BX: where to. */
static enum status by_geometry(struct bios_call *call, const struct bios_geometry *g, bool read)
{
    unsigned cylinder = bios_high(call, RCX) | (bios_low(call, RCX) & 0xc0u) << 2;
    unsigned sector = bios_low(call, RCX) & 0x3f, head = bios_high(call, RDX);
    unsigned count = bios_low(call, RAX);
    uint64_t first, to = call->state.segment[SEG_ES].base + bios_word(call, RBX);
    enum status status;

    if (count == 0 || sector == 0 || sector > g->sectors || head >= g->heads ||
        cylinder >= g->cylinders)
        return BAD_COMMAND;
    first = ((uint64_t)cylinder * g->heads + head) * g->sectors + sector - 1;
    if (first >= g->total || count > g->total - first) {
        bios_set_low(call, RAX, 0);
        return NOT_FOUND;
    }
    status = read ? copy_sectors(call, first, count, to) : OK;
    if (status != OK)
        bios_set_low(call, RAX, 0);
    return status;
}

/* DS:SI: the packet. */
static enum status by_packet(struct bios_call *call, const struct bios_geometry *g, bool read)
{
    uint64_t at = call->state.segment[SEG_DS].base + bios_word(call, RSI);
    struct packet packet;
    enum status status;

    if (guest_read(call->guest, gpa(at), &packet, sizeof(packet)) != sizeof(packet) ||
        packet.size < sizeof(packet) || packet.count > PACKET_MOST)
        return BAD_COMMAND;
    if (packet.sector > g->total || packet.count > g->total - packet.sector)
        status = NOT_FOUND;
    else
        status = read ? copy_sectors(call, packet.sector, packet.count,
                                     packet.segment * 16u + packet.offset)
                      : OK;
    if (status != OK) { /* none of them, for all that is promised */
        packet.count = 0;
        (void)guest_write(call->guest, gpa(at + 2), &packet.count, sizeof(packet.count));
    }
    return status;
}

static enum status parameters(struct bios_call *call, const struct bios_geometry *g)
{
    unsigned last = g->cylinders - 1;

    bios_set_low(call, RAX, 0);
    bios_set_low(call, RBX, g->diskette);
    bios_set_word(call, RCX, (uint16_t)((last & 0xff) << 8 | (last >> 2 & 0xc0) | g->sectors));
    bios_set_word(call, RDX, (uint16_t)((g->heads - 1) << 8 | 1));
    return OK;
}

static enum status packet_parameters(struct bios_call *call, const struct bios_geometry *g)
{
    uint64_t at = call->state.segment[SEG_DS].base + bios_word(call, RSI);
    struct packet_parameters out = {.size = 0};

    if (guest_read(call->guest, gpa(at), &out.size, sizeof(out.size)) != sizeof(out.size) ||
        out.size < sizeof(out))
        return BAD_COMMAND;
    out = (struct packet_parameters){
        .size = sizeof(out),
        .flags = 2, /* the geometry is valid */
        .cylinders = g->cylinders,
        .heads = g->heads,
        .sectors = g->sectors,
        .total = g->total,
        .sector_size = SECTOR,
    };
    return guest_write(call->guest, gpa(at), &out, sizeof(out)) == sizeof(out) ? OK : BOUNDARY;
}

static enum status extended(struct bios_call *call, const struct bios_geometry *g)
{
    switch (bios_high(call, RAX)) {
    case READ_PACKET:
        return by_packet(call, g, true);
    case VERIFY_PACKET:
    case SEEK_PACKET:
        return by_packet(call, g, false);
    case WRITE_PACKET:
        return WRITE_PROTECTED;
    case PACKET_PARAMETERS:
        return packet_parameters(call, g);
    default:
        return BAD_COMMAND;
    }
}

static enum status command(struct bios_call *call, const struct bios_geometry *g)
{
    switch (bios_high(call, RAX)) {
    case RESET:
    case RECALIBRATE:
        return OK;
    case READ:
        return by_geometry(call, g, true);
    case VERIFY:
        return by_geometry(call, g, false);
    case WRITE:
    case FORMAT:
        return WRITE_PROTECTED;
    case PARAMETERS:
        return parameters(call, g);
    default:
        return g->diskette ? BAD_COMMAND : extended(call, g);
    }
}

/* Those two answer by AH itself. */
static bool answers_by_itself(struct bios_call *call, const struct bios_geometry *g)
{
    switch (bios_high(call, RAX)) {
    case DISK_TYPE:
        if (!g->diskette) {
            bios_set_word(call, RCX, (uint16_t)(g->total >> 16));
            bios_set_word(call, RDX, (uint16_t)g->total);
        }
        bios_set_high(call, RAX, g->diskette ? 1 : 3);
        break;
    case EXTENSIONS:
        if (g->diskette || bios_word(call, RBX) != 0x55aa)
            return false;
        bios_set_word(call, RBX, 0xaa55);
        bios_set_word(call, RCX, 1); /* reading by packets */
        bios_set_high(call, RAX, 1); /* version 1.x */
        break;
    default:
        return false;
    }
    bios_carry(call, false);
    return true;
}

void bios_disk(struct bios_call *call)
{
    struct bios_geometry g = bios_geometry_of(call->guest->image.size);
    enum status status = BAD_COMMAND;

    if (bios_high(call, RAX) == LAST_STATUS) {
        status = (enum status)bios_data(call, BDA_DISK_STATUS, 1);
    } else {
        if (call->guest->has_disk && bios_low(call, RDX) == g.drive) {
            if (answers_by_itself(call, &g))
                return;
            status = command(call, &g);
        } else if (bios_high(call, RAX) == RESET) {
            status = OK;
        }
        bios_set_data(call, BDA_DISK_STATUS, 1, status);
    }
    bios_set_high(call, RAX, (uint8_t)status);
    bios_carry(call, status != OK);
}
