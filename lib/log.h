/*
 * The hypervisor's log: a ring of whole lines that the console can show again, each passed on
 * to one live sink (the serial port) as it is written. mm/ may log; it never prints otherwise.
 */
#ifndef QUIRE_LIB_LOG_H
#define QUIRE_LIB_LOG_H

#include "lib/format.h"

/* What log_line() puts in front of each line. */
#define LOG_PREFIX "quire: "

/* The longest line in bytes, prefix included. A longer one is cut and ends in "...". */
#define LOG_LINE 240

/* Where lines go besides the ring; NULL for nowhere. The console swaps it so that a line in
 * mid-typing is redrawn. The sink receives each line in one write, ended by "\n", and must not log
 * itself. */
void log_attach(struct sink *live);

/* One line of the hypervisor's own: LOG_PREFIX and the text, which has no newline at its end.
 * Control characters in it (it may quote a loader or a guest) become '?'. */
void log_line(const char *text, ...) __attribute__((format(printf, 1, 2)));

/* One line exactly as given, without the prefix: what a guest or a program printed. */
void log_plain(const char *text, ...) __attribute__((format(printf, 1, 2)));

/* The beginning of a line that log_plain() gives whole later: for the live sink alone. */
void log_unfinished(const char *text, ...) __attribute__((format(printf, 1, 2)));

/* Writes the newest `lines` lines of the ring (0: all) to `to`, oldest first. Lines that arrive
 * meanwhile are not shown. */
void log_show(struct sink *to, unsigned lines);

#endif
