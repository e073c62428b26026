/*
 * Memory that a guest gives back and asks for again, among everything else that its memory goes
 * through, against a plain model (memory_model.h), and by its calls.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "guests/abi.h"
#include "lib/bits.h"
#include "lib/error.h"
#include "mm/frames/buddy.h"
#include "mm/paging/typed.h"
#include "tests/unit/memory_model.h"
#include "vm/balloon.h"
#include "vm/exits.h"
#include "vm/fork.h"
#include "vm/quota.h"
#include "vm/slot_change.h"
#include "vm/slots.h"
#include "vm/snapshot.h"

static void change(struct model *model)
{
    unsigned which = random_below(&chance, 14);

    switch (which) {
    case USUAL_CHANGES:
    case USUAL_CHANGES + 1:
        give_or_take(model, UINT64_MAX);
        break;
    case USUAL_CHANGES + 2:
        give_or_take(model, random_below(&chance, 8));
        break;
    default:
        usual_change(model, which);
    }
}

static void judge(const struct model *model)
{
    uint64_t backed = 0, mapped = 0;
    struct mapping leaf;

    expect_contents(model);
    for (unsigned i = 0; i < PAGES; i++)
        mapped += gpa_translate(&model->guest->table, place_of(i, 0), &leaf) == E_OK;
    for (unsigned i = 0; i < model->guest->slots; i++)
        backed += model->guest->slot[i].backed;
    assert_int_equal(backed, mapped * PAGE_SIZE);
}

static void it_comes_and_goes(void **state)
{
    (void)state;
    for (enum way way = 0; way < WAYS; way++)
        for (uint64_t seed = 0; seed < 3; seed++) {
            run_changes(way, "ram mem=8M", 100 + 10 * seed + way, 250, change, judge);
            run_changes(way, "lazy lazy mem=8M", 200 + 10 * seed + way, 250, change, judge);
            run_changes(way, "large lazy pages=2M mem=8M", 300 + 10 * seed + way, 250, change,
                        judge);
            run_changes(way, "small pages=4K mem=8M nox=4M+2M", 400 + 10 * seed + way, 250, change,
                        judge);
        }
}

/* ---- By its calls ---------------------------------------------------------------------------- */

static uint32_t call(struct guest *guest, uint32_t number, uint64_t at, uint64_t size)
{
    struct vm_exit exit = {.kind = VM_EXIT_HYPERCALL, .length = 3};
    uint64_t *gpr = guest->vcpu->gpr;

    gpr[RAX] = number;
    gpr[RBX] = at;
    gpr[RCX] = size;
    for (unsigned turns = 0; gpr[RAX] == number && turns < 100000; turns++)
        assert_true(exit_dispatch(guest, &exit));
    return (uint32_t)gpr[RAX];
}

static uint64_t held_by(const struct guest *guest)
{
    return buddy_owner_frames(guest_owner(guest));
}

/* Frames go, quota and all; they come back when asked for, or at a touch, as zeroes. */
static void given_back_it_is_free(void **state)
{
    (void)state;
    start_machine(BY_MARKS);
    struct model *model = make("g mem=8M quota=9M");
    struct guest *guest = model->guest;
    uint64_t held = held_by(guest), free = machine_free_frames(), bytes = quota_held(guest);

    guest->vcpu->deadline = UINT64_MAX;
    cpu_write(model, 1024, 7);
    assert_int_equal(call(guest, QUIRE_HC_GIVE, 4 * MiB, 4 * MiB), QUIRE_E_OK);
    assert_int_equal(guest->vcpu->gpr[RBX], 8 * MiB);
    assert_int_equal(guest->vcpu->gpr[RCX], 0);
    assert_int_equal(held_by(guest), held - 1024);
    assert_int_equal(machine_free_frames(), free + 1024);
    assert_int_equal(quota_held(guest), bytes - 4 * MiB);
    assert_int_equal(guest->pages_given, 1024);
    assert_int_equal(call(guest, QUIRE_HC_BACKING, 4 * MiB, 0), QUIRE_BACKING_LAZY_ABSENT);
    assert_int_equal(*reach(guest, gpa(4 * MiB), RIGHT_R), 0);
    assert_int_equal(call(guest, QUIRE_HC_BACKING, 4 * MiB, 0), QUIRE_BACKING_RAM);
    assert_int_equal(guest->faults_filled, 1);
    assert_int_equal(call(guest, QUIRE_HC_TAKE, 3 * MiB, 5 * MiB), QUIRE_E_OK);
    assert_int_equal(guest->pages_taken, 1023);
    assert_int_equal(machine_free_frames() + 1, free); /* and a node: the 2 MiB are of small ones */
    assert_int_equal(call(guest, QUIRE_HC_TAKE, 3 * MiB, 5 * MiB), QUIRE_E_OK);
    assert_int_equal(guest->pages_taken, 1023);
    assert_int_equal(call(guest, QUIRE_HC_GIVE, 4 * MiB, 0), QUIRE_E_OK);
    assert_int_equal(guest->pages_given, 1024);
    audit_all();
    assert_int_equal(guest_kill(guest), E_OK);
    stop_machine();
}

