/* See tests/unit/hosted.h. */
#include "tests/unit/hosted.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/lock.h"
#include "lib/panic.h"

static _Thread_local struct locks_held held;

static struct locks_held *held_here(void)
{
    return &held;
}

/* Locks are really taken in hosted tests, whether or not they have threads, and in their order. */
__attribute__((constructor)) static void need_locks(void)
{
    locks_needed = true;
    locks_held_here = held_here;
}

static jmp_buf hook;
static bool armed;
static char last_panic[512];

jmp_buf *hosted_arm(void)
{
    armed = true;
    return &hook;
}

void hosted_disarm(void)
{
    armed = false;
}

const char *hosted_panic_text(void)
{
    return last_panic;
}

void hosted_check_panic(bool panicked, const char *fragment, const char *file, int line)
{
    if (!panicked) {
        print_error("expected a panic with \"%s\"; there was none\n", fragment);
        _fail(file, line);
    }
    if (strstr(last_panic, fragment) == NULL) {
        print_error("expected a panic with \"%s\"; it said \"%s\"\n", fragment, last_panic);
        _fail(file, line);
    }
}

_Noreturn void panic(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(last_panic, sizeof(last_panic), format, args);
    va_end(args);
    if (armed) {
        armed = false;
        held.count = 0;
        longjmp(hook, 1);
    }
    fprintf(stderr, "panic: %s\n", last_panic);
    abort();
}
