/*
 * The clock in the CMOS memory of this machine (MC146818), to be read once.
 */
#ifndef QUIRE_ARCH_RTC_H
#define QUIRE_ARCH_RTC_H

#include <stdbool.h>
#include <stdint.h>

/* Registers 0 to 13 at one moment: time, date, and in which form they are. False: there is no clock
 * that answers sensibly. */
#define RTC_REGISTERS 14
bool rtc_read(uint8_t registers[RTC_REGISTERS]);

#endif
