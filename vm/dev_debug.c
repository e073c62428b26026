/*
 * The two ports of Quire's own guest interface (docs/GUEST-INTERFACE.md): characters to the debug
 * port are output, a number to the result port ends the guest. Reading the debug port gives its own
 * number, which is how a guest can tell that it is there.
 *
 * And, with the option `debug-exit`, port 0xf4, at which QEMU's isa-debug-exit ends QEMU with the
 * status 2 * value + 1: kernels under test write 0x10 there for "passed" by custom.
 */
#include "guests/abi.h"
#include "lib/bits.h"
#include "vm/device.h"
#include "vm/guest.h"
#include "vm/report.h"

static uint32_t debug_read(struct guest *guest, uint16_t port, unsigned width)
{
    (void)guest;
    (void)port;
    (void)width;
    return QUIRE_PORT_DEBUG;
}

static void debug_write(struct guest *guest, uint16_t port, unsigned width, uint32_t value)
{
    (void)port;
    (void)width;
    guest_putc(guest, (char)value);
}

static void result_write(struct guest *guest, uint16_t port, unsigned width, uint32_t value)
{
    (void)port;
    (void)width;
    if (guest_ended(guest))
        return;
    guest->verdict = value;
    if (value == 0)
        guest_end(guest, GUEST_PASSED, "result port");
    else
        guest_end(guest, GUEST_FAILED, "the guest wrote %u to its result port", value);
}

#define EXIT_PORT 0xf4
#define EXIT_PASSED 0x10

static void exit_write(struct guest *guest, uint16_t port, unsigned width, uint32_t value)
{
    (void)port;
    (void)width;
    if (!guest->options.debug_exit || guest_ended(guest))
        return;
    guest->verdict = value;
    if (value == EXIT_PASSED)
        guest_end(guest, GUEST_PASSED, "debug-exit port");
    else
        guest_end(guest, GUEST_FAILED, "the guest wrote %u to port 0xf4 (in QEMU: status %u)",
                  value, value << 1 | 1);
}

/* The result is 32 bits at that port alone: a kernel that looks for another machine's device there,
 * by bytes or words, goes on. */
static const struct port_range ranges[] = {
    {QUIRE_PORT_DEBUG, QUIRE_PORT_DEBUG, 1, debug_read, debug_write},
    {QUIRE_PORT_RESULT, QUIRE_PORT_RESULT + 3, 4, NULL, result_write},
    {EXIT_PORT, EXIT_PORT + 3, 1 | 2 | 4, NULL, exit_write},
};

const struct device debug_device = {
    .name = "debug",
    .ports = ranges,
    .port_count = ARRAY_SIZE(ranges),
    .bears = BEARS_ON_NOTHING,
};
