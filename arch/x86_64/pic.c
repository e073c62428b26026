/* See arch/x86_64/pic.h. Initialisation words by the 8259A data sheet. */
#include "arch/x86_64/pic.h"

#include "arch/x86_64/cpu.h"

#define MASTER_COMMAND 0x20
#define MASTER_DATA 0x21
#define SLAVE_COMMAND 0xa0
#define SLAVE_DATA 0xa1

#define ICW1_INIT_ICW4 0x11
#define ICW3_MASTER_SLAVE_ON_2 0x04
#define ICW3_SLAVE_ID_2 0x02
#define ICW4_8086 0x01
#define MASK_ALL 0xff

void pic_disable(void)
{
    outb(MASTER_COMMAND, ICW1_INIT_ICW4);
    outb(SLAVE_COMMAND, ICW1_INIT_ICW4);
    outb(MASTER_DATA, PIC_VECTOR_BASE);
    outb(SLAVE_DATA, PIC_VECTOR_BASE + 8);
    outb(MASTER_DATA, ICW3_MASTER_SLAVE_ON_2);
    outb(SLAVE_DATA, ICW3_SLAVE_ID_2);
    outb(MASTER_DATA, ICW4_8086);
    outb(SLAVE_DATA, ICW4_8086);
    outb(MASTER_DATA, MASK_ALL);
    outb(SLAVE_DATA, MASK_ALL);
}

void pic_listen(unsigned line)
{
    outb(MASTER_DATA, (uint8_t)(MASK_ALL & ~(1u << line)));
}
