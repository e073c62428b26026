/*
 * The BIOS of a flat guest: each service by the registers and the memory that it changes, called as
 * a boot sector calls it; and calls that make no sense.
 */
#include "vm/bios.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "lib/error.h"
#include "mm/frames/buddy.h"
#include "tests/unit/fake_machine.h"
#include "tests/unit/random.h"
#include "vm/bios_disk.h"
#include "vm/device.h"
#include "vm/keyboard.h"
#include "vm/screen.h"

#define IMAGE (5 * 512 + 100)
#define CF 1u
#define ZF 0x40u

static uint8_t image[1440 * 1024];
static struct guest *guest;

static void make(uint64_t size, const char *cmdline)
{
    static struct guest_image from;

    for (unsigned i = 0; i < sizeof(image); i++)
        image[i] = (uint8_t)(i / 512 + i % 251);
    image[510] = 0x55;
    image[511] = 0xaa;
    if (strstr(cmdline, "linux16") != NULL) {
        image[0x1f1] = 1;
        memcpy(image + 0x202, "HdrS\3\2", 6);
        image[0x211] = 1;
    }
    from = (struct guest_image){.bytes = image, .size = size, .cmdline = cmdline};
    machine_start(64 * MiB);
    guests_init(&machine_backend, NULL);
    if (guest_create(&from, &guest) != E_OK)
        fail_msg("%s", guest->reason);
}

static int set_up(void **state)
{
    (void)state;
    make(IMAGE, "boot pc mem=20M");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    if (!guest_ended(guest))
        assert_int_equal(guest_kill(guest), E_OK);
    machine_stop();
    return 0;
}

static bool exit_due;

static void one_out(struct fake_vcpu *vcpu, struct vm_exit *exit)
{
    (void)vcpu;
    exit->kind = VM_EXIT_SLICE;
    if (exit_due)
        *exit = (struct vm_exit){.kind = VM_EXIT_PORT,
                                 .name = "test",
                                 .length = 2,
                                 .port = {.port = BIOS_PORT, .width = 1}};
    exit_due = false;
}

static uint64_t memory(uint64_t at, unsigned width)
{
    uint64_t value = 0;

    (void)guest_read(guest, gpa(at), &value, width);
    return value;
}

static void store(uint64_t at, unsigned width, uint64_t value)
{
    assert_int_equal(guest_write(guest, gpa(at), &value, width), width);
}

/* INT `vector` from real mode, its stack at 0x1000:0x100. Returns the flags. */
static unsigned call(unsigned vector)
{
    struct fake_vcpu *fake = fake_of(guest);
    struct vcpu_state *state = &fake->state;
    uint64_t offset = memory(vector * 4u, 2), segment = memory(vector * 4u + 2, 2);

    state->segment[SEG_CS].base = segment * 16;
    state->rip = offset;
    state->segment[SEG_SS].base = 0x10000;
    guest->vcpu->gpr[RSP] = 0x100 - 6;
    store(0x10100 - 6, 2, 0x7c10);
    store(0x10100 - 4, 2, 0);
    store(0x10100 - 2, 2, 0x202 | CF | ZF);
    exit_due = true;
    machine_cpu = one_out;
    guests_round();
    assert_false(exit_due);
    return (unsigned)memory(0x10100 - 2, 2);
}

static unsigned call_with(unsigned vector, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    uint64_t *gpr = guest->vcpu->gpr;

    gpr[RAX] = a;
    gpr[RBX] = b;
    gpr[RCX] = c;
    gpr[RDX] = d;
    return call(vector);
}

#define RAX_ (guest->vcpu->gpr[RAX])
#define RBX_ (guest->vcpu->gpr[RBX])
#define RCX_ (guest->vcpu->gpr[RCX])
#define RDX_ (guest->vcpu->gpr[RDX])

static void start(void **state)
{
    const struct vcpu_state *cpu = &fake_of(guest)->state;

    (void)state;
    assert_string_equal(guest->kind, "boot sector");
    assert_true(guest->has_bios);
    assert_int_equal(cpu->rip, 0x7c00);
    assert_int_equal(guest->vcpu->gpr[RDX], 0x80);
    assert_int_equal(cpu->rflags & BIT(9), BIT(9));
    assert_int_equal(memory(0x7c00, 8), *(uint64_t *)image);
    assert_int_equal(memory(0x475, 1), 1);
    assert_int_equal(memory(0x7e00, 8), 0); /* the rest is for the guest to load */
    assert_int_equal(memory(0x10 * 4 + 2, 2), 0xf000);
    assert_int_equal(memory(0xff000 + 0x10 * 16, 8) & 0xffffff, 0xcf00e6 | BIOS_PORT << 8);
    assert_int_equal(memory(5 * 4, 4), 0x4f0);
    assert_int_equal(memory(0x4f0, 1), 0xcf);
    /* The timer runs, by vector 8. */
    assert_int_equal(guest->devices.pic.chip[0].vector, 8);
    assert_int_equal(guest->devices.pic.chip[1].vector, 0x70);
    assert_int_equal(guest->devices.pic.chip[0].mask, 0xf8);
    assert_true(guest->devices.pit.counter[0].loaded);
}

