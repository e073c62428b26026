/*
 * `peek`, `poke`, `dump` and `find`: memory itself, by any of the four kinds of address (where.h).
 */
#include "arch/x86_64/mm/kernel.h"
#include "arch/x86_64/mm/physical.h"
#include "lib/string.h"
#include "monitor/commands.h"
#include "monitor/where.h"
#include "vm/dirty.h"
#include "vm/guest.h"

#define DUMP_LIMIT (4 * KiB)
#define FIND_LIMIT (256 * MiB)
#define FIND_HITS 32
#define PATTERN_LIMIT 64

static int too_many(const struct command *command, struct output *out, const char *word)
{
    return command_refuse(command, out, E_INVAL, "\"%.20s\" is one word too many; usage: %s %s",
                          word, command->name, command->usage);
}

/* --- peek and poke ------------------------------------------------------------------------------
 */

static const struct column value_columns[] = {
    {"address", COLUMN_HEX, 0}, {"hpa", COLUMN_HEX, 0},   {"bytes", COLUMN_NUMBER, 0},
    {"was", COLUMN_HEX, 0},     {"value", COLUMN_HEX, 0},
};
static const struct record value_record = RECORD("value", value_columns);

static int take_width(const struct command *command, struct output *out,
                      const struct arguments *args, unsigned from, unsigned *width)
{
    uint64_t number = 8;

    if (args->count > from + 1)
        return too_many(command, out, args->word[from + 1]);
    if (args->count > from) {
        int error = command_number(command, out, args->word[from], "number of bytes", &number);
        if (error)
            return error;
    }
    if (number != 1 && number != 2 && number != 4 && number != 8)
        return command_refuse(command, out, E_INVAL, "a value has 1, 2, 4 or 8 bytes, not %lu",
                              number);
    *width = (unsigned)number;
    return E_OK;
}

static int peek(const struct command *command, struct output *out, const struct arguments *given)
{
    struct arguments args = *given;
    struct place place;
    struct stretch stretch;
    uint64_t value = 0;
    unsigned width;
    int error = place_take(command, out, &args, 0, &place);

    if (!error)
        error = take_width(command, out, &args, place.next, &width);
    if (!error)
        error = place_read(command, out, &place, place.at, &value, width);
    if (error)
        return error;
    place_locate(&place, place.at, 1, RIGHT_R, &stretch);
    output_facts(out, &value_record,
                 (struct value[]){as_number(place.at), as_number(stretch.to.v), as_number(width),
                                  as_nothing(), as_number(value)});
    return E_OK;
}

/* May a frame be written without `force`? What only guests and programs use may; the hypervisor's
 * own things may not. */
static int check_frame(struct stretch *stretch)
{
    struct frame_info info;

    if (frame_query(stretch->to, &info, NULL) == E_OK && info.state != FRAME_FREE &&
        info.state != FRAME_CACHED &&
        (info.purpose == PURPOSE_GUEST_RAM || info.purpose == PURPOSE_USER_RAM))
        return E_OK;
    format_buffer(
        stretch->why, sizeof(stretch->why),
        "the frame at 0x%lx is no guest's memory (`who 0x%lx`); `force` at the end writes "
        "there all the same",
        align_down(stretch->to.v, PAGE_SIZE), align_down(stretch->to.v, PAGE_SIZE));
    return E_PERM;
}

/* What CPUs remember of tables that were just written into, they must forget. */
static void forget(struct table *table)
{
    struct flush_batch batch;

    flush_begin(&batch, table);
    flush_whole(&batch);
    flush_commit(&batch);
}

static void forget_translations(hpa_t written)
{
    struct frame_info info;

    if (frame_query(written, &info, NULL) != E_OK)
        return;
    if (info.purpose == PURPOSE_HOST_TABLE)
        forget(&kernel_table);
    for (unsigned i = 1; i <= guest_count(); i++) {
        struct guest *guest = guest_by_number(i);
        if (guest->has_table && info.owner == guest_owner(guest))
            forget(&guest->table);
    }
}

