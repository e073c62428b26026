/*
 * See lib/log.h. Positions in a ring count bytes ever written and never wrap, so that "was this
 * line overwritten meanwhile" is one comparison. Each line has its number before it, by which the
 * rings are read as one. A panic does not come by here: it may have struck while the lock was held.
 */
#include "lib/log.h"

#include "lib/lock.h"
#include "lib/string.h"

#define RING_SIZE 32768u
#define NUMBER_SIZE sizeof(uint64_t)

enum origin { OF_HOST, OF_GUESTS, ORIGINS };

struct ring {
    uint64_t oldest, end; /* first byte of the oldest line that is whole; end of the newest */
    uint64_t lines;       /* that it has */
    char bytes[RING_SIZE];
};

static struct {
    struct lock lock;
    struct sink *live;
    bool (*room)(void);
    struct ring ring[ORIGINS];
    uint64_t next_number;
    uint64_t waiting; /* of the guests' ring: the first line that the live sink has not seen */
    uint64_t lost;    /* lines that it will not see, and has not been told of */
} all;

/* ---- A ring --------------------------------------------------------------------------------- */

static char ring_byte(const struct ring *ring, uint64_t position)
{
    return ring->bytes[position % RING_SIZE];
}

/* Where the line behind the one at `position` begins. */
static uint64_t line_after(const struct ring *ring, uint64_t position)
{
    position += NUMBER_SIZE;
    while (ring_byte(ring, position) != '\n')
        position++;
    return position + 1;
}

static uint64_t line_number(const struct ring *ring, uint64_t position)
{
    uint64_t number;

    for (unsigned i = 0; i < NUMBER_SIZE; i++)
        ((char *)&number)[i] = ring_byte(ring, position + i);
    return number;
}

static void ring_put(struct ring *ring, const void *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ring->bytes[(ring->end + i) % RING_SIZE] = ((const char *)bytes)[i];
    ring->end += n;
}

static void ring_append(enum origin origin, const char *line, size_t n)
{
    struct ring *ring = &all.ring[origin];

    while (ring->end + NUMBER_SIZE + n - ring->oldest > RING_SIZE) {
        bool unseen = origin == OF_GUESTS && ring->oldest == all.waiting;

        ring->oldest = line_after(ring, ring->oldest);
        ring->lines--;
        if (unseen) {
            all.waiting = ring->oldest;
            all.lost++;
        }
    }
    ring_put(ring, &all.next_number, NUMBER_SIZE);
    ring_put(ring, line, n);
    all.next_number++;
    ring->lines++;
}

/* Copies the line at *position, which is moved behind it. Returns its length with its newline; 0:
 * the ring has none there. One that was overwritten meanwhile is skipped. */
static size_t copy_line(const struct ring *ring, uint64_t *position, char line[LOG_LINE + 1])
{
    size_t n = 0;

    if (*position < ring->oldest)
        *position = ring->oldest;
    if (*position >= ring->end)
        return 0;
    *position += NUMBER_SIZE;
    do
        line[n++] = ring_byte(ring, (*position)++);
    while (line[n - 1] != '\n' && n <= LOG_LINE);
    return n;
}

/* ---- Live ----------------------------------------------------------------------------------- */

bool log_has_room(void)
{
    return all.room == NULL || all.room();
}

static void tell_lost(void)
{
    char line[LOG_LINE + 1];
    size_t n;

    if (all.lost == 0)
        return;
    n = format_buffer(line, sizeof(line),
                      LOG_PREFIX "%lu lines of guests came too fast to be shown; `log` has the "
                                 "newest\n",
                      all.lost);
    all.lost = 0;
    all.live->write(all.live, line, n);
}

/* The lock is held. */
static bool pass_on(bool everything)
{
    const struct ring *ring = &all.ring[OF_GUESTS];
    char line[LOG_LINE + 1];

    if (all.live == NULL)
        all.waiting = ring->end;
    while (all.waiting < ring->end) {
        if (!everything && !log_has_room())
            return false;
        tell_lost();
        size_t n = copy_line(ring, &all.waiting, line);
        all.live->write(all.live, line, n);
    }
    return true;
}

bool log_pass_on(bool everything)
{
    bool done;

    lock_take(&all.lock);
    done = pass_on(everything);
    lock_drop(&all.lock);
    return done;
}

