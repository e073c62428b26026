/*
 * A guest's options: the command line of its GRUB module, taken apart.
 *
 *     module2 /guests/touch.elf touch mem=32M lazy rom=0x300000+64K -- text for the guest
 *                               name  options ...                   -- the guest's own line
 *
 * docs/BRING-YOUR-OWN-GUEST.md lists the options. A word that is none of them, or an option with
 * a wrong value, refuses the whole line: a guest that silently runs with other memory than was
 * asked for would be worse than one that does not run.
 */
#ifndef QUIRE_VM_OPTIONS_H
#define QUIRE_VM_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vm/devices.h"

#define GUEST_NAME 24
#define GUEST_CMDLINE 2049 /* what Linux takes, and its end */

/* What `rom=`, `nox=`, `xo=`, `ram=`, `hole=` and `share=` make of a piece of the guest's address
 * space. */
enum area_kind { AREA_HOLE, AREA_ROM, AREA_NOEXEC, AREA_EXEC_ONLY, AREA_RAM, AREA_SHARE };
const char *area_kind_name(enum area_kind kind); /* the option's name: "hole" */

#define SHARE_NAME 16

struct guest_area {
    enum area_kind kind;
    uint64_t base, size;   /* bytes; multiples of 4 KiB, no two areas overlap */
    char name[SHARE_NAME]; /* AREA_SHARE: of the memory ... */
    bool writable;         /* ... which this guest may write */
};

enum guest_expect { EXPECT_PASS, EXPECT_STOPPED, EXPECT_FAILED, EXPECT_REFUSED };

/* What becomes of a guest that resets its machine. */
enum guest_reset_option { RESET_STOP, RESET_RESTART };

/* What comes of a read or a write where nothing is, and of a write to ROM. */
enum guest_stray { STRAY_STOP, STRAY_LOST };

/* `entry=`: how the image is entered. */
enum guest_entry { ENTRY_BY_IMAGE, ENTRY_LINUX16, ENTRY_ELF32, ENTRY_ELF64 };
const char *guest_entry_name(enum guest_entry entry); /* the option's value: "elf32" */

#define OPTION_AREAS 12
#define OPTION_MODS 8
#define OPTION_AROUND 512 /* at most: 2 MiB */
#define OPTION_DEFAULT_MEMORY (UINT64_C(16) << 20)
#define OPTION_MIN_MEMORY (UINT64_C(1) << 20)
#define OPTION_MAX_MEMORY (UINT64_C(1) << 46)

struct guest_options {
    char name[GUEST_NAME];
    uint64_t memory; /* `mem=`: the guest's address where RAM ends */
    uint64_t quota;  /* `quota=`: bytes it may hold, all that it costs included (vm/quota.h); 0: not
                        given */
    bool lazy, flat, paused;
    bool nx_huge;    /* `nx-huge`: what is executed has pages of 4K (vm/cow.h) */
    bool merge;      /* `merge`: its pages may be shared with equal ones (vm/merge.h) */
    unsigned pages;  /* `pages=`: the largest page, by its level: 1 4K, 2 2M, 3 1G; 0: not said */
    unsigned around; /* `around=`: pages of 4K that come at a first touch, a power of two */
    bool pc, bare;   /* the first MiB as a PC's; nothing from 640K to 1M. Neither: by the image */
    enum guest_entry entry;
    bool debug_exit; /* `debug-exit`: QEMU's isa-debug-exit at port 0xf4 */
    enum guest_expect expect;
    enum guest_reset_option reset;
    enum guest_stray stray; /* `stray=` */
    unsigned cpus;          /* `cpus=`: virtual CPUs, 1 to GUEST_VCPUS */
    bool pinned;            /* `pin=`: it runs on one CPU alone, all its vCPUs, ... */
    unsigned pin;           /* ... this one */
    unsigned mods;          /* `mods=N`: how many of the following modules are this guest's */
    unsigned areas;
    struct guest_area area[OPTION_AREAS];
    char cmdline[GUEST_CMDLINE]; /* what follows ` -- `, or the whole line */
};

/* Parses `line`. E_OK, or E_INVAL with one sentence in `why` that names the word at fault and says
 * what would be right; *out then holds at least a name that can be printed. */
int options_parse(const char *line, struct guest_options *out, char *why, size_t why_size);

/* A size or an address: decimal or 0x-hexadecimal, with an optional K, M, G or T. Reads at most
 * `n` characters and must use them all. E_FORMAT, E_RANGE past 2^64. */
int parse_size(const char *text, size_t n, uint64_t *out);

#endif