static void sizes(void **state)
{
    (void)state;
    call(0x11);
    assert_int_equal(RAX_ & 0xffff, 0x222);
    call(0x12);
    assert_int_equal(RAX_ & 0xffff, 639);
    assert_int_equal(call_with(0x15, 0x8800, 0, 0, 0) & CF, 0);
    assert_int_equal(RAX_, 19 * 1024);
    assert_int_equal(call_with(0x15, 0xe801, 0, 0, 0) & CF, 0);
    assert_int_equal(RAX_, 15 * 1024);
    assert_int_equal(RBX_, 4 * 16);
    assert_int_equal(RCX_, RAX_);
    assert_int_equal(RDX_, RBX_);
    assert_int_equal(call_with(0x15, 0x2402, 0, 0, 0) & CF, 0);
    assert_int_equal(RAX_, 1);
    assert_int_equal(call_with(0x15, 0x2400, 0, 0, 0) & CF, CF); /* A20 stays open */
    assert_int_equal(call_with(0x15, 0xc000, 0, 0, 0) & CF, CF);
    assert_int_equal(RAX_ >> 8, 0x86);
}

static void memory_map(void **state)
{
    static const uint64_t expected[][3] = {
        {0, 0x9fc00, 1},       {0x9fc00, 0x400, 2}, {0xa0000, 0x20000, 2},
        {0xc0000, 0x40000, 2}, {MiB, 19 * MiB, 1},
    };
    uint64_t next = 0;

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(expected); i++) {
        fake_of(guest)->state.segment[SEG_ES].base = 0x20000;
        guest->vcpu->gpr[RDI] = 0x30;
        assert_int_equal(call_with(0x15, 0xe820, next, 24, 0x534d4150) & CF, 0);
        assert_int_equal(RAX_, 0x534d4150);
        assert_int_equal(RCX_, 20);
        assert_int_equal(memory(0x20030, 8), expected[i][0]);
        assert_int_equal(memory(0x20038, 8), expected[i][1]);
        assert_int_equal(memory(0x20040, 4), expected[i][2]);
        next = RBX_;
    }
    assert_int_equal(next, 0);
    assert_int_equal(call_with(0x15, 0xe820, 99, 24, 0x534d4150) & CF, CF);
    assert_int_equal(call_with(0x15, 0xe820, 0, 19, 0x534d4150) & CF, CF);
    assert_int_equal(call_with(0x15, 0xe820, 0, 24, 0) & CF, CF);
}

static void descriptor(uint64_t table, unsigned i, uint16_t limit, uint32_t base)
{
    store(table + 8 * i, 8,
          limit | (uint64_t)(base & 0xffffff) << 16 | 0x93ull << 40 | (uint64_t)(base >> 24) << 56);
}

static void a_block_moves(void **state)
{
    const uint64_t table = 0x20030;

    (void)state;
    fake_of(guest)->state.segment[SEG_ES].base = 0x20000;
    guest->vcpu->gpr[RSI] = 0x30;
    store(table, 8, 0);
    store(table + 40, 8, 0);
    for (unsigned i = 0; i < 2 * 4096; i++)
        store(0x30ff0 + i, 1, i * 7 % 253);
    descriptor(table, 2, 0xffff, 0x30ff1);
    descriptor(table, 3, 0xffff, 18 * MiB + 3);
    assert_int_equal(call_with(0x15, 0x8799, 0, 3000, 0) & CF, 0);
    assert_int_equal(RAX_ >> 8, 0);
    for (unsigned i = 0; i < 6000; i++)
        assert_int_equal(memory(18 * MiB + 3 + i, 1), (i + 1) * 7 % 253);
    assert_int_equal(memory(18 * MiB + 3 + 6000, 4), 0);
    /* And down again, by all 32 bits of an address: where there is no memory, nothing. */
    descriptor(table, 2, 0xffff, 18 * MiB + 3);
    descriptor(table, 3, 0xffff, 0x40000);
    assert_int_equal(call_with(0x15, 0x8700, 0, 1, 0) & CF, 0);
    assert_int_equal(memory(0x40000, 4), 7 | 14 << 8);
    descriptor(table, 2, 0xffff, 0xf1200000);
    assert_int_equal(call_with(0x15, 0x8700, 0, 1, 0) & CF, CF);
    assert_int_equal(RAX_ >> 8, 2);
    descriptor(table, 2, 0xffff, 0x30000);
    descriptor(table, 3, 0xffff, 20 * MiB - 2);
    assert_int_equal(call_with(0x15, 0x8700, 0, 2, 0) & CF, CF);
    /* No more than 64 KiB, nor more than the descriptors say. */
    descriptor(table, 3, 0xffff, MiB);
    assert_int_equal(call_with(0x15, 0x8700, 0, 0x8001, 0) & CF, CF);
    assert_int_equal(call_with(0x15, 0x8700, 0, 0x8000, 0) & CF, 0);
    descriptor(table, 3, 9, MiB);
    assert_int_equal(call_with(0x15, 0x8700, 0, 5, 0) & CF, 0);
    assert_int_equal(call_with(0x15, 0x8700, 0, 6, 0) & CF, CF);
}