void log_attach(struct sink *live)
{
    lock_take(&all.lock);
    all.live = live;
    lock_drop(&all.lock);
}

void log_set_room(bool (*room)(void))
{
    all.room = room;
}

/* ---- Lines ---------------------------------------------------------------------------------- */

/* The text, cut and made harmless. Returns its length; there is room for one byte more. */
static size_t make_line(char line[LOG_LINE + 1], const char *prefix, const char *text, va_list args)
{
    size_t start = strlen(prefix);
    size_t length;

    memcpy(line, prefix, start);
    length = start + vformat_buffer(line + start, LOG_LINE + 1 - start, text, args);
    if (length > LOG_LINE) {
        length = LOG_LINE;
        memcpy(line + LOG_LINE - 3, "...", 3);
    }
    for (size_t i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)line[i];

        if ((byte < ' ' && byte != '\t') || (byte >= 0x7f && byte < 0xa0))
            line[i] = '?';
    }
    return length;
}

static void write_line(enum origin origin, const char *prefix, const char *text, va_list args)
{
    char line[LOG_LINE + 1];
    size_t length = make_line(line, prefix, text, args);

    line[length++] = '\n';
    lock_take(&all.lock);
    if (origin == OF_HOST && all.live != NULL) {
        pass_on(false);
        all.live->write(all.live, line, length);
    }
    ring_append(origin, line, length);
    if (origin == OF_GUESTS)
        pass_on(false);
    lock_drop(&all.lock);
}

void log_line(const char *text, ...)
{
    va_list args;

    va_start(args, text);
    write_line(OF_HOST, LOG_PREFIX, text, args);
    va_end(args);
}

void log_guest(const char *text, ...)
{
    va_list args;

    va_start(args, text);
    write_line(OF_GUESTS, LOG_PREFIX, text, args);
    va_end(args);
}

void log_plain(const char *text, ...)
{
    va_list args;

    va_start(args, text);
    write_line(OF_GUESTS, "", text, args);
    va_end(args);
}

void log_unfinished(const char *text, ...)
{
    char line[LOG_LINE + 1];
    va_list args;
    size_t length;

    va_start(args, text);
    length = make_line(line, "", text, args);
    va_end(args);
    line[length++] = '\r';
    lock_take(&all.lock);
    if (all.live != NULL && pass_on(false) && log_has_room())
        all.live->write(all.live, line, length);
    lock_drop(&all.lock);
}

/* ---- The rings as one ----------------------------------------------------------------------- */

struct reader {
    uint64_t position[ORIGINS];
};

/* The ring whose next line is the older one; ORIGINS: there is none below `number`. */
static enum origin next_of(struct reader *reader, uint64_t number)
{
    enum origin first = ORIGINS;

    for (enum origin origin = 0; origin < ORIGINS; origin++) {
        const struct ring *ring = &all.ring[origin];
        uint64_t *at = &reader->position[origin];

        if (*at < ring->oldest)
            *at = ring->oldest;
        if (*at < ring->end && line_number(ring, *at) < number) {
            number = line_number(ring, *at);
            first = origin;
        }
    }
    return first;
}

void log_show(struct sink *to, unsigned lines)
{
    struct reader reader = {{0}};
    char line[LOG_LINE + 1];
    enum origin origin;
    uint64_t end, skipped;
    size_t n = 0;

    lock_take(&all.lock);
    end = all.next_number;
    skipped = all.ring[OF_HOST].lines + all.ring[OF_GUESTS].lines;
    for (skipped = lines != 0 && lines < skipped ? skipped - lines : 0; skipped > 0; skipped--) {
        origin = next_of(&reader, end);
        reader.position[origin] = line_after(&all.ring[origin], reader.position[origin]);
    }
    lock_drop(&all.lock);
    /* The lock is not held while the sink, which may be slow, takes the line. */
    for (;;) {
        lock_take(&all.lock);
        origin = next_of(&reader, end);
        if (origin != ORIGINS)
            n = copy_line(&all.ring[origin], &reader.position[origin], line);
        lock_drop(&all.lock);
        if (origin == ORIGINS)
            break;
        to->write(to, line, n);
    }
}
