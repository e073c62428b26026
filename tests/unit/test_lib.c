/* The freestanding library: formatting and strings against the libc's, the log against a model. */
#include "lib/bits.h"
#include "lib/error.h"
#include "lib/format.h"
#include "lib/list.h"
#include "lib/lock.h"
#include "lib/log.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "tests/unit/hosted.h"

#include "tests/unit/random.h"
#include "tests/unit/string_renamed.h"

/* --- bits and lists ------------------------------------------------------------------------ */

static void bits_at_their_edges(void **state)
{
    (void)state;
    assert_int_equal(BITS(63, 0), UINT64_MAX);
    assert_int_equal(BITS(51, 12), UINT64_C(0x000ffffffffff000));
    assert_int_equal(BITS(5, 5), 0x20);
    assert_int_equal(BIT(63), UINT64_C(1) << 63);
    assert_int_equal(align_down(0x1fff, 0x1000), 0x1000);
    assert_int_equal(align_up(0x1001, 0x1000), 0x2000);
    assert_int_equal(align_up(0x1000, 0x1000), 0x1000);
    assert_int_equal(align_up(UINT64_MAX, 0x1000), 0);
    assert_true(is_aligned(0, 0x1000));
    assert_false(is_aligned(0x800, 0x1000));
    assert_true(is_power_of_two(1));
    assert_true(is_power_of_two(BIT(63)));
    assert_false(is_power_of_two(0));
    assert_false(is_power_of_two(3));
    for (unsigned i = 0; i < 64; i++) {
        assert_int_equal(lowest_bit(BIT(i) | BIT(63)), i);
        assert_int_equal(highest_bit(BIT(i) | 1), i);
    }
}

struct element {
    int value;
    struct list link;
};

static void list_is_first_in_first_out(void **state)
{
    struct list head = LIST_INIT(head);
    struct element elements[3] = {{.value = 0}, {.value = 1}, {.value = 2}};
    int expected = 0;

    (void)state;
    assert_true(list_empty(&head));
    for (int i = 0; i < 3; i++)
        list_append(&head, &elements[i].link);
    list_each (item, &head)
        assert_int_equal(container_of(item, struct element, link)->value, expected++);
    assert_int_equal(expected, 3);

    list_remove(&elements[1].link);
    assert_true(list_empty(&elements[1].link));
    assert_ptr_equal(head.next, &elements[0].link);
    assert_ptr_equal(head.next->next, &elements[2].link);
    assert_ptr_equal(head.previous, &elements[2].link);
    list_remove(&elements[1].link); /* on a ring of itself: harmless */
    list_remove(&elements[0].link);
    list_remove(&elements[2].link);
    assert_true(list_empty(&head));
}

#define LOCK_ROUNDS 20000

struct counter {
    struct lock lock;
    unsigned long value;
};

static void *count_up(void *arg)
{
    struct counter *counter = arg;

    for (int i = 0; i < LOCK_ROUNDS; i++) {
        lock_take(&counter->lock);
        /* A plain increment: lost ones would show. */
        counter->value = *(volatile unsigned long *)&counter->value + 1;
        lock_drop(&counter->lock);
    }
    return NULL;
}

static void lock_excludes(void **state)
{
    struct counter counter = {LOCK_INIT, 0};
    pthread_t threads[2];

    (void)state;
    assert_false(lock_held(&counter.lock));
    lock_take(&counter.lock);
    assert_true(lock_held(&counter.lock));
    lock_drop(&counter.lock);
    assert_false(lock_held(&counter.lock));

    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count_up, &counter), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(counter.value, 2 * LOCK_ROUNDS);
    assert_false(lock_held(&counter.lock));
}

