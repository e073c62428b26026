/* Names of memory types and rights, for people. */
#include "mm/paging/attrs.h"

const char *mem_type_name(enum mem_type type)
{
    switch (type) {
    case MEM_UC:
        return "UC";
    case MEM_WC:
        return "WC";
    case MEM_WT:
        return "WT";
    case MEM_WP:
        return "WP";
    case MEM_WB:
        return "WB";
    }
    return "??";
}

const char *rights_text(char buffer[RIGHTS_TEXT], unsigned rights)
{
    static const char letters[] = "rwxug";

    for (unsigned i = 0; i < RIGHTS_TEXT - 1; i++)
        buffer[i] = rights & (1u << i) ? letters[i] : '-';
    buffer[RIGHTS_TEXT - 1] = '\0';
    return buffer;
}
