/*
 * A guest: its memory slots, its virtual CPU, its second-level table, its devices and its fate.
 * Without a word of what runs it.
 *
 * Life: READY -> RUNNING <-> PAUSED, RUNNING -> HALTED, and from any of these to one of the
 * ended states (PASSED, FAILED, STOPPED, KILLED). An ended guest has given back its frames, its
 * table and its vCPU; only this structure stays, for the console, until the guest is started
 * again. The structures come from the buddy in whole frames (PURPOSE_HEAP, OWNER_HOST) and are
 * never freed: at most GUEST_LIMIT of them are ever made.
 *
 * Guests are numbered from 1, in the order of their modules; `g1` is the first.
 */
#ifndef QUIRE_VM_GUEST_H
#define QUIRE_VM_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/format.h"
#include "mm/paging/snapshot.h"
#include "mm/paging/table.h"
#include "vm/backend.h"
#include "vm/clock.h"
#include "vm/devices.h"
#include "vm/guest_cpu.h"
#include "vm/options.h"
#include "vm/page_set.h"
#include "vm/screen.h"

enum slot_kind {
    SLOT_RAM,       /* backed when the guest is made, in the largest blocks to be had */
    SLOT_RAM_LAZY,  /* a frame arrives at the first touch */
    SLOT_ROM,       /* readable and executable; writes are refused */
    SLOT_NOEXEC,    /* readable and writable; fetches are refused */
    SLOT_EXEC_ONLY, /* fetches only, where the CPU offers it */
    SLOT_ROM_LAZY,  /* a PC's firmware's: reads as zeroes; a frame arrives at the first touch */
    SLOT_VIDEO,     /* a PC's video memory, likewise: RAM that is no part of the memory map */
    SLOT_DEVICE,    /* emulated: every access exits */
    SLOT_SHARED,    /* RAM that several guests have by a name (vm/shared.h) */
    SLOT_KINDS
};
const char *slot_kind_name(enum slot_kind kind);

static inline bool slot_kind_is_lazy(enum slot_kind kind)
{
    return kind == SLOT_RAM_LAZY || kind == SLOT_ROM_LAZY || kind == SLOT_VIDEO;
}

/* RAM that is the guest's own: it may give it back (vm/balloon.h). */
static inline bool slot_kind_is_ram(enum slot_kind kind)
{
    return kind == SLOT_RAM || kind == SLOT_RAM_LAZY || kind == SLOT_NOEXEC;
}

/* What has no frame there is zeroes, and gets one at the first touch. */
static inline bool slot_kind_fills(enum slot_kind kind)
{
    return slot_kind_is_lazy(kind) || slot_kind_is_ram(kind);
}

struct slot {
    gpa_t base;
    uint64_t size;
    enum slot_kind kind;
    uint8_t rights;  /* that its memory has for the guest: its kind's, until they are changed */
    uint64_t backed; /* bytes that have frames now */
    struct shared_memory *shared; /* SLOT_SHARED: which */
};

/* Does memory without a frame get one there by this access (RIGHT_R, RIGHT_W, RIGHT_X)? */
bool slot_fills(const struct slot *slot, unsigned access);

#define GUEST_SLOTS 32
#define GUEST_LIMIT 64

enum guest_state {
    GUEST_READY,   /* made, never ran or reset */
    GUEST_RUNNING, /* takes part in the round */
    GUEST_PAUSED,
    GUEST_HALTED,  /* HLT, waits for an event */
    GUEST_PASSED,  /* ended: its verdict was pass */
    GUEST_FAILED,  /* ended: its verdict was fail */
    GUEST_STOPPED, /* ended: stopped for what it did (report kept) */
    GUEST_KILLED,  /* ended from the console */
    GUEST_REFUSED, /* its image or options were refused; never ran */
};
const char *guest_state_name(enum guest_state state);
/* Behind a guest's name in a sentence: "is running", "has passed". */
const char *guest_state_verb(enum guest_state state);

/* The image of a guest, from GRUB's module or from a test. All that it points to must stay in place
 * for as long as the guest may be started again. */
struct guest_image {
    const uint8_t *bytes;
    uint64_t size;
    const char *cmdline;
    const struct guest_image *modules; /* candidates for `mods=N`: the modules that follow */
    unsigned module_count;
};

#define GUEST_OUTPUT 4096
#define GUEST_REPORT 8192

/* How the pages that a guest writes are found, and who wants to know (vm/dirty.h). */
enum dirty_way { DIRTY_OFF, DIRTY_BY_MARKS, DIRTY_BY_LOG, DIRTY_BY_PROTECTION };
enum dirty_asker { DIRTY_CONSOLE, DIRTY_SNAPSHOT, DIRTY_ASKERS };

/* What a snapshot or a fork takes beside memory and CPU (vm/life.c). */
struct guest_life {
    struct guest_devices devices;
    struct cpu_condition cpu[GUEST_VCPUS];
    bool has_bios, has_disk;
    uint64_t clock; /* where it stood */
};

/* vm/disk.h. */
struct guest_disk {
    struct table table; /* no frames: nothing was written */
    bool changed;       /* since the snapshot was taken, if there is one */
    uint64_t forgotten; /* how far it has been given back */
};

