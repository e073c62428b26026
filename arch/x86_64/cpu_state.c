/* See arch/x86_64/cpu_state.h. A file of its own, so that what only shows registers runs hosted
 * too. */
#include "arch/x86_64/cpu_state.h"

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/percpu.h"

void cpu_state_read(struct cpu_state *out)
{
    *out = (struct cpu_state){
        .cr0 = read_cr0(),
        .cr3 = read_cr3(),
        .cr4 = read_cr4(),
        .efer = rdmsr(IA32_EFER),
    };
}

unsigned cpu_number(void)
{
    return this_cpu()->number;
}
