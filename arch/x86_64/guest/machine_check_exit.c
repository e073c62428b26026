/* See machine_check_exit.h. */
#include "arch/x86_64/guest/machine_check_exit.h"

#include "arch/x86_64/machine_check.h"
#include "lib/panic.h"

void machine_check_exit(struct vm_exit *exit)
{
    static char text[MACHINE_CHECK_TEXT];
    struct machine_check check;

    machine_check_take(&check);
    machine_check_text(text, &check);
    if (check.corrupt)
        panic("machine check in a guest, and the CPU's state is lost: %s", text);
    exit->kind = VM_EXIT_MACHINE_CHECK;
    exit->name = text;
}
