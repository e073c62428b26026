/* See boot/host_date.h. */
#include "boot/host_date.h"

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/rtc.h"
#include "lib/log.h"
#include "vm/clock.h"
#include "vm/cmos_date.h"

void host_date_read(void)
{
    uint8_t registers[RTC_REGISTERS];

    if (rtc_read(registers))
        clock_set_date(date_seconds(registers), rdtsc());
    else
        log_line("boot: this machine's clock does not answer: guests have it as 1 January 2000");
}
