/*
 * The mapper as a template: the file that defines a kind includes this, once, behind
 *
 *     #define KIND ept_kind
 *     #define KIND_NAME ept
 *
 * and behind the kind's constant descriptor, and gets all operations compiled for that kind. No
 * mask is read again in a loop, no pointer called, and a backtrace says ept_map.
 *
 *     walk.h      the cursor: down the path, and on
 *     build.h     new nodes: planned, taken, filled, published, counted; splits at a range's ends
 *     map.h  unmap.h  protect.h  resize.h  harvest.h  clone.h  fresh.h  destroy.h
 *     read.h      translate and the visitors;  steps.h: the steps of one walk, for people
 *     page.h      page by page, by a cursor that the caller holds
 *
 * A kind whose tables are read and never written includes mm/paging/steps.h alone.
 */
#ifndef QUIRE_MM_PAGING_TEMPLATE_H
#define QUIRE_MM_PAGING_TEMPLATE_H

#include "mm/paging/destroy.h"
#include "mm/paging/fresh.h"
#include "mm/paging/harvest.h"
#include "mm/paging/page.h"
#include "mm/paging/resize.h"
#include "mm/paging/steps.h"

static const struct table_ops OP(ops) = {
    OPS_OF_READING,
    .map = OP(map),
    .unmap = OP(unmap),
    .protect = OP(protect),
    .split = OP(split),
    .merge = OP(merge),
    .map_fresh = OP(map_fresh),
    .clone = OP(clone),
    .copy = OP(copy),
    .harvest = OP(harvest),
    .free_subtree = OP(free_subtree),
    .cursor_map = OP(cursor_map),
    .cursor_unmap = OP(cursor_unmap),
    .cursor_protect = OP(cursor_protect),
    .cursor_next = OP(cursor_next),
    .cursor_seek = OP(cursor_seek),
    .cursor_close = OP(cursor_close),
};

#endif
