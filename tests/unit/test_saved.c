/*
 * Saved guests: what leaves comes back; each way in which a file can be none has its sentence; and
 * pages are packed and unpacked as they are.
 */
#include "vm/saved.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "lib/error.h"
#include "lib/sha256.h"
#include "mm/frames/buddy.h"
#include "tests/unit/elf_image.h"
#include "tests/unit/fake_machine.h"
#include "tests/unit/random.h"
#include "vm/clock.h"
#include "vm/saved_fields.h"

#define FILE_MOST (256u << 10)

static uint8_t image[ELF_GUEST], file[FILE_MOST];
static size_t size;

static int set_up(void **state)
{
    (void)state;
    machine_start(64 * MiB);
    guests_init(&machine_backend, NULL);
    elf_multiboot_guest(image);
    size = 0;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (unsigned i = 1; i <= guest_count(); i++)
        (void)guest_kill(guest_by_number(i));
    machine_stop();
    return 0;
}

static struct guest *make(const uint8_t *bytes, size_t length, const char *cmdline)
{
    const struct guest_image from = {.bytes = bytes, .size = length, .cmdline = cmdline};
    struct guest *guest = NULL;

    (void)guest_create(&from, &guest);
    assert_non_null(guest);
    return guest;
}

static int put(void *ctx, const void *bytes, size_t length)
{
    (void)ctx;
    if (length > sizeof(file) - size)
        return E_FULL;
    memcpy(file + size, bytes, length);
    size += length;
    return E_OK;
}

static int save(struct guest *guest, struct save *out)
{
    *out = (struct save){.put = put};
    size = 0;
    return guest_save(guest, out);
}

/* Another CPU of a guest's, unlike those beside it. */
static void change_cpu(struct guest *guest, unsigned i)
{
    struct fake_vcpu *fake = (struct fake_vcpu *)guest->cpu[i].vcpu;
    struct cpu_condition *is = &guest->cpu[i].is;

    is->waits = i == 1;
    is->halted = i == 2;
    is->init = i == 3;
    is->sipi = is->init;
    is->vector = (uint8_t)(0x90 + i);
    is->expect_fault.resume = 0x7000 + i;
    fake->vcpu.gpr[RCX] = 1000 + i;
    fake->rest.lstar = 0x4321 + i;
    fake->rest.fpu_size = 512;
    fake->rest.fpu[511] = (uint8_t)i;
    guest->devices.lapic[i].irr[1] = i;
    guest->devices.lapic[i].timer.initial = 77 + i;
}

static void expect_cpus_alike(struct guest *a, struct guest *b)
{
    static uint8_t lapic[2][SAVED_LAPIC_MOST];

    assert_int_equal(a->cpus, b->cpus);
    for (unsigned i = 0; i < a->cpus; i++) {
        struct fake_vcpu *x = (struct fake_vcpu *)a->cpu[i].vcpu;
        struct fake_vcpu *y = (struct fake_vcpu *)b->cpu[i].vcpu;
        struct cpu_condition is = b->cpu[i].is;

        assert_memory_equal(x->vcpu.gpr, y->vcpu.gpr, sizeof(x->vcpu.gpr));
        assert_int_equal(x->rest.lstar, y->rest.lstar);
        assert_memory_equal(x->rest.fpu, y->rest.fpu, sizeof(x->rest.fpu));
        assert_int_equal(x->vcpu.cr8, y->vcpu.cr8);
        is.deaf = a->cpu[i].is.deaf;
        assert_memory_equal(&a->cpu[i].is, &is, sizeof(is));
        unsigned bytes = saved_lapic_put(&a->devices.lapic[i], lapic[0]);
        assert_int_equal(saved_lapic_put(&b->devices.lapic[i], lapic[1]), bytes);
        assert_memory_equal(lapic[0], lapic[1], bytes);
    }
}

/* A guest that has come somewhere, saved into `file`. */
static struct guest *saved_guest(const char *cmdline)
{
    struct guest *guest = make(image, sizeof(image), cmdline);
    uint64_t word = UINT64_C(0x1122334455667788);
    struct save out;

