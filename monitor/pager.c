/*
 * See monitor/pager.h.
 */
#include "monitor/pager.h"

#include "lib/list.h"
#include "lib/string.h"

#define MORE "-- more: space, return, or q --"
#define ERASE_ROW "\r\033[K"
#define CONTROL_C 3

static void put(struct pager *pager, const char *text)
{
    pager->terminal->write(pager->terminal, text, strlen(text));
}

static unsigned page_of(const struct pager *pager)
{
    return pager->rows - 1; /* one for the question */
}

/* Waits for somebody to say how to go on; what else is typed meanwhile is nothing. */
static void ask(struct pager *pager)
{
    put(pager, MORE);
    for (;;) {
        int key = pager->key();
        if (key == ' ')
            pager->left = page_of(pager);
        else if (key == '\r' || key == '\n')
            pager->left = 1;
        else if (key == 'q' || key == 'Q' || key == CONTROL_C)
            pager->stopped = true;
        else
            continue;
        break;
    }
    put(pager, ERASE_ROW);
}

/* Counts what room a byte takes. A long line that wraps where the page ends is asked about behind
 * it. */
static void count(struct pager *pager, char c)
{
    if (pager->escape) {
        pager->escape = c == '[' || c == ';' || (c >= '0' && c <= '9');
    } else if (c == '\033') {
        pager->escape = true;
    } else if (c == '\r') {
        pager->column = 0;
    } else if (c == '\n') {
        pager->left--;
        pager->column = 0;
    } else if (pager->columns && pager->column == pager->columns) {
        pager->left -= pager->left != 0;
        pager->column = 1;
    } else {
        pager->column++;
    }
}

static void write_paged(struct sink *sink, const char *bytes, size_t n)
{
    struct pager *pager = container_of(sink, struct pager, sink);

    if (pager->rows == 0) {
        pager->terminal->write(pager->terminal, bytes, n);
        return;
    }
    for (size_t i = 0; i < n && !pager->stopped; i++) {
        /* Asked only when there is more, so that an answer of just a page ends without a question.
         */
        if (pager->left == 0)
            ask(pager);
        if (pager->stopped)
            return;
        pager->terminal->write(pager->terminal, bytes + i, 1);
        count(pager, bytes[i]);
    }
}

void pager_init(struct pager *pager, struct sink *terminal, int (*key)(void))
{
    *pager = (struct pager){.sink = {write_paged}, .terminal = terminal, .key = key};
}

void pager_begin(struct pager *pager)
{
    pager->left = pager->rows ? page_of(pager) : 0;
    pager->column = 0;
    pager->stopped = pager->escape = false;
}
