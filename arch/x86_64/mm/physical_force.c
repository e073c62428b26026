/* A write that the hypervisor's own tables do not allow; see physical.h. */
#include "arch/x86_64/cpu.h"
#include "arch/x86_64/mm/physical.h"
#include "lib/string.h"
#include "x86/control.h"

/* Interrupts are off in the hypervisor, and no code of ours writes anything meanwhile that it
 * should not: the window is these two copies of CR0. */
uint64_t physical_force(hpa_t to, const void *from, uint64_t size)
{
    uint8_t byte;
    uint64_t cr0 = read_cr0();

    if (physical_read(to, &byte, 1) != 1 || (to.v & (PAGE_SIZE - 1)) + size > PAGE_SIZE)
        return 0;
    write_cr0(cr0 & ~CR0_WP);
    memcpy(direct(to), from, size);
    write_cr0(cr0);
    return size;
}