    assert_int_equal(guest_pause(guest), E_OK);
    guest->vcpu->gpr[RBX] = 77;
    guest->vcpu->cr8 = 5;
    fake_of(guest)->rest.lstar = 0x1234;
    fake_of(guest)->rest.fpu_size = 576;
    fake_of(guest)->rest.fpu[575] = 9;
    guest->devices.serial.scratch = 0xa5;
    guest->devices.keyboard.keyboard.queue[1] = 0x1c;
    guest->devices.keyboard.keyboard.queued = 2;
    guest->cpu[0].is.expect_fault.base = 0x5000;
    for (unsigned i = 1; i < guest->cpus; i++)
        change_cpu(guest, i);
    guest->slot[0].rights = RIGHT_RW;
    assert_int_equal(guest_write(guest, gpa(0x200ff8), &word, 8), 8);
    for (unsigned i = 0; i < PAGE_SIZE; i += 8)
        assert_int_equal(guest_write(guest, gpa(0x300000 + i), &word, 8), 8);
    assert_int_equal(save(guest, &out), E_OK);
    assert_int_equal(out.bytes, size);
    return guest;
}

static void expect_alike(struct guest *a, struct guest *b)
{
    static uint8_t x[PAGE_SIZE], y[PAGE_SIZE];
    static uint8_t devices[2][SAVED_DEVICES_MOST];

    assert_int_equal(a->slots, b->slots);
    for (unsigned i = 0; i < a->slots; i++) {
        assert_int_equal(a->slot[i].base.v, b->slot[i].base.v);
        assert_int_equal(a->slot[i].size, b->slot[i].size);
        assert_int_equal(a->slot[i].kind, b->slot[i].kind);
        assert_int_equal(a->slot[i].rights, b->slot[i].rights);
    }
    for (uint64_t at = 0; at < a->memory; at += PAGE_SIZE) {
        memset(x, 0, sizeof(x));
        memset(y, 0, sizeof(y));
        guest_read(a, gpa(at), x, sizeof(x));
        guest_read(b, gpa(at), y, sizeof(y));
        assert_memory_equal(x, y, sizeof(x));
    }
    unsigned bytes = saved_devices_put(&a->devices, devices[0]);
    assert_int_equal(saved_devices_put(&b->devices, devices[1]), bytes);
    assert_memory_equal(devices[0], devices[1], bytes);
    expect_cpus_alike(a, b);
    assert_int_equal(fake_of(b)->rest.lstar, 0x1234);
    assert_int_equal(b->vcpu->cr8, 5);
    assert_int_equal(b->cpu[0].is.expect_fault.base, 0x5000);
    assert_int_equal(guest_now(a), guest_now(b));
    assert_int_equal(a->memory, b->memory);
    assert_int_equal(a->options.pc, b->options.pc);
}

static void come_back(const char *cmdline)
{
    struct guest *first = saved_guest(cmdline);
    struct guest *second = make(file, size, "again paused quota=16M");

    if (second->state != GUEST_PAUSED)
        fail_msg("%s: %s", cmdline, second->reason);
    assert_string_equal(second->name, "again");
    expect_alike(first, second);
    assert_int_equal(guest_kill(first), E_OK);
    assert_int_equal(guest_start(second), E_OK);
    assert_int_equal(guest_kill(second), E_OK);
    /* Another life of the module. */
    assert_int_equal(guest_start(second), E_OK);
    assert_int_equal(second->vcpu->gpr[RBX], 77);
    assert_int_equal(guest_kill(second), E_OK);
    assert_int_equal(buddy_owner_frames(guest_owner(second)), 0);
}

static void test_what_leaves_comes_back(void **state)
{
    (void)state;
    come_back("first mem=4M");
    come_back("first mem=4M lazy");
    come_back("first mem=4M pc");
    come_back("first mem=4M pc cpus=4");
    come_back("first mem=4M rom=0x280000+64K nox=0x2a0000+64K lazy around=16K");
}

