/* The EPT kind reads and writes its root register through the VMCS, of which a hosted program has
 * none. Weak: a test that plays one has functions of its own. */
#include "arch/x86_64/vmx/vmcs.h"

#include "lib/error.h"

__attribute__((weak)) int vmcs_read(uint32_t field, uint64_t *out)
{
    (void)field;
    (void)out;
    return E_STATE;
}

__attribute__((weak)) int vmcs_write(uint32_t field, uint64_t value)
{
    (void)field;
    (void)value;
    return E_STATE;
}
