/*
 * See lib/log.h. Positions in the ring count bytes ever written and never wrap, so that "was this
 * line overwritten meanwhile" is one comparison. A panic does not come by here: it may have struck
 * while the lock was held.
 */
#include "lib/log.h"

#include "lib/lock.h"
#include "lib/string.h"

#define RING_SIZE 32768u

static struct {
    struct lock lock;
    struct sink *live;
    uint64_t oldest, end; /* first byte of the oldest line that is whole; end of the newest */
    char bytes[RING_SIZE];
} ring;

static char ring_byte(uint64_t position)
{
    return ring.bytes[position % RING_SIZE];
}

/* `line` ends in its newline and is shorter than the ring. */
static void ring_append(const char *line, size_t n)
{
    while (ring.end + n - ring.oldest > RING_SIZE) {
        while (ring_byte(ring.oldest) != '\n')
            ring.oldest++;
        ring.oldest++;
    }
    for (size_t i = 0; i < n; i++)
        ring.bytes[(ring.end + i) % RING_SIZE] = line[i];
    ring.end += n;
}

/* `end` is '\n', or '\r' for a line that may go on, which the ring does not keep. */
static void write_line(const char *prefix, char end, const char *text, va_list args)
{
    char line[LOG_LINE + 1];
    size_t start = strlen(prefix);
    size_t length;

    memcpy(line, prefix, start);
    length = start + vformat_buffer(line + start, sizeof(line) - start, text, args);
    if (length > LOG_LINE) {
        length = LOG_LINE;
        memcpy(line + LOG_LINE - 3, "...", 3);
    }
    for (size_t i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)line[i];

        if ((byte < ' ' && byte != '\t') || byte == 0x7f)
            line[i] = '?';
    }
    line[length++] = end;

    lock_take(&ring.lock);
    if (end == '\n')
        ring_append(line, length);
    if (ring.live != NULL)
        ring.live->write(ring.live, line, length);
    lock_drop(&ring.lock);
}

void log_attach(struct sink *live)
{
    lock_take(&ring.lock);
    ring.live = live;
    lock_drop(&ring.lock);
}

void log_line(const char *text, ...)
{
    va_list args;

    va_start(args, text);
    write_line(LOG_PREFIX, '\n', text, args);
    va_end(args);
}

void log_plain(const char *text, ...)
{
    va_list args;

    va_start(args, text);
    write_line("", '\n', text, args);
    va_end(args);
}

void log_unfinished(const char *text, ...)
{
    va_list args;

    va_start(args, text);
    write_line("", '\r', text, args);
    va_end(args);
}

/* Where the newest `lines` lines begin (0: all there are). */
static uint64_t find_start(unsigned lines)
{
    uint64_t position = ring.end;

    if (lines == 0)
        return ring.oldest;
    while (position > ring.oldest) {
        /* The byte before a line's first is the newline of the one before it. */
        if (position != ring.end && ring_byte(position - 1) == '\n' && --lines == 0)
            break;
        position--;
    }
    return position;
}

/* Copies the line at *position out and moves *position behind it. Returns its length, newline
 * included; 0 at `end`. A line that was overwritten meanwhile is skipped. */
static size_t copy_line(uint64_t *position, uint64_t end, char line[LOG_LINE + 1])
{
    size_t n = 0;

    if (*position < ring.oldest)
        *position = ring.oldest;
    while (*position < end && n <= LOG_LINE) {
        line[n++] = ring_byte((*position)++);
        if (line[n - 1] == '\n')
            break;
    }
    return n;
}

void log_show(struct sink *to, unsigned lines)
{
    char line[LOG_LINE + 1];
    size_t n;
    uint64_t end, position;

    lock_take(&ring.lock);
    end = ring.end;
    position = find_start(lines);
    lock_drop(&ring.lock);
    /* The lock is not held while the sink, which may be slow, takes the line. */
    for (;;) {
        lock_take(&ring.lock);
        n = copy_line(&position, end, line);
        lock_drop(&ring.lock);
        if (n == 0)
            break;
        to->write(to, line, n);
    }
}