static void test_what_cannot_be_saved(void **state)
{
    struct save out;
    struct guest *guest = make(image, sizeof(image), "shares mem=4M share=common:64K@1G");

    (void)state;
    assert_int_equal(guest->state, GUEST_RUNNING);
    assert_int_equal(save(guest, &out), E_UNSUPPORTED);
    assert_non_null(strstr(out.why, "shares by name"));
    guest = make(image, sizeof(image), "disk mem=4M");
    guest->has_disk = true;
    assert_int_equal(save(guest, &out), E_UNSUPPORTED);
    assert_non_null(strstr(out.why, "its disk"));
    guest->has_disk = false;
    guest->held_end = GUEST_STOPPED;
    assert_int_equal(save(guest, &out), E_STATE);
    guest->held_end = GUEST_READY;
    assert_int_equal(save(guest, &out), E_OK);
}

/* ---- Files that are none --------------------------------------------------------------------- */

static void seal(size_t length)
{
    struct sha256 digest;

    sha256_begin(&digest);
    sha256_add(&digest, file, length - SHA256_BYTES);
    sha256_end(&digest, file + length - SHA256_BYTES);
}

static void expect_refusal(size_t length, const char *words)
{
    static struct saved out;
    char why[200] = "";

    assert_int_not_equal(saved_read(file, length, &out, why, sizeof(why)), E_OK);
    if (strstr(why, words) == NULL)
        fail_msg("'%s' does not say '%s'", why, words);
}

/* Where the n-th section begins. */
static size_t section(unsigned n)
{
    size_t at = SAVED_HEAD;
    uint32_t bytes;

    while (n-- > 0) {
        memcpy(&bytes, file + at + 4, 4);
        at += SAVED_SECTION + bytes;
    }
    return at;
}

/* With so many bytes at `at` set to a value. */
static void spoilt(size_t at, unsigned bytes, uint64_t value, const char *words)
{
    uint8_t kept[8];

    memcpy(kept, file + at, bytes);
    memcpy(file + at, &value, bytes);
    seal(size);
    expect_refusal(size, words);
    memcpy(file + at, kept, bytes);
    seal(size);
}

static void test_what_is_none(void **state)
{
    static struct saved out;
    char why[200];

    (void)state;
    saved_guest("first mem=4M");
    assert_int_equal(saved_read(file, size, &out, why, sizeof(why)), E_OK);
    expect_refusal(0, "0 bytes are no saved guest");
    expect_refusal(71, "71 bytes are no saved guest");
    expect_refusal(size - 1, "its SHA-256 is another");
    for (size_t length = 72; length < size; length += 97) {
        uint8_t kept[SHA256_BYTES];

        memcpy(kept, file + length - SHA256_BYTES, SHA256_BYTES);
        seal(length);
        expect_refusal(length, "saved");
        memcpy(file + length - SHA256_BYTES, kept, SHA256_BYTES);
    }
    spoilt(0, 1, 'q', "no saved guest");
    spoilt(8, 4, 3, "is of version 3, and this reads 1 to 2");
    spoilt(8, 4, 0, "is of version 0, and this reads 1 to 2");
    spoilt(12, 4, 31, "head of 31 bytes");
    spoilt(24, 1, 1, "head of 32 bytes");
    spoilt(section(0), 4, SAVED_CPU, "section 3 where its guest's belongs");
    spoilt(section(0) + 4, 4, UINT32_MAX, "guest's section says 4294967295 bytes");
    spoilt(section(0) + 4, 4, 8, "guest's section is not what it has to be");
    spoilt(section(0) + 4, 4, 68, "guest's section is not what it has to be");
    spoilt(section(0) + 8, 8, 4096, "has 0x1000 bytes of memory");
    spoilt(section(0) + 24, 8, 0, "TSC runs at 0 Hz");
    spoilt(section(0) + 32, 4, 128, "options are none: 0x80");
    spoilt(section(0) + 36, 4, 4, "options are none");
    spoilt(section(0) + 40, 4, 3, "options are none");
    spoilt(section(1) + 8, 4, GUEST_SLOTS + 1, "slots' section is not");
    spoilt(section(1) + 12, 8, 0x1001, "slot 0 at 0x1001");
    spoilt(section(1) + 20, 8, 0, "is no range of pages");
    spoilt(section(1) + 20, 8, UINT64_MAX - 0xfff, "is no range of pages");
    spoilt(section(1) + 36, 8, 0, "slot 1 at 0x0+"); /* the second on the first */
    spoilt(section(1) + 28, 4, SLOT_DEVICE, "of a kind not saved");
    spoilt(section(1) + 28, 4, 99, "slots' section is not");
    spoilt(section(1) + 32, 4, RIGHT_U, "slots' section is not");
    spoilt(section(2) + 4, 4, 500, "CPU's section is not");
    spoilt(section(3) + 4, 4, 500, "devices cannot be so: size");
    spoilt(section(3) + 16, 8, 0, "devices cannot be so: clock.hz");
    spoilt(section(4) + 8, 8, 0x100001, "no page of a slot");
    unsigned last = 3 + (unsigned)out.page_count; /* none behind it is refused */
    spoilt(section(last) + 8, 8, 0x90000000, "no page of a slot");
    spoilt(section(5) + 8, 8, 0, "not behind the one before");
    spoilt(section(4) + 4, 4, 4, "a saved page has 4 bytes");
    spoilt(section(4) + 4, 4, 9, "is not as long as a page");
    spoilt(section(4), 4, 9, "section 9 where its last belongs");
    spoilt(size - SHA256_BYTES - 4, 4, 8, "last section says 8 bytes, 0 are left");
    assert_int_equal(saved_read(file, size, &out, why, sizeof(why)), E_OK);
}

