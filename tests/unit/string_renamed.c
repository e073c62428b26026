/* See tests/unit/string_renamed.h. */
#include "tests/unit/string_renamed.h"

#define memcpy quire_memcpy
#define memmove quire_memmove
#define memset quire_memset
#define memcmp quire_memcmp
#define memchr quire_memchr
#define strlen quire_strlen
#define strnlen quire_strnlen
#define strcmp quire_strcmp
#define strncmp quire_strncmp
#define strchr quire_strchr

#include "lib/string.c"
