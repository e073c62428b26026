/*
 * The names of the frame database and its one question that a record alone cannot answer: what a
 * frame is that lies inside a larger block. See mm/frames/frame.h.
 */
#include "mm/frames/frame.h"

#include <stddef.h>

#include "lib/error.h"
#include "mm/frames/buddy.h"

uint64_t *frame_records;

const char *frame_state_name(enum frame_state state)
{
    static const char *const names[] = {
        [FRAME_FREE] = "free",         [FRAME_USED] = "used",   [FRAME_TAIL] = "tail",
        [FRAME_CACHED] = "cached",     [FRAME_DYING] = "dying", [FRAME_SHARED] = "shared",
        [FRAME_RESERVED] = "reserved",
    };
    return (unsigned)state < ARRAY_SIZE(names) ? names[state] : "unknown";
}

const char *purpose_name(enum frame_purpose purpose)
{
    static const char *const names[PURPOSE_COUNT] = {
        [PURPOSE_FREE] = "free",
        [PURPOSE_FIRMWARE] = "firmware",
        [PURPOSE_IMAGE] = "image",
        [PURPOSE_BOOT] = "boot",
        [PURPOSE_FRAME_DB] = "frame database",
        [PURPOSE_HOST_TABLE] = "host tables",
        [PURPOSE_USER_TABLE] = "user tables",
        [PURPOSE_EPT_TABLE] = "EPT tables",
        [PURPOSE_NPT_TABLE] = "NPT tables",
        [PURPOSE_STACK] = "stacks",
        [PURPOSE_PERCPU] = "per-CPU",
        [PURPOSE_VCPU] = "vCPU",
        [PURPOSE_USER_RAM] = "user memory",
        [PURPOSE_GUEST_RAM] = "guest memory",
        [PURPOSE_HEAP] = "heap",
        [PURPOSE_TEST] = "test",
    };
    return (unsigned)purpose < PURPOSE_COUNT ? names[purpose] : "unknown";
}

int frame_query(hpa_t frame, struct frame_info *info, hpa_t *head)
{
    hpa_t first;
    uint64_t record;
    if (!buddy_block(frame, &first, &record))
        return E_RANGE;
    *info = frame_record_decode(record);
    bool in_use =
        info->state == FRAME_USED || info->state == FRAME_DYING || info->state == FRAME_SHARED;
    if (in_use && pfn_of(first) != pfn_of(frame))
        info->state = FRAME_TAIL;
    if (head != NULL)
        *head = first;
    return E_OK;
}
