/* See vm/cmos_date.h. */
#include "vm/cmos_date.h"

#include <stdbool.h>

#include "lib/format.h"

#define MINUTE 60
#define HOUR (60 * MINUTE)
#define DAY (24 * HOUR)
#define DAYS_OF_4_YEARS (4 * 365 + 1)
#define DAYS_OF_CENTURY (25 * DAYS_OF_4_YEARS)

#define AFTERNOON 0x80
#define ALARM_ANY 0xc0

/* Of years since 2000. */
struct date {
    unsigned second, minute, hour, day, month, year;
};

static uint8_t encode(const uint8_t *ram, unsigned value)
{
    if (ram[CMOS_STATUS_B] & DATE_B_BINARY)
        return (uint8_t)value;
    return (uint8_t)(value / 10 << 4 | value % 10);
}

static uint8_t encode_hour(const uint8_t *ram, unsigned hour)
{
    uint8_t half = hour >= 12 ? AFTERNOON : 0;

    if (ram[CMOS_STATUS_B] & DATE_B_24H)
        return encode(ram, hour);
    return encode(ram, hour % 12 == 0 ? 12 : hour % 12) | half;
}

/* Within [least, most]. */
static unsigned decode(const uint8_t *ram, uint8_t value, unsigned least, unsigned most)
{
    unsigned number = value;

    if (!(ram[CMOS_STATUS_B] & DATE_B_BINARY))
        number = (value >> 4) * 10u + (value & 15);
    if (number < least)
        return least;
    return number > most ? most : number;
}

static unsigned decode_hour(const uint8_t *ram)
{
    uint8_t value = ram[CMOS_HOURS];

    if (ram[CMOS_STATUS_B] & DATE_B_24H)
        return decode(ram, value, 0, 23);
    return decode(ram, value & (uint8_t)~AFTERNOON, 1, 12) % 12 + (value & AFTERNOON ? 12 : 0);
}

static unsigned days_of_month(unsigned month, unsigned year)
{
    static const uint8_t days[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

    return days[month - 1] + (month == 2 && year % 4 == 0);
}

static struct date read_date(const uint8_t *ram)
{
    struct date date = {
        .second = decode(ram, ram[CMOS_SECONDS], 0, 59),
        .minute = decode(ram, ram[CMOS_MINUTES], 0, 59),
        .hour = decode_hour(ram),
        .month = decode(ram, ram[CMOS_MONTH], 1, 12),
        .year = decode(ram, ram[CMOS_YEAR], 0, 99),
    };

    date.day = decode(ram, ram[CMOS_DAY], 1, days_of_month(date.month, date.year));
    return date;
}

static void write_date(uint8_t *ram, const struct date *date, unsigned weekday)
{
    ram[CMOS_SECONDS] = encode(ram, date->second);
    ram[CMOS_MINUTES] = encode(ram, date->minute);
    ram[CMOS_HOURS] = encode_hour(ram, date->hour);
    ram[CMOS_WEEKDAY] = encode(ram, weekday);
    ram[CMOS_DAY] = encode(ram, date->day);
    ram[CMOS_MONTH] = encode(ram, date->month);
    ram[CMOS_YEAR] = encode(ram, date->year);
}

static uint64_t days_since_2000(const struct date *date)
{
    uint64_t days = date->year * 365u + (date->year + 3) / 4 + date->day - 1;

    for (unsigned month = 1; month < date->month; month++)
        days += days_of_month(month, date->year);
    return days;
}

static struct date date_of(uint64_t seconds)
{
    uint64_t days = seconds / DAY % DAYS_OF_CENTURY;
    struct date date = {
        .second = (unsigned)(seconds % MINUTE),
        .minute = (unsigned)(seconds / MINUTE % 60),
        .hour = (unsigned)(seconds / HOUR % 24),
        .month = 1,
        .year = (unsigned)(days / DAYS_OF_4_YEARS * 4),
    };

    for (days %= DAYS_OF_4_YEARS; days >= (date.year % 4 == 0 ? 366 : 365); date.year++)
        days -= date.year % 4 == 0 ? 366 : 365;
    for (; days >= days_of_month(date.month, date.year); date.month++)
        days -= days_of_month(date.month, date.year);
    date.day = (unsigned)days + 1;
    return date;
}

void date_put(uint8_t *ram, uint64_t seconds)
{
    struct date date = date_of(seconds);

    ram[CMOS_CENTURY] = encode(ram, 20);
    write_date(ram, &date, (unsigned)((seconds / DAY + 6) % 7 + 1));
}

void date_advance(uint8_t *ram, uint64_t seconds)
{
    unsigned weekday = decode(ram, ram[CMOS_WEEKDAY], 1, 7);
    uint64_t before = date_seconds(ram), days = (before + seconds) / DAY - before / DAY;
    struct date date = date_of(before + seconds);

    write_date(ram, &date, (unsigned)((weekday - 1 + days) % 7 + 1));
}

uint64_t date_seconds(const uint8_t *ram)
{
    struct date date = read_date(ram);

    return days_since_2000(&date) * DAY + date.hour * HOUR + date.minute * MINUTE + date.second;
}

static bool fits(uint8_t alarm, uint8_t value)
{
    return alarm >= ALARM_ANY || alarm == value;
}

/* The first second of a minute, from `first` on, that the alarm register names; 60: none. */
static unsigned find_second(const uint8_t *ram, unsigned first)
{
    while (first < 60 && !fits(ram[CMOS_SECONDS_ALARM], encode(ram, first)))
        first++;
    return first;
}

/* The first second of an hour, from `first` on, that the alarm registers name; HOUR: none. */
static unsigned find_in_hour(const uint8_t *ram, unsigned first)
{
    for (unsigned minute = first / MINUTE; minute < 60; minute++) {
        unsigned from = minute == first / MINUTE ? first % MINUTE : 0, second;

        if (!fits(ram[CMOS_MINUTES_ALARM], encode(ram, minute)))
            continue;
        second = find_second(ram, from);
        if (second < 60)
            return minute * MINUTE + second;
        if (from == 0)
            break; /* it is in no minute */
    }
    return HOUR;
}

uint32_t date_until_alarm(const uint8_t *ram)
{
    struct date date = read_date(ram);
    unsigned now = date.hour * HOUR + date.minute * MINUTE + date.second, first = now + 1;

    /* An hour's rest, 23 others, and what is left of the first. */
    for (unsigned hour = first / HOUR; hour <= date.hour + 24; hour++, first = hour * HOUR) {
        unsigned found = find_in_hour(ram, first % HOUR);

        if (found < HOUR && fits(ram[CMOS_HOURS_ALARM], encode_hour(ram, hour % 24)))
            return hour * HOUR + found - now;
    }
    return 0;
}

const char *date_text(char buffer[DATE_TEXT], const uint8_t *ram)
{
    struct date date = read_date(ram);

    format_buffer(buffer, DATE_TEXT, "%02u%02u-%02u-%02u %02u:%02u:%02u",
                  decode(ram, ram[CMOS_CENTURY], 0, 99), date.year, date.month, date.day, date.hour,
                  date.minute, date.second);
    return buffer;
}