struct guest {
    unsigned number;             /* gN, from 1; its owner: OWNER_FIRST_GUEST + number */
    char name[GUEST_NAME];       /* first word of the module's command line */
    char cmdline[GUEST_CMDLINE]; /* the guest's own, as Multiboot hands it over */
    const char *kind;            /* of its image: "Multiboot ELF32", "flat 16-bit", ... */
    struct guest_options options;
    struct guest_image image; /* kept for a new start */
    enum guest_state state;
    enum guest_state expected; /* `expect=stopped`: GUEST_STOPPED counts as passed */
    uint32_t verdict;          /* number given with a fail */
    char reason[160];          /* why it ended or was refused, one line */
    char report[GUEST_REPORT]; /* the full report of a stop, or what an image is not */

    uint64_t memory; /* bytes of RAM asked for */
    struct slot slot[GUEST_SLOTS];
    unsigned slots;
    bool slots_changed;   /* since the snapshot was taken, if there is one */
    struct lock touching; /* vm/touch.h */
    struct table table;   /* the second level */
    bool has_table;
    struct { /* vm/dirty.h */
        enum dirty_way way;
        unsigned askers;                   /* bit n: enum dirty_asker n */
        struct page_set set[DIRTY_ASKERS]; /* written since each emptied its set */
        struct page_set open;              /* not watched, until the next collection */
    } dirty;
    struct guest_snapshot *snapshot;   /* vm/snapshot.h; NULL: none */
    enum guest_state held_end;         /* it ended so, and is held for its snapshot; READY: not */
    struct snapshot last_map;          /* what the table mapped when the guest ended last */
    struct guest_cpu cpu[GUEST_VCPUS]; /* vm/guest_cpu.h */
    unsigned cpus;                     /* so many of them are there */
    unsigned now;                      /* the one that is dealt with ... */
    struct vcpu *vcpu;                 /* ... and what runs it; NULL: the guest has none */

    struct guest_clock clock;
    struct guest_devices devices;
    bool has_bios; /* see vm/bios.h */
    bool has_disk; /* its image is the BIOS's disk */
    struct guest_disk disk;
    bool was_reset;    /* it ended by a reset of its machine */
    unsigned restarts; /* by itself, since it was started otherwise */
    bool in_round;     /* of vm/fuzz.h */
    bool round_over;   /* it has said that it is done */

    uint64_t exits[VM_EXIT_COUNT];
    uint64_t interrupts;       /* of its devices, delivered */
    uint64_t faults_filled;    /* first touches of lazy memory ... */
    uint64_t frames_filled;    /* ... and the frames that they were given */
    uint64_t pages_given;      /* given back by the guest itself ... */
    uint64_t pages_taken;      /* ... and what it has asked for (vm/balloon.h) */
    uint64_t faults_opened;    /* first writes to pages that were shared or watched */
    uint64_t pages_copied;     /* of them, those that were shared */
    uint64_t faults_refused;   /* faults reported, expected ones included */
    uint64_t faults_spurious;  /* the table allowed the access by the time it was looked at */
    uint64_t frames_peak;      /* of those noted, the most: guest_frames_peak() */
    uint64_t ticks;            /* TSC ticks that it has had: its CPUs' */
    bool finishing;            /* ended, and what it holds is being given back */
    uint64_t held;             /* frames at its end */
    uint64_t release_from;     /* and how far that has come, by guest-physical addresses */
    char output[GUEST_OUTPUT]; /* ring of what it printed */
    uint64_t output_total;     /* bytes ever printed */
    uint64_t output_logged;    /* of these, how many went to the log, or were dropped */
    uint64_t output_dropped;   /* of these, how many the ring lost before the log had them */
    uint64_t output_untold;    /* of these, how many have not been said */
    unsigned tell_after;       /* so many lines more it is said */
    uint64_t output_read;      /* how far the terminal is that is attached; UINT64_MAX: none */
    char line[160];            /* the line being collected for the log */
    unsigned line_length;
    struct screen last_screen; /* at its end; no rows: it had none */
    unsigned line_shown;       /* bytes of it that the console has shown already */
    uint64_t line_waited;      /* the clock when the first byte came that it has not */
};

/* Chooses the backend for this machine (NULL: no guests can run) and the text that says why not,
 * and starts with an empty list of guests. */
void guests_init(const struct vm_backend *backend, const char *why_not);
const struct vm_backend *guests_backend(void);
const char *guests_why_not(void);

/* Makes a guest from an image: parses its options, builds slots, table and vCPU, loads it. The
 * image's bytes are no longer needed afterwards but may be used for `start` again, so they stay
 * where they are. Returns E_OK and the guest, or the error with the guest (state GUEST_REFUSED,
 * reason filled in) when it could be registered at all. */
int guest_create(const struct guest_image *image, struct guest **out);

/* Makes a guest of each module that is neither a ring-3 program (`user:NAME`), nor commands for the
 * console (`script:NAME`), nor taken by a guest before it (`mods=N`). Returns how many guests there
 * are then, refused ones included. */
