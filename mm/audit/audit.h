/*
 * The auditor: compares page tables of any kind with the frame records, and the records with the
 * tables, and names what does not fit. It trusts neither. A node is judged by its frame's record
 * before it is read, and no node is read twice: so the audit ends, whatever the tables hold.
 *
 *   tables --> each entry --> table frame: whose? for what? reached before?
 *                         \-> memory: whose? for what? shared, and with how many?
 *   records --> each frame in use as a table or as somebody's memory: was it reached?
 *
 * It changes nothing. It notes what it has reached in scratch frames from the buddy, a few for each
 * 128 MiB (mm/audit/tally.h), and gives them back. The tables must be at rest meanwhile.
 */
#ifndef QUIRE_MM_AUDIT_H
#define QUIRE_MM_AUDIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mm/paging/table.h"

/* What must hold. audit_rule_text() has each as a sentence. */
enum audit_rule {
    /* The frames of the tables themselves. */
    AUDIT_TABLE_MEMORY, /* in RAM, and in use */
    AUDIT_TABLE_TAG,    /* recorded for the purpose of the table's kind */
    AUDIT_TABLE_OWNER,  /* recorded as the table's owner's */
    AUDIT_TABLE_ONCE,   /* reached once, by one table */
    AUDIT_TABLE_COUNT,  /* as many as struct table counts */
    AUDIT_TABLE_STRAY,  /* every frame recorded as a table is reached */
    /* Their entries. */
    AUDIT_ENTRY_LEGAL,  /* entry_rule() */
    AUDIT_ENTRY_ABSENT, /* what is not present is zero: no address for the CPU to read ahead of time
                         */
    AUDIT_ENTRY_COUNT,  /* as many present as the frame's record says */
    /* The memory that leaves show to a guest or a program. */
    AUDIT_LEAF_RAM,     /* it is RAM */
    AUDIT_LEAF_FREE,    /* and in use: neither free nor about to be */
    AUDIT_LEAF_PURPOSE, /* as such memory: no table, no image, no stack, no VMCS, ... */
    AUDIT_LEAF_OWNER,   /* by this owner, unless it is shared */
    AUDIT_LEAF_SHARED,  /* what is shown more than once is shared, by as many as its record says */
    AUDIT_LEAF_STRAY,   /* every frame of such memory is shown by some table */
    /* And as a whole. */
    AUDIT_OWNER_COUNT, /* an owner is charged with what its tables reach, and what else it holds */
    AUDIT_WRITE_EXECUTE, /* nothing is writable and executable, at one address or at two */
    AUDIT_GUARD,         /* guard pages are absent */
    AUDIT_UPPER_HALF,    /* each user root has the kernel's upper half */
    AUDIT_ROOT,          /* root registers hold the tables' roots */
    AUDIT_BATCHES,       /* each flush batch was committed */
    AUDIT_DYING,         /* no frame waits for a flush */
    AUDIT_RULES
};

#define AUDIT_ALL (BIT(AUDIT_RULES) - 1)
/* The rules that look at every record of the machine, not only at what the tables reach. Any of
 * them makes AUDIT_LEAF_SHARED complete: shared by as many as the record says. */
#define AUDIT_RECORDS (BIT(AUDIT_TABLE_STRAY) | BIT(AUDIT_LEAF_STRAY) | BIT(AUDIT_DYING))
/* Those that can be judged without frame records. */
#define AUDIT_ADDRESS_SPACE (BIT(AUDIT_WRITE_EXECUTE) | BIT(AUDIT_GUARD))

/* A statement that holds where the rule does: "guard pages are absent". */
const char *audit_rule_text(enum audit_rule rule);

/* A root register as it reads back. */
struct audit_root {
    hpa_t frame;
    unsigned levels;
};

#define AUDIT_UNKNOWN UINT64_MAX

struct audit_table {
    struct table *table;
    const char *name; /* for people: "host", "g1 hello" */
    uint64_t shows;   /* bit n: its leaves may show memory of enum frame_purpose n, to its owner
                       * alone. 0: they may show anything, and are not judged */
    bool write_xor_execute;    /* judge AUDIT_WRITE_EXECUTE, over all such tables of this kind */
    const struct table *upper; /* it shares the upper half of this one's root; NULL: of none */
    uint64_t others;           /* frames that its owner holds beside nodes and shown memory;
                                * AUDIT_UNKNOWN: AUDIT_OWNER_COUNT is not judged */
    /* Reads back the root register that is to hold this table's root; NULL: none does. */
    int (*read_root)(const struct audit_table *table, struct audit_root *out);
    void *ctx; /* for read_root */
};

/* Pages first, first + stride, ...: `count` of them, absent in `table`. */
struct audit_guard {
    struct table *table;
    const char *table_name;
    const char *name; /* "the guard page of a stack" */
    uint64_t first, stride;
    unsigned count;
};

struct audit {
    uint64_t rules; /* bit n: judge enum audit_rule n */
    const struct audit_table *table;
    unsigned tables;
    const struct audit_guard *guard;
    unsigned guards;
    bool (*stopped)(void *ctx); /* asked at each node, and now and then among the records:
                                 * true ends the audit; NULL: never */
    void *stopped_ctx;
    bool everyone; /* these are all tables of the machine: AUDIT_RECORDS are for every owner, not
                    * only for the owners of these tables */
};

#define AUDIT_DETAIL 120

struct audit_finding {
    enum audit_rule rule; /* the one that is broken */
    const char *table;    /* the name of the table in question; NULL: none in particular */
    bool has_in, has_at;
    uint64_t in;               /* the input address where it shows */
    hpa_t at;                  /* the frame in question, or the entry */
    char detail[AUDIT_DETAIL]; /* what is wrong, as a phrase */
};

/* A finding is the function's only during the call. */
typedef void (*audit_report_fn)(void *ctx, const struct audit_finding *finding);

/* Of one rule not more than this many findings are reported; all are counted. */
#define AUDIT_REPORTED 16

struct audit_totals {
    uint64_t table_frames; /* reached */
    uint64_t memory;       /* frames that leaves show, of tables that have `shows` */
    uint64_t entries;      /* present */
    uint64_t scratch;      /* frames of scratch memory at most */
    uint64_t findings[AUDIT_RULES];
    uint64_t found; /* of all rules */
    uint64_t rules; /* bit n: enum audit_rule n was judged, for at least one table */
    bool moot;      /* counts could not be judged everywhere, because what they count was broken */
};

/*
 * Judges. E_OK: all rules hold. E_STATE: there are findings. E_NOMEM: scratch memory ran out,
 * E_STOPPED: `stopped` said so; the findings until then count, and the rest was not judged.
 * `report` may be NULL. Tables without frame records can be judged by AUDIT_ADDRESS_SPACE alone;
 * E_INVAL where other rules are asked for.
 */
int audit_run(const struct audit *audit, audit_report_fn report, void *ctx,
              struct audit_totals *totals);

/* Judges one table by itself, before it is given back, and logs each finding in a line. `stopped`
 * as in struct audit. Returns what audit_run() did. mm/audit/audit_one.c. */
int audit_one(const struct audit_table *table, bool (*stopped)(void *ctx), void *ctx);

/* One line: "g1 hello: 0x1000 (frame 0x5000): it shows a free frame". Returns `text`. */
#define AUDIT_LINE 256
const char *audit_line(char text[AUDIT_LINE], const struct audit_finding *finding);

#endif
