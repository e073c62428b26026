/* See vm/saved.h. */
#include "vm/saved.h"

#include "lib/bits.h"
#include "lib/error.h"
#include "lib/format.h"
#include "lib/sha256.h"
#include "lib/string.h"
#include "vm/options.h"
#include "vm/saved_fields.h"

/* ---- Pages ----------------------------------------------------------------------------------- */

/* Runs: a byte below 128, and one more than it of bytes as they are; or one from 128 on, and the
 * byte that stands there 125 times fewer than it says. */
#define LITERALS_MOST 128u
#define RUN_LEAST 3u
#define RUN_CODE 128u
#define RUN_MOST (255u - RUN_CODE + RUN_LEAST)

static unsigned run_at(const uint8_t *page, unsigned at)
{
    unsigned length = 1;

    while (length < RUN_MOST && at + length < PAGE_SIZE && page[at + length] == page[at])
        length++;
    return length;
}

static bool is_one_word(const uint8_t page[PAGE_SIZE])
{
    return memcmp(page, page + SAVED_WORD, PAGE_SIZE - SAVED_WORD) == 0;
}

/* Returns the bytes that the runs take, 0 where they are not fewer than the page's. */
static unsigned pack_runs(const uint8_t page[PAGE_SIZE], uint8_t out[PAGE_SIZE])
{
    unsigned used = 0, literals = 0; /* `literals` bytes before `at` wait to be put */

    for (unsigned at = 0; at <= PAGE_SIZE;) {
        unsigned run = at < PAGE_SIZE ? run_at(page, at) : 0;

        if (literals != 0 && (run >= RUN_LEAST || run == 0 || literals == LITERALS_MOST)) {
            if (used + 1 + literals >= PAGE_SIZE)
                return 0;
            out[used++] = (uint8_t)(literals - 1);
            memcpy(out + used, page + at - literals, literals);
            used += literals;
            literals = 0;
        }
        if (run == 0)
            break;
        if (run < RUN_LEAST) {
            literals++;
            at++;
            continue;
        }
        if (used + 2 >= PAGE_SIZE)
            return 0;
        out[used++] = (uint8_t)(RUN_CODE + run - RUN_LEAST);
        out[used++] = page[at];
        at += run;
    }
    return used != SAVED_WORD ? used : 0; /* that many bytes are a word */
}

unsigned saved_pack(const uint8_t page[PAGE_SIZE], uint8_t out[PAGE_SIZE])
{
    unsigned size;

    if (is_one_word(page)) {
        memcpy(out, page, SAVED_WORD);
        return bytes_are_zero(page, SAVED_WORD) ? 0 : SAVED_WORD;
    }
    size = pack_runs(page, out);
    if (size != 0)
        return size;
    memcpy(out, page, PAGE_SIZE);
    return PAGE_SIZE;
}

static bool unpack_runs(const uint8_t *from, unsigned size, uint8_t page[PAGE_SIZE])
{
    unsigned done = 0;

    for (unsigned at = 0; at < size;) {
        unsigned code = from[at++];
        bool run = code >= RUN_CODE;
        unsigned length = run ? code - RUN_CODE + RUN_LEAST : code + 1, bytes = run ? 1 : length;

        if (bytes > size - at || length > PAGE_SIZE - done)
            return false;
        if (run)
            memset(page + done, from[at], length);
        else
            memcpy(page + done, from + at, length);
        at += bytes;
        done += length;
    }
    return done == PAGE_SIZE;
}

bool saved_unpack(const uint8_t *from, unsigned size, uint8_t page[PAGE_SIZE])
{
    if (size == SAVED_PAGE_MOST)
        memcpy(page, from, PAGE_SIZE);
    else if (size == SAVED_WORD)
        for (unsigned at = 0; at < PAGE_SIZE; at += SAVED_WORD)
            memcpy(page + at, from, SAVED_WORD);
    else
        return size < SAVED_PAGE_MOST && unpack_runs(from, size, page);
    return true;
}

/* ---- Sections -------------------------------------------------------------------------------- */

struct reading {
    const uint8_t *at;
    uint64_t left; /* up to the digest */
    char *why;
    size_t why_size;
};

#define REFUSE(reading, error, ...)                                                                \
    (format_buffer((reading)->why, (reading)->why_size, __VA_ARGS__), (error))

static const char *tag_name(enum saved_tag tag)
{
    static const char *const names[] = {
        [SAVED_GUEST] = "guest's",         [SAVED_SLOTS] = "slots'", [SAVED_CPU] = "CPU's",
        [SAVED_DEVICES] = "devices'",      [SAVED_PAGE] = "page's",  [SAVED_END] = "last",
        [SAVED_OTHER_CPU] = "other CPU's",
    };
    return names[tag];
}

static uint32_t peek_tag(const struct reading *reading)
{
    uint32_t tag = 0;

    if (reading->left >= SAVED_SECTION)
        memcpy(&tag, reading->at, sizeof(tag));
    return tag;
}