/* --- disk --- */

static void disk_by_geometry(void **state)
{
    (void)state;
    fake_of(guest)->state.segment[SEG_ES].base = 0x20000;
    assert_int_equal(call_with(0x13, 0x0203, 0x40, 0x0002, 0x0080) & CF, 0); /* sectors 1 to 3 */
    assert_int_equal(RAX_, 3);
    for (unsigned i = 0; i < 3 * 512; i++)
        assert_int_equal(memory(0x20040 + i, 1), image[512 + i]);
    /* The last is filled up by zeroes; behind it there is none. */
    assert_int_equal(call_with(0x13, 0x0201, 0x40, 0x0006, 0x0080) & CF, 0);
    assert_int_equal(memory(0x20040 + 99, 1), image[5 * 512 + 99]);
    assert_int_equal(memory(0x20040 + 100, 8), 0);
    assert_int_equal(call_with(0x13, 0x0202, 0x40, 0x0006, 0x0080) & CF, CF);
    assert_int_equal(RAX_, 0x0400);
    assert_int_equal(call_with(0x13, 0x0100, 0, 0, 0x80) & CF, CF); /* the status of that */
    assert_int_equal(RAX_, 0x0400);
    assert_int_equal(call_with(0x13, 0x0201, 0, 0, 0x80) & CF, CF); /* there is no sector 0 */
    assert_int_equal(call_with(0x13, 0x0201, 0, 1, 0x81) & CF, CF); /* nor a drive 0x81 */
    assert_int_equal(call_with(0x13, 0x0201, 0, 1, 0x00) & CF, CF);
    assert_int_equal(call_with(0x13, 0x0000, 0, 0, 0x80) & CF, 0);
    assert_int_equal(call_with(0x13, 0x0800, 0, 0, 0x80) & CF, 0);
    assert_int_equal(RCX_, 63);
    assert_int_equal(RDX_, 15 << 8 | 1);
    assert_int_equal(call_with(0x13, 0x1500, 0, 0, 0x80) & CF, 0);
    assert_int_equal(RAX_ >> 8, 3);
    assert_int_equal(RDX_, 6);
    /* To where there is no memory for all of it. */
    fake_of(guest)->state.segment[SEG_ES].base = 20 * MiB - 768;
    assert_int_equal(call_with(0x13, 0x0202, 0, 1, 0x80) & CF, CF);
    assert_int_equal(RAX_, 0x0901);
}

static void the_disk_is_written(void **state)
{
    (void)state;
    fake_of(guest)->state.segment[SEG_ES].base = 0x20000;
    for (unsigned i = 0; i < 2 * 512; i++)
        store(0x20040 + i, 1, i * 3 % 251);
    assert_int_equal(call_with(0x13, 0x0302, 0x40, 0x0005, 0x0080) & CF, 0); /* 5 and 6 */
    assert_int_equal(RAX_, 2);
    assert_int_equal(call_with(0x13, 0x0203, 0x4000, 0x0004, 0x0080) & CF, 0);
    for (unsigned i = 0; i < 512; i++)
        assert_int_equal(memory(0x24000 + i, 1), image[3 * 512 + i]);
    for (unsigned i = 0; i < 2 * 512; i++)
        assert_int_equal(memory(0x24200 + i, 1), i * 3 % 251);
    assert_int_equal(image[4 * 512], (uint8_t)(4 + 4 * 512 % 251)); /* the image has it not */
    assert_int_equal(call_with(0x13, 0x0302, 0, 0x0006, 0x0080) & CF, CF);
    assert_int_equal(RAX_, 0x0400);
    assert_int_equal(call_with(0x13, 0x0501, 0, 0, 0x0080) & CF, CF); /* no diskette */
    assert_int_equal(RAX_ >> 8, 1);
    /* From where there is no memory: as far as it came. */
    fake_of(guest)->state.segment[SEG_ES].base = 20 * MiB - 512;
    assert_int_equal(call_with(0x13, 0x0302, 0, 1, 0x80) & CF, CF);
    assert_int_equal(RAX_, 0x0901);
}

