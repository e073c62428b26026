/*
 * The registers of a guest's VGA, ports 0x3b4 to 0x3da, as a PC's firmware leaves them in text mode
 * 3 (IBM VGA Technical Reference, "Registers"). They are kept and read back; those that place text
 * and cursor are what vm/screen.c goes by. The memory behind is the guest's own (SLOT_VIDEO), flat:
 * the planes of graphics modes are not taken apart.
 *
 * Retraces come at the times of mode 3, whatever is set.
 */
#include "lib/bits.h"
#include "lib/string.h"
#include "vm/clock.h"
#include "vm/device.h"
#include "vm/guest.h"
#include "vm/screen.h"

#define CRTC_MONO 0x3b4
#define STATUS_MONO 0x3ba
#define CRTC_COLOUR 0x3d4
#define STATUS_COLOUR 0x3da

enum vga_port {
    ATTRIBUTE = 0x3c0,
    ATTRIBUTE_READ = 0x3c1,
    MISC_WRITE = 0x3c2, /* reading: input status 0 */
    VGA_ENABLE = 0x3c3,
    SEQUENCER = 0x3c4,
    SEQUENCER_DATA = 0x3c5,
    DAC_MASK = 0x3c6,
    DAC_READ = 0x3c7, /* reading: state */
    DAC_WRITE = 0x3c8,
    DAC_DATA = 0x3c9,
    FEATURE_READ = 0x3ca,
    MISC_READ = 0x3cc,
    GRAPHICS = 0x3ce,
    GRAPHICS_DATA = 0x3cf,
};

#define MISC_COLOUR BIT(0) /* the CRTC is at 0x3d4, and not at 0x3b4 */
#define ATTRIBUTE_INDEX 0x3f
#define ATTRIBUTE_REGISTER 0x1f
#define OVERFLOW 0x07
#define OVERFLOW_LINE_COMPARE BIT(4)
#define RETRACE_END 0x11
#define RETRACE_PROTECT BIT(7) /* of registers 0 to 7 */

/* Of mode 3: 31.469 kHz, 449 lines of 100 characters, of which 400 by 80 are seen. */
#define CHARACTER_HZ 3146900
#define LINE 100
#define LINE_SEEN 80
#define FRAME 449
#define FRAME_SEEN 400
#define RETRACE_FIRST 412
#define RETRACE_LAST 413
#define STATUS_HIDDEN BIT(0)
#define STATUS_RETRACE BIT(3)

static const uint8_t mode3_crtc[VGA_CRTC] = {
    0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00, 0x4f, 0x0d, 0x0e, 0x00,
    0x00, 0x00, 0x00, 0x9c, 0x8e, 0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff,
};
static const uint8_t mode3_attribute[VGA_ATTRIBUTE] = {
    0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3a,
    0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x0c, 0x00, 0x0f, 0x08, 0x00,
};
static const uint8_t mode3_sequencer[VGA_SEQUENCER] = {0x03, 0x00, 0x03, 0x00, 0x02};
static const uint8_t mode3_graphics[VGA_GRAPHICS] = {0, 0, 0, 0, 0, 0x10, 0x0e, 0x00, 0xff};
#define MODE3_MISC 0x67

static uint8_t get(const uint8_t *registers, unsigned count, unsigned index)
{
    return index < count ? registers[index] : 0;
}

static void put(uint8_t *registers, unsigned count, unsigned index, uint8_t value)
{
    if (index < count)
        registers[index] = value;
}

/* ---- CRTC and status ------------------------------------------------------------------------ */

/* Either the ports of a colour monitor answer, or those of a monochrome one. */
static bool is_selected(const struct dev_vga *vga, uint16_t port)
{
    return (port >= CRTC_COLOUR) == (bool)(vga->misc & MISC_COLOUR);
}

