/*
 * What the probe guests share. A probe makes accesses of every kind, from ring 0 and ring 3, to
 * pages of every kind, and says of each what the CPU made of it:
 *
 *     probe 0xffffc00000000000 w user: #PF 0x7
 *
 * Then it waits as it is, so that whoever holds it can be asked to foretell the same. Words on its
 * command line choose the control bits: nowp, nonx, smep, smap, ac, nopse. Options that it wants:
 * rom=0x2000000+64K nox=0x2100000+64K.
 *
 * guests/probe64.c, probepae.c and probe32.c build the tables of their format and ask what only
 * that format has; the rest is here, and the accesses themselves in probe.asm.
 */
#ifndef QUIRE_GUESTS_PROBE_H
#define QUIRE_GUESTS_PROBE_H

#include "guests/guest.h"

#define P 1ull
#define W 2ull
#define U 4ull
#define A (1ull << 5)
#define D (1ull << 6)
#define PS (1ull << 7)
#define NX (1ull << 63)
#define PAGE 4096ull
#define LARGE (2ull << 20)

#define PROBE_ROM 0x2000000ull
#define PROBE_NOEXEC 0x2100000ull
#define PROBE_HOLE 0xa0000ull
#define PROBE_BEHIND 0x3000000ull   /* no memory of this guest's */
#define PROBE_IDENTITY 0x4000000ull /* at least so much is mapped one to one, for ring 0 */

#define CR0_PG (1ul << 31)
#define CR0_WP (1ul << 16)
#define CR4_PSE (1ul << 4)
#define CR4_PAE (1ul << 5)
#define CR4_SMEP (1ul << 20)
#define CR4_SMAP (1ul << 21)
#define IA32_EFER 0xc0000080u
#define EFER_NXE (1u << 11)

#define PROBE_ODD 2

/* A format of page tables, as far as what is asked of all of them goes. */
struct probe_format {
    unsigned entry_bytes;
    volatile void *directory; /* the entry from which on all is ours, which translates ... */
    uint64_t high;            /* ... this linear address; ring 3 may go there */
    uint64_t large;           /* bytes that an entry of the directory covers */
    uint64_t no_execute;      /* NX, where entries have it and it is on */
    uint64_t odd[PROBE_ODD];  /* further bits of entries to try: reserved, or ignored */
    uint64_t large_reserved;  /* a bit that is reserved in the entry of a large page */
};

typedef volatile uint8_t probe_table_t[PAGE] __attribute__((aligned(4096)));

/* Where a leaf leads to in what is asked of all formats; it may be executed, and then comes back.
 */
extern uint8_t probe_target[PAGE];

uint64_t probe_physical(const volatile void *p);
void probe_set(volatile void *table, unsigned index, uint64_t entry);
bool probe_word(const char *word); /* is it on the command line? */

/* Sets up rings, our part of the directory and the control bits; paging is on already. `format`
 * stays the caller's. */
void probe_begin(const struct probe_format *format, const struct multiboot_info *info);
_Noreturn void probe_end(void);

/* One access of the kind QUIRE_FAULT_*, and every kind of access at both rings. */
void probe(uint64_t address, unsigned access, bool user);
void probe_all(uint64_t address);
/* One that the hypervisor is to refuse, at the guest-physical address `at`. Ring 0 alone: that is
 * where it resumes. */
void probe_refusal(uint64_t address, uint64_t at, unsigned access);

/* What is asked of all formats: leaves and tables of every kind; large pages; pages and tables
 * where there is no memory or not enough rights. */
void probe_pages(void);
void probe_large(void);
void probe_second_level(void);

#endif
