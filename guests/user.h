/*
 * What the ring-3 programs share: the system calls as functions (user_start.asm) and output.
 */
#ifndef QUIRE_GUESTS_USER_H
#define QUIRE_GUESTS_USER_H

#include "guests/user_abi.h"

int user_main(void);

_Noreturn void user_exit(int result);
long user_write(const void *bytes, unsigned long size);

static inline void user_print(const char *text)
{
    unsigned long length = 0;
    while (text[length] != '\0')
        length++;
    user_write(text, length);
}

#endif
