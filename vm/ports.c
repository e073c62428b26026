/* See vm/ports.h. */
#include "vm/ports.h"

#include "lib/bits.h"
#include "lib/panic.h"
#include "lib/string.h"
#include "vm/device.h"
#include "vm/guest.h"
#include "vm/inject.h"
#include "vm/report.h"
#include "vm/slots.h"
#include "x86/control.h"

/* ---- Who answers where ----------------------------------------------------------------------- */

/* The rows of all devices, in order, and for each port the first that has it: those from there on
 * are looked at. Ports beyond the map begin with the first. */
#define ROWS 64
#define MAPPED_PORTS 4096
#define NO_ROW UINT8_MAX

struct row {
    const struct port_range *range;
    const struct device *device;
};

static struct {
    struct row row[ROWS];
    unsigned rows;
    uint8_t first[MAPPED_PORTS];
} map;

void ports_init(void)
{
    const struct device *device;

    map.rows = 0;
    memset(map.first, NO_ROW, sizeof(map.first));
    for (unsigned i = 0; (device = device_by_index(i)) != NULL; i++) {
        for (unsigned j = 0; j < device->port_count; j++) {
            const struct port_range *range = &device->ports[j];

            invariant(map.rows < ROWS);
            for (unsigned port = range->first; port <= range->last && port < MAPPED_PORTS; port++) {
                if (map.first[port] == NO_ROW)
                    map.first[port] = (uint8_t)map.rows;
            }
            map.row[map.rows++] = (struct row){range, device};
        }
    }
}

/* The port's row for an access of `width` bytes; 0: for any that has the port. */
static const struct row *find_row(uint16_t port, unsigned width)
{
    unsigned i = port < MAPPED_PORTS ? map.first[port] : 0;

    for (; i < map.rows; i++) {
        const struct port_range *range = map.row[i].range;

        if (port < range->first || port + (width ? width - 1 : 0) > range->last)
            continue;
        if (width && (!(range->widths & width) || (port - range->first) % width != 0))
            continue;
        return &map.row[i];
    }
    return NULL;
}

const char *port_name(uint16_t port)
{
    const struct row *row = find_row(port, 0);

    return row != NULL ? row->device->name : NULL;
}

static uint32_t width_mask(unsigned width)
{
    return (uint32_t)BITS(width * 8 - 1, 0);
}

/* Who answers to an access, or to a piece of a wider one; NULL: nobody. */
static const struct row *claim(struct guest *guest, uint32_t port, unsigned width, bool piece)
{
    const struct row *row;

    if (port + width - 1 > UINT16_MAX)
        return NULL; /* behind the last port there is none, not the first again */
    row = find_row((uint16_t)port, width);
    if (row != NULL && !(piece && row->range->widths & PORT_ALONE))
        return row;
    if (width == 1 && find_row((uint16_t)port, 0) == NULL) {
        guest->devices.unclaimed++;
        guest->devices.last_unclaimed = (uint16_t)port;
    }
    return NULL;
}

static uint32_t read_row(struct guest *guest, const struct row *row, uint32_t port, unsigned width)
{
    if (row == NULL || row->range->read == NULL)
        return width_mask(width);
    device_touched(guest, row->device);
    return row->range->read(guest, (uint16_t)port, width) & width_mask(width);
}

static void write_row(struct guest *guest, const struct row *row, uint32_t port, unsigned width,
                      uint32_t value)
{
    if (row == NULL || row->range->write == NULL)
        return;
    device_touched(guest, row->device);
    row->range->write(guest, (uint16_t)port, width, value & width_mask(width));
}

/* The bus splits what nobody takes whole: into aligned words where somebody takes those, into bytes
 * elsewhere. */
static unsigned piece_at(struct guest *guest, uint32_t port, unsigned left, const struct row **row)
{
    *row = left >= 2 && port % 2 == 0 ? claim(guest, port, 2, true) : NULL;
    if (*row != NULL)
        return 2;
    *row = claim(guest, port, 1, true);
    return 1;
}

uint32_t port_read(struct guest *guest, uint16_t port, unsigned width)
{
    const struct row *row = claim(guest, port, width, false);
    uint32_t value = 0;

    if (row != NULL || width == 1)
        return read_row(guest, row, port, width);
    for (unsigned i = 0, bytes; i < width; i += bytes) {
        bytes = piece_at(guest, port + i, width - i, &row);
        value |= read_row(guest, row, port + i, bytes) << (8 * i);
    }
    return value;
}

void port_write(struct guest *guest, uint16_t port, unsigned width, uint32_t value)
{
    const struct row *row = claim(guest, port, width, false);

    if (row != NULL || width == 1) {
        write_row(guest, row, port, width, value);
        return;
    }
    for (unsigned i = 0, bytes; i < width; i += bytes) {
        bytes = piece_at(guest, port + i, width - i, &row);
        write_row(guest, row, port + i, bytes, value >> (8 * i));
    }
}

void exit_port(struct guest *guest, const struct vm_exit *exit)
{
    uint64_t *rax = &guest->vcpu->gpr[RAX];
    unsigned width = exit->port.width;
    uint32_t value;

    if (exit->port.string) {
        exit_string(guest, exit);
        return;
    }
    guests_backend()->note_port(guest->vcpu, exit->port.port, width);
    if (exit->port.in) {
        value = port_read(guest, exit->port.port, width);
        *rax = width == 4 ? value : (*rax & ~(uint64_t)width_mask(width)) | value;
    } else {
        port_write(guest, exit->port.port, width, (uint32_t)*rax);
    }
    skip_instruction(guest, exit);
}