/* The first page is there; the second would take a frame. */
static void a_write_without_a_frame(void **state)
{
    (void)state;
    tear_down(state);
    make(40 * 512, "boot pc mem=20M");
    fake_of(guest)->state.segment[SEG_ES].base = 0x20000;
    assert_int_equal(call_with(0x13, 0x0301, 0, 1, 0x80) & CF, 0);
    buddy_set_quota(guest_owner(guest), buddy_owner_frames(guest_owner(guest)));
    assert_int_equal(call_with(0x13, 0x0309, 0, 1, 0x80) & CF, CF);
    assert_int_equal(RAX_, 0xcc08);
    buddy_set_quota(guest_owner(guest), UINT64_MAX);
    assert_int_equal(call_with(0x13, 0x0309, 0, 1, 0x80) & CF, 0);
}

static void disk_by_packets(void **state)
{
    (void)state;
    fake_of(guest)->state.segment[SEG_DS].base = 0x20000;
    guest->vcpu->gpr[RSI] = 0x10;
    assert_int_equal(call_with(0x13, 0x4100, 0x55aa, 0, 0x80) & CF, 0);
    assert_int_equal(RBX_, 0xaa55);
    assert_int_equal(RCX_, 1);
    store(0x20010, 4, 2 << 16 | 16);
    store(0x20014, 4, 0x3000 << 16 | 0x20);
    store(0x20018, 8, 1);
    assert_int_equal(call_with(0x13, 0x4200, 0, 0, 0x80) & CF, 0);
    for (unsigned i = 0; i < 2 * 512; i++)
        assert_int_equal(memory(0x30020 + i, 1), image[512 + i]);
    store(0x20018, 8, 5);
    assert_int_equal(call_with(0x13, 0x4200, 0, 0, 0x80) & CF, CF);
    assert_int_equal(memory(0x20012, 2), 0);
    store(0x20012, 2, 1);
    store(0x20018, 8, UINT64_MAX);
    assert_int_equal(call_with(0x13, 0x4200, 0, 0, 0x80) & CF, CF);
    assert_int_equal(call_with(0x13, 0x4300, 0, 0, 0x80) & CF, CF);
    assert_int_equal(RAX_ >> 8, 4);
    store(0x20012, 2, 1);
    store(0x20018, 8, 2);
    store(0x30020, 8, 0x1122334455667788);
    assert_int_equal(call_with(0x13, 0x4300, 0, 0, 0x80) & CF, 0);
    store(0x30020, 8, 0);
    assert_int_equal(call_with(0x13, 0x4200, 0, 0, 0x80) & CF, 0);
    assert_int_equal(memory(0x30020, 8), 0x1122334455667788);
    store(0x20010, 2, 30);
    assert_int_equal(call_with(0x13, 0x4800, 0, 0, 0x80) & CF, 0);
    assert_int_equal(memory(0x20010 + 16, 8), 6);
    assert_int_equal(memory(0x20010 + 24, 2), 512);
}

/* An image that calls a BIOS from its 16-bit entry is no disk. */
static void a_kernel_is_no_disk(void **state)
{
    tear_down(state);
    make(IMAGE, "kernel mem=4M entry=linux16");
    assert_string_equal(guest->kind, "Linux 16-bit");
    assert_true(guest->has_bios);
    assert_int_equal(memory(0x475, 1), 0);
    assert_int_equal(memory(0x13 * 4 + 2, 2), 0xf000);
    assert_int_equal(fake_of(guest)->state.segment[SEG_CS].base + fake_of(guest)->state.rip,
                     0x10200);
    assert_int_equal(guest->devices.pic.chip[0].vector, 8);
    for (unsigned drive = 0; drive < 0x100; drive += 0x80) {
        assert_int_equal(call_with(0x13, 0x0201, 0, 1, drive) & CF, CF);
        assert_int_equal(call_with(0x13, 0x0800, 0, 0, drive) & CF, CF);
        assert_int_equal(call_with(0x13, 0x4100, 0x55aa, 0, drive) & CF, CF);
    }
    call(0x12);
    assert_int_equal(RAX_ & 0xffff, 639);
}

