/* See model_guest.h. */
#include "tests/unit/model_cpu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/error.h"
#include "mm/frames/buddy.h"
#include "mm/frames/slab.h"
#include "tests/unit/model_guest.h"

#define MEMORY (UINT64_C(4) << 20)

struct model_guest g;
static uint8_t *memory;
static void *records;

void model_machine_start(void)
{
    uint64_t bytes = buddy_metadata_size(MEMORY);

    model_cpu_start();
    memset(&g, 0, sizeof(g));
    if (!memory) { /* one is enough for all machines that follow each other */
        memory = aligned_alloc(UINT64_C(1) << 21, MEMORY);
        records = aligned_alloc(PAGE_SIZE, align_up(bytes, PAGE_SIZE));
    }
    assert_true(memory && records);
    memset(memory, 0xa5, MEMORY);
    direct_base = (uint64_t)(uintptr_t)memory;
    assert_int_equal(buddy_init(records, bytes, MEMORY), E_OK);
    assert_int_equal(buddy_add(hpa(0), MEMORY), E_OK);
    hpa_t first; /* address 0 stands for none */
    assert_int_equal(buddy_alloc_within(0, 0, 0xfff, PURPOSE_TEST, OWNER_HOST, &first), E_OK);
    model_cpu.cr3 = 0x1000;
}

void model_machine_stop(void)
{
    slab_destroy_all();
}

uint64_t model_free_frames(void)
{
    struct buddy_stats stats;

    buddy_stats(&stats);
    return stats.free_frames;
}

int model_guest_add(struct vcpu **out)
{
    return g.backend->vcpu_create(NULL, &g.table, GUEST_OWNER, out);
}

void model_guest_start(const struct vm_backend *backend)
{
    struct flush_batch batch;
    hpa_t block;

    g.backend = backend;
    assert_int_equal(table_init(&g.table, backend->kind, backend->table_caps(),
                                backend->table_env(), PURPOSE_EPT_TABLE, GUEST_OWNER),
                     E_OK);
    assert_int_equal(buddy_alloc(8, PURPOSE_GUEST_RAM, GUEST_OWNER, &block), E_OK);
    g.bytes = direct(block);
    memset(g.bytes, 0, GUEST_BYTES);
    flush_begin(&batch, &g.table);
    assert_int_equal(
        table_map(&g.table, 0, block, GUEST_BYTES, attrs_of(RIGHT_RWX, MEM_WB), MAP_CAP_4K, &batch),
        E_OK);
    flush_commit(&batch);
    assert_int_equal(model_guest_add(&g.vcpu), E_OK);
}

void model_guest_stop(void)
{
    if (g.vcpu)
        g.backend->vcpu_destroy(g.vcpu);
    assert_int_equal(table_destroy(&g.table), E_OK);
    model_machine_stop();
}

struct vcpu_state model_state(void)
{
    struct vcpu_state state;

    memset(&state, 0, sizeof(state));
    assert_int_equal(g.backend->get_state(g.vcpu, &state), E_OK);
    return state;
}

void model_set(const struct vcpu_state *state)
{
    assert_int_equal(g.backend->set_state(g.vcpu, state), E_OK);
}

struct vcpu_state model_flat_mode(uint32_t rip)
{
    struct vcpu_state s = {.rip = rip, .rflags = 2, .cr0 = CR0_PE | CR0_ET, .dr7 = 0x400};

    for (unsigned i = SEG_ES; i <= SEG_GS; i++)
        s.segment[i] = (struct segment){.limit = UINT32_MAX, .selector = 0x10, .access = 0xc093};
    s.segment[SEG_CS] = (struct segment){.limit = UINT32_MAX, .selector = 8, .access = 0xc09b};
    s.segment[SEG_LDTR] = (struct segment){.unusable = true};
    s.segment[SEG_TR] = (struct segment){.limit = 0x67, .selector = 0x18, .access = 0x8b};
    return s;
}

/* Tables at 0xf0000: one page of 2 MiB. */
struct vcpu_state model_long_mode(uint64_t rip)
{
    const uint64_t entries[3] = {0xf1007, 0xf2007, 0x87};
    struct vcpu_state s = model_flat_mode(0);

    for (unsigned i = 0; i < 3; i++)
        memcpy(g.bytes + 0xf0000 + i * PAGE_SIZE, &entries[i], sizeof(entries[i]));
    s.rip = rip;
    s.cr0 |= CR0_PG | CR0_NE;
    s.cr3 = 0xf0000;
    s.cr4 = CR4_PAE;
    s.efer = EFER_LME | EFER_LMA | EFER_NXE;
    s.segment[SEG_CS].access = 0xa09b;
    return s;
}

void model_run(void)
{
    memset(&g.exit, 0, sizeof(g.exit));
    if (g.backend->run(g.vcpu, 1000000, &g.exit) != E_OK)
        fail_msg("the guest is not entered: %s", g.exit.name ? g.exit.name : "?");
}
