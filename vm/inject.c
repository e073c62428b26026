/* See vm/inject.h. */
#include "vm/inject.h"

#include "x86/control.h"

/* E_STATE: another event is on its way already. The instruction faults again once that one was
 * delivered and returned from. */
static void inject_exception(struct guest *guest, uint8_t vector, bool has_code)
{
    (void)guests_backend()->inject(guest->vcpu, (struct vm_event){
                                                    .kind = VM_EVENT_EXCEPTION,
                                                    .vector = vector,
                                                    .has_code = has_code,
                                                });
}

void inject_gp(struct guest *guest)
{
    inject_exception(guest, VECTOR_GP, true);
}

void inject_ud(struct guest *guest)
{
    inject_exception(guest, VECTOR_UD, false);
}

void skip_instruction(struct guest *guest, const struct vm_exit *exit)
{
    (void)guests_backend()->skip(guest->vcpu, exit);
}
