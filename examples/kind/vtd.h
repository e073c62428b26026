/* The second-stage tables of VT-d as a table kind. */
#ifndef VTD_H
#define VTD_H

#include "mm/paging/table.h"

extern const struct table_kind vtd_kind;

#endif
