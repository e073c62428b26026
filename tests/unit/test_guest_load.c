/*
 * Guests made of images for a PC: what their first MiB is, what of it costs something, and when.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "lib/error.h"
#include "mm/frames/buddy.h"
#include "tests/unit/elf_image.h"
#include "tests/unit/fake_machine.h"
#include "vm/exits.h"
#include "vm/slots.h"

static uint8_t image[ELF_GUEST];

static int set_up(void **state)
{
    (void)state;
    machine_start(64 * MiB);
    guests_init(&machine_backend, NULL);
    elf_multiboot_guest(image);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    machine_stop();
    return 0;
}

static struct guest *make(const char *cmdline)
{
    const struct guest_image from = {.bytes = image, .size = sizeof(image), .cmdline = cmdline};
    struct guest *guest;

    if (guest_create(&from, &guest) != E_OK)
        fail_msg("%s: %s", cmdline, guest != NULL ? guest->reason : "no guest");
    return guest;
}

static void finish(struct guest *guest)
{
    assert_int_equal(guest_kill(guest), E_OK);
    assert_int_equal(buddy_owner_frames(guest_owner(guest)), 0);
}

static enum slot_kind kind_at(const struct guest *guest, uint64_t at)
{
    const struct slot *slot = guest_slot_at(guest, gpa(at));

    return slot != NULL ? slot->kind : SLOT_DEVICE;
}

static void the_default_is_a_pc(void **state)
{
    struct guest *guest = make("pc mem=4M"), *bare = make("bare bare mem=4M");

    (void)state;
    assert_int_equal(kind_at(guest, 0xb8000), SLOT_VIDEO);
    assert_int_equal(kind_at(guest, 0xf0000), SLOT_ROM_LAZY);
    assert_int_equal(kind_at(bare, 0xb8000), SLOT_DEVICE);
    assert_int_equal(bare->slots, 2);
    /* It costs one frame, that of the ACPI tables: a quota may be as small as it was, but for that.
     */
    assert_int_equal(buddy_owner_frames(guest_owner(guest)),
                     buddy_owner_frames(guest_owner(bare)) + 1);
    finish(guest);
    finish(bare);
    /* So it is after a new start; and nobody asks for it who says how the image is entered. */
    assert_int_equal(guest_start(guest), E_OK);
    assert_int_equal(kind_at(guest, 0xb8000), SLOT_VIDEO);
    finish(guest);
    guest = make("plain entry=elf32 mem=4M");
    assert_string_equal(guest->kind, "ELF32");
    assert_int_equal(kind_at(guest, 0xb8000), SLOT_DEVICE);
    finish(guest);
    guest = make("plain entry=elf32 pc mem=4M");
    assert_int_equal(kind_at(guest, 0xb8000), SLOT_VIDEO);
    finish(guest);
}

/* --- a CPU that makes one exit --- */

static struct vm_exit next_exit;

static void one_exit(struct fake_vcpu *vcpu, struct vm_exit *exit)
{
    (void)vcpu;
    *exit = next_exit;
    next_exit = (struct vm_exit){.kind = VM_EXIT_SLICE};
}

static void touch(struct guest *guest, uint64_t at, unsigned access)
{
    next_exit = (struct vm_exit){
        .kind = VM_EXIT_MEMORY, .name = "test", .memory = {.gpa = gpa(at), .access = access}};
    machine_cpu = one_exit;
    assert_int_equal(guest->state, GUEST_RUNNING);
    guests_round();
}

static void memory_comes_with_the_first_touch(void **state)
{
    struct guest *guest = make("pc mem=4M");
    uint64_t frames = buddy_owner_frames(guest_owner(guest)), word = 1;

    (void)state;
    touch(guest, 0xb8000, RIGHT_W);
    touch(guest, 0xc0000, RIGHT_R);
    touch(guest, 0xfe000, RIGHT_X);
    assert_int_equal(guest->state, GUEST_RUNNING);
    assert_int_equal(guest->faults_filled, 3);
    assert_int_equal(buddy_owner_frames(guest_owner(guest)), frames + 3);
    assert_int_equal(guest_read(guest, gpa(0xc0000), &word, sizeof(word)), sizeof(word));
    assert_int_equal(word, 0);
    /* It is ROM before it has a frame, and behind. */
    touch(guest, 0xf0000, RIGHT_W);
    assert_int_equal(guest->state, GUEST_STOPPED);
    assert_non_null(
        strstr(guest->reason,
               "write to GPA 0xf0000: ROM at 0xc0000+256K; a PC loses that: `stray=lost`, at"));
    guest = make("video mem=4M");
    touch(guest, 0xb8000, RIGHT_X);
    assert_int_equal(guest->state, GUEST_STOPPED);
    assert_non_null(strstr(guest->reason, "instruction fetch from GPA 0xb8000: video memory"));
}

static void a_refusal_has_a_report(void **state)
{
    const struct guest_image from = {.bytes = image, .size = 100, .cmdline = "cut mem=1M"};
    struct guest *guest;

    (void)state;
    assert_int_equal(guest_create(&from, &guest), E_FORMAT);
    assert_non_null(strstr(guest->report, "Linux: no \"HdrS\" at 0x202\nMultiboot 1: no 0x1bad"));
    assert_null(strstr(machine_log(), "HdrS"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(the_default_is_a_pc),
        TEST(memory_comes_with_the_first_touch),
        TEST(a_refusal_has_a_report),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
