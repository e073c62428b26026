/*
 * balloon: gives memory back and asks for it again, and verifies from inside what that comes to.
 *
 *     balloon mem=16M rom=1536K+64K                       all of it is there at first
 *     balloon mem=64M rom=1536K+64K lazy quota=8M -- 64   more than it may hold: the last word, in
 * M
 *
 * Then, at a key:
 *
 *     g  gives back the middle of its memory      t  asks for that again
 *     w  writes all of it anew                    v  verifies all of it
 *     q  passes, if all has held
 */
#include "guests/guest.h"

#define PAGE 4096u
#define MIB 0x100000u
#define ROM 0x180000u
#define FIRST (4 * MIB) /* what it plays with: behind the image ... */
#define END (12 * MIB)
#define GIVEN                                                                                      \
    (5 * MIB + PAGE) /* ... and the middle of that, which begins and ends in a large page */
#define GIVEN_END (10 * MIB - 3 * PAGE)
#define HOLE 0x40000000u
#define ROUNDS 20u
#define KEYBOARD 0x60u
#define KEYBOARD_STATUS 0x64u
#define KEY_G 0x22u
#define KEY_Q 0x10u
#define KEY_T 0x14u
#define KEY_V 0x2fu
#define KEY_W 0x11u

static bool is_given; /* and reads as zeroes since */

/* The answer; *at and *size as the call has left them. */
static uint32_t call(uint32_t number, uint32_t *at, uint32_t *size)
{
    uint32_t answer = number;

    __asm__ volatile("vmcall" : "+a"(answer), "+b"(*at), "+c"(*size) : : "memory", "cc");
    return answer;
}

static uint32_t answer(uint32_t number, uint32_t at, uint32_t size)
{
    return call(number, &at, &size);
}

/* All of a range, and ECX is 0 at the end. */
static bool done(uint32_t number, uint32_t first, uint32_t end)
{
    uint32_t at = first, size = end - first;

    return call(number, &at, &size) == QUIRE_E_OK && at == end && size == 0;
}

static uint32_t backing(uint32_t at)
{
    return hypercall(QUIRE_HC_BACKING, at, 0, 0, 0);
}

static uint32_t pattern(uint32_t address)
{
    return address * 2654435761u ^ 0x62616c6cu;
}

static void fill(uint32_t first, uint32_t end)
{
    for (uint32_t at = first; at < end; at += sizeof(uint32_t))
        *(volatile uint32_t *)(uintptr_t)at = pattern(at);
}

static bool is_filled(uint32_t first, uint32_t end)
{
    uint32_t wrong = 0;

    for (uint32_t at = first; at < end; at += sizeof(uint32_t))
        wrong |= *(volatile uint32_t *)(uintptr_t)at ^ pattern(at);
    return wrong == 0;
}

static bool is_zero(uint32_t first, uint32_t end)
{
    uint32_t any = 0;

    for (uint32_t at = first; at < end; at += sizeof(uint32_t))
        any |= *(volatile uint32_t *)(uintptr_t)at;
    return any == 0;
}

static bool all_backed(uint32_t first, uint32_t end, uint32_t how)
{
    for (uint32_t at = first; at < end; at += PAGE)
        if (backing(at) != how)
            return false;
    return true;
}

static bool holds(void)
{
    bool middle = is_given ? is_zero(GIVEN, GIVEN_END) : is_filled(GIVEN, GIVEN_END);

    return middle && is_filled(FIRST, GIVEN) && is_filled(GIVEN_END, END);
}

static void goes_and_comes(void)
{
    fill(FIRST, END);
    check(done(QUIRE_HC_GIVE, GIVEN, GIVEN_END), "memory is given back");
    check(all_backed(GIVEN, GIVEN_END, QUIRE_BACKING_LAZY_ABSENT), "it has no frames");
    check(all_backed(FIRST, GIVEN, QUIRE_BACKING_RAM) &&
              all_backed(GIVEN_END, END, QUIRE_BACKING_RAM),
          "what is beside it has");
    check(is_zero(GIVEN, GIVEN + MIB), "a touch finds zeroes");
    fill(GIVEN, GIVEN + MIB);
    check(is_filled(GIVEN, GIVEN + MIB), "and what is written then stays");
    check(done(QUIRE_HC_TAKE, GIVEN, GIVEN_END), "what is asked for comes");
    check(all_backed(GIVEN, GIVEN_END, QUIRE_BACKING_RAM), "it has frames");
    check(is_filled(GIVEN, GIVEN + MIB), "what was there already is as it was");
    check(is_zero(GIVEN + MIB, GIVEN_END), "what was not is zeroes");
    fill(GIVEN, GIVEN_END);
    check(holds(), "all can be written again");
}

