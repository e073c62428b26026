/*
 * The devices that a guest finds at the ports of a PC: their state, as part of struct guest.
 *
 * Each is a file of its own (vm/dev_*.c) that offers a row (vm/device.h). Those that raise
 * interrupts drive a line (vm/interrupts.h). What is missing reads as all ones, as on an empty bus.
 */
#ifndef QUIRE_VM_DEVICES_H
#define QUIRE_VM_DEVICES_H

#include <stdbool.h>
#include <stdint.h>

#define GUEST_VCPUS 8 /* a guest's virtual CPUs, at most */

#define SERIAL_INPUT 256

/* A 16550A without a modem behind it. Output goes to guest_putc(). */
struct dev_serial {
    uint8_t ier, lcr, mcr, scratch;
    uint8_t divisor_low, divisor_high;
    bool fifo;
    bool transmit_interrupt;     /* "transmitter empty" is pending in IIR */
    uint8_t input[SERIAL_INPUT]; /* ring */
    unsigned input_first, input_count;
    bool overrun;
};

/* MC146818 clock and its 128 bytes. Counts are of its divider chain, a 32768th of a second each. */
struct dev_cmos {
    uint8_t index;
    uint8_t ram[128]; /* the clock's registers among them */
    uint64_t started; /* the guest's clock when the chain began to run ... */
    uint64_t phase;   /* ... and where it stood then */
    uint64_t counted; /* how far the registers are up to date */
    bool alarm_known;
    uint32_t alarm_in; /* seconds from `counted` on; 0: never */
};

/* 8254: three counters that follow the guest's TSC, scaled (vm/dev_pit.c). The first drives IRQ 0.
 */
struct dev_pit {
    struct pit_counter {
        bool loaded;                /* it counts */
        uint16_t reload;            /* 0 counts as 65536 */
        uint8_t mode, access;       /* access: 1 low byte, 2 high byte, 3 low then high */
        bool write_high, read_high; /* which half comes next */
        bool latched, status_latched;
        uint8_t write_low, status;
        uint16_t latch;
        uint64_t started; /* clock when the count was loaded */
        uint64_t hz;      /* of the clock */
        uint64_t edges;   /* of its output since then that have become interrupts */
    } counter[3];
    uint8_t gate; /* port 0x61, bits 0 and 1 */
};

/* Two 8259A, the second at line 2 of the first. Bit n of a byte is line n. */
struct dev_pic {
    struct pic_chip {
        uint8_t lines;               /* as the devices drive them */
        uint8_t requests;            /* IRR */
        uint8_t in_service;          /* ISR */
        uint8_t mask;                /* IMR */
        uint8_t trigger;             /* ELCR: 1 is level */
        uint8_t vector;              /* of line 0 */
        uint8_t lowest;              /* the line of lowest priority; the next one has the highest */
        uint8_t init_step;           /* the initialisation word that comes next: 2, 3, 4; 0: none */
        bool single, wants_icw4;     /* by ICW1 */
        bool auto_end, special_nest; /* by ICW4 */
        bool rotate_auto, special_mask, read_service, poll;
    } chip[2];
};

#define KEYBOARD_QUEUE 16
#define KEYBOARD_TEXT 256

/* 8042, and the keyboard at it (vm/keyboard.h). */
struct dev_keyboard {
    uint8_t command; /* whose data byte is awaited, 0 for none */
    uint8_t config, output;
    bool output_full;
    bool from_keyboard; /* is what `output` holds; before translation: */
    uint8_t raw;        /* the byte ... */
    bool raw_break;     /* ... and whether the prefix of a break was before it */
    bool is_break;      /* while translating: the prefix of a break was there */
    bool command_last;  /* of the two ports, the one for commands was written last */
    uint64_t ready;     /* the guest's clock when the keyboard's next byte can be there */
    struct keyboard {
        uint8_t queue[KEYBOARD_QUEUE];
        unsigned queued;
        uint8_t last;    /* byte that it sent */
        uint8_t expects; /* the command whose argument comes next, 0: none */
        uint8_t set, leds, typematic;
        bool scanning;
        char text[KEYBOARD_TEXT]; /* ring: what is to be typed */
        unsigned text_first, text_count;
    } keyboard;
};

/* PCI configuration mechanism 1, and the header of the host bridge. */
struct dev_pci {
    uint32_t address;
    uint8_t bridge[64];
};

