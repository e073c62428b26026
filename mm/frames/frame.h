/*
 * The frame database: what is known of every 4 KiB frame of RAM, in one 8-byte record each.
 *
 *    63        24 23      13 12       8 7      3 2     0
 *   +------------+----------+----------+--------+-------+
 *   |  payload   |  owner   | purpose  | order  | state |
 *   +------------+----------+----------+--------+-------+
 *
 * The payload belongs to the layer that took the frame: a live table frame keeps the number of
 * its present entries there (mm/paging/nodes.h), a dying frame the link of the list it waits
 * on, a shared frame the number of its holders. The mapper touches the records of its own table
 * frames and no others.
 *
 * Only the first frame of a block that is in use (or in a per-CPU cache) has a record other than 0;
 * mm/frames/buddy.c says why that can be relied on.
 */
#ifndef QUIRE_MM_FRAME_H
#define QUIRE_MM_FRAME_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/panic.h"
#include "mm/addr.h"

enum frame_state {
    FRAME_FREE = 0,     /* in the buddy (or: no record was ever written) */
    FRAME_USED = 1,     /* first frame of an allocated block; order and payload are valid */
    FRAME_TAIL = 2,     /* a later frame of an allocated block: an answer, never stored */
    FRAME_CACHED = 3,   /* in a per-CPU cache: not allocated, not in the buddy */
    FRAME_DYING = 4,    /* unmapped, waits for its flush to be acknowledged */
    FRAME_SHARED = 5,   /* first frame of a block with several holders; payload counts them */
    FRAME_RESERVED = 6, /* never the buddy's: firmware, holes, the hypervisor's image */
};

enum frame_purpose {
    PURPOSE_FREE,
    PURPOSE_FIRMWARE, /* reserved by the memory map, ACPI, low memory */
    PURPOSE_IMAGE,    /* the hypervisor's own image */
    PURPOSE_BOOT,     /* boot information and modules */
    PURPOSE_FRAME_DB, /* the records and bitmaps of the allocator itself */
    PURPOSE_HOST_TABLE,
    PURPOSE_USER_TABLE,
    PURPOSE_EPT_TABLE,
    PURPOSE_STACK,
    PURPOSE_PERCPU, /* per-CPU data, descriptor tables */
    PURPOSE_VCPU,   /* what a CPU keeps of a guest: VMXON and VMCS regions, VMCBs, bitmaps */
    PURPOSE_USER_RAM,
    PURPOSE_GUEST_RAM,
    PURPOSE_HEAP, /* the hypervisor's small objects */
    PURPOSE_TEST,
    PURPOSE_NPT_TABLE, /* numbers are an interface: new purposes come last */
    PURPOSE_COUNT
};

/* The state or purpose as a word for people. */
const char *frame_state_name(enum frame_state state);
const char *purpose_name(enum frame_purpose purpose);

/* Those of page tables, of whatever kind. */
#define TABLE_PURPOSES                                                                             \
    (BIT(PURPOSE_HOST_TABLE) | BIT(PURPOSE_USER_TABLE) | BIT(PURPOSE_EPT_TABLE) |                  \
     BIT(PURPOSE_NPT_TABLE))

/* Owners are small numbers, 0..2047. A guest keeps its number for as long as it exists. */
typedef uint16_t owner_t;
#define OWNER_NONE 0
#define OWNER_HOST 1
#define OWNER_FIRST_USER 2             /* ring-3 programs: 2..15 */
#define OWNER_FIRST_GUEST 16           /* guest gN is owner 16 + N */
#define OWNER_SHARED OWNER_FIRST_GUEST /* there is no g0: memory that several guests may hold */
#define OWNER_LIMIT 2048

#define FRAME_ORDER_SHIFT 3
#define FRAME_PURPOSE_SHIFT 8
#define FRAME_OWNER_SHIFT 13
#define FRAME_PAYLOAD_SHIFT 24
#define FRAME_PAYLOAD_BITS 40