unsigned guests_create(const struct guest_image *modules, unsigned count);
bool guest_is_user_program(const char *cmdline);
bool guest_is_script(const char *cmdline);

/* READY or PAUSED -> RUNNING (or HALTED, where it halted before); ended -> made anew and RUNNING.
 * E_STATE: running already, or halted, or held at its end for its snapshot. */
int guest_start(struct guest *guest);
int guest_pause(struct guest *guest); /* E_STATE unless RUNNING or HALTED */
int guest_kill(struct guest *guest);  /* E_STATE when it has ended */

struct guest *guest_by_number(unsigned number); /* NULL; numbers are 1..guest_count() */
unsigned guest_count(void);

/* The vCPU that is dealt with from now on. */
static inline void guest_deal_with(struct guest *guest, unsigned index)
{
    guest->now = index;
    guest->vcpu = guest->cpu[index].vcpu;
}

static inline struct guest_cpu *guest_at(struct guest *guest)
{
    return &guest->cpu[guest->now];
}

static inline owner_t guest_owner(const struct guest *guest)
{
    return (owner_t)(OWNER_FIRST_GUEST + guest->number);
}

/* Within vm/: reports a guest whose state says that it has ended, and gives back all that it holds,
 * as far as it comes until the clock is at `deadline`. True: it is done. The guest must not be on a
 * CPU. */
bool guest_finish_by(struct guest *guest, uint64_t deadline);
void guest_finish(struct guest *guest); /* to the end */
/* Has it something to give back still? */
bool guest_holds(const struct guest *guest);
/* Within vm/: another guest in the list, READY and with nothing; NULL: no room. */
struct guest *guest_register(void);
/* Within vm/: an empty second-level table of the backend's kind for the guest, with the largest
 * pages that its options allow. E_NOMEM, E_QUOTA. */
int guest_table_init(const struct guest *guest, struct table *table);
void life_save(const struct guest *guest, struct guest_life *out);
void life_restore(struct guest *guest, const struct guest_life *in);
/* The most frames that it has held at once, tables included. */
uint64_t guest_frames_peak(struct guest *guest);
/* Within vm/: brings frames_peak up to date; to be called after a slice, and before a guest comes
 * to hold fewer frames. */
void guest_note_frames(struct guest *guest);

/* Passed, or ended the way it was expected to. */
bool guest_ok(const struct guest *guest);
bool guest_ended(const struct guest *guest);

/* Within vm/: runs one guest alone until it says that it is done (round_over), no longer runs, or
 * `most` ticks of the clock have passed; the vCPU that ended it is the one dealt with. It is not
 * finished if it has ended. False: `poll` (may be NULL), which is asked after each slice, wanted it
 * to end. */
bool guest_run_round(struct guest *guest, uint64_t most, int (*poll)(void *ctx), void *ctx);

/* Runs each runnable guest for one slice. Returns how many still can run, or have ended and hold
 * memory still. */
unsigned guests_round(void);

/* What is called after each slice, NULL for nothing. True ends the round there; the next one goes
 * on with the next guest. */
void guests_set_between(bool (*between)(void));

/* The longest time, in ticks, from one of these calls to the next, or to a round's begin, since
 * this was asked last: so long a key waits for guests at most. */
uint64_t guests_console_wait(void);

/* The clock (TSC ticks) right before the first entry into any guest; 0 when none has run. */
uint64_t guests_first_entry(void);

/* Guest-physical memory as the guest may read it, through its own table; stops at the first byte
 * that is not backed or may not be read, and returns how many were copied. Lazy memory that has no
 * frame yet is not filled by reading. */
uint64_t guest_read(struct guest *guest, gpa_t from, void *to, uint64_t size);
/* Whatever the guest itself may do there, filling lazy memory. */
uint64_t guest_write(struct guest *guest, gpa_t to, const void *from, uint64_t size);

const struct slot *guest_slot_at(const struct guest *guest, gpa_t gpa); /* NULL */

/* One character of the guest's output, for its ring, which keeps the newest. */
void guest_putc(struct guest *guest, char c);

/* Is there room in the ring before anybody who reads it misses something? A guest that can wait, by
 * its serial port's transmitter, does. */
bool guest_output_room(const struct guest *guest);

/* Passes on what guests have printed to the log, line by line with the guest's name in front, one
 * guest after the other, as long as the log's line has room, and each for a part of a slice that is
 * charged to it. */
void guests_show_output(void);

/* All of what a guest has printed, a line that has no newline yet too: before the log says
 * something of the guest itself. */
void guest_flush_output(struct guest *guest);

/* Shows lines without a newline whose new part has waited for `ticks` of the clock: a prompt. They
 * stay open, and are shown whole when they end. */
void guests_show_unfinished(uint64_t ticks);

/* Whoever is attached has come to `position` of the output; UINT64_MAX: nobody is. */
void guest_output_read(struct guest *guest, uint64_t position);

/* There is room again in the ring for what its serial port's transmitter has to send. */
void serial_room(struct guest *guest);

/* Bytes for the guest's serial port. Returns how many its input buffer took. */
size_t guest_input(struct guest *guest, const char *bytes, size_t n);

#endif
