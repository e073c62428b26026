/*
 * The hypervisor's log: whole lines that the console can show again, each passed on to one live
 * sink (the serial port) as it is written. mm/ may log; it never prints otherwise.
 *
 * The hypervisor's own lines have one ring, and what guests and programs cause has another, so that
 * no guest can have the log forget what is the hypervisor's. Lines of guests wait in their ring
 * while the live sink has no room for them; it is told how many the ring has lost meanwhile.
 */
#ifndef QUIRE_LIB_LOG_H
#define QUIRE_LIB_LOG_H

#include <stdbool.h>

#include "lib/format.h"

/* What log_line() puts in front of each line. */
#define LOG_PREFIX "quire: "

/* The longest line in bytes, prefix included. A longer one is cut and ends in "...". */
#define LOG_LINE 240

/* Where lines go besides the rings; NULL for nowhere. The console swaps it so that a line in
 * mid-typing is redrawn. The sink receives each line in one write, ended by "\n", and must not log
 * itself. */
void log_attach(struct sink *live);

/* Asked before a line of a guest's goes to the live sink: has it room for one, without waiting?
 * NULL: always. */
void log_set_room(bool (*room)(void));
bool log_has_room(void);

/* Lines of guests that wait for room: has those follow for which there is some, or, at the end of
 * everything, all of them. True: none waits any more. */
bool log_pass_on(bool all);

/* One line of the hypervisor's own: LOG_PREFIX and the text, which has no newline at its end.
 * Control characters in it (it may quote a loader or a guest), C1 too, become '?'. */
void log_line(const char *text, ...) __attribute__((format(printf, 1, 2)));

/* The same of what a guest has caused. */
void log_guest(const char *text, ...) __attribute__((format(printf, 1, 2)));

/* One line exactly as given, without the prefix: what a guest or a program printed. */
void log_plain(const char *text, ...) __attribute__((format(printf, 1, 2)));

/* The beginning of a line that log_plain() gives whole later: for the live sink alone. */
void log_unfinished(const char *text, ...) __attribute__((format(printf, 1, 2)));

/* Writes the newest `lines` lines of both rings (0: all) to `to`, oldest first. Lines that arrive
 * meanwhile are not shown. */
void log_show(struct sink *to, unsigned lines);

#endif