/* The section once more, behind itself. */
static void repeat(unsigned n)
{
    size_t at = section(n), bytes = section(n + 1) - at;

    memmove(file + at + bytes, file + at, size - at);
    size += bytes;
    seal(size);
}

static void test_cpus_that_are_none(void **state)
{
    static struct saved out;
    char why[200];
    uint64_t flags = 0;

    (void)state;
    saved_guest("first mem=4M pc cpus=8");
    assert_int_equal(saved_read(file, size, &out, why, sizeof(why)), E_OK);
    assert_int_equal(out.cpus, 8);
    spoilt(8, 4, 1, "section 7 where its last belongs");
    spoilt(section(4) + 4, 4, 40, "other CPU's section is not");
    spoilt(section(4) + 8, 4, 4, "other CPU's section is not");
    spoilt(section(4) + 12, 4, 256, "other CPU's section is not");
    memcpy(&flags, file + section(0) + 32, 4);
    spoilt(section(0) + 32, 4, flags & ~(uint64_t)SAVED_PC, "several and is no PC");
    repeat(4);
    expect_refusal(size, "more than 8 CPUs");
    assert_non_null(strstr(make(file, size, "a")->reason, "more than 8 CPUs"));
}

/* A local APIC's members have bounds as all have. */
static void test_lapic(void **state)
{
    static uint8_t bytes[SAVED_LAPIC_MOST];
    struct guest *guest = make(image, sizeof(image), "pc mem=4M pc cpus=2");
    unsigned length = saved_lapic_put(&guest->devices.lapic[1], bytes), refused = 0;
    struct dev_lapic lapic;

    (void)state;
    assert_null(saved_lapic_take(&lapic, bytes, length));
    assert_non_null(saved_lapic_take(&lapic, bytes, length - 1));
    for (unsigned at = 0; at < length; at++) {
        uint8_t kept = bytes[at];

        bytes[at] = 0xff;
        refused += saved_lapic_take(&lapic, bytes, length) != NULL;
        bytes[at] = kept;
    }
    assert_int_equal(refused, 3); /* low bits of the TPR, an NMI that waits, a timer that runs */
}

