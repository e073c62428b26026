/*
 * What an expression comes to, and which symbol an address belongs to: `print`.
 */
#include "arch/x86_64/symbols.h"
#include "lib/error.h"
#include "monitor/commands.h"
#include "vm/guest.h"
#include "vm/symbols.h"

static const struct column number_columns[] = {
    {"value", COLUMN_HEX, 0},
    {"decimal", COLUMN_NUMBER, 0},
    {"size", COLUMN_SIZE, 0},
    {"symbol", COLUMN_TEXT, 0},
};
static const struct record number_record = RECORD("number", number_columns);

#define UPPER_HALF BIT(63)
#define HOST_SYMBOL_TEXT 96
_Static_assert(HOST_SYMBOL_TEXT >= SYMBOL_TEXT, "a guest's fits as well");

/* The words from `from` on as one. */
static void join(const struct arguments *args, unsigned from, char expression[ARGUMENTS_TEXT])
{
    size_t used = 0;

    /* The words and what is between them fit: they came out of a store of this size. */
    for (unsigned i = from; i < args->count; i++)
        used += format_buffer(expression + used, ARGUMENTS_TEXT - used, "%s%s", i > from ? " " : "",
                              args->word[i]);
}

static void host_symbol(char text[HOST_SYMBOL_TEXT], uint64_t value)
{
    uint64_t offset;
    const char *name = symbol_of(value, &offset);

    text[0] = 0;
    if (name)
        format_buffer(text, HOST_SYMBOL_TEXT, offset ? "%s+0x%lx" : "%s", name, offset);
}

static int print(const struct command *command, struct output *out, const struct arguments *args)
{
    char expression[ARGUMENTS_TEXT], symbol[HOST_SYMBOL_TEXT];
    struct guest *guest = NULL;
    struct complaint why;
    unsigned number;
    uint64_t value;
    int error = E_OK;

    if (args->count > 2 && parse_guest(args->word[1], &number, &why) == E_OK)
        error = command_guest(command, out, args->word[1], &guest);
    if (error)
        return error;
    join(args, guest ? 2 : 1, expression);
    error = guest ? command_gva(command, out, guest, expression, "number", &value)
                  : command_number(command, out, expression, "number", &value);
    if (error)
        return error;
    if (guest)
        symbol_text(symbol, guest, value);
    else
        host_symbol(symbol, value);
    output_facts(out, &number_record,
                 (struct value[]){as_number(value), as_number(value),
                                  value >= KiB && value < TiB ? as_number(value) : as_nothing(),
                                  symbol[0] ? as_text(symbol) : as_nothing()});
    if (!symbol[0] && guest)
        output_note(out, "No symbol of g%u %s is there.", guest->number, guest->name);
    else if (!symbol[0] && (value & UPPER_HALF))
        output_note(out, "No symbol of the hypervisor is there.");
    return E_OK;
}

static const struct command print_commands[] = {
    {
        .name = "print",
        .usage = "[gN] X ...",
        .summary = "what an expression comes to, and the symbol at an address",
        .details = "Numbers and symbols of the hypervisor, or of the guest that stands in front,\n"
                   "with + - * and parentheses. An address is shown as the symbol before it and\n"
                   "the distance from there.\n",
        .example = "print kernel_text+2*4K",
        .least = 1,
        .most = 12,
        .run = print,
    },
};

const struct command_family print_family = FAMILY("print", print_commands);