static void write_crtc(struct dev_vga *vga, uint8_t value)
{
    uint8_t index = vga->crtc_index;

    if (index <= OVERFLOW && vga->crtc[RETRACE_END] & RETRACE_PROTECT) {
        if (index == OVERFLOW)
            vga->crtc[OVERFLOW] = (uint8_t)((vga->crtc[OVERFLOW] & ~OVERFLOW_LINE_COMPARE) |
                                            (value & OVERFLOW_LINE_COMPARE));
        return;
    }
    put(vga->crtc, VGA_CRTC, index, value);
}

static uint32_t crtc_read(struct guest *guest, uint16_t port, unsigned width)
{
    const struct dev_vga *vga = &guest->devices.vga;

    (void)width;
    if (!is_selected(vga, port))
        return 0xff;
    return port & 1 ? get(vga->crtc, VGA_CRTC, vga->crtc_index) : vga->crtc_index;
}

static void crtc_write(struct guest *guest, uint16_t port, unsigned width, uint32_t value)
{
    struct dev_vga *vga = &guest->devices.vga;

    (void)width;
    if (!is_selected(vga, port))
        return;
    if (port & 1)
        write_crtc(vga, (uint8_t)value);
    else
        vga->crtc_index = (uint8_t)value;
}

static uint32_t status_read(struct guest *guest, uint16_t port, unsigned width)
{
    struct dev_vga *vga = &guest->devices.vga;
    uint64_t passed = guest_now(guest) - guest->devices.clock.started;
    uint64_t at = clock_counts(passed, guest->devices.clock.hz, CHARACTER_HZ) % (LINE * FRAME);
    uint64_t line = at / LINE;

    (void)width;
    if (!is_selected(vga, port))
        return 0xff;
    vga->attribute_data = false;
    return (line >= FRAME_SEEN || at % LINE >= LINE_SEEN ? STATUS_HIDDEN : 0) |
           (line >= RETRACE_FIRST && line <= RETRACE_LAST ? STATUS_RETRACE : 0);
}

static void feature_write(struct guest *guest, uint16_t port, unsigned width, uint32_t value)
{
    (void)width;
    if (is_selected(&guest->devices.vga, port))
        guest->devices.vga.feature = (uint8_t)value;
}

/* ---- Those at 0x3c0 ------------------------------------------------------------------------- */

static void write_attribute(struct dev_vga *vga, uint8_t value)
{
    if (vga->attribute_data)
        put(vga->attribute, VGA_ATTRIBUTE, vga->attribute_index & ATTRIBUTE_REGISTER, value);
    else
        vga->attribute_index = value & ATTRIBUTE_INDEX;
    vga->attribute_data = !vga->attribute_data;
}

/* Three accesses a colour: red, green, blue; then the next. */
static uint8_t *dac_component(struct dev_vga *vga, unsigned *index)
{
    uint8_t *component = &vga->dac[*index];

    *index = (*index + 1) % VGA_DAC;
    return component;
}

static uint32_t vga_read(struct guest *guest, uint16_t port, unsigned width)
{
    struct dev_vga *vga = &guest->devices.vga;

    (void)width;
    switch ((enum vga_port)port) {
    case ATTRIBUTE:
        return vga->attribute_index;
    case ATTRIBUTE_READ:
        return get(vga->attribute, VGA_ATTRIBUTE, vga->attribute_index & ATTRIBUTE_REGISTER);
    case MISC_WRITE:
        return 0;
    case VGA_ENABLE:
        return 1;
    case SEQUENCER:
        return vga->sequencer_index;
    case SEQUENCER_DATA:
        return get(vga->sequencer, VGA_SEQUENCER, vga->sequencer_index);
    case DAC_MASK:
        return vga->dac_mask;
    case DAC_READ:
        return vga->dac_reads ? 3 : 0;
    case DAC_WRITE:
        return vga->dac_write / 3;
    case DAC_DATA:
        return *dac_component(vga, &vga->dac_read);
    case FEATURE_READ:
        return vga->feature;
    case MISC_READ:
        return vga->misc;
    case GRAPHICS:
        return vga->graphics_index;
    case GRAPHICS_DATA:
        return get(vga->graphics, VGA_GRAPHICS, vga->graphics_index);
    }
    return 0xff;
}

