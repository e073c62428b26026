/* An exception that no guest_try() asked for ends a 64-bit guest with fail. */
#include "guests/guest.h"

_Noreturn void guest_unexpected(uint64_t vector, uint64_t rip, uint64_t cr2);

_Noreturn void guest_unexpected(uint64_t vector, uint64_t rip, uint64_t cr2)
{
    print("exception ");
    print_number((uint32_t)vector);
    print(" at ");
    print_hex(rip);
    print(", CR2 ");
    print_hex(cr2);
    print("\n");
    check(false, "no exception but those that were provoked");
    guest_end();
}
