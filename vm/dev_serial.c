/*
 * COM1 of a guest: a 16550A at 0x3f8. What it transmits is the guest's output; what the console
 * sends waits in its receiver. The transmitter is ready as long as the ring of the output has room,
 * so that a guest which heeds it goes no faster than the console shows, and loses nothing. The line
 * settings are kept and have no effect. IRQ 4 is driven as IIR tells, through the gate that OUT2 is
 * on a PC.
 */
#include "lib/bits.h"
#include "vm/device.h"
#include "vm/guest.h"
#include "vm/interrupts.h"

#define COM1 0x3f8

enum serial_register { DATA, IER, IIR_FCR, LCR, MCR, LSR, MSR, SCRATCH };

#define IER_RECEIVED BIT(0)
#define IER_TRANSMIT BIT(1)
#define IER_LINE BIT(2)
#define IER_USED 0x0f

#define IIR_NONE 0x01
#define IIR_TRANSMIT 0x02
#define IIR_RECEIVED 0x04
#define IIR_LINE 0x06
#define IIR_FIFO 0xc0

#define FCR_ENABLE BIT(0)
#define FCR_CLEAR_RECEIVER BIT(1)

#define LCR_DIVISOR BIT(7)

#define MCR_USED 0x1f
#define MCR_OUT2 BIT(3)
#define MCR_LOOP BIT(4)

#define LSR_DATA BIT(0)
#define LSR_OVERRUN BIT(1)
#define LSR_TRANSMIT_READY 0x60 /* holding register and shift register empty */

#define MSR_PRESENT 0xb0 /* carrier, data set ready, clear to send */

static bool receive(struct dev_serial *serial, uint8_t byte)
{
    if (serial->input_count == SERIAL_INPUT) {
        serial->overrun = true;
        return false;
    }
    serial->input[(serial->input_first + serial->input_count++) % SERIAL_INPUT] = byte;
    return true;
}

/* What IIR tells: the highest of the causes that are enabled. */
static uint8_t cause(const struct dev_serial *serial)
{
    if (serial->overrun && serial->ier & IER_LINE)
        return IIR_LINE;
    if (serial->input_count != 0 && serial->ier & IER_RECEIVED)
        return IIR_RECEIVED;
    return serial->transmit_interrupt && serial->ier & IER_TRANSMIT ? IIR_TRANSMIT : IIR_NONE;
}

/* In loop-back mode nothing leaves the port. */
static bool can_transmit(const struct guest *guest)
{
    return guest->devices.serial.mcr & MCR_LOOP || guest_output_room(guest);
}

static void drive_line(struct guest *guest)
{
    const struct dev_serial *serial = &guest->devices.serial;

    irq_set_line(guest, IRQ_SERIAL,
                 cause(serial) != IIR_NONE && (serial->mcr & (MCR_OUT2 | MCR_LOOP)) == MCR_OUT2);
}

bool serial_listens(const struct guest *guest)
{
    const struct dev_serial *serial = &guest->devices.serial;

    bool waits = serial->ier & IER_RECEIVED || (serial->ier & IER_TRANSMIT && !can_transmit(guest));

    return waits && serial->mcr & MCR_OUT2 && !irq_masked(guest, IRQ_SERIAL);
}

size_t guest_input(struct guest *guest, const char *bytes, size_t n)
{
    size_t taken = 0;

    /* The sender learns how much was taken and keeps the rest: no overrun. */
    while (taken < n && guest->devices.serial.input_count < SERIAL_INPUT)
        receive(&guest->devices.serial, (uint8_t)bytes[taken++]);
    drive_line(guest);
    interrupts_come(guest);
    return taken;
}

static uint8_t read_data(struct dev_serial *serial)
{
    uint8_t byte;

    if (serial->input_count == 0)
        return 0;
    byte = serial->input[serial->input_first];
    serial->input_first = (serial->input_first + 1) % SERIAL_INPUT;
    serial->input_count--;
    return byte;
}

static uint8_t read_identification(struct dev_serial *serial)
{
    uint8_t found = cause(serial);

    if (found == IIR_TRANSMIT)
        serial->transmit_interrupt = false; /* reading it acknowledges it */
    return found | (serial->fifo ? IIR_FIFO : 0);
}

