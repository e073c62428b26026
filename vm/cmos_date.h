/*
 * Date, time and alarm in the registers of an MC146818, in whichever form register B asks for:
 * binary or BCD, 24 hours or 12. What counts seconds and when is the affair of vm/dev_cmos.c.
 */
#ifndef QUIRE_VM_CMOS_DATE_H
#define QUIRE_VM_CMOS_DATE_H

#include <stdint.h>

enum {
    CMOS_SECONDS = 0x00,
    CMOS_SECONDS_ALARM = 0x01,
    CMOS_MINUTES = 0x02,
    CMOS_MINUTES_ALARM = 0x03,
    CMOS_HOURS = 0x04,
    CMOS_HOURS_ALARM = 0x05,
    CMOS_WEEKDAY = 0x06, /* 1: Sunday */
    CMOS_DAY = 0x07,
    CMOS_MONTH = 0x08,
    CMOS_YEAR = 0x09,
    CMOS_STATUS_A = 0x0a,
    CMOS_STATUS_B = 0x0b,
    CMOS_STATUS_C = 0x0c,
    CMOS_STATUS_D = 0x0d,
    CMOS_CENTURY = 0x32, /* a PC's, like the year in form */
};
#define DATE_B_24H 0x02
#define DATE_B_BINARY 0x04

/* Writes the date that is so many seconds after midnight of 1 January 2000, a Saturday; those from
 * 2100 on start there again. */
void date_put(uint8_t *ram, uint64_t seconds);

/* The reverse of that, of the years from 2000 to 2099. */
uint64_t date_seconds(const uint8_t *ram);

/* Lets so many seconds pass. Registers that hold no time are first taken for the nearest one; leap
 * years are those of the chip: every fourth. */
void date_advance(uint8_t *ram, uint64_t seconds);

/* The seconds until the time is next as the alarm registers say, 1 to 86400; 0: it never is. A
 * value from 0xc0 up stands for any. */
uint32_t date_until_alarm(const uint8_t *ram);

/* "2026-11-29 21:07:40" */
#define DATE_TEXT 24
const char *date_text(char buffer[DATE_TEXT], const uint8_t *ram);

#endif
