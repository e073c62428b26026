/*
 * RAM that guests share by a name: `share=NAME:SIZE@ADDRESS`. The first guest that names it has it
 * made, zeroed, and the last one that has it gives it back.
 *
 *     its table:  0 .. SIZE -> frames <- the guests' own tables
 *
 * Which frames it has is written down in a table of its own, which no CPU uses. They belong to
 * OWNER_SHARED and are charged to no guest; each table that shows them is one holder of each block.
 * It is never copied: who may write there writes for all. So a fork has it together with its
 * parent, and a reset does not put it back; what one guest has dirtied there is what it has written
 * itself. Users are guests' slots, and those of their snapshots.
 */
#ifndef QUIRE_VM_SHARED_H
#define QUIRE_VM_SHARED_H

#include "mm/audit/audit.h"
#include "vm/guest.h"

#define SHARED_LIMIT 16

struct shared_memory {
    char name[SHARE_NAME];
    uint64_t size;
    unsigned users; /* 0: this is nobody's, and has neither frames nor table */
    struct table table;
};

/* Gives the slot, which nobody uses yet, the memory of this name, shorter than SHARE_NAME, as one
 * more user. E_INVAL: it has
 * another size; E_FULL: there are SHARED_LIMIT of others; E_NOMEM: and nothing has changed. */
int shared_use(struct slot *slot, const char *name);

/* Maps all of the slot's memory to it. E_NOMEM, E_QUOTA: maybe a part of it. */
int shared_map(struct guest *guest, const struct slot *slot);

/* Each slot of the list that has such memory is one more user of it; one fewer. */
void shared_hold(const struct slot *slot, unsigned slots);
void shared_drop(struct slot *slot, unsigned slots);

/* Number `index` of them; NULL where that is nobody's. */
struct shared_memory *shared_by_index(unsigned index);
/* Of another size than the slot's: what it has; 0 for no such memory. */
uint64_t shared_size(const char *name);

/* For the auditor: its table. `name` as in vm/guest_audit.h. */
void shared_describe(struct shared_memory *memory, char *name, size_t name_size,
                     struct audit_table *out);

#endif
