/*
 * `layout`: physical memory from its first frame to its last, as runs of frames that serve the same
 * purpose for the same owner.
 */
#include "mm/frames/buddy.h"
#include "monitor/commands.h"

static const struct column frames_columns[] = {
    {"first", COLUMN_HEX, 18}, {"last", COLUMN_HEX, 18},     {"size", COLUMN_SIZE, 7},
    {"state", COLUMN_TEXT, 8}, {"purpose", COLUMN_TEXT, 16}, {"owner", COLUMN_TEXT, 0},
};
static const struct record frames_record = RECORD("frames", frames_columns);

static const struct column layout_columns[] = {
    {"runs", COLUMN_NUMBER, 0},
    {"size", COLUMN_SIZE, 0},
};
static const struct record layout_record = RECORD("layout", layout_columns);

struct layout_pass {
    struct output *out;
    uint64_t runs, size;
};

static int show_frames(void *ctx, hpa_t base, uint64_t size, const struct frame_info *info)
{
    struct layout_pass *pass = ctx;
    char owner[OWNER_TEXT];

    pass->runs++;
    pass->size += size;
    output_row(
        pass->out, &frames_record,
        (struct value[]){
            as_number(base.v), as_number(base.v + size - 1), as_number(size),
            as_text(frame_state_name(info->state)), as_text(purpose_name(info->purpose)),
            info->owner == OWNER_NONE ? as_nothing() : as_text(owner_text(owner, info->owner))});
    return 0;
}

static int layout(const struct command *command, struct output *out, const struct arguments *args)
{
    struct layout_pass pass = {.out = out};

    (void)args;
    if (buddy_visit_until(show_frames, &pass, command_stopped, NULL) != 0)
        return command_refuse(command, out, E_STATE, "stopped by a key after %lu runs", pass.runs);
    output_facts(out, &layout_record, (struct value[]){as_number(pass.runs), as_number(pass.size)});
    return E_OK;
}

static const struct command layout_commands[] = {
    {
        .name = "layout",
        .usage = "",
        .summary = "all frames in address order, by state, purpose and owner",
        .details = "Each run is contiguous. Frames that no run names are no RAM. A key at a\n"
                   "terminal stops it.\n",
        .example = "layout",
        .run = layout,
    },
};

const struct command_family layout_family = FAMILY("layout", layout_commands);