static void a_diskette(void **state)
{
    tear_down(state);
    make(sizeof(image), "boot pc mem=4M");
    assert_int_equal(guest->vcpu->gpr[RDX], 0);
    assert_int_equal(bios_geometry_of(sizeof(image) + 1).drive, 0x80);
    fake_of(guest)->state.segment[SEG_ES].base = 0x20000;
    /* Cylinder 1, head 1, sector 2: the 56th. */
    assert_int_equal(call_with(0x13, 0x0201, 0, 0x0102, 0x0100) & CF, 0);
    for (unsigned i = 0; i < 512; i++)
        assert_int_equal(memory(0x20000 + i, 1), image[(18 * 3 + 1) * 512 + i]);
    /* Formatted: that track, and no other. */
    assert_int_equal(call_with(0x13, 0x0512, 0, 0x0101, 0x0100) & CF, 0);
    assert_int_equal(call_with(0x13, 0x0214, 0, 0x0112, 0x0000) & CF, 0);
    assert_int_equal(memory(0x20000, 1), image[(18 * 2 + 17) * 512]);
    for (unsigned i = 512; i < 19 * 512; i++)
        assert_int_equal(memory(0x20000 + i, 1), 0xf6);
    assert_int_equal(memory(0x20000 + 19 * 512, 1), image[18 * 4 * 512]);
    assert_int_equal(call_with(0x13, 0x0512, 0, 0x5001, 0) & CF, CF); /* no cylinder 80 */
    assert_int_equal(call_with(0x13, 0x0512, 0, 0x0001, 0x0200) & CF, CF);
    assert_int_equal(call_with(0x13, 0x0800, 0, 0, 0) & CF, 0);
    assert_int_equal(RCX_, 79 << 8 | 18);
    assert_int_equal(RDX_, 1 << 8 | 1);
    assert_int_equal(RBX_ & 0xff, 4);
    assert_int_equal(call_with(0x13, 0x4100, 0x55aa, 0, 0) & CF, CF);
}

/* --- screen --- */

static void type(const char *text)
{
    for (; *text; text++)
        call_with(0x10, 0x0e00u | (uint8_t)*text, 7, 0, 0);
}

static void screen_as_a_terminal(void **state)
{
    (void)state;
    call_with(0x10, 0x0003, 0, 0, 0);
    assert_int_equal(memory(0xb8000, 4), 0x07200720);
    machine_forget_log();
    type("Hi\b!\r\nthere\r\n");
    assert_int_equal(memory(0xb8000, 4), 0x07210748);
    assert_int_equal(memory(0xb8000 + 160, 4), 0x07680774);
    assert_non_null(strstr(machine_log(), "boot] there\n"));
    call_with(0x10, 0x0300, 0, 0, 0);
    assert_int_equal(RDX_, 0x0200);
    call_with(0x10, 0x0f00, 0, 0, 0);
    assert_int_equal(RAX_, 0x5003);
    /* Beyond the last line all move up. */
    call_with(0x10, 0x0200, 0, 0, 0x184f);
    type("x");
    assert_int_equal(memory(0xb8000, 2), 0x0774);
    assert_int_equal(memory(0xb8000 + 23 * 160 + 158, 2), 0x0778);
    assert_int_equal(memory(0xb8000 + 24 * 160, 2), 0x0720);
    call_with(0x10, 0x0300, 0, 0, 0);
    assert_int_equal(RDX_, 0x1800);
}

static void screen_by_cells(void **state)
{
    (void)state;
    call_with(0x10, 0x0003, 0, 0, 0);
    call_with(0x10, 0x0200, 0, 0, 0x0105);
    call_with(0x10, 0x0941, 0x1e, 3, 0); /* 3 "A", yellow on blue */
    assert_int_equal(memory(0xb8000 + 170, 8), 0x07201e411e411e41);
    call_with(0x10, 0x0a42, 0, 1, 0); /* a "B" in its colours */
    assert_int_equal(memory(0xb8000 + 170, 2), 0x1e42);
    call_with(0x10, 0x0800, 0, 0, 0);
    assert_int_equal(RAX_, 0x1e42);
    call_with(0x10, 0x0601, 0x4f00, 0x0105, 0x0205); /* one column, one line up */
    assert_int_equal(memory(0xb8000 + 170, 2), 0x0720);
    assert_int_equal(memory(0xb8000 + 330, 2), 0x4f20);
    call_with(0x10, 0x0700, 0x2000, 0x0000, 0xffff); /* all of it */
    for (unsigned i = 0; i < 2000; i++)
        assert_int_equal(memory(0xb8000 + i * 2, 2), 0x2020);
    assert_int_equal(memory(0xb8000 + 4000, 2), 0);
    fake_of(guest)->state.segment[SEG_ES].base = 0x20000;
    guest->vcpu->gpr[RBP] = 0xffff; /* it goes on at the segment's start */
    store(0x2ffff, 1, 'p');
    store(0x20000, 1, 'q');
    call_with(0x10, 0x1301, 0x17, 2, 0x0300);
    assert_int_equal(memory(0xb8000 + 480, 4), 0x17711770);
}