/* What the file may say, and this machine cannot do. */
static void test_what_cannot_be_here(void **state)
{
    (void)state;
    saved_guest("first mem=4M");
    assert_non_null(strstr(make(file, size, "a mem=8M")->reason, "brings its memory"));
    assert_non_null(strstr(make(file, size, "a lazy")->reason, "brings its memory"));
    assert_non_null(strstr(make(file, size, "a quota=1M")->reason, "its memory has no room"));
    assert_non_null(strstr(make(file, size, "a quota=40K")->reason,
                           "quota=40K has no room for its table: itself and its vCPU take "));
    memcpy(file + 16, "SVM", 4);
    seal(size);
    assert_non_null(strstr(make(file, size, "a")->reason,
                           "it was saved by SVM, and this CPU runs guests by fake"));
    memcpy(file + 16, "fake", 4);
    file[section(0) + 24] ^= 1;
    seal(size);
    assert_non_null(strstr(make(file, size, "a")->reason, "its TSC ran at"));
    file[section(0) + 24] ^= 1;
    file[section(3) - 576 - 8] = 16; /* CR8 */
    seal(size);
    assert_non_null(strstr(make(file, size, "a")->reason, "its registers are not what this CPU"));
    for (unsigned i = 1; i <= guest_count(); i++)
        if (guest_ended(guest_by_number(i)))
            assert_int_equal(buddy_owner_frames(guest_owner(guest_by_number(i))), 0);
}

/* Each member of the devices that has bounds is held to them; the bytes go in and out alike. */
static void test_devices(void **state)
{
    static uint8_t bytes[SAVED_DEVICES_MOST], again[SAVED_DEVICES_MOST];
    static struct guest_devices devices;
    struct guest *guest = make(image, sizeof(image), "pc mem=4M pc");
    unsigned length = saved_devices_put(&guest->devices, bytes), refused = 0;

    (void)state;
    assert_null(saved_devices_take(&devices, bytes, length));
    assert_int_equal(saved_devices_put(&devices, again), length);
    assert_memory_equal(bytes, again, length);
    assert_non_null(saved_devices_take(&devices, bytes, length - 1));
    for (unsigned at = 0; at < length; at++) {
        uint8_t kept = bytes[at];

        bytes[at] = 0xff;
        refused += saved_devices_take(&devices, bytes, length) != NULL;
        bytes[at] = kept;
    }
    assert_in_range(refused, 60, length / 2);
}

static void test_pages(void **state)
{
    static uint8_t page[PAGE_SIZE], packed[PAGE_SIZE + 1], back[PAGE_SIZE];
    struct random random = {3};

    (void)state;
    assert_int_equal(saved_pack(page, packed), 0);
    for (unsigned round = 0; round < 4000; round++) {
        unsigned changes = (unsigned)random_below(&random, round % 3 == 0 ? 4000 : 60);

        memset(page, (int)random_below(&random, 3), sizeof(page));
        for (unsigned i = 0; i < changes; i++)
            memset(page + random_below(&random, PAGE_SIZE - 4), (int)random_below(&random, 256),
                   1 + random_below(&random, 4));
        packed[PAGE_SIZE] = 0x5a;
        unsigned length = saved_pack(page, packed);
        assert_int_equal(packed[PAGE_SIZE], 0x5a);
        if (length == 0) {
            memset(back, 0, sizeof(back));
        } else {
            assert_in_range(length, 1, PAGE_SIZE);
            memset(back, 0xee, sizeof(back));
            assert_true(saved_unpack(packed, length, back));
        }
        assert_memory_equal(page, back, sizeof(page));
    }
    memset(packed, 0xff,
           sizeof(packed)); /* runs of 130: 31 of them are less than a page, 32 more */
    assert_false(saved_unpack(packed, 62, back));
    assert_false(saved_unpack(packed, 64, back));
    assert_false(saved_unpack(packed, 63, back));
    assert_false(saved_unpack(packed, 0, back));
    assert_false(saved_unpack(packed, PAGE_SIZE + 1, back));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_leaves_comes_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_cannot_be_saved, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_none, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_cpus_that_are_none, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_lapic, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_cannot_be_here, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_devices, set_up, tear_down),
        cmocka_unit_test(test_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