/* A turn that is over ends the call, which goes on in the next; nothing is done twice. */
static void it_takes_turns(void **state)
{
    struct vm_exit exit = {.kind = VM_EXIT_HYPERCALL, .length = 3};

    (void)state;
    start_machine(BY_MARKS);
    struct guest *guest = make("g mem=8M pages=4K")->guest;
    uint64_t *gpr = guest->vcpu->gpr, rip = fake_of(guest)->state.rip;

    guest->vcpu->deadline = 0;
    for (unsigned give = 0; give < 2; give++) {
        fake_of(guest)->retries = 0;
        gpr[RAX] = give == 0 ? QUIRE_HC_GIVE : QUIRE_HC_TAKE;
        gpr[RBX] = 3 * MiB;
        gpr[RCX] = 4 * MiB;
        assert_true(exit_dispatch(guest, &exit));
        assert_int_equal(gpr[RBX], 4 * MiB); /* one piece, to the next 2 MiB */
        assert_int_equal(gpr[RCX], 3 * MiB);
        assert_int_equal(gpr[RAX], give == 0 ? QUIRE_HC_GIVE : QUIRE_HC_TAKE);
        assert_int_equal(fake_of(guest)->state.rip, rip);
        assert_true(exit_dispatch(guest, &exit));
        assert_int_equal(gpr[RCX], MiB);
        assert_int_equal(fake_of(guest)->retries, 2);
        assert_true(exit_dispatch(guest, &exit));
        assert_int_equal(gpr[RAX], QUIRE_E_OK);
        assert_int_equal(fake_of(guest)->retries, 2);
        assert_int_equal(fake_of(guest)->state.rip, rip += 3);
    }
    assert_int_equal(guest->pages_given, 1024);
    assert_int_equal(guest->pages_taken, 1024);
    audit_all();
    assert_int_equal(guest_kill(guest), E_OK);
    stop_machine();
}

static void what_is_refused(void **state)
{
    static const struct {
        uint64_t at, size;
        uint32_t answer;
    } cases[] = {
        {4 * MiB + 1, PAGE_SIZE, QUIRE_E_INVAL},
        {4 * MiB, PAGE_SIZE - 1, QUIRE_E_INVAL},
        {0xfffff000, 0xfffff000, QUIRE_E_NORAM}, /* of 32 bits: it does not wrap */
        {8 * MiB - PAGE_SIZE, 2 * PAGE_SIZE, QUIRE_E_NORAM},
        {0x9f000, 2 * PAGE_SIZE, QUIRE_E_NORAM}, /* video memory */
        {0xf0000, PAGE_SIZE, QUIRE_E_NORAM},     /* a BIOS */
        {2 * MiB, PAGE_SIZE, QUIRE_E_NORAM},     /* ROM */
        {MiB, 2 * MiB, QUIRE_E_NORAM},           /* among RAM */
        {0xfee00000, PAGE_SIZE, QUIRE_E_NORAM},  /* a device's */
        {GiB, PAGE_SIZE, QUIRE_E_NORAM},         /* shared */
        {5 * MiB, PAGE_SIZE, QUIRE_E_NORAM},     /* RAM that may not be written */
        {6 * MiB, PAGE_SIZE, QUIRE_E_OK},        /* nor executed */
    };

    (void)state;
    start_machine(BY_MARKS);
    struct guest *guest = make("g pc mem=8M rom=2M+4K nox=6M+4K share=s:4K@1G")->guest;
    uint64_t free;

    guest->vcpu->deadline = UINT64_MAX;
    assert_int_equal(slot_protect(guest, gpa(5 * MiB), PAGE_SIZE, RIGHT_RX), E_OK);
    free = machine_free_frames();
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_int_equal(call(guest, QUIRE_HC_TAKE, cases[i].at, cases[i].size), cases[i].answer);
        assert_int_equal(machine_free_frames(), free);
        assert_int_equal(call(guest, QUIRE_HC_GIVE, cases[i].at, cases[i].size), cases[i].answer);
        assert_int_equal(machine_free_frames(), free + (cases[i].answer == QUIRE_E_OK));
    }
    fake_of(guest)->state.efer = BIT(10);
    fake_of(guest)->state.segment[SEG_CS].access |= BIT(13); /* L: all 64 bits */
    assert_int_equal(call(guest, QUIRE_HC_GIVE, 4 * MiB, UINT64_MAX - 0xfff), QUIRE_E_INVAL);
    assert_int_equal(guest_kill(guest), E_OK);
    stop_machine();
}

