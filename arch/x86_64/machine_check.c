/* See machine_check.h. SDM Vol. 3, 16.3.2 "Error-Reporting Register Banks", 16.10 "Guidelines for
 * Writing Machine-Check Software". */
#include "arch/x86_64/machine_check.h"

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/trap.h"
#include "lib/error.h"
#include "lib/format.h"

#define MCG_CAP_COUNT 0xff
#define MC_STATUS(bank) (0x401 + 4 * (bank))
#define MC_ADDR(bank) (0x402 + 4 * (bank))
#define BANKS_MOST 32 /* the MSRs of more lie elsewhere */

#define STATUS_VALID BIT(63)
#define STATUS_UNCORRECTED BIT(61)
#define STATUS_ADDRESS BIT(58)
#define STATUS_CORRUPT BIT(57)

void machine_check_gather(struct machine_check *out, unsigned banks, uint64_t (*read)(uint32_t msr))
{
    *out = (struct machine_check){.global = read(IA32_MCG_STATUS)};
    for (unsigned bank = 0; bank < banks && bank < BANKS_MOST; bank++) {
        uint64_t status = read(MC_STATUS(bank));

        if (!(status & STATUS_VALID))
            continue;
        out->corrupt = out->corrupt || (status & STATUS_CORRUPT);
        out->others += out->found;
        if (out->found && (out->status & STATUS_UNCORRECTED || !(status & STATUS_UNCORRECTED)))
            continue;
        out->found = true;
        out->bank = bank;
        out->status = status;
        out->address = status & STATUS_ADDRESS ? read(MC_ADDR(bank)) : 0;
    }
}

static uint64_t read_msr(uint32_t msr)
{
    uint64_t value = 0;

    (void)rdmsr_safe(msr, &value);
    return value;
}

void machine_check_take(struct machine_check *out)
{
    unsigned banks;

    *out = (struct machine_check){.found = false};
    if (!cpu_features.mce)
        return;
    banks = (unsigned)(read_msr(IA32_MCG_CAP) & MCG_CAP_COUNT);
    machine_check_gather(out, banks, read_msr);
    for (unsigned bank = 0; bank < banks && bank < BANKS_MOST; bank++)
        wrmsr(MC_STATUS(bank), 0);
    if (banks != 0)
        wrmsr(IA32_MCG_STATUS, 0);
}

const char *machine_check_text(char text[MACHINE_CHECK_TEXT], const struct machine_check *check)
{
    char address[32] = "", others[32] = "";

    if (!check->found) {
        format_buffer(text, MACHINE_CHECK_TEXT, "no bank has an error, MCG_STATUS 0x%lx",
                      check->global);
        return text;
    }
    if (check->status & STATUS_ADDRESS)
        format_buffer(address, sizeof(address), ", address 0x%lx", check->address);
    if (check->others)
        format_buffer(others, sizeof(others), "; %u banks more", check->others);
    format_buffer(text, MACHINE_CHECK_TEXT, "bank %u, status 0x%lx%s, MCG_STATUS 0x%lx%s",
                  check->bank, check->status, address, check->global, others);
    return text;
}