static int poke(const struct command *command, struct output *out, const struct arguments *given)
{
    struct arguments args = *given;
    struct place place;
    struct stretch part[2];
    uint64_t value, was = 0, done = 0;
    unsigned width, parts = 0;
    int error = place_take(command, out, &args, 1, &place);

    if (!error)
        error = command_number(command, out, args.word[place.next], "value", &value);
    if (!error)
        error = take_width(command, out, &args, place.next + 1, &width);
    if (error)
        return error;
    if (width < 8 && value >> (8 * width))
        return command_refuse(command, out, E_RANGE, "0x%lx does not fit %u byte%s", value, width,
                              width == 1 ? "" : "s");
    /* All of it is found and judged before anything is written: at most two pages. */
    for (; done < width; done += part[parts++].size) {
        error = place_locate(&place, place.at + done, width - done, RIGHT_W, &part[parts]);
        if (!error && !place.force)
            error = check_frame(&part[parts]);
        if (error)
            return place_refuse(command, out, error, &part[parts]);
    }
    done = 0;
    for (unsigned i = 0; i < parts; i++) {
        const uint8_t *from = (const uint8_t *)&value + done;

        physical_read(part[i].to, (uint8_t *)&was + done, part[i].size);
        if (physical_write(part[i].to, from, part[i].size) != part[i].size)
            physical_force(part[i].to, from, part[i].size);
        forget_translations(part[i].to);
        if (place.guest != NULL)
            dirty_wrote(place.guest, part[i].gpa, part[i].size);
        done += part[i].size;
    }
    output_facts(out, &value_record,
                 (struct value[]){as_number(place.at), as_number(part[0].to.v), as_number(width),
                                  as_number(was), as_number(value)});
    return E_OK;
}

/* --- dump ------------------------------------------------------------------------------------- */

#define LINE 16

static const struct column line_columns[] = {
    {"address", COLUMN_HEX, 18},
    {"bytes", COLUMN_TEXT, 3 * LINE},
    {"text", COLUMN_TEXT, LINE},
};
static const struct record line_record = RECORD("line", line_columns);

/* Up to LINE bytes in hexadecimal, and as text with dots for what is not printable. */
static void put_bytes(char hex[3 * LINE + 1], char text[LINE + 1], const uint8_t *bytes, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        format_buffer(hex + 3 * i, 4, "%02x ", bytes[i]);
        text[i] = bytes[i] >= 0x20 && bytes[i] < 0x7f ? (char)bytes[i] : '.';
    }
    hex[n ? 3 * n - 1 : 0] = 0;
    text[n] = 0;
}

/* How many bytes go on a line: half of them where the terminal has no room for the others. `cells`
 * is how wide the addresses before them are. */
static unsigned line_bytes(const struct output *out, unsigned cells)
{
    unsigned whole = 2 + 3 * LINE - 1 + 2 + LINE;

    return !out->json && out->columns && cells + whole > out->columns ? LINE / 2 : LINE;
}

static unsigned hex_width(uint64_t number)
{
    char text[24];

    return (unsigned)format_buffer(text, sizeof(text), "0x%lx", number);
}

static void show_line(struct output *out, uint64_t at, const uint8_t *bytes, unsigned n)
{
    char hex[3 * LINE + 1], text[LINE + 1];

    put_bytes(hex, text, bytes, n);
    output_row(out, &line_record, (struct value[]){as_number(at), as_text(hex), as_text(text)});
}

static int dump(const struct command *command, struct output *out, const struct arguments *given)
{
    struct arguments args = *given;
    struct place place;
    struct stretch stretch;
    uint64_t size = 128;
    int error = place_take(command, out, &args, 0, &place), first = E_OK;
    bool shown = false;

    if (!error && args.count > place.next + 1)
        error = too_many(command, out, args.word[place.next + 1]);
    if (!error && args.count > place.next)
        error = command_number(command, out, args.word[place.next], "size", &size);
    if (error)
        return error;
    if (size == 0 || size > DUMP_LIMIT || place.at + size - 1 < place.at)
        return command_refuse(command, out, E_RANGE,
                              "a dump has 1 to %u bytes, within the address space",
                              (unsigned)DUMP_LIMIT);
    unsigned line = line_bytes(out, 2 + hex_width(place.at + size - 1));
    for (uint64_t done = 0; done < size; done += stretch.size) {
        error = place_locate(&place, place.at + done, size - done, RIGHT_R, &stretch);
        if (error) {
            first = first ? first : error;
            output_note(out, "0x%lx and the %lu bytes from there: %s", stretch.at, stretch.size,
                        stretch.why);
            continue;
        }
        for (uint64_t i = 0; i < stretch.size;) {
            uint8_t bytes[LINE];
            uint64_t at = stretch.at + i;
            unsigned n =
                line - (unsigned)(at % line); /* lines begin at multiples of their length */

            if (n > stretch.size - i)
                n = (unsigned)(stretch.size - i);
            physical_read(hpa_add(stretch.to, i), bytes, n);
            show_line(out, at, bytes, n);
            shown = true;
            i += n;
        }
    }
    return shown ? E_OK : first;
}