/* Modes of 40 columns, and those of dots: the console is told by the VGA's registers. */
static void screen_modes(void **state)
{
    struct screen_layout layout;

    (void)state;
    call_with(0x10, 0x0001, 0, 0, 0);
    screen_layout(&guest->devices.vga, &layout);
    assert_true(layout.is_text);
    assert_int_equal(layout.columns, 40);
    assert_int_equal(layout.pitch, 40);
    assert_int_equal(layout.rows, 25);
    call_with(0x10, 0x0f00, 0, 0, 0);
    assert_int_equal(RAX_, 0x2801);
    call_with(0x10, 0x0200, 0, 0, 0x0127);
    type("ab");
    assert_int_equal(memory(0xb8000 + 79 * 2, 4), 0x07620761);
    call_with(0x10, 0x0300, 0, 0, 0);
    assert_int_equal(RDX_, 0x0201);
    screen_layout(&guest->devices.vga, &layout);
    assert_int_equal(layout.cursor, 2 * 40 + 1);
    call_with(0x10, 0x0200, 0, 0, 0x0027);
    call_with(0x10, 0x0943, 0x1e, 2, 0);
    assert_int_equal(memory(0xb8000 + 39 * 2, 4), 0x1e431e43);
    call_with(0x10, 0x0601, 0x0700, 0, 0x184f); /* up by a line of 40 */
    assert_int_equal(memory(0xb8000, 2), 0x1e43);
    call_with(0x10, 0x0013, 0, 0, 0);
    screen_layout(&guest->devices.vga, &layout);
    assert_false(layout.is_text);
    call_with(0x10, 0x0f00, 0, 0, 0);
    assert_int_equal(RAX_, 0x2813);
    call_with(0x10, 0x0003, 0, 0, 0);
    screen_layout(&guest->devices.vga, &layout);
    assert_true(layout.is_text);
    assert_int_equal(layout.columns, 80);
    assert_int_equal(layout.pitch, 80);
    assert_int_equal(layout.base, 0xb8000);
}

/* --- keys and time --- */

static void keys(void **state)
{
    static const uint16_t code[] = {0x1e61, 0x1c0d};
    struct fake_vcpu *fake = fake_of(guest);

    (void)state;
    assert_int_equal(call_with(0x16, 0x0100, 0, 0, 0) & ZF, ZF);
    /* None is there: it waits where the stub does. */
    call_with(0x16, 0x0000, 0, 0, 0);
    assert_int_equal(fake->state.segment[SEG_CS].base + fake->state.rip, 0xff000 + 0x16 * 16 + 3);
    assert_int_equal(memory(0xff000 + 0x16 * 16 + 3, 4), 0xf9ebf4fb); /* sti; hlt; jmp */
    for (unsigned i = 0; i < 2; i++) {
        call_with(0x16, 0x0500, 0, code[i], 0);
        assert_int_equal(RAX_ & 0xff, 0);
    }
    assert_int_equal(call_with(0x16, 0x0100, 0, 0, 0) & ZF, 0);
    assert_int_equal(RAX_, code[0]);
    call_with(0x16, 0x0000, 0, 0, 0);
    assert_int_equal(RAX_, code[0]);
    assert_int_equal(fake->state.rip, 0xff000 - 0xf0000 + 0x16 * 16 + 2);
    call_with(0x16, 0x1000, 0, 0, 0);
    assert_int_equal(RAX_, code[1]);
    assert_int_equal(call_with(0x16, 0x0100, 0, 0, 0) & ZF, ZF);
    /* The ring takes 15, wherever its pointers led. */
    store(0x41a, 4, 0xffff1234);
    for (unsigned i = 0; i < 15; i++) {
        call_with(0x16, 0x0500, 0, i, 0);
        assert_int_equal(RAX_ & 0xff, 0);
    }
    call_with(0x16, 0x0500, 0, 99, 0);
    assert_int_equal(RAX_ & 0xff, 1);
}

/* Some bytes of the keyboard's, each by an interrupt as far as the controller asks for one. */
static void let_it_type(void)
{
    for (unsigned i = 0; i < 200; i++) {
        machine_pass(guest->devices.clock.hz / 1000);
        call(9);
    }
}

static char next_key(void)
{
    if (call_with(0x16, 0x0100, 0, 0, 0) & ZF)
        return '\0';
    call_with(0x16, 0x0000, 0, 0, 0);
    return (char)RAX_;
}

/* Typed faster than the guest reads: nothing is lost, and shift is what it was for each. */
static void keys_wait_for_room(void **state)
{
    static const char text[] = "0123456789aBcDeFgHiJkLmNoP{q}";
    char got[sizeof(text) + 2] = "";

    (void)state;
    assert_int_equal(keyboard_type(guest, text, strlen(text)), strlen(text));
    let_it_type();
    assert_int_equal(memory(0x497, 1), 8);
    for (unsigned i = 0; i < sizeof(got) - 1; i++) {
        got[i] = next_key();
        assert_int_equal(memory(0x497, 1), 0); /* read with the key that made room */
        machine_pass(guest->devices.clock.hz / 1000);
        let_it_type();
    }
    assert_string_equal(got, text);
    assert_int_equal(memory(0x417, 1), 0);
}

