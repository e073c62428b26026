/*
 * Guests' memory as a plain model: for each guest an array of pages, what is in them, what may be
 * done to them, and which were written since somebody asked. The CPU is played here: it walks the
 * real table, exits where that does not let it through, sets A and D, and keeps a log where it has
 * one.
 */
#ifndef QUIRE_TESTS_UNIT_MEMORY_MODEL_H
#define QUIRE_TESTS_UNIT_MEMORY_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/unit/fake_machine.h"
#include "tests/unit/random.h"
#include "vm/guest.h"

#define PAGES 2048u /* of a guest: 8 MiB, of which 640K .. 1M is a hole at first */
#define GUESTS 8u

/* How dirty pages are found. */
enum way { BY_MARKS, BY_LOG, BY_PROTECTION, WAYS };

struct page {
    uint64_t stamp[2];           /* its first and its last word; the others stay as they are */
    uint64_t kept[2];            /* what they were when the snapshot was taken */
    uint8_t rights, kept_rights; /* none: it is no memory */
    bool dirty;
};

struct model {
    struct guest *guest; /* NULL: it has ended */
    bool asked, has_snapshot;
    struct page page[PAGES];
};

extern struct random chance;
extern struct model models[GUESTS];
extern unsigned living; /* models in use, of guests that may have ended */

/* A machine without guests; and its end, by when every frame is back. */
void start_machine(enum way way);
void stop_machine(void);

/* A guest by its options, as its loader has left it. */
struct model *make(const char *cmdline);

/* Where a page's words are. */
static inline gpa_t place_of(unsigned page, unsigned which)
{
    return gpa(page * PAGE_SIZE + which * (PAGE_SIZE - sizeof(uint64_t)));
}

/* Every table holds every rule. */
void audit_all(void);
/* What may be read is what the model says. */
void expect_contents(const struct model *model);

/* Any page that has all of these rights; there is one. */
unsigned some_page(const struct model *model, unsigned rights);

/* The byte's place, after as many exits as it takes; NULL: the guest is held. */
uint64_t *reach(struct guest *guest, gpa_t at, unsigned access);
bool cpu_write(struct model *model, unsigned page, uint64_t stamp);
void cpu_read(struct model *model, unsigned page);
void host_write(struct model *model, unsigned page, uint64_t stamp);

/* Begins to track, or compares what was found with what was written: exactly. */
void ask(struct model *model);
/* Nothing that was written may be missing; what was put back counts as written, though it may be
 * the same as before. */
void ask_again(struct model *model);
void ask_no_more(struct model *model);

/* Some pages of the guest are given back by it, or asked for, with room for so many frames more
 * than it holds, in one go or piece by piece, maybe not to the end. */
void give_or_take(struct model *model, uint64_t room);

void take_snapshot(struct model *model);
void go_back(struct model *model);
void drop_snapshot(struct model *model);
void make_fork(struct model *from); /* does nothing where there are GUESTS */
void end_one(struct model *model);
/* Number `which` of what any guest goes through, below USUAL_CHANGES; all behind it are eight
 * writes. */
#define USUAL_CHANGES 8u
void usual_change(struct model *model, unsigned which);
struct model *some_model(void);
unsigned guests_alive(void);

/* A machine with a guest of these options, from its start to its end: so many changes by chance, of
 * any guest that there is by then. The auditor is asked after each, `judge` now and then and of
 * each guest at the end. */
void run_changes(enum way way, const char *options, uint64_t seed, unsigned changes,
                 void (*change)(struct model *), void (*judge)(const struct model *));

#endif