/* --- find ------------------------------------------------------------------------------------- */

#define FIND_HPA 12 /* characters */

static const struct column hit_columns[] = {
    {"address", COLUMN_HEX, 18},
    {"hpa", COLUMN_HEX, FIND_HPA},
    {"bytes", COLUMN_TEXT, 3 * LINE},
    {"text", COLUMN_TEXT, LINE},
};
static const struct record hit_record = RECORD("hit", hit_columns);

static const struct column search_columns[] = {
    {"searched", COLUMN_SIZE, 0},
    {"not there", COLUMN_SIZE, 0},
    {"found", COLUMN_NUMBER, 0},
};
static const struct record search_record = RECORD("search", search_columns);

struct finder {
    struct output *out;
    struct place *place;
    uint8_t pattern[PATTERN_LIMIT];
    unsigned length;
    uint64_t searched, absent, found;
    unsigned line; /* bytes that are shown of each place */
};

/* Words that begin with a digit and are numbers are what memory holds of them, lowest byte first,
 * in 4 bytes or, past 32 bits, in 8; all else is text. */
static int take_pattern(const struct command *command, struct output *out, const char *word,
                        struct finder *finder)
{
    struct complaint why;
    uint64_t number;

    if (word[0] >= '0' && word[0] <= '9' && parse_number(word, "pattern", &number, &why) == E_OK) {
        finder->length = number >> 32 ? 8 : 4;
        memcpy(finder->pattern, &number, finder->length);
        return E_OK;
    }
    size_t n = strlen(word);
    if (n == 0 || n > PATTERN_LIMIT)
        return command_refuse(command, out, E_INVAL,
                              "what to find has 1 to %u characters, or is a number", PATTERN_LIMIT);
    memcpy(finder->pattern, word, n);
    finder->length = (unsigned)n;
    return E_OK;
}

static void show_hit(struct finder *finder, uint64_t at)
{
    char hex[3 * LINE + 1] = "", text[LINE + 1] = "";
    struct stretch first, next;
    uint8_t bytes[LINE];
    unsigned n = 0;

    if (++finder->found > FIND_HITS ||
        place_locate(finder->place, at, LINE, RIGHT_R, &first) != E_OK)
        return;
    n += (unsigned)physical_read(first.to, bytes, first.size);
    if (n < LINE && at + n != 0 &&
        place_locate(finder->place, at + n, LINE - n, RIGHT_R, &next) == E_OK)
        n += (unsigned)physical_read(next.to, bytes + n, next.size);
    put_bytes(hex, text, bytes, n < finder->line ? n : finder->line);
    output_progress_end(finder->out);
    output_row(finder->out, &hit_record,
               (struct value[]){as_number(at), as_number(first.to.v), as_text(hex), as_text(text)});
}