/* A guest that takes keys out of the ring by itself gets those that waited with the next tick. */
static void keys_wait_for_a_tick(void **state)
{
    static const char text[] = "0123456789abcdefghi";

    (void)state;
    assert_int_equal(keyboard_type(guest, text, strlen(text)), strlen(text));
    let_it_type();
    store(0x41a, 2, memory(0x41c, 2)); /* all 15 of them */
    assert_int_equal(memory(0x497, 1), 8);
    call(8); /* the release of the last */
    assert_int_equal(memory(0x497, 1), 0);
    let_it_type();
    for (unsigned i = 15; i < strlen(text); i++)
        assert_int_equal(next_key(), text[i]);
}

static void time_of_day(void **state)
{
    (void)state;
    store(0x46c, 4, 0x1800ae);
    call(8);
    call_with(0x1a, 0x0000, 0, 0, 0);
    assert_int_equal(RCX_ << 16 | RDX_, 0x1800af);
    assert_int_equal(RAX_, 0);
    call(8);
    call_with(0x1a, 0x0000, 0, 0, 0);
    assert_int_equal(RCX_ | RDX_, 0);
    assert_int_equal(RAX_, 1); /* midnight has passed, which is said once */
    call_with(0x1a, 0x0000, 0, 0, 0);
    assert_int_equal(RAX_, 0);
    assert_int_equal(call_with(0x1a, 0x0200, 0, 0, 0) & CF, 0);
    assert_int_equal(call_with(0x1a, 0x0400, 0, 0, 0) & CF, 0);
    assert_true((RCX_ >> 8) >= 0x19);
    assert_int_equal(call_with(0x1a, 0xb101, 0, 0, 0) & CF, CF); /* no PCI BIOS */
}

/* --- what makes no sense --- */

static void only_from_its_stubs(void **state)
{
    struct fake_vcpu *fake = fake_of(guest);

    (void)state;
    for (unsigned i = 0; i < 5; i++) {
        uint64_t offset[] = {0x7c00, 0xf000 + 0x12 * 16 + 1, 0xf000 + 5 * 16, 0xf000 + 0x12 * 16,
                             0xf000 + 0x12 * 16};

        fake->state.segment[SEG_CS].base = i == 0 ? 0 : 0xf0000;
        fake->state.rip = offset[i];
        fake->state.cr0 = i == 3; /* protected mode */
        guest->vcpu->gpr[RAX] = 0;
        exit_due = true;
        machine_cpu = one_out;
        guests_round();
        assert_int_equal(guest->vcpu->gpr[RAX], i == 4 ? 639 : 0);
    }
}

static void without_a_pc(void **state)
{
    tear_down(state);
    make(IMAGE, "boot mem=4M");
    assert_string_equal(guest->kind, "flat 16-bit");
    assert_false(guest->has_bios);
    assert_int_equal(memory(0x10 * 4, 4), 0x4f0);
    assert_int_equal(memory(0x7e00, 8), *(uint64_t *)(image + 512));
}

/* Any registers, any stack and segments: what is called comes back. */
static void whatever_is_asked(void **state)
{
    static const uint8_t vectors[] = {0x08, 0x09, 0x70, 0x10, 0x11, 0x12, 0x13,
                                      0x14, 0x15, 0x16, 0x17, 0x1a, 0x74};
    struct random random = {17};

    (void)state;
    for (unsigned i = 0; i < 20000; i++) {
        struct vcpu_state *cpu = &fake_of(guest)->state;

        for (unsigned j = 0; j < GPR_COUNT; j++)
            guest->vcpu->gpr[j] = random_next(&random);
        guest->vcpu->gpr[RAX] &= 0x4fff;
        if (i % 8 == 0)
            guest->vcpu->gpr[RAX] = 0x8700;
        if (i % 2)
            guest->vcpu->gpr[RDX] = (guest->vcpu->gpr[RDX] & ~0xffull) | 0x80;
        for (unsigned j = 0; j < SEG_COUNT; j++)
            cpu->segment[j].base = random_below(&random, 0x10000) * 16;
        store(0x410 + random_below(&random, 0x60), 1, random_next(&random));
        cpu->segment[SEG_CS].base = 0xf0000;
        cpu->rip = 0xf000 + vectors[random_below(&random, sizeof(vectors))] * 16u;
        exit_due = true;
        machine_cpu = one_out;
        guests_round();
        assert_int_equal(guest->state, GUEST_RUNNING);
        machine_forget_log();
    }
}

/* Vectors below 16 are both exceptions' and lines'. */
static void an_exception_ends_it(void **state)
{
    (void)state;
    guest->devices.pic.chip[0].in_service = BIT(5);
    call(13);
    assert_int_equal(guest->state, GUEST_RUNNING);
    assert_int_equal(guest->devices.pic.chip[0].in_service, 0);
    call(13);
    assert_int_equal(guest->state, GUEST_STOPPED);
    assert_non_null(strstr(guest->reason, "exception 13 in real mode, which the guest does not "
                                          "handle, at 0x0:0x7c10"));
}

