/*
 * Guests' memory against its plain model (tests/unit/memory_model.h): the input chooses how written
 * pages are found, the guest's options, and then change after change: of which guest, which, and by
 * what numbers. The auditor looks on after each; at the end contents, slots and counts are the
 * model's, and every frame is back.
 */
#include <string.h>

#include "lib/bits.h"
#include "tests/unit/model_slots.h"

static const char *const options[] = {
    "eager mem=8M",
    "lazy lazy mem=8M merge",
    "large lazy pages=2M mem=8M merge",
    "around lazy around=32K mem=8M",
    "equal mem=8M merge",
};

/* Of one change. */
struct step {
    uint8_t model, which, numbers[2];
};

static struct model *model_of(unsigned which)
{
    unsigned number = which % living;

    while (models[number].guest == NULL)
        number = (number + 1) % living;
    return &models[number];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct step step;

    if (size < 2 + sizeof(step))
        return 0;
    start_machine((enum way)(data[0] % WAYS));
    chance.state = 1;
    make(options[data[1] % ARRAY_SIZE(options)]);
    for (size_t at = 2; at + sizeof(step) <= size; at += sizeof(step)) {
        memcpy(&step, data + at, sizeof(step));
        chance.state = (uint64_t)step.numbers[0] << 8 | step.numbers[1];
        one_change(model_of(step.model), step.which % CHANGES);
        audit_all();
    }
    for (unsigned i = 0; i < living; i++)
        if (models[i].guest != NULL) {
            judge_all(&models[i]);
            end_one(&models[i]);
        }
    stop_machine();
    return 0;
}
