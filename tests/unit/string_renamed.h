/*
 * lib/string.c under other names, so that a hosted test can hold it against the libc's functions
 * of the same names. What tests/unit/string_renamed.c compiles is the product's source itself.
 */
#ifndef QUIRE_TESTS_UNIT_STRING_RENAMED_H
#define QUIRE_TESTS_UNIT_STRING_RENAMED_H

#include <stddef.h>

void *quire_memcpy(void *restrict to, const void *restrict from, size_t n);
void *quire_memmove(void *to, const void *from, size_t n);
void *quire_memset(void *to, int byte, size_t n);
int quire_memcmp(const void *a, const void *b, size_t n);
void *quire_memchr(const void *s, int byte, size_t n);
size_t quire_strlen(const char *s);
size_t quire_strnlen(const char *s, size_t max);
int quire_strcmp(const char *a, const char *b);
int quire_strncmp(const char *a, const char *b, size_t n);
char *quire_strchr(const char *s, int c);

#endif