static void a_boot_ends_it(void **state)
{
    (void)state;
    call(0x19);
    assert_int_equal(guest->state, GUEST_STOPPED);
    assert_non_null(strstr(guest->reason, "reset"));
}

/* FFFF:0000, by which programs boot anew: no stack is needed; and what kind of PC it is. */
static void a_jump_to_the_reset_vector(void **state)
{
    static const uint8_t code[] = {0xb0, 0xfe, 0xe6, 0x64, 0xf4};
    uint8_t there[16];

    (void)state;
    assert_int_equal(guest_read(guest, gpa(0xffff0), there, sizeof(there)), sizeof(there));
    assert_memory_equal(there, code, sizeof(code));
    assert_memory_equal(there + 5, "01/01/26", 8);
    assert_int_equal(there[14], 0xfc);
    port_write(guest, 0x64, 1, 0xfe); /* what it does */
    assert_int_equal(guest->state, GUEST_STOPPED);
    assert_non_null(strstr(guest->reason, "reset"));
}

static void power_off_by_apm(void **state)
{
    (void)state;
    assert_int_equal(call_with(0x15, 0x5300, 0, 0, 0) & CF, 0);
    assert_int_equal(RAX_, 0x0102);
    assert_int_equal(RBX_, 0x504d);
    assert_int_equal(call_with(0x15, 0x5301, 0, 0, 0) & CF, 0);
    assert_int_equal(call_with(0x15, 0x5302, 0, 0, 0) & CF, CF); /* no protected mode */
    assert_int_equal(RAX_ >> 8, 0x0c);
    assert_int_equal(call_with(0x15, 0x530e, 0, 0x0102, 0) & CF, 0);
    assert_int_equal(call_with(0x15, 0x5308, 1, 1, 0) & CF, 0);
    assert_int_equal(call_with(0x15, 0x5307, 1, 2, 0) & CF, 0); /* suspend: nothing comes of it */
    assert_int_equal(call_with(0x15, 0x5307, 0x100, 3, 0) & CF, 0); /* a display alone */
    assert_false(guest_ended(guest));
    machine_forget_log();
    call_with(0x15, 0x5307, 1, 3, 0);
    assert_int_equal(guest->state, GUEST_PASSED);
    assert_string_equal(guest->reason, "powered off by APM");
    assert_non_null(strstr(machine_log(), "boot: powered off by APM"));
}

static void a_wait_takes_its_time(void **state)
{
    const uint64_t stub = 0xff000 + 0x15 * 16;
    struct fake_vcpu *fake = fake_of(guest);
    uint32_t until;

    (void)state;
    assert_int_equal(memory(stub + 7, 3), 0xf6ebfb); /* sti; jmp */
    assert_int_equal(call_with(0x15, 0x8600, 0, 0x000f, 0x4240) & CF, 0);
    assert_int_equal(fake->state.segment[SEG_CS].base + fake->state.rip, stub + 7);
    until = (uint32_t)memory(0x49c, 4);
    call_with(0x15, 0x8600, 0, 0x000f, 0x4240); /* the same wait, asked again */
    assert_int_equal(fake->state.segment[SEG_CS].base + fake->state.rip, stub + 7);
    assert_int_equal(memory(0x49c, 4), until);
    assert_int_equal(memory(0x4a0, 1), 1);
    store(0x49c, 4, until - 1000000); /* it is over */
    assert_int_equal(call_with(0x15, 0x8600, 0, 0x000f, 0x4240) & CF, 0);
    assert_int_equal(fake->state.segment[SEG_CS].base + fake->state.rip, stub + 2);
    assert_int_equal(memory(0x4a0, 1), 0);
    call_with(0x15, 0x8600, 0, 0, 0);
    assert_int_equal(fake->state.segment[SEG_CS].base + fake->state.rip, stub + 2);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(start),
        TEST(sizes),
        TEST(memory_map),
        TEST(a_block_moves),
        TEST(a_kernel_is_no_disk),
        TEST(disk_by_geometry),
        TEST(disk_by_packets),
        TEST(the_disk_is_written),
        TEST(a_write_without_a_frame),
        TEST(a_diskette),
        TEST(screen_as_a_terminal),
        TEST(screen_by_cells),
        TEST(screen_modes),
        TEST(keys),
        TEST(keys_wait_for_room),
        TEST(keys_wait_for_a_tick),
        TEST(time_of_day),
        TEST(only_from_its_stubs),
        TEST(without_a_pc),
        TEST(whatever_is_asked),
        TEST(an_exception_ends_it),
        TEST(a_boot_ends_it),
        TEST(a_jump_to_the_reset_vector),
        TEST(power_off_by_apm),
        TEST(a_wait_takes_its_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
