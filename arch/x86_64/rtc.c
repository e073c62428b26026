/* See arch/x86_64/rtc.h. */
#include "arch/x86_64/rtc.h"

#include "arch/x86_64/cpu.h"
#include "lib/string.h"

#define INDEX 0x70
#define DATA 0x71

#define STATUS_A 0x0a
#define STATUS_D 0x0d
#define UPDATING 0x80
#define VALID 0x80

#define WAIT_READS 100000 /* an update takes 2 ms, a read of the port a microsecond */
#define TRIES 4

static uint8_t read_register(uint8_t index)
{
    outb(INDEX, index);
    return inb(DATA);
}

static void read_all(uint8_t registers[RTC_REGISTERS])
{
    for (uint8_t i = 0; i < RTC_REGISTERS; i++) {
        if (i != 0x0c) /* reading it takes its flags back */
            registers[i] = read_register(i);
    }
}

static bool wait_for_end_of_update(void)
{
    for (unsigned i = 0; i < WAIT_READS; i++) {
        if (!(read_register(STATUS_A) & UPDATING))
            return true;
    }
    return false;
}

/* Two readings that agree have no update between them. */
bool rtc_read(uint8_t registers[RTC_REGISTERS])
{
    uint8_t again[RTC_REGISTERS] = {0};

    memset(registers, 0, RTC_REGISTERS);
    for (unsigned i = 0; i < TRIES; i++) {
        if (!wait_for_end_of_update())
            return false;
        read_all(registers);
        read_all(again);
        if (memcmp(registers, again, RTC_REGISTERS) == 0)
            return registers[STATUS_D] == VALID;
    }
    return false;
}
