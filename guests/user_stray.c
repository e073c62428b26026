/*
 * A ring-3 program that strays: it reads the hypervisor's memory and must be stopped there.
 */
#include "guests/user.h"

#define KERNEL_ADDRESS 0xffffffff80200000ul /* the hypervisor's text */

int user_main(void)
{
    user_print("about to read the hypervisor's memory\n");
    unsigned char byte = *(volatile unsigned char *)KERNEL_ADDRESS;
    user_print("the hypervisor's memory could be read\n");
    return byte != 0 ? 1 : 2;
}
