/*
 * What an expression comes to, and which symbol an address belongs to: `print`.
 */
#include "arch/x86_64/symbols.h"
#include "lib/error.h"
#include "monitor/commands.h"

static const struct column number_columns[] = {
    {"value", COLUMN_HEX, 0},
    {"decimal", COLUMN_NUMBER, 0},
    {"size", COLUMN_SIZE, 0},
    {"symbol", COLUMN_TEXT, 0},
};
static const struct record number_record = RECORD("number", number_columns);

#define UPPER_HALF BIT(63)
#define SYMBOL_TEXT 96

static int print(const struct command *command, struct output *out, const struct arguments *args)
{
    char expression[ARGUMENTS_TEXT], symbol[SYMBOL_TEXT];
    size_t used = 0;
    uint64_t value, offset;
    int error;

    /* The words and what is between them fit: they came out of a store of this size. */
    for (unsigned i = 1; i < args->count; i++)
        used += format_buffer(expression + used, sizeof(expression) - used, "%s%s",
                              i > 1 ? " " : "", args->word[i]);
    error = command_number(command, out, expression, "number", &value);
    if (error)
        return error;
    const char *name = symbol_of(value, &offset);
    if (name)
        format_buffer(symbol, sizeof(symbol), offset ? "%s+0x%lx" : "%s", name, offset);
    output_facts(out, &number_record,
                 (struct value[]){as_number(value), as_number(value),
                                  value >= KiB && value < TiB ? as_number(value) : as_nothing(),
                                  name ? as_text(symbol) : as_nothing()});
    if (!name && (value & UPPER_HALF))
        output_note(out, "No symbol of the hypervisor is there.");
    return E_OK;
}

static const struct command print_commands[] = {
    {
        .name = "print",
        .usage = "X ...",
        .summary = "what an expression comes to, and the symbol at an address",
        .details =
            "Numbers and symbols of the hypervisor with + - * and parentheses. An address in\n"
            "its image is shown as the symbol before it and the distance from there.\n",
        .example = "print kernel_text+2*4K",
        .least = 1,
        .most = 12,
        .run = print,
    },
};

const struct command_family print_family = FAMILY("print", print_commands);
