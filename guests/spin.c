/*
 * spin: never ends. It counts, and says so now and then, so that a person can pause, look at and
 * kill a guest that runs.
 */
#include "guests/guest.h"

volatile uint32_t spin_count;

void guest_main(const struct multiboot_info *info)
{
    (void)info;
    print("spinning\n");
    for (;;) {
        if (++spin_count % 0x8000000 == 0) {
            print("still spinning, ");
            print_number(spin_count);
            print(" times\n");
        }
    }
}
