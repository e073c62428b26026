/* See monitor/fold.h. */
#include "monitor/fold.h"

size_t fold_row(const char *text, size_t n, size_t columns, size_t *next)
{
    size_t end = n;

    if (n > columns) {
        for (end = columns; end && text[end] != ' '; end--)
            ;
        while (end && text[end - 1] == ' ')
            end--;
        if (end == 0)
            end = columns;
    }
    *next = end;
    while (*next < n && text[*next] == ' ')
        (*next)++;
    return end;
}
