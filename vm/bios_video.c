/* INT 0x10: the text screen, of which there is one page. What is written as a terminal's goes to
 * the guest's output as well. */
#include "vm/bios.h"

#include "lib/bits.h"
#include "vm/ports.h"

#define SCREEN UINT64_C(0xb8000)
#define COLUMNS 80 /* at most */
#define COLUMNS_LESS 40
#define ROWS 25
#define PLAIN 0x07 /* grey on black */
#define CRTC_INDEX 0x3d4
#define CRTC_DATA 0x3d5
#define COLUMNS_LAST 0x01
#define RETRACE_END 0x11
#define RETRACE_OPEN 0x0e   /* the registers 0 to 7 can be written */
#define RETRACE_CLOSED 0x8e /* ... and cannot */
#define PITCH 0x13          /* in pairs of cells */
#define CURSOR_HIGH 0x0e
#define GRAPHICS_INDEX 0x3ce
#define GRAPHICS_DATA 0x3cf
#define GRAPHICS_MISC 6
#define MISC_TEXT 0x0e
#define MISC_DOTS 0x05
#define MODE_MONO 0x07   /* of 0 to 3 and this one text is the contents */
#define STRING_MOST 4096 /* characters of one call */

enum {
    SET_MODE = 0x00,
    SET_SHAPE = 0x01,
    SET_CURSOR = 0x02,
    GET_CURSOR = 0x03,
    SCROLL_UP = 0x06,
    SCROLL_DOWN = 0x07,
    READ_CELL = 0x08,
    WRITE_CELLS = 0x09,
    WRITE_CHARACTERS = 0x0a,
    TELETYPE = 0x0e,
    GET_MODE = 0x0f,
    EGA_INFORMATION = 0x12,
    WRITE_STRING = 0x13,
    DISPLAY_CODE = 0x1a,
};

struct position {
    unsigned row, column;
};

/* The guest may write anything there. */
static unsigned columns_of(const struct bios_call *call)
{
    return bios_data(call, BDA_COLUMNS, 2) == COLUMNS_LESS ? COLUMNS_LESS : COLUMNS;
}

static struct position cursor_of(const struct bios_call *call)
{
    uint32_t word = bios_data(call, BDA_CURSOR, 2);
    struct position at = {word >> 8, word & 0xff};

    if (at.row >= ROWS)
        at.row = ROWS - 1;
    if (at.column >= columns_of(call))
        at.column = columns_of(call) - 1;
    return at;
}

static void set_crtc(struct bios_call *call, uint8_t index, unsigned value)
{
    port_write(call->guest, CRTC_INDEX, 1, index);
    port_write(call->guest, CRTC_DATA, 1, value & 0xff);
}

static void set_cursor(struct bios_call *call, unsigned row, unsigned column)
{
    unsigned cell = row * columns_of(call) + column;

    bios_set_data(call, BDA_CURSOR, 2, row << 8 | column);
    set_crtc(call, CURSOR_HIGH, cell >> 8);
    set_crtc(call, CURSOR_HIGH + 1, cell);
}

static gpa_t cell_at(const struct bios_call *call, unsigned row, unsigned column)
{
    return gpa(SCREEN + (row * columns_of(call) + column) * 2);
}

/* Memory that was never touched reads as nothing, which is what is there. */
static uint16_t read_cell(const struct bios_call *call, unsigned row, unsigned column)
{
    uint16_t cell = 0;

    (void)guest_read(call->guest, cell_at(call, row, column), &cell, sizeof(cell));
    return cell;
}

static void write_cell(struct bios_call *call, unsigned row, unsigned column, uint16_t cell)
{
    (void)guest_write(call->guest, cell_at(call, row, column), &cell, sizeof(cell));
}

struct box {
    unsigned top, left, bottom, right; /* inclusive */
};

/* `lines` 0: all of it is cleared. */
static void scroll(struct bios_call *call, struct box box, unsigned lines, bool up,
                   uint8_t attribute)
{
    unsigned height;

    if (box.bottom >= ROWS)
        box.bottom = ROWS - 1;
    if (box.right >= columns_of(call))
        box.right = columns_of(call) - 1;
    if (box.top > box.bottom || box.left > box.right)
        return;
    height = box.bottom - box.top + 1;
    if (lines == 0 || lines > height)
        lines = height;
    for (unsigned i = 0; i < height; i++) {
        unsigned to = up ? box.top + i : box.bottom - i;
        unsigned from = up ? to + lines : to - lines;
        unsigned bytes = (box.right - box.left + 1) * 2;
        uint16_t row[COLUMNS];

        for (unsigned column = 0; column < COLUMNS; column++)
            row[column] = i + lines < height ? 0 : (uint16_t)(attribute << 8 | ' ');
        if (i + lines < height)
            (void)guest_read(call->guest, cell_at(call, from, box.left), row, bytes);
        (void)guest_write(call->guest, cell_at(call, to, box.left), row, bytes);
    }
}

static const struct box whole = {0, 0, ROWS - 1, COLUMNS - 1};

/* `attribute` < 0: what is there keeps its own. */
static void put_terminal(struct bios_call *call, char c, int attribute)
{
    struct position at = cursor_of(call);

    if (c != '\r' && c != '\b' && c != '\a')
        guest_putc(call->guest, c);
    switch (c) {
    case '\a':
        return;
    case '\b':
        at.column -= at.column != 0;
        break;
    case '\r':
        at.column = 0;
        break;
    case '\n':
        at.row++;
        break;
    default: {
        uint16_t old = read_cell(call, at.row, at.column);
        unsigned colour = attribute >= 0 ? (unsigned)attribute : old >> 8;

        if (colour == 0 && attribute < 0)
            colour = PLAIN; /* of memory that was never written */
        write_cell(call, at.row, at.column, (uint16_t)(colour << 8 | (uint8_t)c));
        if (++at.column >= columns_of(call)) {
            at.column = 0;
            at.row++;
        }
    }
    }
    if (at.row >= ROWS) {
        scroll(call, whole, 1, true, PLAIN);
        at.row = ROWS - 1;
    }
    set_cursor(call, at.row, at.column);
}

