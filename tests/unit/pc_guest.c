/* See pc_guest.h. */
#include "tests/unit/pc_guest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "lib/error.h"
#include "tests/unit/fake_machine.h"
#include "vm/clock.h"
#include "vm/device.h"
#include "vm/interrupts.h"

struct guest *pc;

static uint8_t sector[512];

int pc_set_up_with(const char *cmdline)
{
    const struct guest_image image = {.bytes = sector, .size = sizeof(sector), .cmdline = cmdline};

    machine_start(64 * MiB);
    guests_init(&machine_backend, NULL);
    clock_set_date(0, guests_backend()->ticks());
    sector[510] = 0x55;
    sector[511] = 0xaa;
    if (guest_create(&image, &pc) != E_OK)
        return 1;
    guest_clock_go(pc);
    out8(0x43, 0x30); /* its BIOS has set the timer off */
    return 0;
}

int pc_set_up(void **state)
{
    (void)state;
    return pc_set_up_with("machine pc");
}

int pc_tear_down(void **state)
{
    (void)state;
    if (!guest_ended(pc))
        guest_kill(pc);
    else if (pc->vcpu != NULL) /* no round has come to it */
        guest_finish(pc);
    machine_stop();
    return 0;
}

void out8(uint16_t port, uint8_t value)
{
    port_write(pc, port, 1, value);
}

uint8_t in8(uint16_t port)
{
    return (uint8_t)port_read(pc, port, 1);
}

void out32(uint16_t port, uint32_t value)
{
    port_write(pc, port, 4, value);
}

uint32_t in32(uint16_t port)
{
    return port_read(pc, port, 4);
}

void pass_us(uint64_t microseconds)
{
    uint64_t hz = pc->devices.clock.hz;

    machine_pass(microseconds / 1000000 * hz + microseconds % 1000000 * hz / 1000000 + 1);
    devices_update(pc, guest_now(pc));
}

void open_lines(void)
{
    for (unsigned chip = 0; chip < 2; chip++) {
        uint16_t port = chip ? 0xa0 : 0x20;

        out8(port, 0x11);
        out8(port + 1, chip ? 0x28 : 0x20);
        out8(port + 1, chip ? 0x02 : 0x04);
        out8(port + 1, 0x01);
        out8(port + 1, 0x00);
    }
}

int take_irq(void)
{
    int irq;

    if (!pic_asks(pc))
        return -1;
    irq = pic_acknowledge(pc) - 0x20;
    if (irq >= 8)
        out8(0xa0, 0x20);
    out8(0x20, 0x20);
    return irq;
}

static char text[4096];
static size_t length;

static void keep(struct sink *sink, const char *bytes, size_t n)
{
    (void)sink;
    assert_true(length + n < sizeof(text));
    memcpy(text + length, bytes, n);
    length += n;
    text[length] = '\0';
}

const char *shown(const char *device)
{
    struct sink sink = {keep};
    const struct device *row;

    length = 0;
    text[0] = '\0';
    for (unsigned i = 0; (row = device_by_index(i)) != NULL; i++) {
        if (strcmp(row->name, device) == 0 && row->show != NULL)
            row->show(pc, &sink);
    }
    return text;
}
