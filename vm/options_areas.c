/* See vm/options.h: the options that are about a piece of the guest's addresses. */
#include "lib/bits.h"
#include "vm/options_parts.h"

const char *area_kind_name(enum area_kind kind)
{
    static const char *const names[] = {
        [AREA_HOLE] = "hole",    [AREA_ROM] = "rom", [AREA_NOEXEC] = "nox",
        [AREA_EXEC_ONLY] = "xo", [AREA_RAM] = "ram", [AREA_SHARE] = "share",
    };
    return (unsigned)kind < ARRAY_SIZE(names) ? names[kind] : "?";
}

/* Bounds, and no other area there. */
static int add_area(struct parser *parser, struct word word, struct guest_area area)
{
    struct guest_options *out = parser->out;

    if (!is_aligned(area.base, PAGE_SIZE) || !is_aligned(area.size, PAGE_SIZE) || area.size == 0)
        return REFUSE(parser, "'%.*s': address and size are multiples of 4K, and the size is not 0",
                      SHOW(word));
    if (area.base >= OPTION_MAX_MEMORY || area.size > OPTION_MAX_MEMORY - area.base)
        return REFUSE(parser, "'%.*s': a guest's addresses end at 64T", SHOW(word));
    if (out->areas == OPTION_AREAS)
        return REFUSE(parser, "'%.*s' is one area too many; at most %d", SHOW(word), OPTION_AREAS);
    for (unsigned i = 0; i < out->areas; i++) {
        const struct guest_area *other = &out->area[i];
        if (area.base < other->base + other->size && other->base < area.base + area.size)
            return REFUSE(parser, "'%.*s' overlaps %s=0x%lx+0x%lx", SHOW(word),
                          area_kind_name(other->kind), other->base, other->size);
    }
    out->area[out->areas++] = area;
    return E_OK;
}

int options_area(struct parser *parser, struct word word, struct word value, enum area_kind kind)
{
    struct guest_area area = {.kind = kind};
    struct word base, size;

    if (!word_split(value, '+', &base, &size) ||
        parse_size(base.text, base.length, &area.base) != E_OK ||
        parse_size(size.text, size.length, &area.size) != E_OK)
        return REFUSE(parser, "'%.*s': write %s=ADDRESS+SIZE, such as %s=0x200000+64K", SHOW(word),
                      area_kind_name(kind), area_kind_name(kind));
    return add_area(parser, word, area);
}

static bool is_name(struct word word)
{
    for (size_t i = 0; i < word.length; i++)
        if (word.text[i] <= ' ' || word.text[i] > '~')
            return false;
    return word.length != 0 && word.length < SHARE_NAME;
}

/* NAME:SIZE[:r|rw]@ADDRESS */
int options_share(struct parser *parser, struct word word, struct word value)
{
    struct guest_area area = {.kind = AREA_SHARE, .writable = true};
    struct word what, base, name, rest, size, rights = {"rw", 2};

    if (!word_split(value, '@', &what, &base) || !word_split(what, ':', &name, &rest) ||
        !is_name(name))
        return REFUSE(parser,
                      "'%.*s': write share=NAME:SIZE@ADDRESS, such as share=ring:64K@0x40000000, "
                      "with a name of at most %d characters",
                      SHOW(word), SHARE_NAME - 1);
    if (!word_split(rest, ':', &size, &rights))
        size = rest;
    if (parse_size(size.text, size.length, &area.size) != E_OK ||
        parse_size(base.text, base.length, &area.base) != E_OK)
        return REFUSE(parser, "'%.*s': a size and an address are numbers, with K, M or G behind",
                      SHOW(word));
    if (!word_is(rights, "r") && !word_is(rights, "rw"))
        return REFUSE(parser, "'%.*s': a guest may have shared memory as r or as rw", SHOW(word));
    area.writable = word_is(rights, "rw");
    memcpy(area.name, name.text, name.length);
    return add_area(parser, word, area);
}
