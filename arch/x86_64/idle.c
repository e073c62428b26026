/* See arch/x86_64/idle.h. */
#include "arch/x86_64/idle.h"

#include <stdbool.h>
#include <stdint.h>

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/halt.h"
#include "arch/x86_64/lapic.h"
#include "arch/x86_64/pic.h"
#include "arch/x86_64/trap.h"
#include "arch/x86_64/uart.h"
#include "lib/error.h"
#include "lib/log.h"

#define TRIAL_POLLS 100000u

/* idle_entry.asm */
void idle_interrupt(void);

volatile uint32_t idle_interrupts; /* that have arrived */

static bool works, lapic;

static void listen(bool on, enum uart_interrupt what)
{
    uart_interrupt(on ? what : UART_INTERRUPT_NONE);
    if (lapic)
        lapic_take_pic(on);
    pic_listen(on ? PIC_COM1 : PIC_NOBODY);
}

void idle_init(void)
{
    uint32_t before = idle_interrupts;

    lapic = lapic_enable() == E_OK; /* without one, the 8259 is wired to the CPU */
    trap_set_gate(PIC_VECTOR_BASE + PIC_COM1, idle_interrupt, false);
    trap_set_gate(PIC_VECTOR_BASE + PIC_SPURIOUS, idle_spurious, false);
    trap_set_gate(VECTOR_TIMER, idle_timer, false);
    trap_set_gate(VECTOR_SPURIOUS, idle_spurious, false);
    /* The transmitter is empty, and says so as soon as it may. */
    listen(true, UART_INTERRUPT_SENT);
    /* QEMU keeps interrupts off from STI over a PAUSE right behind it. */
    for (unsigned polls = 0; polls < TRIAL_POLLS && idle_interrupts == before; polls++)
        __asm__ volatile("sti; nop; pause; cli" : : : "memory");
    listen(false, UART_INTERRUPT_NONE);
    works = idle_interrupts != before;
    if (!works)
        log_line("COM1: its interrupt does not arrive; the console polls");
}

void cpu_idle(void)
{
    if (!works) {
        cpu_pause();
        return;
    }
    listen(true, UART_INTERRUPT_RECEIVED);
    cpu_halt();
    listen(false, UART_INTERRUPT_NONE);
}