static void vga_write(struct guest *guest, uint16_t port, unsigned width, uint32_t value)
{
    struct dev_vga *vga = &guest->devices.vga;
    uint8_t byte = (uint8_t)value;

    (void)width;
    switch ((enum vga_port)port) {
    case ATTRIBUTE:
        write_attribute(vga, byte);
        break;
    case MISC_WRITE:
        vga->misc = byte;
        break;
    case SEQUENCER:
        vga->sequencer_index = byte;
        break;
    case SEQUENCER_DATA:
        put(vga->sequencer, VGA_SEQUENCER, vga->sequencer_index, byte);
        break;
    case DAC_MASK:
        vga->dac_mask = byte;
        break;
    case DAC_READ:
    case DAC_WRITE:
        vga->dac_reads = port == DAC_READ;
        *(vga->dac_reads ? &vga->dac_read : &vga->dac_write) = byte * 3u;
        break;
    case DAC_DATA:
        *dac_component(vga, &vga->dac_write) = byte & 0x3f;
        break;
    case GRAPHICS:
        vga->graphics_index = byte;
        break;
    case GRAPHICS_DATA:
        put(vga->graphics, VGA_GRAPHICS, vga->graphics_index, byte);
        break;
    case ATTRIBUTE_READ:
    case VGA_ENABLE:
    case FEATURE_READ:
    case MISC_READ:
        break;
    }
}

/* The first 64 colours: two bits each of red, green and blue, as attribute registers name them. */
static void set_colours(uint8_t *dac)
{
    for (unsigned i = 0; i < 64; i++) {
        for (unsigned part = 0; part < 3; part++)
            dac[i * 3 + part] =
                (uint8_t)((i & BIT(2 - part) ? 0x2a : 0) + (i & BIT(5 - part) ? 0x15 : 0));
    }
}

static void vga_reset(struct guest *guest)
{
    struct dev_vga *vga = &guest->devices.vga;

    memcpy(vga->crtc, mode3_crtc, sizeof(vga->crtc));
    memcpy(vga->attribute, mode3_attribute, sizeof(vga->attribute));
    memcpy(vga->sequencer, mode3_sequencer, sizeof(vga->sequencer));
    memcpy(vga->graphics, mode3_graphics, sizeof(vga->graphics));
    vga->misc = MODE3_MISC;
    vga->dac_mask = 0xff;
    vga->attribute_index = 0x20; /* the palette is the screen's */
    set_colours(vga->dac);
}

static void vga_show(const struct guest *guest, struct sink *to)
{
    struct screen_layout layout;

    screen_layout(&guest->devices.vga, &layout);
    if (!layout.is_text)
        format(to, "graphics\n");
    else
        format(to, "text, %u by %u, at 0x%lx, start 0x%x, cursor 0x%x%s\n", layout.columns,
               layout.rows, layout.base, layout.start, layout.cursor,
               layout.cursor_shown ? "" : " (hidden)");
}

static const struct port_range ranges[] = {
    {CRTC_MONO, CRTC_MONO + 1, 1, crtc_read, crtc_write},
    {STATUS_MONO, STATUS_MONO, 1, status_read, feature_write},
    {ATTRIBUTE, GRAPHICS_DATA, 1, vga_read, vga_write},
    {CRTC_COLOUR, CRTC_COLOUR + 1, 1, crtc_read, crtc_write},
    {STATUS_COLOUR, STATUS_COLOUR, 1, status_read, feature_write},
};

const struct device vga_device = {
    .name = "VGA",
    .ports = ranges,
    .port_count = ARRAY_SIZE(ranges),
    .reset = vga_reset,
    .bears = BEARS_ON_NOTHING,
    .show = vga_show,
};
