/* See arch/x86_64/power.h. */
#include "arch/x86_64/power.h"

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/uart.h"
#include "lib/string.h"

#define BOCHS_DEBUGGER_PORT 0x8a00
#define BOCHS_DEBUGGER_ATTENTION 0x8a00 /* the first word that the port wants to see */
#define BOCHS_DEBUGGER_RETURN 0x8ae0    /* back to the debugger's prompt, where a `q` waits */
#define BOCHS_SHUTDOWN_PORT 0x8900
#define QEMU_DEBUG_EXIT_PORT 0xf4
#define QEMU_PM1A_CONTROL 0x604
#define ACPI_SLEEP_S5 0x2000 /* SLP_EN with the sleep type that QEMU's DSDT gives S5 */

static bool runs_under(const char *hypervisor)
{
    return strcmp(cpu_features.hypervisor, hypervisor) == 0;
}

/* QEMU by itself, or with KVM. */
static void leave_qemu(int status)
{
    if (!runs_under("TCGTCGTCGTCG") && !runs_under("KVMKVMKVM"))
        return;
    outb(QEMU_DEBUG_EXIT_PORT, (uint8_t)status);
    outw(QEMU_PM1A_CONTROL, ACPI_SLEEP_S5);
}

/* Bochs shows no hypervisor, and its clock counts instructions. On any other machine these ports
 * may be somebody's. */
static void leave_bochs(int status)
{
    if (!runs_under("") || !tsc_counts_instructions())
        return;
    if (status == 0) {
        outw(BOCHS_DEBUGGER_PORT, BOCHS_DEBUGGER_ATTENTION);
        outw(BOCHS_DEBUGGER_PORT, BOCHS_DEBUGGER_RETURN);
        return;
    }
    static const char word[] = "Shutdown";
    for (size_t i = 0; i < strlen(word); i++)
        outb(BOCHS_SHUTDOWN_PORT, (uint8_t)word[i]);
}

_Noreturn void power_off(int status)
{
    format(&uart_sink, "quire: power off\n");
    uart_flush();
    leave_bochs(status);
    leave_qemu(status);
    cpu_stop();
}