static unsigned columns_of_mode(uint8_t mode)
{
    switch (mode) {
    case 0x00:
    case 0x01:
    case 0x04:
    case 0x05:
    case 0x0d:
    case 0x13:
        return COLUMNS_LESS;
    default:
        return COLUMNS;
    }
}

/* Of a mode with dots the registers say no more than that it is one, by which the console knows:
 * its memory is the guest's to write, and nothing draws there. */
static void set_mode(struct bios_call *call, uint8_t mode)
{
    uint8_t number = mode & 0x7f;
    unsigned columns = columns_of_mode(number);
    bool text = number <= 3 || number == MODE_MONO;

    bios_set_data(call, BDA_VIDEO_MODE, 1, number);
    bios_set_data(call, BDA_COLUMNS, 2, columns);
    set_crtc(call, RETRACE_END, RETRACE_OPEN);
    set_crtc(call, COLUMNS_LAST, columns - 1);
    set_crtc(call, RETRACE_END, RETRACE_CLOSED);
    set_crtc(call, PITCH, columns / 2);
    port_write(call->guest, GRAPHICS_INDEX, 1, GRAPHICS_MISC);
    port_write(call->guest, GRAPHICS_DATA, 1, text ? MISC_TEXT : MISC_DOTS);
    if (!(mode & BIT(7)))
        scroll(call, whole, 0, true, PLAIN);
    set_cursor(call, 0, 0);
}

/* CX times from the cursor on, which stays. */
static void write_cells(struct bios_call *call, bool with_attribute)
{
    struct position at = cursor_of(call);
    unsigned columns = columns_of(call);
    unsigned first = at.row * columns + at.column, count = bios_word(call, RCX);

    for (unsigned cell = first; cell < ROWS * columns && cell - first < count; cell++) {
        unsigned row = cell / columns, column = cell % columns;
        unsigned attribute =
            with_attribute ? bios_low(call, RBX) : read_cell(call, row, column) >> 8;

        write_cell(call, row, column, (uint16_t)(attribute << 8 | bios_low(call, RAX)));
    }
}

/* ES:BP, CX characters, with their attributes where AL says so. */
static void write_string(struct bios_call *call)
{
    uint8_t how = bios_low(call, RAX), pair[2] = {0, bios_low(call, RBX)};
    uint16_t old = (uint16_t)bios_data(call, BDA_CURSOR, 2), at = bios_word(call, RBP);
    unsigned count = bios_word(call, RCX);

    bios_set_data(call, BDA_CURSOR, 2, bios_word(call, RDX));
    for (unsigned i = 0; i < count && i < STRING_MOST; i++) {
        unsigned bytes = how & 2 ? 2 : 1;

        for (unsigned j = 0; j < bytes; j++, at++)
            (void)guest_read(call->guest, gpa(call->state.segment[SEG_ES].base + at), &pair[j], 1);
        put_terminal(call, (char)pair[0], pair[1]);
    }
    if (!(how & 1))
        set_cursor(call, old >> 8, old & 0xff);
}

static void get_cursor(struct bios_call *call)
{
    bios_set_word(call, RDX, (uint16_t)bios_data(call, BDA_CURSOR, 2));
    bios_set_word(call, RCX, (uint16_t)bios_data(call, BDA_CURSOR_SHAPE, 2));
}

static void scroll_box(struct bios_call *call, bool up)
{
    const struct box box = {bios_high(call, RCX), bios_low(call, RCX), bios_high(call, RDX),
                            bios_low(call, RDX)};

    scroll(call, box, bios_low(call, RAX), up, bios_high(call, RBX));
}

void bios_video(struct bios_call *call)
{
    struct position at = cursor_of(call);

    switch (bios_high(call, RAX)) {
    case SET_MODE:
        set_mode(call, bios_low(call, RAX));
        break;
    case SET_SHAPE:
        bios_set_data(call, BDA_CURSOR_SHAPE, 2, bios_word(call, RCX));
        break;
    case SET_CURSOR:
        set_cursor(call, bios_high(call, RDX), bios_low(call, RDX));
        break;
    case GET_CURSOR:
        get_cursor(call);
        break;
    case SCROLL_UP:
    case SCROLL_DOWN:
        scroll_box(call, bios_high(call, RAX) == SCROLL_UP);
        break;
    case READ_CELL:
        bios_set_word(call, RAX, read_cell(call, at.row, at.column));
        break;
    case WRITE_CELLS:
    case WRITE_CHARACTERS:
        write_cells(call, bios_high(call, RAX) == WRITE_CELLS);
        break;
    case TELETYPE:
        put_terminal(call, (char)bios_low(call, RAX), -1);
        break;
    case GET_MODE:
        bios_set_high(call, RAX, (uint8_t)columns_of(call));
        bios_set_low(call, RAX, (uint8_t)bios_data(call, BDA_VIDEO_MODE, 1));
        bios_set_high(call, RBX, 0);
        break;
    case EGA_INFORMATION:
        if (bios_low(call, RBX) == 0x10)
            bios_set_word(call, RBX, 3); /* colour, 256 KiB */
        break;
    case WRITE_STRING:
        write_string(call);
        break;
    case DISPLAY_CODE:
        bios_set_low(call, RAX, DISPLAY_CODE);
        bios_set_word(call, RBX, 8); /* a VGA with a colour screen */
        break;
    default: /* palettes, fonts, dots */
        break;
    }
}