#define FRAME_STATE_MASK BITS(2, 0)
#define FRAME_ORDER_MASK BITS(7, 3)
#define FRAME_PURPOSE_MASK BITS(12, 8)
#define FRAME_OWNER_MASK BITS(23, 13)
#define FRAME_PAYLOAD_MASK BITS(63, 24)

_Static_assert(PURPOSE_COUNT <= 32, "a purpose has 5 bits");
_Static_assert(OWNER_LIMIT == 1 << (FRAME_PAYLOAD_SHIFT - FRAME_OWNER_SHIFT), "an owner, 11");

struct frame_info {
    enum frame_state state;
    unsigned order;
    enum frame_purpose purpose;
    owner_t owner;
    uint64_t payload;
};

/* The records by frame number; set by buddy_init(). For the functions below: a record may be read
 * only when the allocator has initialised it, and the record of a block in use always is. */
extern uint64_t *frame_records;

static inline uint64_t frame_record(enum frame_state state, unsigned order,
                                    enum frame_purpose purpose, owner_t owner)
{
    return (uint64_t)state | (uint64_t)order << FRAME_ORDER_SHIFT |
           (uint64_t)purpose << FRAME_PURPOSE_SHIFT | (uint64_t)owner << FRAME_OWNER_SHIFT;
}

static inline enum frame_state frame_record_state(uint64_t record)
{
    return (enum frame_state)(record & FRAME_STATE_MASK);
}

static inline unsigned frame_record_order(uint64_t record)
{
    return (unsigned)((record & FRAME_ORDER_MASK) >> FRAME_ORDER_SHIFT);
}

static inline enum frame_purpose frame_record_purpose(uint64_t record)
{
    return (enum frame_purpose)((record & FRAME_PURPOSE_MASK) >> FRAME_PURPOSE_SHIFT);
}

static inline owner_t frame_record_owner(uint64_t record)
{
    return (owner_t)((record & FRAME_OWNER_MASK) >> FRAME_OWNER_SHIFT);
}

static inline struct frame_info frame_record_decode(uint64_t record)
{
    return (struct frame_info){
        .state = frame_record_state(record),
        .order = frame_record_order(record),
        .purpose = frame_record_purpose(record),
        .owner = frame_record_owner(record),
        .payload = record >> FRAME_PAYLOAD_SHIFT,
    };
}

/*
 * The record of the frame at `frame` (any address within it), decoded. A frame that is covered
 * by an allocated block of higher order is reported with the state FRAME_TAIL and its head's
 * order, purpose, owner and payload; `*head` (may be NULL) receives the address of the block's
 * first frame. Of a free or reserved block every frame is reported alike. A frame outside all RAM
 * gives E_RANGE.
 */
int frame_query(hpa_t frame, struct frame_info *info, hpa_t *head);

/* The payload of an allocated block's first frame (40 bits). Plain relaxed accesses; the caller
 * holds whatever lock protects the frame's content. The frame must be USED, DYING or SHARED. */
static inline uint64_t frame_payload(hpa_t head)
{
    return __atomic_load_n(&frame_records[pfn_of(head)], __ATOMIC_RELAXED) >> FRAME_PAYLOAD_SHIFT;
}

static inline void frame_set_payload(hpa_t head, uint64_t payload)
{
    uint64_t *record = &frame_records[pfn_of(head)];
    uint64_t rest = __atomic_load_n(record, __ATOMIC_RELAXED) & ~FRAME_PAYLOAD_MASK;
    __atomic_store_n(record, rest | payload << FRAME_PAYLOAD_SHIFT, __ATOMIC_RELAXED);
}

/* Moves a block between USED and DYING (deferred free). Anything else is a broken invariant. */
static inline void frame_set_state(hpa_t head, enum frame_state state)
{
    uint64_t *record = &frame_records[pfn_of(head)];
    uint64_t old = __atomic_load_n(record, __ATOMIC_RELAXED);
    enum frame_state before = frame_record_state(old);
    invariant((before == FRAME_USED && state == FRAME_DYING) ||
              (before == FRAME_DYING && state == FRAME_USED));
    __atomic_store_n(record, (old & ~FRAME_STATE_MASK) | state, __ATOMIC_RELAXED);
}

#endif