static void locks_have_an_order(void **state)
{
    struct lock leaf = LOCK_INIT, tables[2] = {LOCK_INIT_AT(LOCK_TABLE), LOCK_INIT_AT(LOCK_TABLE)};
    struct lock buddy = LOCK_INIT_AT(LOCK_BUDDY);
    struct wide_lock guests = WIDE_LOCK_INIT_AT(LOCK_GUESTS);

    (void)state;
    for (unsigned i = 0; i < 2; i++) { /* dropped in another order than taken, too */
        wide_lock_take(&guests);
        lock_take(&tables[0]);
        lock_take(&tables[1]);
        lock_take(&buddy);
        lock_take(&leaf);
        lock_drop(i ? &leaf : &tables[0]);
        lock_drop(i ? &tables[0] : &leaf);
        lock_drop(&buddy);
        lock_drop(&tables[1]);
        wide_lock_drop(&guests);
    }
    /* A panic leaves taken what was, and forgotten what is held. */
    lock_take(&tables[1]);
    assert_panics(lock_take(&tables[0]), "against their order");
    lock_take(&buddy);
    assert_panics(wide_lock_take(&guests), "place 1 is taken under one of place 6");
    lock_take(&leaf);
    assert_panics(lock_take(&tables[0]), "under one of place 0");
    assert_panics(lock_drop(&tables[0]), "this CPU does not hold");
}

#define WIDE_ROUNDS 20000

struct wide_counter {
    struct wide_lock lock;
    unsigned long value;
};

static void *count_up_wide(void *arg)
{
    struct wide_counter *counter = arg;

    for (int i = 0; i < WIDE_ROUNDS; i++) {
        if (i % 2 || !wide_lock_try(&counter->lock))
            wide_lock_take(&counter->lock);
        counter->value = *(volatile unsigned long *)&counter->value + 1;
        wide_lock_drop(&counter->lock);
    }
    return NULL;
}

static void a_wide_lock_excludes(void **state)
{
    struct wide_counter counter = {WIDE_LOCK_INIT_AT(LOCK_GUESTS), 0};
    pthread_t threads[3];

    (void)state;
    assert_true(wide_lock_try(&counter.lock));
    assert_false(wide_lock_try(&counter.lock));
    wide_lock_drop(&counter.lock);
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count_up_wide, &counter), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(counter.value, 3 * WIDE_ROUNDS);
    assert_false(counter.lock.held || counter.lock.wanted);
}

#define SHARERS 2

/* Two numbers that are the same for whoever shares the lock, and that only who takes it changes. */
static struct {
    struct wide_lock lock;
    struct lock_sharer sharer[SHARERS];
    volatile unsigned long first, second;
    unsigned long shared[SHARERS];
    unsigned unlike;
} shared;

static void *share(void *arg)
{
    unsigned self = (unsigned)(uintptr_t)arg;

    while (shared.shared[self] < WIDE_ROUNDS) {
        if (!wide_lock_share(&shared.lock, &shared.sharer[self]))
            continue;
        unsigned long first = shared.first;
        for (int k = 0; k < 20; k++)
            __builtin_ia32_pause();
        if (first != shared.second)
            __atomic_fetch_add(&shared.unlike, 1, __ATOMIC_RELAXED);
        shared.shared[self]++;
        wide_lock_unshare(&shared.lock, &shared.sharer[self]);
    }
    return NULL;
}

static void *take_from_sharers(void *arg)
{
    (void)arg;
    for (int i = 0; i < WIDE_ROUNDS; i++) {
        wide_lock_take(&shared.lock);
        shared.first++;
        for (int k = 0; k < 20; k++)
            __builtin_ia32_pause();
        shared.second++;
        wide_lock_drop(&shared.lock);
    }
    return NULL;
}

static void *share_once(void *arg)
{
    (void)arg;
    if (!wide_lock_share(&shared.lock, &shared.sharer[1]))
        return NULL;
    wide_lock_unshare(&shared.lock, &shared.sharer[1]);
    return &shared;
}

static void a_wide_lock_is_shared(void **state)
{
    pthread_t threads[SHARERS + 1];
    void *beside;

    (void)state;
    shared.lock = WIDE_LOCK_INIT_AT(LOCK_GUESTS);
    shared.lock.sharer = shared.sharer;
    shared.lock.sharers = SHARERS;
    assert_true(wide_lock_share(&shared.lock, &shared.sharer[0]));
    assert_int_equal(pthread_create(&threads[0], NULL, share_once, NULL), 0);
    assert_int_equal(pthread_join(threads[0], &beside), 0);
    assert_non_null(beside); /* at the same time */
    wide_lock_unshare(&shared.lock, &shared.sharer[0]);
    wide_lock_take(&shared.lock);
    assert_false(wide_lock_share(&shared.lock, &shared.sharer[1]));
    assert_int_equal(shared.sharer[1].inside, 0);
    wide_lock_drop(&shared.lock);
    shared.lock.wanted = 1;
    assert_false(wide_lock_share(&shared.lock, &shared.sharer[0]));
    shared.lock.wanted = 0;
    for (uintptr_t i = 0; i < SHARERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, share, (void *)i), 0);
    assert_int_equal(pthread_create(&threads[SHARERS], NULL, take_from_sharers, NULL), 0);
    for (int i = 0; i <= SHARERS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(shared.unlike, 0);
    assert_int_equal(shared.second, WIDE_ROUNDS);
}

