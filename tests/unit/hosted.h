/*
 * What a hosted test program stands on: panic() for code under test that calls it.
 *
 * A panic prints its message and aborts. A test that expects one says so:
 *
 *     assert_panics(frame_set_state(head, FRAME_FREE), "broken invariant");
 */
#ifndef QUIRE_TESTS_UNIT_HOSTED_H
#define QUIRE_TESTS_UNIT_HOSTED_H

#include <setjmp.h>
#include <stdbool.h>

/* Arms the hook: the next panic jumps back instead of aborting. For use by assert_panics(). */
jmp_buf *hosted_arm(void);
void hosted_disarm(void);

/* Fails the test, at file:line, unless the last panic's message contains `fragment`. */
void hosted_check_panic(bool panicked, const char *fragment, const char *file, int line);

/* The message of the last panic that was expected; "" before the first. */
const char *hosted_panic_text(void);

/* Runs `statement`, which must panic with a message that contains `fragment`. Locks that the
 * statement took stay taken, as they would in a real panic. */
#define assert_panics(statement, fragment)                                                         \
    do {                                                                                           \
        volatile bool panicked_ = true;                                                            \
        if (setjmp(*hosted_arm()) == 0) {                                                          \
            statement;                                                                             \
            panicked_ = false;                                                                     \
        }                                                                                          \
        hosted_disarm();                                                                           \
        hosted_check_panic(panicked_, fragment, __FILE__, __LINE__);                               \
    } while (0)

#endif