/* The section that has to stand here: its bytes. */
static int take_section(struct reading *reading, enum saved_tag tag, struct saved_stream *out)
{
    uint32_t size;

    if (peek_tag(reading) != tag)
        return REFUSE(reading, E_FORMAT, "the saved guest has section %u where its %s belongs",
                      peek_tag(reading), tag_name(tag));
    memcpy(&size, reading->at + sizeof(uint32_t), sizeof(size));
    reading->at += SAVED_SECTION;
    reading->left -= SAVED_SECTION;
    if (size > reading->left)
        return REFUSE(reading, E_FORMAT, "the saved guest's %s section says %u bytes, %lu are left",
                      tag_name(tag), size, reading->left);
    *out = (struct saved_stream){.from = reading->at, .left = size};
    reading->at += size;
    reading->left -= size;
    return E_OK;
}

static int take_fields(struct reading *reading, enum saved_tag tag, struct saved *saved,
                       saved_fields_fn fields, unsigned cpu)
{
    struct saved_stream stream;
    int error = take_section(reading, tag, &stream);

    if (error != E_OK)
        return error;
    fields(&stream, saved, cpu);
    if (stream.failed || stream.left != 0)
        return REFUSE(reading, E_FORMAT, "the saved guest's %s section is not what it has to be",
                      tag_name(tag));
    return E_OK;
}

static int judge_guest(struct reading *reading, const struct saved *saved)
{
    if (saved->memory < OPTION_MIN_MEMORY || saved->memory > OPTION_MAX_MEMORY ||
        !is_aligned(saved->memory, PAGE_SIZE))
        return REFUSE(reading, E_FORMAT, "the saved guest has 0x%lx bytes of memory",
                      saved->memory);
    if (saved->hz == 0 || saved->hz >> 40 != 0)
        return REFUSE(reading, E_FORMAT, "the saved guest's TSC runs at %lu Hz", saved->hz);
    if ((saved->flags & ~SAVED_FLAGS) || saved->pages > 3 || saved->around == 0 ||
        saved->around > OPTION_AROUND || !is_power_of_two(saved->around))
        return REFUSE(reading, E_FORMAT, "the saved guest's options are none: 0x%x, %u, %u",
                      saved->flags, saved->pages, saved->around);
    return E_OK;
}

static int judge_slots(struct reading *reading, const struct saved *saved)
{
    uint64_t free = 0;

    for (unsigned i = 0; i < saved->slots; i++) {
        const struct slot *slot = &saved->slot[i];
        uint64_t end = slot->base.v + slot->size;

        if (slot->kind == SLOT_DEVICE || slot->kind == SLOT_SHARED)
            return REFUSE(reading, E_FORMAT, "the saved guest's slot %u is of a kind not saved", i);
        if (slot->size == 0 || !is_aligned(slot->base.v | slot->size, PAGE_SIZE) ||
            end <= slot->base.v || slot->base.v < free)
            return REFUSE(
                reading, E_FORMAT,
                "the saved guest's slot %u at 0x%lx+0x%lx is no range of pages behind the "
                "one before",
                i, slot->base.v, slot->size);
        free = end;
    }
    return E_OK;
}

static int take_devices(struct reading *reading, struct saved *saved)
{
    struct saved_stream stream;
    int error = take_section(reading, SAVED_DEVICES, &stream);
    const char *member;

    if (error != E_OK)
        return error;
    member = saved_devices_take(&saved->devices, stream.from, stream.left);
    if (member != NULL)
        return REFUSE(reading, E_FORMAT, "the saved guest's devices cannot be so: %s", member);
    return E_OK;
}

static int take_other_cpus(struct reading *reading, struct saved *saved)
{
    int error = E_OK;

    saved->cpu[0].is.halted = (saved->flags & SAVED_HALTED) != 0;
    saved->cpu[0].is.init = (saved->flags & SAVED_INIT) != 0;
    saved->cpus = 1;
    while (error == E_OK && saved->version != SAVED_ONE_CPU &&
           peek_tag(reading) == SAVED_OTHER_CPU) {
        if (saved->cpus == GUEST_VCPUS || !(saved->flags & SAVED_PC))
            return REFUSE(reading, E_FORMAT,
                          "the saved guest has more than %u CPUs, or several and is no PC",
                          GUEST_VCPUS);
        error = take_fields(reading, SAVED_OTHER_CPU, saved, saved_other_cpu_fields, saved->cpus++);
    }
    return error;
}

/* ---- Memory ---------------------------------------------------------------------------------- */

static bool is_in_a_slot(const struct saved *saved, uint64_t at)
{
    for (unsigned i = 0; i < saved->slots; i++)
        if (at - saved->slot[i].base.v < saved->slot[i].size)
            return true;
    return false;
}