static struct wide_counter contended = {WIDE_LOCK_INIT_AT(LOCK_GUESTS), 0};

static void *take_once(void *arg)
{
    (void)arg;
    wide_lock_take(&contended.lock);
    contended.value++;
    wide_lock_drop(&contended.lock);
    return NULL;
}

/* Whoever has lost patience keeps those away that come by. */
static void a_wide_lock_starves_nobody(void **state)
{
    pthread_t thread;

    (void)state;
    wide_lock_take(&contended.lock);
    assert_int_equal(pthread_create(&thread, NULL, take_once, NULL), 0);
    while (!__atomic_load_n(&contended.lock.wanted, __ATOMIC_RELAXED))
        continue;
    wide_lock_drop(&contended.lock);
    while (!wide_lock_try(&contended.lock))
        continue;
    assert_int_equal(contended.value, 1);
    wide_lock_drop(&contended.lock);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

/* --- errors -------------------------------------------------------------------------------- */

static void errors_have_names(void **state)
{
    (void)state;
    assert_string_equal(error_name(E_OK), "E_OK");
    assert_string_equal(error_name(E_NOMEM), "E_NOMEM");
    assert_string_equal(error_name(E_DOUBLE_FREE), "E_DOUBLE_FREE");
    assert_string_equal(error_name(E_SHARED), "E_SHARED");
    assert_string_equal(error_text(E_ALIGN), "not aligned");
    for (int a = E_STOPPED; a <= E_OK; a++) {
        assert_string_not_equal(error_name(a), "E_UNKNOWN");
        assert_string_not_equal(error_text(a), "unknown error");
        for (int b = E_STOPPED; b < a; b++) {
            assert_string_not_equal(error_name(a), error_name(b));
            assert_string_not_equal(error_text(a), error_text(b));
        }
    }
}

static void errors_out_of_range_are_unknown(void **state)
{
    const int foreign[] = {1, 2, E_STOPPED - 1, -1000, INT32_MAX, INT32_MIN};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(foreign); i++) {
        assert_string_equal(error_name(foreign[i]), "E_UNKNOWN");
        assert_string_equal(error_text(foreign[i]), "unknown error");
    }
}

/* --- formatting ---------------------------------------------------------------------------- */

#define assert_formats(expected, ...)                                                              \
    do {                                                                                           \
        char buffer_[256];                                                                         \
        assert_int_equal(format_buffer(buffer_, sizeof(buffer_), __VA_ARGS__), strlen(expected));  \
        assert_string_equal(buffer_, expected);                                                    \
    } while (0)

static void format_by_example(void **state)
{
    (void)state;
    assert_formats("", "%s", "");
    assert_formats("plain", "plain");
    assert_formats("100%", "%d%%", 100);
    assert_formats("-9223372036854775808", "%ld", INT64_MIN);
    assert_formats("18446744073709551615", "%lu", UINT64_MAX);
    assert_formats("ffffffffffffffff", "%llx", (unsigned long long)UINT64_MAX);
    assert_formats("0xdeadbeef", "%#x", 0xdeadbeefu);
    assert_formats("0", "%#x", 0u);
    assert_formats("0x0", "%p", (void *)0);
    assert_formats("0x1000", "%p", (void *)0x1000);
    assert_formats("  0x1000|0x1000  |", "%8p|%-8p|", (void *)0x1000, (void *)0x1000);
    assert_formats("00ff|ff  |  ff", "%04x|%-4x|%4x", 0xffu, 0xffu, 0xffu);
    assert_formats("-0042", "%05d", -42);
    assert_formats("ab   |   ab|a", "%-5s|%*s|%.1s", "ab", 5, "ab", "ab");
    assert_formats("x  |  x|x", "%-3c|%3c|%c", 'x', 'x', 'x');
    assert_formats("7|65535|255", "%zu|%hu|%hhu", (size_t)7, (unsigned short)65535,
                   (unsigned char)255);
    assert_formats("left ", "%*s", -5, "left");
    assert_formats("all", "%.*s", -1, "all");
    assert_formats("                                        wide", "%44s", "wide");
}