static uint8_t read_line_status(struct guest *guest)
{
    struct dev_serial *serial = &guest->devices.serial;
    uint8_t status = can_transmit(guest) ? LSR_TRANSMIT_READY : 0;

    if (serial->input_count != 0)
        status |= LSR_DATA;
    if (serial->overrun)
        status |= LSR_OVERRUN;
    serial->overrun = false;
    return status;
}

/* In loop-back mode the modem's inputs are the modem control outputs, in another order. */
static uint8_t read_modem_status(const struct dev_serial *serial)
{
    uint8_t mcr = serial->mcr;

    if (!(mcr & MCR_LOOP))
        return MSR_PRESENT;
    return (uint8_t)((mcr & BIT(1)) << 3 | (mcr & BIT(0)) << 5 | (mcr & (BIT(2) | BIT(3))) << 4);
}

static uint8_t read_register(struct guest *guest, enum serial_register which)
{
    struct dev_serial *serial = &guest->devices.serial;

    switch (which) {
    case DATA:
        return serial->lcr & LCR_DIVISOR ? serial->divisor_low : read_data(serial);
    case IER:
        return serial->lcr & LCR_DIVISOR ? serial->divisor_high : serial->ier;
    case IIR_FCR:
        return read_identification(serial);
    case LCR:
        return serial->lcr;
    case MCR:
        return serial->mcr;
    case LSR:
        return read_line_status(guest);
    case MSR:
        return read_modem_status(serial);
    case SCRATCH:
        break;
    }
    return serial->scratch;
}

static uint32_t serial_read(struct guest *guest, uint16_t port, unsigned width)
{
    uint8_t value = read_register(guest, (enum serial_register)(port - COM1));

    (void)width;
    drive_line(guest);
    return value;
}

static void transmit(struct guest *guest, uint8_t byte)
{
    struct dev_serial *serial = &guest->devices.serial;

    if (serial->mcr & MCR_LOOP)
        receive(serial, byte);
    else
        guest_putc(guest, (char)byte);
    serial->transmit_interrupt = false; /* while it is on its way: an edge, if that takes no time */
    drive_line(guest);
    serial->transmit_interrupt = can_transmit(guest);
}

void serial_room(struct guest *guest)
{
    guest->devices.serial.transmit_interrupt = true;
    drive_line(guest);
    interrupts_come(guest);
}

static void write_fifo_control(struct dev_serial *serial, uint8_t value)
{
    serial->fifo = value & FCR_ENABLE;
    if (value & FCR_CLEAR_RECEIVER)
        serial->input_count = 0;
}

static void serial_write(struct guest *guest, uint16_t port, unsigned width, uint32_t value)
{
    struct dev_serial *serial = &guest->devices.serial;
    uint8_t byte = (uint8_t)value;

    (void)width;
    switch ((enum serial_register)(port - COM1)) {
    case DATA:
        if (serial->lcr & LCR_DIVISOR)
            serial->divisor_low = byte;
        else
            transmit(guest, byte);
        break;
    case IER:
        if (serial->lcr & LCR_DIVISOR) {
            serial->divisor_high = byte;
            break;
        }
        if (byte & IER_TRANSMIT && !(serial->ier & IER_TRANSMIT))
            serial->transmit_interrupt = can_transmit(guest);
        serial->ier = byte & IER_USED;
        break;
    case IIR_FCR:
        write_fifo_control(serial, byte);
        break;
    case LCR:
        serial->lcr = byte;
        break;
    case MCR:
        serial->mcr = byte & MCR_USED;
        break;
    case LSR:
    case MSR:
        break;
    case SCRATCH:
        serial->scratch = byte;
        break;
    }
    drive_line(guest);
}

static void serial_show(const struct guest *guest, struct sink *to)
{
    const struct dev_serial *serial = &guest->devices.serial;
    unsigned divisor = serial->divisor_high << 8 | serial->divisor_low;

    format(to, "IER 0x%02x, LCR 0x%02x, MCR 0x%02x, divisor %u, FIFO %s, %u bytes waiting\n",
           serial->ier, serial->lcr, serial->mcr, divisor, serial->fifo ? "on" : "off",
           serial->input_count);
}

static const struct port_range ranges[] = {
    {COM1, COM1 + 7, 1, serial_read, serial_write},
};

const struct device serial_device = {
    .bears = BEARS_ON_ITSELF,
    .name = "serial",
    .ports = ranges,
    .port_count = ARRAY_SIZE(ranges),
    .show = serial_show,
};