/* What others hold they keep; the giver's hold is gone, and it has zeroes. */
static void what_is_shared_stays_with_the_others(void **state)
{
    struct guest *fork;
    uint64_t word;

    (void)state;
    for (enum way way = 0; way < WAYS; way++) {
        start_machine(way);
        struct model *model = make("g mem=8M");
        struct guest *guest = model->guest;

        for (unsigned i = 0; i < PAGES; i += 3)
            if (model->page[i].rights & RIGHT_W)
                cpu_write(model, i, i + 2);
        take_snapshot(model);
        assert_int_equal(guest_fork(guest, &fork), E_OK);
        uint64_t shared = buddy_owner_frames(OWNER_SHARED), resets = guest->snapshot->resets;
        uint64_t copied = guest->pages_copied;
        guest->vcpu->deadline = UINT64_MAX;
        assert_int_equal(call(guest, QUIRE_HC_GIVE, 3 * MiB, 3 * MiB), QUIRE_E_OK);
        assert_int_equal(buddy_owner_frames(OWNER_SHARED), shared);
        audit_all();
        assert_int_equal(guest_read(fork, place_of(1026, 0), &word, 8), 8);
        assert_int_equal(word, model->page[1026].stamp[0]);
        assert_int_equal(*reach(guest, place_of(1026, 0), RIGHT_W), 0);
        go_back(model); /* without a copy */
        assert_int_equal(guest->snapshot->resets, resets + 1);
        assert_int_equal(guest->pages_copied, copied);
        audit_all();
        expect_contents(model);
        cpu_write(model, 1026, 12);
        expect_contents(model);
        assert_int_equal(guest_kill(guest), E_OK);
        audit_all();
        assert_int_equal(guest_kill(fork), E_OK);
        stop_machine();
    }
}

/* With any number of frames: what is not done is left as it was, and said. */
static void every_shortage(void **state)
{
    uint32_t answer = QUIRE_E_NOMEM;

    (void)state;
    start_machine(BY_MARKS);
    struct model *model = make("g mem=8M");
    struct guest *guest = model->guest;
    owner_t owner = guest_owner(guest);

    guest->vcpu->deadline = UINT64_MAX;
    cpu_write(model, 1100, 5);
    buddy_set_quota(owner, held_by(guest));
    assert_int_equal(call(guest, QUIRE_HC_GIVE, 4 * MiB + PAGE_SIZE, PAGE_SIZE), QUIRE_E_NOMEM);
    assert_int_equal(guest->vcpu->gpr[RBX], 4 * MiB + PAGE_SIZE);
    expect_contents(model);
    assert_int_equal(call(guest, QUIRE_HC_GIVE, 4 * MiB, 2 * MiB), QUIRE_E_OK); /* none is cut */
    model->page[1100].stamp[1] = 0;
    for (unsigned k = 0; answer == QUIRE_E_NOMEM; k += 3) {
        uint64_t at = guest->vcpu->gpr[RBX];

        buddy_set_quota(owner, held_by(guest) + k);
        answer = call(guest, QUIRE_HC_TAKE, 4 * MiB, 2 * MiB);
        assert_true(k == 0 || guest->vcpu->gpr[RBX] >= at || at == 6 * MiB);
        assert_int_equal(guest->vcpu->gpr[RBX] + guest->vcpu->gpr[RCX], 6 * MiB);
        assert_true(answer == QUIRE_E_OK || answer == QUIRE_E_NOMEM);
        audit_all();
        expect_contents(model);
    }
    assert_int_equal(guest->pages_taken, 512);
    assert_int_equal(guest_kill(guest), E_OK);
    stop_machine();
}

/* What a guest has held at most is known though nobody has asked meanwhile. */
static void its_peak_is_kept(void **state)
{
    (void)state;
    start_machine(BY_MARKS);
    struct model *model = make("model mem=8M lazy pages=4K");
    struct guest *guest = model->guest;
    uint64_t before = guest_frames_peak(guest);

    for (unsigned page = 0x200; page < 0x240; page++)
        assert_true(cpu_write(model, page, page));
    uint64_t held = held_by(guest);
    assert_true(held >= before + 64);
    assert_int_equal(call(guest, QUIRE_HC_GIVE, 2 * MiB, 2 * MiB), QUIRE_E_OK);
    assert_true(held_by(guest) <= held - 64);
    assert_int_equal(guest_frames_peak(guest), held);
    assert_int_equal(guest_kill(guest), E_OK);
    stop_machine();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_comes_and_goes),
        cmocka_unit_test(given_back_it_is_free),
        cmocka_unit_test(it_takes_turns),
        cmocka_unit_test(what_is_refused),
        cmocka_unit_test(what_is_shared_stays_with_the_others),
        cmocka_unit_test(every_shortage),
        cmocka_unit_test(its_peak_is_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
