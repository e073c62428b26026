/* See image.h. */
#include "arch/x86_64/mm/image.h"

#include "arch/x86_64/mm/direct_map.h"
#include "arch/x86_64/mm/layout.h"
#include "arch/x86_64/mm/space_map.h"

static int map_part(struct table *table, uint64_t first, uint64_t end, unsigned rights)
{
    return space_map(table, hva(first), hpa(first - IMAGE_BASE), end > first ? end - first : 0,
                     rights, MEM_WB);
}

/* Tables that hold no frame records yet cannot unmap, so the guard is left out, not taken out. */
static int map_data(struct table *table, const struct image_layout *image)
{
    uint64_t hole = image->guard != 0 ? image->guard : image->data.end;
    int error = map_part(table, image->data.first, hole, RIGHT_RW);

    if (error != E_OK)
        return error;
    return map_part(table, hole + PAGE_SIZE, image->data.end, RIGHT_RW);
}

int image_map(struct table *table, const struct image_layout *image)
{
    int error = map_part(table, image->text.first, image->text.end, RIGHT_RX);

    if (error == E_OK)
        error = map_part(table, image->rodata.first, image->rodata.end, RIGHT_R);
    if (error == E_OK)
        error = map_data(table, image);
    return error;
}

static int seal_part(struct table *table, struct image_range part)
{
    if (part.first >= part.end)
        return E_OK;
    return direct_map_seal(table, hpa(part.first - IMAGE_BASE), part.end - part.first);
}

int image_seal(struct table *table, const struct image_layout *image)
{
    int error = seal_part(table, image->text);

    return error != E_OK ? error : seal_part(table, image->rodata);
}
