/*
 * INT 0x13: a boot sector's image as its only disk; what is written stays beside it (vm/disk.h). An
 * image of a diskette's size is drive 0 with that diskette's geometry; any other is drive 0x80. By
 * cylinder, head and sector, or by the extensions (Phoenix "BIOS Enhanced Disk Drive Specification"
 * 1.1).
 */
#include "vm/bios.h"

#include "lib/bits.h"
#include "lib/error.h"
#include "lib/string.h"
#include "vm/bios_disk.h"
#include "vm/disk.h"

#define FORMATTED 0xf6  /* what a formatted diskette's sectors are full of */
#define PACKET_MOST 127 /* sectors of one call by the extensions */

enum status {
    OK = 0x00,
    BAD_COMMAND = 0x01,
    NOT_FOUND = 0x04,
    BOUNDARY = 0x09,    /* memory that is not there */
    WRITE_FAULT = 0xcc, /* no frame for it */
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

enum task { TO_MEMORY, TO_DISK, FIND_ONLY };

static enum status read_sector(struct guest *guest, uint64_t at, gpa_t to)
{
    uint8_t sector[BIOS_SECTOR];

    disk_read(guest, at, sector);
    return guest_write(guest, to, sector, sizeof(sector)) == sizeof(sector) ? OK : BOUNDARY;
}

static enum status write_sector(struct guest *guest, uint64_t at, gpa_t from)
{
    uint8_t sector[BIOS_SECTOR];

    if (guest_read(guest, from, sector, sizeof(sector)) != sizeof(sector))
        return BOUNDARY;
    return disk_write(guest, at, sector) == E_OK ? OK : WRITE_FAULT;
}

/* *count: how many came through, in the end. */
static enum status transfer(struct bios_call *call, enum task task, uint64_t sector,
                            unsigned *count, uint64_t memory)
{
    enum status status = OK;
    unsigned done = 0;

    while (status == OK && done < *count) {
        uint64_t at = (sector + done) * BIOS_SECTOR;
        gpa_t place = gpa(memory + done * BIOS_SECTOR);

        if (task == TO_MEMORY)
            status = read_sector(call->guest, at, place);
        else if (task == TO_DISK)
            status = write_sector(call->guest, at, place);
        done += status == OK;
    }
    *count = done;
    return status;
}

static uint64_t sector_at(const struct bios_geometry *g, unsigned cylinder, unsigned head)
{
    return ((uint64_t)cylinder * g->heads + head) * g->sectors;
}

static unsigned cylinder_asked(const struct bios_call *call)
{
    return bios_high(call, RCX) | (bios_low(call, RCX) & 0xc0u) << 2;
}

/* CH, CL, DH: cylinder, sector from 1, head. AL: how many; ES:BX: where in memory. */
static enum status by_geometry(struct bios_call *call, const struct bios_geometry *g,
                               enum task task)
{
    unsigned cylinder = cylinder_asked(call), head = bios_high(call, RDX);
    unsigned sector = bios_low(call, RCX) & 0x3f, count = bios_low(call, RAX);
    uint64_t memory = call->state.segment[SEG_ES].base + bios_word(call, RBX);

    if (count == 0 || sector == 0 || sector > g->sectors || head >= g->heads ||
        cylinder >= g->cylinders)
        return BAD_COMMAND;
    uint64_t first = sector_at(g, cylinder, head) + sector - 1;
    enum status status = NOT_FOUND;
    if (first >= g->total || count > g->total - first)
        count = 0;
    else
        status = transfer(call, task, first, &count, memory);
    bios_set_low(call, RAX, (uint8_t)count);
    return status;
}

/* A track of a diskette. The list of its sectors' addresses, at ES:BX, is taken to be the usual. */
static enum status format_track(struct bios_call *call, const struct bios_geometry *g)
{
    unsigned cylinder = cylinder_asked(call), head = bios_high(call, RDX);
    uint8_t sector[BIOS_SECTOR];
    int error = E_OK;

    if (!g->diskette || head >= g->heads || cylinder >= g->cylinders)
        return BAD_COMMAND;
    memset(sector, FORMATTED, sizeof(sector));
    for (unsigned i = 0; error == E_OK && i < g->sectors; i++)
        error = disk_write(call->guest, (sector_at(g, cylinder, head) + i) * BIOS_SECTOR, sector);
    return error == E_OK ? OK : WRITE_FAULT;
}

/* DS:SI: the packet, which is told how many came through. */
static enum status by_packet(struct bios_call *call, const struct bios_geometry *g, enum task task)
{
    uint64_t at = call->state.segment[SEG_DS].base + bios_word(call, RSI);
    struct packet packet;
    enum status status = NOT_FOUND;

    if (guest_read(call->guest, gpa(at), &packet, sizeof(packet)) != sizeof(packet) ||
        packet.size < sizeof(packet) || packet.count > PACKET_MOST)
        return BAD_COMMAND;
    unsigned count = packet.count;
    if (packet.sector > g->total || count > g->total - packet.sector)
        count = 0;
    else
        status = transfer(call, task, packet.sector, &count, packet.segment * 16u + packet.offset);
    if (status != OK) {
        packet.count = (uint16_t)count;
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
        .sector_size = BIOS_SECTOR,
    };
    return guest_write(call->guest, gpa(at), &out, sizeof(out)) == sizeof(out) ? OK : BOUNDARY;
}

static enum status extended(struct bios_call *call, const struct bios_geometry *g)
{
    switch (bios_high(call, RAX)) {
    case READ_PACKET:
        return by_packet(call, g, TO_MEMORY);
    case VERIFY_PACKET:
    case SEEK_PACKET:
        return by_packet(call, g, FIND_ONLY);
    case WRITE_PACKET:
        return by_packet(call, g, TO_DISK);
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
        return by_geometry(call, g, TO_MEMORY);
    case VERIFY:
        return by_geometry(call, g, FIND_ONLY);
    case WRITE:
        return by_geometry(call, g, TO_DISK);
    case FORMAT:
        return format_track(call, g);
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
        bios_set_word(call, RCX, 1); /* packets */
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
