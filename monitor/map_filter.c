/* See monitor/map_filter.h. */
#include "monitor/map_filter.h"

#include "lib/string.h"
#include "mm/frames/buddy.h"

static int take_rights(const struct command *command, struct output *out, const char *letters,
                       unsigned *rights)
{
    static const char known[] = "rwxug";

    for (; *letters; letters++) {
        const char *at = strchr(known, *letters);
        if (!at)
            return command_refuse(command, out, E_INVAL,
                                  "\"%c\" is no right: rights= takes letters of r w x u g",
                                  *letters);
        *rights |= 1u << (at - known);
    }
    return E_OK;
}

static int take_page(const struct command *command, struct output *out, const char *text,
                     struct map_filter *filter)
{
    filter->by_page = true;
    return command_number(command, out, text, "size", &filter->page);
}

static int take_purpose(const struct command *command, struct output *out, const char *text,
                        const char **purpose)
{
    for (unsigned i = 0; i < PURPOSE_COUNT; i++)
        if (strcmp(text, purpose_name((enum frame_purpose)i)) == 0) {
            *purpose = text;
            return E_OK;
        }
    return command_refuse(command, out, E_INVAL,
                          "\"%.20s\" is no purpose: `frames` has their names; one with a blank is "
                          "quoted, \"purpose=guest memory\"",
                          text);
}

int map_take_filters(const struct command *command, struct output *out,
                     const struct arguments *args, unsigned from, struct map_filter *filter)
{
    int error = E_OK;

    *filter = (struct map_filter){.last = UINT64_MAX};
    for (unsigned i = from; i < args->count && !error; i++) {
        const char *word = args->word[i], *value;

        filter->any = true;
        if ((value = word_behind(word, "from=")))
            error = command_number(command, out, value, "address", &filter->first);
        else if ((value = word_behind(word, "to=")))
            error = command_number(command, out, value, "address", &filter->last);
        else if ((value = word_behind(word, "rights=")))
            error = take_rights(command, out, value, &filter->rights);
        else if ((value = word_behind(word, "page=")))
            error = take_page(command, out, value, filter);
        else if ((value = word_behind(word, "what=")))
            filter->what = value;
        else if ((value = word_behind(word, "purpose=")))
            error = take_purpose(command, out, value, &filter->purpose);
        else
            error =
                command_refuse(command, out, E_INVAL,
                               "\"%.20s\" is none of from= to= rights= page= what= purpose=", word);
    }
    if (!error && filter->first > filter->last)
        error = command_refuse(command, out, E_RANGE, "from=0x%lx lies behind to=0x%lx",
                               filter->first, filter->last);
    return error;
}