static void format_null_string(void **state)
{
    const char *volatile nothing = NULL; /* or the compiler sees it and complains */

    (void)state;
    assert_formats("[(null)]", "[%s]", nothing);
}

static void format_reads_no_further_than_the_precision(void **state)
{
    char *unterminated = malloc(3); /* AddressSanitizer watches its end */

    (void)state;
    assert_non_null(unterminated);
    memcpy(unterminated, "abc", 3);
    assert_formats("abc|ab", "%.3s|%.*s", unterminated, 2, unterminated);
    free(unterminated);
}

/* What is not ours appears as written, and so does all after it. The formats are deliberately
 * wrong: the compiler must not see them. */
static void format_unknown_conversions(void **state)
{
    const char *volatile texts[][2] = {
        {"%q then %d", "%q then %d"},
        {"5 %", "5 %"},
        {"%-08", "%-08"},
        {"%f", "%f"},
        {"a%lnb", "a%lnb"},
        {"%99999999999999999999q", "%99999999999999999999q"},
        {"%", "%"},
        {"ok %% %!", "ok % %!"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        char buffer[64];

        format_buffer(buffer, sizeof(buffer), texts[i][0], 1);
        assert_string_equal(buffer, texts[i][1]);
    }
}

/* A width beyond all reason is large, not what is left of it modulo 2^64. */
static void format_widths_do_not_wrap(void **state)
{
    const char *volatile text = "%18446744073709551619d";

    (void)state;
    assert_true(format_buffer(NULL, 0, text, 1) > 10000);
}

static void format_fills_no_more_than_the_buffer(void **state)
{
    const char text[] = "twelve bytes";

    (void)state;
    for (size_t size = 0; size <= sizeof(text) + 1; size++) {
        char *buffer = malloc(size + 1);

        assert_non_null(buffer);
        memset(buffer, '#', size + 1);
        assert_int_equal(format_buffer(buffer, size, "%s %s", "twelve", "bytes"), strlen(text));
        assert_int_equal(buffer[size], '#');
        if (size > 0) {
            size_t kept = size - 1 < strlen(text) ? size - 1 : strlen(text);

            assert_memory_equal(buffer, text, kept);
            assert_int_equal(buffer[kept], '\0');
        }
        free(buffer);
    }
}

struct conversion_text {
    char text[32];
    bool has_width, has_precision;
    int width, precision;
};

static void random_conversion(struct random *random, const char *flags, const char *length,
                              char kind, struct conversion_text *out)
{
    size_t n = 0;

    *out = (struct conversion_text){.width = (int)random_below(random, 50) - 25,
                                    .precision = (int)random_below(random, 30) - 5};
    out->text[n++] = '%';
    for (; *flags != '\0'; flags++) {
        if (random_below(random, 2))
            out->text[n++] = *flags;
    }
    out->has_width = random_below(random, 2);
    if (out->has_width)
        out->text[n++] = '*';
    out->has_precision = random_below(random, 3) == 0;
    if (out->has_precision) {
        out->text[n++] = '.';
        out->text[n++] = '*';
    }
    n += (size_t)sprintf(out->text + n, "%s%c", length, kind);
    sprintf(out->text + n, "|%s", "%d"); /* arguments after it still match */
}

/* Calls both formatters with the stars that the conversion has. */
#define compare_conversion(c, value)                                                               \
    do {                                                                                           \
        char ours_[256], theirs_[256];                                                             \
        size_t our_length_;                                                                        \
        int their_length_;                                                                         \
        if ((c)->has_width && (c)->has_precision) {                                                \
            our_length_ = format_buffer(ours_, sizeof(ours_), (c)->text, (c)->width,               \
                                        (c)->precision, value, 77);                                \
            their_length_ = snprintf(theirs_, sizeof(theirs_), (c)->text, (c)->width,              \
                                     (c)->precision, value, 77);                                   \
        } else if ((c)->has_width || (c)->has_precision) {                                         \
            int star_ = (c)->has_width ? (c)->width : (c)->precision;                              \
            our_length_ = format_buffer(ours_, sizeof(ours_), (c)->text, star_, value, 77);        \
            their_length_ = snprintf(theirs_, sizeof(theirs_), (c)->text, star_, value, 77);       \
        } else {                                                                                   \
            our_length_ = format_buffer(ours_, sizeof(ours_), (c)->text, value, 77);               \
            their_length_ = snprintf(theirs_, sizeof(theirs_), (c)->text, value, 77);              \
        }                                                                                          \
        assert_string_equal(ours_, theirs_);                                                       \
        assert_int_equal(our_length_, their_length_);                                              \
    } while (0)

static uint64_t random_number(struct random *random)
{
    /* As many small numbers as large ones, and the extremes. */
    switch (random_below(random, 8)) {
    case 0:
        return 0;
    case 1:
        return UINT64_MAX;
    case 2:
        return BIT(random_below(random, 64));
    default:
        return random_next(random) >> random_below(random, 64);
    }
}

static void format_agrees_with_libc(void **state)
{
    static const char *const words[] = {"", "a", "some words", "and a longer text of its own"};
    struct random random = {1};
    struct conversion_text c;

    (void)state;
    for (int i = 0; i < 40000; i++) {
        static const char kinds[] = "diuxXsc";
        char kind = kinds[random_below(&random, sizeof(kinds) - 1)];
        uint64_t value = random_number(&random);
        /* Undefined in C, so not compared: '0' with s and c, '#' with all but x and X, a precision
         * with c. */
        const char *flags = strchr("xX", kind) ? "-0#" : strchr("sc", kind) ? "-" : "-0";

        if (kind == 's') {
            random_conversion(&random, flags, "", kind, &c);
            compare_conversion(&c, words[value % ARRAY_SIZE(words)]);
        } else if (kind == 'c') {
            do
                random_conversion(&random, flags, "", kind, &c);
            while (c.has_precision);
            compare_conversion(&c, (int)(' ' + value % 90));
        } else {
            static const char *const narrow[] = {"", "h", "hh"}, *const wide[] = {"l", "ll", "z"};

            if (value & 1) {
                random_conversion(&random, flags, wide[random_below(&random, 3)], kind, &c);
                compare_conversion(&c, value);
            } else {
                random_conversion(&random, flags, narrow[random_below(&random, 3)], kind, &c);
                compare_conversion(&c, (unsigned)value);
            }
        }
    }
}

static void sizes_in_words(void **state)
{
    static const struct {
        uint64_t bytes;
        const char *text;
    } sizes[] = {
        {0, "0B"},
        {1, "1B"},
        {1000, "1000B"},
        {1023, "1023B"},
        {1024, "1K"},
        {1025, "1025B"},
        {4096, "4K"},
        {2 * MiB, "2M"},
        {GiB, "1G"},
        {1023 * MiB, "1023M"},
        {1025 * MiB, "1025M"},
        {64 * TiB, "64T"},
        {UINT64_C(1) << 60, "1E"},
        {UINT64_C(1) << 63, "8E"},
        {16000 * KiB, "15.6M"},
        {9999 * KiB, "9999K"},
        {10239 * KiB, "10.0M"},
        {UINT64_MAX, "16.0E"},
        {UINT64_MAX - 1023, "16.0E"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        char buffer[SIZE_TEXT];

        assert_ptr_equal(size_text(buffer, sizes[i].bytes), buffer);
        assert_string_equal(buffer, sizes[i].text);
    }
}

/* --- strings ------------------------------------------------------------------------------- */

static int sign(int value)
{
    return (value > 0) - (value < 0);
}

static void copies_agree_with_libc(void **state)
{
    struct random random = {2};

    (void)state;
    for (int i = 0; i < 20000; i++) {
        unsigned char ours[160], theirs[160];
        size_t from = random_below(&random, 64), to = random_below(&random, 64);
        size_t n = random_below(&random, 96);

        for (size_t j = 0; j < sizeof(ours); j++)
            ours[j] = theirs[j] = (unsigned char)random_next(&random);
        switch (i % 3) {
        case 0:
            assert_ptr_equal(quire_memmove(ours + to, ours + from, n), ours + to);
            memmove(theirs + to, theirs + from, n);
            break;
        case 1: /* must not overlap */
            n = n % 32;
            assert_ptr_equal(quire_memcpy(ours + 96 + to % 32, ours + from, n),
                             ours + 96 + to % 32);
            memcpy(theirs + 96 + to % 32, theirs + from, n);
            break;
        default:
            assert_ptr_equal(quire_memset(ours + to, (int)from - 32, n), ours + to);
            memset(theirs + to, (int)from - 32, n);
            break;
        }
        assert_memory_equal(ours, theirs, sizeof(ours));
    }
}

static void comparisons_agree_with_libc(void **state)
{
    struct random random = {3};

    (void)state;
    for (int i = 0; i < 20000; i++) {
        char a[24], b[24];
        size_t n = random_below(&random, sizeof(a) + 1);
        int byte = (int)random_below(&random, 5) - 2;

        /* Few different bytes, negative ones among them, so that long equal prefixes and early
         * terminators are common. */
        for (size_t j = 0; j < sizeof(a); j++) {
            a[j] = (char)((int)random_below(&random, 4) - 2);
            b[j] = random_below(&random, 8) ? a[j] : (char)((int)random_below(&random, 4) - 2);
        }
        assert_int_equal(sign(quire_memcmp(a, b, n)), sign(memcmp(a, b, n)));
        assert_ptr_equal(quire_memchr(a, byte, n), memchr(a, byte, n));
        assert_int_equal(quire_strnlen(a, n), strnlen(a, n));
        assert_int_equal(sign(quire_strncmp(a, b, n)), sign(strncmp(a, b, n)));

        a[sizeof(a) - 1] = b[sizeof(b) - 1] = '\0';
        assert_int_equal(quire_strlen(a), strlen(a));
        assert_int_equal(sign(quire_strcmp(a, b)), sign(strcmp(a, b)));
        assert_ptr_equal(quire_strchr(a, byte), strchr(a, byte));
    }
}

/* The assembly of the copies is invisible to AddressSanitizer; an unmapped page is not. */
static void nothing_reaches_past_the_end(void **state)
{
    const size_t page = 4096;
    char *pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char source[64];

    (void)state;
    assert_ptr_not_equal(pages, MAP_FAILED);
    assert_int_equal(munmap(pages + page, page), 0);
    for (size_t n = 0; n <= 32; n++) {
        char *end = pages + page - n;

        quire_memset(source, 'x', sizeof(source));
        quire_memcpy(end, source, n);
        quire_memmove(end, source, n);
        quire_memset(end, 'x', n);
        quire_memcpy(source, end, n);
        quire_memmove(source, end, n);
        assert_int_equal(quire_memcmp(end, source, n), 0);
        assert_null(quire_memchr(end, 'y', n));
        assert_ptr_equal(quire_memchr(end, 'x', n), n ? end : NULL);
        assert_int_equal(quire_strnlen(end, n), n);
        assert_int_equal(quire_strncmp(end, source, n), 0);
        if (n > 0) {
            end[n - 1] = '\0';
            assert_int_equal(quire_strlen(end), n - 1);
            assert_null(quire_strchr(end, 'y'));
            assert_int_equal(quire_strcmp(end, end), 0);
        }
    }
    munmap(pages, page);
}

/* --- the log ------------------------------------------------------------------------------- */

/* Collects what is written, and counts the writes. */
struct collector {
    struct sink sink;
    unsigned writes;
    size_t length;
    char bytes[1 << 17];
};

static void collect(struct sink *sink, const char *bytes, size_t n)
{
    struct collector *collector = (struct collector *)sink;

    assert_true(n > 0);
    assert_true(collector->length + n < sizeof(collector->bytes));
    memcpy(collector->bytes + collector->length, bytes, n);
    collector->length += n;
    collector->bytes[collector->length] = '\0';
    collector->writes++;
}

static struct collector live, shown;

static void collector_reset(struct collector *collector)
{
    collector->sink.write = collect;
    collector->writes = 0;
    collector->length = 0;
    collector->bytes[0] = '\0';
}

static const char *show(unsigned lines)
{
    collector_reset(&shown);
    log_show(&shown.sink, lines);
    return shown.bytes;
}

static void log_starts_empty(void **state)
{
    (void)state;
    assert_string_equal(show(0), "");
    assert_string_equal(show(3), "");
}

static void log_passes_lines_on(void **state)
{
    (void)state;
    log_line("before anyone listens");
    collector_reset(&live);
    log_attach(&live.sink);
    log_line("%d apples", 3);
    log_plain("[g1 hello] %s", "hi");
    assert_int_equal(live.writes, 2);
    assert_string_equal(live.bytes, "quire: 3 apples\n[g1 hello] hi\n");
    log_attach(NULL);
    log_line("nobody");
    assert_int_equal(live.writes, 2);
    assert_string_equal(show(4), "quire: before anyone listens\nquire: 3 apples\n[g1 hello] hi\n"
                                 "quire: nobody\n");
    assert_string_equal(show(2), "[g1 hello] hi\nquire: nobody\n");
    assert_string_equal(show(1), "quire: nobody\n");
    assert_string_equal(show(0), show(1000));
}

static void log_keeps_lines_whole(void **state)
{
    (void)state;
    log_line("two\nlines, \x1b[31m and \x7f but a\ttab");
    assert_string_equal(show(1), "quire: two?lines, ?[31m and ? but a\ttab\n");
    log_plain("\x9b"
              "31m \x80 \x9f \xa0");
    assert_string_equal(show(1), "?31m ? ? \xa0\n");
    log_line("%s", "");
    assert_string_equal(show(1), "quire: \n");
    log_plain("%s", "");
    assert_string_equal(show(1), "\n");
    assert_string_equal(show(2), "quire: \n\n");
}

static void log_cuts_long_lines(void **state)
{
    char text[512], expected[LOG_LINE + 2];

    (void)state;
    memset(text, 'x', sizeof(text));
    for (size_t length = LOG_LINE - 2; length <= LOG_LINE + 2; length++) {
        log_plain("%.*s", (int)length, text);
        if (length <= LOG_LINE)
            snprintf(expected, sizeof(expected), "%.*s\n", (int)length, text);
        else
            snprintf(expected, sizeof(expected), "%.*s...\n", LOG_LINE - 3, text);
        assert_string_equal(show(1), expected);
    }
    log_line("%.*s", (int)sizeof(text), text);
    snprintf(expected, sizeof(expected), LOG_PREFIX "%.*s...\n",
             LOG_LINE - 3 - (int)strlen(LOG_PREFIX), text);
    assert_string_equal(show(1), expected);
}

/* Behind the hypervisor's own lines, which came first. */
static const char *of_guests(const char *lines)
{
    while (strncmp(lines, LOG_PREFIX, strlen(LOG_PREFIX)) == 0)
        lines = strchr(lines, '\n') + 1;
    return lines;
}

/* Whatever the ring has forgotten, it shows the newest lines, whole and in order. */
static void log_ring_forgets_the_oldest(void **state)
{
    static char all[1 << 20];
    struct random random = {4};
    size_t length = 0;

    (void)state;
    for (int i = 0; i < 3000; i++) {
        char line[LOG_LINE + 1];
        int pad = (int)random_below(&random, 200);

        snprintf(line, sizeof(line), "%d%*s", i, pad, "end");
        log_plain("%s", line);
        length += (size_t)sprintf(all + length, "%s\n", line);

        if (i > 1000) {
            unsigned wanted = 1 + (unsigned)random_below(&random, 90);
            const char *newest = all + length;

            const char *kept = of_guests(show(0));
            size_t kept_length = strlen(kept);
            assert_true(kept_length < length && kept_length > 16384);
            assert_string_equal(kept, all + length - kept_length);
            assert_int_equal(all[length - kept_length - 1], '\n');

            for (unsigned n = 0; n < wanted; n++) {
                do
                    newest--;
                while (newest[-1] != '\n');
            }
            assert_string_equal(show(wanted), newest);
        }
    }
}

/* A sink that logs while it is shown the log, so much that the ring overtakes it. */
static void log_and_collect(struct sink *sink, const char *bytes, size_t n)
{
    collect(sink, bytes, n);
    for (int i = 0; i < 40; i++)
        log_plain("meanwhile %100d", i);
}

static void log_survives_being_overtaken(void **state)
{
    (void)state;
    for (int i = 0; i < 1000; i++)
        log_plain("shown %90d", i);
    collector_reset(&shown);
    shown.sink.write = log_and_collect;
    log_show(&shown.sink, 0);
    assert_true(shown.writes >= 1 && shown.writes < 100);
    for (const char *line = of_guests(shown.bytes); *line != '\0'; line = strchr(line, '\n') + 1)
        assert_memory_equal(line, "shown ", 6);
}

/* Guests can have the log forget each other's lines, and none of the hypervisor's. */
static void log_of_the_host_survives_guests(void **state)
{
    (void)state;
    log_line("before the flood");
    for (int i = 0; i < 5000; i++) {
        log_plain("[g1 flood] %d", i);
        log_guest("g1 flood: %d", i);
        if (i == 4990)
            log_line("in the flood");
    }
    const char *lines = show(0);
    assert_non_null(strstr(lines, "quire: before the flood\n"));
    assert_non_null(strstr(lines, "[g1 flood] 4990\nquire: g1 flood: 4990\nquire: in the flood\n"
                                  "[g1 flood] 4991\n"));
    collector_reset(&live);
    snprintf(live.bytes, sizeof(live.bytes), "%s", strstr(lines, "quire: in the flood"));
    assert_string_equal(show(3), "quire: g1 flood: 4998\n[g1 flood] 4999\nquire: g1 flood: 4999\n");
    assert_string_equal(show(1 + 2 * 9), live.bytes);
}

static bool live_has_room;

static bool has_room(void)
{
    return live_has_room;
}

/* Without room lines of guests wait, and the hypervisor's do not. What is lost meanwhile is said.
 */
static void log_waits_for_room(void **state)
{
    (void)state;
    collector_reset(&live);
    log_attach(&live.sink);
    log_set_room(has_room);
    live_has_room = false;
    log_plain("[g1 a] 1");
    log_line("at once");
    log_guest("g1 a: passed");
    log_unfinished("[g1 a] 2");
    assert_string_equal(live.bytes, "quire: at once\n");
    assert_false(log_pass_on(false));
    live_has_room = true;
    assert_true(log_pass_on(false));
    assert_string_equal(live.bytes, "quire: at once\n[g1 a] 1\nquire: g1 a: passed\n");
    collector_reset(&live);
    live_has_room = false;
    for (int i = 0; i < 3000; i++)
        log_plain("%099d", i);
    assert_int_equal(live.writes, 0);
    assert_true(log_pass_on(true));
    unsigned kept = live.writes - 1;
    char told[120];
    snprintf(told, sizeof(told),
             "quire: %u lines of guests came too fast to be shown; `log` has the newest\n",
             3000 - kept);
    assert_memory_equal(live.bytes, told, strlen(told));
    assert_int_equal(kept, 32768 / (8 + 99 + 1));
    log_set_room(NULL);
    log_attach(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bits_at_their_edges),
        cmocka_unit_test(list_is_first_in_first_out),
        cmocka_unit_test(lock_excludes),
        cmocka_unit_test(locks_have_an_order),
        cmocka_unit_test(a_wide_lock_excludes),
        cmocka_unit_test(a_wide_lock_is_shared),
        cmocka_unit_test(a_wide_lock_starves_nobody),
        cmocka_unit_test(errors_have_names),
        cmocka_unit_test(errors_out_of_range_are_unknown),
        cmocka_unit_test(format_by_example),
        cmocka_unit_test(format_null_string),
        cmocka_unit_test(format_reads_no_further_than_the_precision),
        cmocka_unit_test(format_unknown_conversions),
        cmocka_unit_test(format_widths_do_not_wrap),
        cmocka_unit_test(format_fills_no_more_than_the_buffer),
        cmocka_unit_test(format_agrees_with_libc),
        cmocka_unit_test(sizes_in_words),
        cmocka_unit_test(copies_agree_with_libc),
        cmocka_unit_test(comparisons_agree_with_libc),
        cmocka_unit_test(nothing_reaches_past_the_end),
        cmocka_unit_test(log_starts_empty),
        cmocka_unit_test(log_passes_lines_on),
        cmocka_unit_test(log_keeps_lines_whole),
        cmocka_unit_test(log_cuts_long_lines),
        cmocka_unit_test(log_ring_forgets_the_oldest),
        cmocka_unit_test(log_survives_being_overtaken),
        cmocka_unit_test(log_of_the_host_survives_guests),
        cmocka_unit_test(log_waits_for_room),
    };

    return cmocka_run_group_tests_name("lib", tests, NULL, NULL);
}
