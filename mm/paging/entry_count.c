/* See mm/paging/entry_count.h. */
#include "mm/paging/entry_count.h"

#include "lib/format.h"

const char *entries_text(char buffer[ENTRIES_TEXT], uint64_t entries)
{
    format_buffer(buffer, ENTRIES_TEXT, "%u (%u+%u+%u+%u)", entries_total(entries),
                  entries_in_quarter(entries, 0), entries_in_quarter(entries, 1),
                  entries_in_quarter(entries, 2), entries_in_quarter(entries, 3));
    return buffer;
}
