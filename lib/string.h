/*
 * The handful of libc's string functions that freestanding code (and the compiler itself)
 * needs, under their standard names and with their standard meaning. A hosted build takes
 * them from its libc instead of lib/string.c.
 */
#ifndef QUIRE_LIB_STRING_H
#define QUIRE_LIB_STRING_H

#include <stddef.h>

void *memcpy(void *restrict to, const void *restrict from, size_t n);
void *memmove(void *to, const void *from, size_t n);
void *memset(void *to, int byte, size_t n);
int memcmp(const void *a, const void *b, size_t n);
void *memchr(const void *s, int byte, size_t n);
size_t strlen(const char *s);
size_t strnlen(const char *s, size_t max);
int strcmp(const char *a, const char *b);
int strncmp(const char *a, const char *b, size_t n);
char *strchr(const char *s, int c);

#endif