/* A page at a time, each with the end of the one before it, so that what lies across is found. */
static void search(struct finder *finder, uint64_t size)
{
    static uint8_t buffer[PATTERN_LIMIT + PAGE_SIZE];
    unsigned kept = 0; /* bytes of the page before at the front of `buffer` */
    struct stretch stretch;

    for (uint64_t done = 0; done < size; done += stretch.size) {
        uint64_t at = finder->place->at + done;

        output_progress(finder->out, "find", done, size);
        if (place_locate(finder->place, at, size - done, RIGHT_R, &stretch) != E_OK) {
            finder->absent += stretch.size;
            kept = 0;
            continue;
        }
        physical_read(stretch.to, buffer + kept, stretch.size);
        finder->searched += stretch.size;
        uint64_t end = kept + stretch.size;
        const uint8_t *from = buffer, *hit;
        while (end - (uint64_t)(from - buffer) >= finder->length &&
               (hit = memchr(from, finder->pattern[0],
                             end - (uint64_t)(from - buffer) - finder->length + 1u))) {
            if (memcmp(hit, finder->pattern, finder->length) == 0)
                show_hit(finder, at - kept + (uint64_t)(hit - buffer));
            from = hit + 1;
        }
        uint64_t keep = finder->length - 1u < end ? finder->length - 1u : end;
        memmove(buffer, buffer + end - keep, keep);
        kept = (unsigned)keep;
    }
}

static int find(const struct command *command, struct output *out, const struct arguments *given)
{
    struct arguments args = *given;
    struct place place;
    struct finder finder = {.out = out, .place = &place};
    uint64_t size;
    int error = place_take(command, out, &args, 2, &place);

    if (!error && args.count > place.next + 2)
        error = too_many(command, out, args.word[place.next + 2]);
    if (!error)
        error = command_number(command, out, args.word[place.next], "size", &size);
    if (!error)
        error = take_pattern(command, out, args.word[place.next + 1], &finder);
    if (error)
        return error;
    if (size == 0 || size > FIND_LIMIT || place.at + size - 1 < place.at)
        return command_refuse(command, out, E_RANGE,
                              "what is searched has 1 byte to 256M, within the address space");
    finder.line = line_bytes(out, 4 + hex_width(place.at + size - 1) + FIND_HPA);
    search(&finder, size);
    output_progress_end(out);
    output_facts(out, &search_record,
                 (struct value[]){as_number(finder.searched), as_number(finder.absent),
                                  as_number(finder.found)});
    if (finder.found > FIND_HITS)
        output_note(out, "Of these the first %u are shown.", FIND_HITS);
    return E_OK;
}

/* The usage: by each kind of address, and what follows it. */
#define AT(rest) "hva|hpa X " rest " | gN gpa|gva X " rest

static const struct command bytes_commands[] = {
    {
        .name = "peek",
        .of_cpu = true,
        .usage = AT("[BYTES] [force]"),
        .summary = "the number at an address",
        .details = "BYTES is 1, 2, 4 or 8. The rights of every table on the way are checked, a\n"
                   "guest's virtual address as supervisor mode of the guest; `force` goes past\n"
                   "them. What is no RAM is never touched.\n",
        .example = "peek g1 gpa 0x100000 4",
        .least = 2,
        .most = 5,
        .run = peek,
    },
    {
        .name = "poke",
        .of_cpu = true,
        .usage = AT("VALUE [BYTES] [force]"),
        .summary = "writes a number",
        .details = "As peek. Memory of guests and programs is written where the tables allow it;\n"
                   "anything else, the hypervisor's own text and tables first of all, only with\n"
                   "`force`, which can break it. After a write into a table its translations are\n"
                   "flushed.\n",
        .example = "poke g1 gpa 0x101000 0x12345678 4",
        .least = 3,
        .most = 6,
        .run = poke,
    },
    {
        .name = "dump",
        .of_cpu = true,
        .usage = AT("[SIZE] [force]"),
        .summary = "bytes in hexadecimal and as text",
        .details = "128 bytes, or SIZE, at most 4K. Rights as for peek.\n",
        .example = "dump g1 gpa 0x100000 64",
        .least = 2,
        .most = 5,
        .run = dump,
    },
    {
        .name = "find",
        .of_cpu = true,
        .usage = AT("SIZE WHAT [force]"),
        .summary = "where a text or a number stands in memory",
        .details = "SIZE bytes from the address on are searched, at most 256M; what is not there\n"
                   "is passed over. A number is looked for as 4 bytes, or as 8 past 32 bits. The\n"
                   "first 32 places are shown, all are counted.\n",
        .example = "find g1 gpa 1M 64K 0x1badb002",
        .least = 4,
        .most = 6,
        .run = find,
    },
};

const struct command_family bytes_family = FAMILY("bytes", bytes_commands);