static int take_page(struct reading *reading, const struct saved *saved, uint64_t least,
                     uint64_t *at)
{
    static uint8_t page[PAGE_SIZE];
    struct saved_stream stream;
    int error = take_section(reading, SAVED_PAGE, &stream);

    if (error != E_OK)
        return error;
    if (stream.left < sizeof(*at) || stream.left - sizeof(*at) > SAVED_PAGE_MOST)
        return REFUSE(reading, E_FORMAT, "a saved page has %lu bytes", stream.left);
    memcpy(at, stream.from, sizeof(*at));
    if (!is_aligned(*at, PAGE_SIZE) || *at < least || !is_in_a_slot(saved, *at))
        return REFUSE(reading, E_FORMAT,
                      "a saved page is at 0x%lx: no page of a slot, or not behind the one before",
                      *at);
    if (!saved_unpack(stream.from + sizeof(*at), (unsigned)(stream.left - sizeof(*at)), page))
        return REFUSE(reading, E_FORMAT, "the saved page at 0x%lx is not as long as a page", *at);
    return E_OK;
}

static int take_pages(struct reading *reading, struct saved *saved)
{
    uint64_t at = 0, least = 0;
    int error = E_OK;

    saved->page = reading->at;
    saved->page_count = 0;
    while (error == E_OK && peek_tag(reading) == SAVED_PAGE) {
        error = take_page(reading, saved, least, &at);
        least = at + PAGE_SIZE;
        saved->page_count++;
    }
    saved->end = reading->at;
    return error;
}

bool saved_next_page(struct saved *saved, gpa_t *at, uint8_t page[PAGE_SIZE])
{
    uint32_t size;

    if (saved->page == saved->end)
        return false;
    memcpy(&size, saved->page + sizeof(uint32_t), sizeof(size));
    memcpy(&at->v, saved->page + SAVED_SECTION, sizeof(at->v));
    (void)saved_unpack(saved->page + SAVED_SECTION + sizeof(at->v), size - sizeof(at->v), page);
    saved->page += SAVED_SECTION + size;
    return true;
}

/* ---- All of it ------------------------------------------------------------------------------- */

bool saved_is(const uint8_t *bytes, uint64_t size)
{
    return size >= sizeof(SAVED_MAGIC) && memcmp(bytes, SAVED_MAGIC, sizeof(SAVED_MAGIC)) == 0;
}

static int take_head(struct reading *reading, struct saved *saved)
{
    struct saved_stream stream = {.from = reading->at + sizeof(SAVED_MAGIC), .left = SAVED_HEAD};
    uint32_t version = 0, head = 0;

    saved_number(&stream, &version);
    saved_number(&stream, &head);
    if (version == 0 || version > SAVED_VERSION)
        return REFUSE(reading, E_UNSUPPORTED,
                      "the saved guest is of version %u, and this reads 1 to %u: save it again",
                      version, SAVED_VERSION);
    saved->version = version;
    if (head != SAVED_HEAD || !bytes_are_zero(stream.from + SAVED_BACKEND, SAVED_BACKEND))
        return REFUSE(reading, E_FORMAT, "the saved guest's head of %u bytes is none of version %u",
                      head, version);
    memcpy(saved->backend, stream.from, SAVED_BACKEND);
    reading->at += SAVED_HEAD;
    reading->left -= SAVED_HEAD;
    return E_OK;
}

static int check_digest(struct reading *reading, const uint8_t *bytes, uint64_t size)
{
    uint8_t found[SHA256_BYTES];
    struct sha256 digest;

    sha256_begin(&digest);
    sha256_add(&digest, bytes, size);
    sha256_end(&digest, found);
    if (memcmp(found, bytes + size, SHA256_BYTES) != 0)
        return REFUSE(
            reading, E_FORMAT,
            "the saved guest is not as it was saved: its SHA-256 is another (of %lu bytes)", size);
    return E_OK;
}

int saved_read(const uint8_t *bytes, uint64_t size, struct saved *out, char *why, size_t why_size)
{
    struct reading reading = {.at = bytes, .why = why, .why_size = why_size};
    struct saved_stream last;
    int error;

    memset(out, 0, sizeof(*out));
    if (!saved_is(bytes, size) || size < SAVED_HEAD + SAVED_SECTION + SHA256_BYTES)
        return REFUSE(&reading, E_FORMAT, "%lu bytes are no saved guest", size);
    reading.left = size - SHA256_BYTES;
    error = take_head(&reading, out);
    if (error == E_OK)
        error = check_digest(&reading, bytes, size - SHA256_BYTES);
    if (error == E_OK)
        error = take_fields(&reading, SAVED_GUEST, out, saved_guest_fields, 0);
    if (error == E_OK)
        error = judge_guest(&reading, out);
    if (error == E_OK)
        error = take_fields(&reading, SAVED_SLOTS, out, saved_slots_fields, 0);
    if (error == E_OK)
        error = judge_slots(&reading, out);
    if (error == E_OK)
        error = take_fields(&reading, SAVED_CPU, out, saved_cpu_fields, 0);
    if (error == E_OK)
        error = take_devices(&reading, out);
    if (error == E_OK)
        error = take_other_cpus(&reading, out);
    if (error == E_OK)
        error = take_pages(&reading, out);
    if (error == E_OK)
        error = take_section(&reading, SAVED_END, &last);
    if (error == E_OK && (last.left != 0 || reading.left != 0))
        error = REFUSE(&reading, E_FORMAT, "%lu bytes stand behind the saved guest's end",
                       last.left + reading.left);
    return error;
}