#define VGA_CRTC 25
#define VGA_ATTRIBUTE 21
#define VGA_SEQUENCER 5
#define VGA_GRAPHICS 9
#define VGA_DAC (256 * 3)

/* The registers of a VGA; each `index` selects one of its array, or none. */
struct dev_vga {
    uint8_t misc, feature;
    uint8_t crtc_index, crtc[VGA_CRTC];
    uint8_t sequencer_index, sequencer[VGA_SEQUENCER];
    uint8_t graphics_index, graphics[VGA_GRAPHICS];
    uint8_t attribute_index, attribute[VGA_ATTRIBUTE];
    bool attribute_data; /* port 0x3c0 takes data next, not an index */
    uint8_t dac_mask, dac[VGA_DAC];
    unsigned dac_read, dac_write; /* where in `dac` the next access goes */
    bool dac_reads;               /* it was set up for reading last */
};

struct dev_chipset {
    uint8_t diagnostic; /* what was written to port 0x80 last */
    uint8_t reset;      /* port 0xcf9, and whether 0x92 has been told to close A20 */
};

/* PM1 registers; `halves` of the timer's range have passed. */
struct dev_acpi {
    uint16_t status, enable, control;
    uint64_t halves;
};

/* A local APIC. Sets of vectors: bit n of word w is vector 64 w + n. */
enum lapic_lvt {
    LAPIC_LVT_TIMER,
    LAPIC_LVT_THERMAL,
    LAPIC_LVT_PERF,
    LAPIC_LVT_LINT0,
    LAPIC_LVT_LINT1,
    LAPIC_LVT_ERROR,
    LAPIC_LVTS
};

struct dev_lapic {
    uint64_t base;   /* IA32_APIC_BASE */
    uint64_t irr[4]; /* requested */
    uint64_t isr[4]; /* in service */
    uint64_t tmr[4]; /* came by a level */
    uint32_t lvt[LAPIC_LVTS];
    uint64_t icr;
    uint32_t svr, dfr;
    uint32_t esr, errors; /* as it is read; noted since */
    uint8_t id, ldr;      /* bits 31:24 of their registers */
    uint8_t tpr_low;      /* bits 3:0; bits 7:4 are CR8 */
    bool nmi;             /* one waits */
    struct lapic_timer {
        uint32_t crystal_share, tsc_share; /* so many counts in so many ticks */
        uint32_t initial;
        uint8_t divide;
        bool runs;
        uint64_t started;  /* clock when the count, or its present period, began */
        uint64_t deadline; /* 0: none */
    } timer;
};

/* 82093AA. Bit n of lines is pin n. */
#define IOAPIC_PINS 24u
#define IOAPIC_ID 8u
struct dev_ioapic {
    uint8_t index;
    uint32_t id, lines;
    uint64_t entry[IOAPIC_PINS];
};

#define HPET_TIMERS 3u
struct dev_hpet {
    uint32_t config, status;
    uint64_t base, started; /* the counter stood at base when the clock was `started` */
    uint64_t tsc_hz;
    struct hpet_timer {
        uint32_t config;
        uint64_t comparator, period;
        uint64_t armed_at, distance; /* it matches so many counts after that one */
    } timer[HPET_TIMERS];
};

/* Those that count time, apart from the local APIC. */
enum timed_device {
    TIMED_NONE,
    TIMED_PIT,
    TIMED_CMOS,
    TIMED_KEYBOARD,
    TIMED_HPET,
    TIMED_ACPI,
    TIMED_DEVICES
};

struct guest_devices {
    struct { /* the guest's clock when the devices were reset, and its rate */
        uint64_t started, hz;
    } clock;
    struct dev_serial serial;
    struct dev_cmos cmos;
    struct dev_pit pit;
    struct dev_pic pic;
    struct dev_keyboard keyboard;
    struct dev_pci pci;
    struct dev_chipset chipset;
    struct dev_vga vga;
    struct dev_acpi acpi;
    struct dev_lapic lapic[GUEST_VCPUS];
    struct dev_ioapic ioapic;
    struct dev_hpet hpet;
    uint64_t due[TIMED_DEVICES]; /* the clock at each one's next interrupt; 0: it has to tell */
    uint64_t first_due;          /* the least of them; 0: one has to tell */
    uint64_t unclaimed;          /* accesses to ports that no device has */
    uint16_t last_unclaimed;
};

#endif
