/* See five_levels.h. */
#include "tests/property/five_levels.h"

#include "tests/property/pte_hooks.h"

#include "mm/paging/walker.h"

struct table_kind kernel5_kind, user5_kind, ept5_kind;

WALKER_OPS(any, *t->kind);

void five_levels_init(void)
{
    kernel5_kind = kernel_kind;
    kernel5_kind.name = "kernel, 5 levels";
    kernel5_kind.input_first = 0xff00000000000000;
    user5_kind = user_kind;
    user5_kind.name = "user, 5 levels";
    user5_kind.input_last = 0x00ffffffffffefff;
    ept5_kind = ept_kind;
    ept5_kind.name = "EPT, 5 levels";
    ept5_kind.input_last = 0x01ffffffffffffff;

    struct table_kind *const kinds[] = {&kernel5_kind, &user5_kind, &ept5_kind};
    for (unsigned i = 0; i < 3; i++) {
        kinds[i]->levels = 5;
        kinds[i]->ops = &any_ops;
    }
}
