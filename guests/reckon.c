/*
 * reckon: computes the same over and over in memory and registers, and ends as failed as soon as a
 * round comes to something else than the first did. It says now and then what it came to, so that
 * whoever knows the rule can compare; it never ends otherwise.
 */
#include "guests/guest.h"

#define WORDS 16384
#define STEP_MULTIPLIER 1664525u
#define STEP_ADDEND 1013904223u
#define TOLD 2048 /* rounds between two lines, unless the command line ends with another number */

static uint32_t words[WORDS];

static uint32_t step(uint32_t x)
{
    return x * STEP_MULTIPLIER + STEP_ADDEND;
}

/* Fills memory, then folds it back to front, so that each word is written and read at its own time.
 */
static uint32_t round_digest(void)
{
    uint32_t x = 1, digest = 0;

    for (unsigned i = 0; i < WORDS; i++)
        words[i] = x = step(x);
    for (unsigned i = WORDS; i-- > 0;) {
        digest = (digest << 5 | digest >> 27) ^ words[i];
        words[i] = digest;
    }
    return digest;
}

void guest_main(const struct multiboot_info *info)
{
    uint32_t told = last_number(info, TOLD);
    uint32_t first = round_digest(), digest;

    for (uint32_t rounds = 1;; rounds++) {
        digest = round_digest();
        if (digest != first) {
            print("a round came to something else\n");
            hypercall(QUIRE_HC_FAIL, 1, 0, 0, 0);
        }
        if (rounds % told != 0)
            continue;
        print("round ");
        print_number(rounds);
        print(": ");
        print_number(digest);
        print("\n");
    }
}