static void many_times(void)
{
    bool good = true;

    for (uint32_t round = 0; round < ROUNDS; round++) {
        uint32_t first = FIRST + round * 37 % 512 * PAGE, end = END - round * 91 % 512 * PAGE;

        good = good && done(QUIRE_HC_GIVE, first, end) && is_filled(FIRST, first) &&
               is_filled(end, END);
        if (round % 2 == 0)
            good = good && done(QUIRE_HC_TAKE, first, end);
        good = good && is_zero(first, first + PAGE) && is_zero(end - PAGE, end);
        fill(first, end);
    }
    check(good && holds(), "again and again");
}

static void what_is_refused(void)
{
    check(answer(QUIRE_HC_GIVE, FIRST + 4, PAGE) == QUIRE_E_INVAL &&
              answer(QUIRE_HC_TAKE, FIRST, PAGE + 4) == QUIRE_E_INVAL,
          "whole pages alone");
    check(answer(QUIRE_HC_GIVE, HOLE, PAGE) == QUIRE_E_NORAM &&
              answer(QUIRE_HC_TAKE, HOLE, PAGE) == QUIRE_E_NORAM,
          "no hole");
    check(answer(QUIRE_HC_GIVE, ROM, PAGE) == QUIRE_E_NORAM &&
              answer(QUIRE_HC_GIVE, ROM - 4 * PAGE, 8 * PAGE) == QUIRE_E_NORAM,
          "no ROM, nor RAM with ROM in it");
    check(answer(QUIRE_HC_GIVE, 0xfffff000u, 0xfffff000u) == QUIRE_E_NORAM, "no end of memory");
    check(backing(ROM - 4 * PAGE) != QUIRE_BACKING_NONE && holds(), "and nothing has changed");
}

/* More than its quota: it is told so, and goes on. */
static void more_than_there_is(uint32_t end)
{
    uint32_t at = END, size = end - END;
    uint32_t told = call(QUIRE_HC_TAKE, &at, &size);

    check(told == QUIRE_E_NOMEM && size != 0 && at + size == end, "there is no more, it is told");
    check(at == END || backing(at - PAGE) == QUIRE_BACKING_RAM, "what came before that is there");
    check(backing(at) == QUIRE_BACKING_LAZY_ABSENT, "and the next page is not");
    check(done(QUIRE_HC_GIVE, END, end), "it gives that back");
}

static uint8_t next_key(void)
{
    while (!(in8(KEYBOARD_STATUS) & 1))
        hypercall(QUIRE_HC_YIELD, 0, 0, 0, 0);
    return in8(KEYBOARD);
}

static void say(void)
{
    print(holds() ? "all holds" : "it does NOT hold");
    print(is_given ? ", the middle is given back\n" : ", the middle is there\n");
}

/* False: it was the last. */
static bool obey(uint8_t key)
{
    if (key == KEY_Q)
        return false;
    if (key == KEY_G || key == KEY_T) {
        bool good = done(key == KEY_G ? QUIRE_HC_GIVE : QUIRE_HC_TAKE, GIVEN, GIVEN_END);

        is_given = is_given || key == KEY_G;
        print(good ? "done\n" : "NOT done\n");
    } else if (key == KEY_W) {
        is_given = false;
        fill(FIRST, END);
        say();
    } else if (key == KEY_V) {
        say();
    }
    return true;
}

void guest_main(const struct multiboot_info *info)
{
    uint32_t mib = last_number(info, 0);

    goes_and_comes();
    many_times();
    what_is_refused();
    if (mib != 0)
        more_than_there_is(mib * MIB);
    say();
    while (obey(next_key()))
        continue;
    check(holds(), "all holds at the end");
    guest_end();
}
