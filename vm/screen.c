/* See vm/screen.h. */
#include "vm/screen.h"

#include "lib/bits.h"
#include "lib/error.h"
#include "lib/string.h"
#include "vm/guest.h"

/* Indexes of the CRTC's registers (IBM VGA Technical Reference). */
enum {
    COLUMNS_LAST = 0x01,
    OVERFLOW = 0x07,
    CHARACTER_LAST = 0x09,
    CURSOR_TOP = 0x0a,
    CURSOR_BOTTOM = 0x0b,
    START_HIGH = 0x0c,
    START_LOW = 0x0d,
    CURSOR_HIGH = 0x0e,
    CURSOR_LOW = 0x0f,
    LINES_LAST = 0x12,
    PITCH = 0x13,
};
#define CURSOR_OFF BIT(5)
#define LINE_MASK 0x1f
#define DOUBLE_LINES BIT(7)

#define GRAPHICS_MISC 6
#define MISC_GRAPHICS BIT(0)
#define MISC_MAP(value) ((value) >> 2 & 3)
#define MAP_MONO 2 /* 32 KiB at 0xb0000 */

#define MISC_COLOUR BIT(0) /* of the miscellaneous output register */
#define MEMORY_MONO UINT64_C(0xb0000)
#define MEMORY_COLOUR UINT64_C(0xb8000)
#define MEMORY_SIZE UINT64_C(0x8000)
#define CELLS (MEMORY_SIZE / 2)

static unsigned smaller(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

static unsigned count_rows(const uint8_t *crtc)
{
    unsigned lines = crtc[LINES_LAST] | (crtc[OVERFLOW] & BIT(1) ? 0x100u : 0) |
                     (crtc[OVERFLOW] & BIT(6) ? 0x200u : 0);
    unsigned height = (crtc[CHARACTER_LAST] & LINE_MASK) + 1u;

    return (lines + 1) / (crtc[CHARACTER_LAST] & DOUBLE_LINES ? 2 * height : height);
}

void screen_layout(const struct dev_vga *vga, struct screen_layout *out)
{
    const uint8_t *crtc = vga->crtc;
    bool mono = !(vga->misc & MISC_COLOUR) || MISC_MAP(vga->graphics[GRAPHICS_MISC]) == MAP_MONO;

    *out = (struct screen_layout){
        .is_text = !(vga->graphics[GRAPHICS_MISC] & MISC_GRAPHICS),
        .base = mono ? MEMORY_MONO : MEMORY_COLOUR,
        .columns = smaller(crtc[COLUMNS_LAST] + 1u, SCREEN_COLUMNS),
        .rows = smaller(count_rows(crtc), SCREEN_ROWS),
        .pitch = crtc[PITCH] * 2u,
        .start = (crtc[START_HIGH] << 8 | crtc[START_LOW]) % CELLS,
        .cursor = (crtc[CURSOR_HIGH] << 8 | crtc[CURSOR_LOW]) % CELLS,
        .cursor_shown = !(crtc[CURSOR_TOP] & CURSOR_OFF) &&
                        (crtc[CURSOR_TOP] & LINE_MASK) <= (crtc[CURSOR_BOTTOM] & LINE_MASK),
    };
}

/* The memory's end is followed by its beginning. */
static void read_row(struct guest *guest, const struct screen_layout *layout, unsigned row,
                     struct screen *out)
{
    uint64_t at = (layout->start + (uint64_t)row * layout->pitch) % CELLS * 2;
    uint64_t bytes = layout->columns * 2u, first = bytes;

    if (first > MEMORY_SIZE - at)
        first = MEMORY_SIZE - at;
    memset(out->cell[row], 0, sizeof(out->cell[row]));
    guest_read(guest, gpa(layout->base + at), out->cell[row], first);
    guest_read(guest, gpa(layout->base), (uint8_t *)out->cell[row] + first, bytes - first);
}

static void place_cursor(const struct screen_layout *layout, struct screen *out)
{
    unsigned cells = (layout->cursor + CELLS - layout->start) % CELLS;

    out->cursor_row = layout->pitch != 0 ? cells / layout->pitch : 0;
    out->cursor_column = layout->pitch != 0 ? cells % layout->pitch : cells;
    out->cursor_shown = layout->cursor_shown && out->cursor_row < layout->rows &&
                        out->cursor_column < layout->columns;
}

int screen_read(struct guest *guest, struct screen *out)
{
    struct screen_layout layout;

    if (!guest->options.pc)
        return E_NOENT;
    screen_layout(&guest->devices.vga, &layout);
    if (!layout.is_text)
        return E_UNSUPPORTED;
    if (!guest->has_table) {
        *out = guest->last_screen;
        return out->rows != 0 ? E_OK : E_NOENT;
    }
    out->columns = layout.columns;
    out->rows = layout.rows;
    for (unsigned row = 0; row < layout.rows; row++)
        read_row(guest, &layout, row, out);
    place_cursor(&layout, out);
    return E_OK;
}

void screen_keep(struct guest *guest)
{
    guest->last_screen.rows = 0;
    if (guest->has_table)
        screen_read(guest, &guest->last_screen);
}
