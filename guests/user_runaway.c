/*
 * A ring-3 program that never ends by itself: the hypervisor must take the CPU back.
 */
#include "guests/user.h"

int user_main(void)
{
    user_print("running for ever\n");
    for (;;)
        __asm__ volatile("pause");
}
