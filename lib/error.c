/* See lib/error.h. One table, so that a new value cannot get a name without a text. */
#include "lib/error.h"

#include <stdbool.h>
#include <stddef.h>

#include "lib/bits.h"

static const struct {
    const char *name;
    const char *text;
} errors[] = {
    [-E_OK] = {"E_OK", "no error"},
    [-E_NOMEM] = {"E_NOMEM", "out of memory"},
    [-E_EXIST] = {"E_EXIST", "something is there already"},
    [-E_NOENT] = {"E_NOENT", "nothing is there"},
    [-E_RANGE] = {"E_RANGE", "address or size out of range"},
    [-E_ALIGN] = {"E_ALIGN", "not aligned"},
    [-E_INVAL] = {"E_INVAL", "invalid argument"},
    [-E_PERM] = {"E_PERM", "not the caller's to change"},
    [-E_STATE] = {"E_STATE", "not possible in this state"},
    [-E_DOUBLE_FREE] = {"E_DOUBLE_FREE", "already free"},
    [-E_ORDER] = {"E_ORDER", "freed at another order than it was allocated"},
    [-E_QUOTA] = {"E_QUOTA", "quota or reserve exhausted"},
    [-E_FULL] = {"E_FULL", "no slot left"},
    [-E_FORMAT] = {"E_FORMAT", "malformed"},
    [-E_TRUNC] = {"E_TRUNC", "truncated"},
    [-E_UNSUPPORTED] = {"E_UNSUPPORTED", "not supported by this CPU or build"},
    [-E_HARDWARE] = {"E_HARDWARE", "refused by the CPU"},
    [-E_ILLEGAL] = {"E_ILLEGAL", "illegal table entry"},
    [-E_SHARED] = {"E_SHARED", "frame has several holders"},
    [-E_STOPPED] = {"E_STOPPED", "stopped before its end"},
};

static bool is_known(int error)
{
    return error <= 0 && error > -(int)ARRAY_SIZE(errors) && errors[-error].name != NULL;
}

const char *error_name(int error)
{
    return is_known(error) ? errors[-error].name : "E_UNKNOWN";
}

const char *error_text(int error)
{
    return is_known(error) ? errors[-error].text : "unknown error";
}
