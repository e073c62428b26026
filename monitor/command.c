/* What commands share: refusals, and arguments that stand for guests, numbers and addresses. See
 * monitor/commands.h. */
#include <stdarg.h>

#include "monitor/commands.h"
#include "vm/guest.h"
#include "vm/symbols.h"

int command_refuse(const struct command *command, struct output *out, int error, const char *text,
                   ...)
{
    char why[256];
    va_list args;

    va_start(args, text);
    vformat_buffer(why, sizeof(why), text, args);
    va_end(args);
    output_failure(out, error, "%s: %s", command->name, why);
    return error;
}

int command_guest(const struct command *command, struct output *out, const char *word,
                  struct guest **guest)
{
    struct complaint why;
    unsigned number, cpu = ANY_CPU;
    int error = command->of_cpu ? parse_guest_cpu(word, &number, &cpu, &why)
                                : parse_guest(word, &number, &why);

    if (error)
        return command_refuse(command, out, error, "%s", why.text);
    *guest = guest_by_number(number);
    if (*guest && cpu != ANY_CPU && cpu >= (*guest)->cpus)
        return command_refuse(command, out, E_NOENT, "there is no CPU %u of g%u: it has %u, from 0",
                              cpu, number, (*guest)->cpus);
    if (*guest) {
        guest_deal_with(*guest, cpu != ANY_CPU ? cpu : 0);
        return E_OK;
    }
    if (guest_count() == 0)
        return command_refuse(command, out, E_NOENT, "there is no g%u: there are no guests%s%s",
                              number, guests_why_not() ? ": " : "",
                              guests_why_not() ? guests_why_not() : "");
    return command_refuse(command, out, E_NOENT, "there is no g%u: the guests are g1 to g%u",
                          number, guest_count());
}

const char *guest_cpu_text(char buffer[GUEST_CPU_TEXT], const struct guest_cpu *cpu)
{
    if (cpu->guest->cpus > 1)
        format_buffer(buffer, GUEST_CPU_TEXT, "g%u.%u", cpu->guest->number, cpu->index);
    else
        format_buffer(buffer, GUEST_CPU_TEXT, "g%u", cpu->guest->number);
    return buffer;
}

int command_state(const struct command *command, struct output *out, struct guest *guest,
                  struct vcpu_state *state)
{
    int error;

    if (!guest->vcpu)
        return command_refuse(command, out, E_STATE, "g%u %s has no virtual CPU (%s)%s",
                              guest->number, guest->name, guest_state_name(guest->state),
                              guest->report[0] ? "; `report` has its registers as they were" : "");
    error = guests_backend()->get_state(guest->vcpu, state);
    if (error)
        return command_refuse(command, out, error, "the registers of g%u %s cannot be read: %s",
                              guest->number, guest->name, error_text(error));
    return E_OK;
}

int command_number(const struct command *command, struct output *out, const char *word,
                   const char *what, uint64_t *value)
{
    struct complaint why;
    int error = parse_number(word, what, value, &why);

    return error ? command_refuse(command, out, error, "%s", why.text) : E_OK;
}

int command_ticks(const struct command *command, struct output *out, const char *word,
                  uint64_t *ticks)
{
    int error = command_number(command, out, word, "number of ticks", ticks);

    if (!error && (*ticks == 0 || *ticks > COMMAND_TICKS))
        return command_refuse(command, out, E_RANGE,
                              "ticks=%s: it is from 1 to 256T (0x%lx), about a day at 3 GHz", word,
                              COMMAND_TICKS);
    return error;
}

static bool guest_lookup(const void *ctx, const char *name, uint64_t *value)
{
    return symbols_find(ctx, name, value);
}

#define WHOSE_TEXT 40

int command_gva(const struct command *command, struct output *out, const struct guest *guest,
                const char *word, const char *what, uint64_t *value)
{
    char whose[WHOSE_TEXT];
    struct symbols symbols;
    struct symbol_book book = {guest_lookup, &symbols, whose};
    struct complaint why;
    bool known = symbols_of_guest(&symbols, guest);

    format_buffer(whose, sizeof(whose), "g%u %s", guest->number, guest->name);
    int error = parse_number_by(known ? &book : NULL, word, what, value, &why);
    if (error && !known && word[0] != '-' && (word[0] < '0' || word[0] > '9'))
        return command_refuse(command, out, error,
                              "%s; %s has no symbols: no symbol table in its image, and no "
                              "System.map among its modules",
                              why.text, whose);
    return error ? command_refuse(command, out, error, "%s", why.text) : E_OK;
}
