/* `save`: a guest as a file, for who reads the answer by program (tools/quire save). */
#include "lib/error.h"
#include "lib/string.h"
#include "monitor/commands.h"
#include "vm/saved.h"

#define CHUNK 768u /* bytes of the file in an object: 1024 characters */

static const struct column part_columns[] = {
    {"offset", COLUMN_NUMBER, 0},
    {"bytes", COLUMN_TEXT, 0},
};
static const struct record part_record = RECORD("saved part", part_columns);

static const struct column saved_columns[] = {
    {"bytes", COLUMN_NUMBER, 0},
    {"pages", COLUMN_NUMBER, 0},
};
static const struct record saved_record = RECORD("saved", saved_columns);

struct parts {
    struct output *out;
    uint64_t offset; /* in the file, of what waits */
    unsigned waits;
    uint8_t bytes[CHUNK];
};

/* RFC 4648, section 4. */
static void to_base64(char *text, const uint8_t *bytes, unsigned size)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    for (unsigned at = 0; at < size; at += 3) {
        unsigned left = size - at;
        uint32_t three = (uint32_t)bytes[at] << 16 | (left > 1 ? (uint32_t)bytes[at + 1] << 8 : 0) |
                         (left > 2 ? bytes[at + 2] : 0);

        *text++ = digits[three >> 18];
        *text++ = digits[three >> 12 & 63];
        *text++ = left > 1 ? digits[three >> 6 & 63] : '=';
        *text++ = left > 2 ? digits[three & 63] : '=';
    }
    *text = '\0';
}

static void show_part(struct parts *parts)
{
    static char text[CHUNK / 3 * 4 + 1];

    if (parts->waits == 0)
        return;
    to_base64(text, parts->bytes, parts->waits);
    output_row(parts->out, &part_record, (struct value[]){as_number(parts->offset), as_text(text)});
    parts->offset += parts->waits;
    parts->waits = 0;
}

static int put(void *ctx, const void *bytes, size_t size)
{
    struct parts *parts = ctx;
    const uint8_t *from = bytes;

    while (size != 0) {
        size_t part = CHUNK - parts->waits < size ? CHUNK - parts->waits : size;

        memcpy(parts->bytes + parts->waits, from, part);
        parts->waits += (unsigned)part;
        from += part;
        size -= part;
        if (parts->waits == CHUNK)
            show_part(parts);
    }
    return E_OK;
}

static int save(const struct command *command, struct output *out, const struct arguments *args)
{
    static struct parts parts;
    struct save save = {.put = put, .ctx = &parts};
    struct guest *guest;
    int error = command_guest(command, out, args->word[1], &guest);

    if (!error)
        error = command_not_held(command, out, guest);
    if (error)
        return error;
    parts = (struct parts){.out = out};
    error = out->json ? guest_save(guest, &save) : guest_save_check(guest, &save);
    if (error == E_UNSUPPORTED)
        return command_refuse(command, out, error, "g%u %s: %s", guest->number, guest->name,
                              save.why);
    if (error)
        return command_refuse(command, out, error, "g%u %s cannot be saved: %s (it %s)",
                              guest->number, guest->name, error_text(error),
                              guest_state_verb(guest->state));
    if (!out->json)
        return command_refuse(command, out, E_STATE,
                              "the file goes out as JSON; `tools/quire save g%u -o FILE` asks for "
                              "it and checks it",
                              guest->number);
    show_part(&parts);
    output_facts(out, &saved_record,
                 (struct value[]){as_number(save.bytes), as_number(save.pages)});
    return E_OK;
}

static const struct command save_commands[] = {
    {
        .name = "save",
        .usage = "gN",
        .summary = "a guest as a file, to be started again another time",
        .details = "Memory that is there and not zero, slots, CPU and devices, with a digest;\n"
                   "for programs alone: `tools/quire save gN -o FILE` asks for it. The file is a\n"
                   "module for GRUB, and goes on where the guest was, on a machine of the same\n"
                   "vendor.\n",
        .example = "save g4",
        .least = 1,
        .most = 1,
        .run = save,
    },
};

const struct command_family save_family = FAMILY("saved guests", save_commands);
