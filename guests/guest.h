/*
 * What the test guests share: output, verdicts, hypercalls, and attempts that may fault. The same
 * source serves 32-bit guests (entered by start32.asm) and 64-bit ones (start64.asm).
 */
#ifndef QUIRE_GUESTS_GUEST_H
#define QUIRE_GUESTS_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "guests/abi.h"
#include "guests/multiboot1.h"

/* Every guest's C begins here; `info` is NULL when the loader was no Multiboot 1 loader. */
void guest_main(const struct multiboot_info *info);

/* Output, to the debug port unless guest_use_serial() was called: then to COM1. */
void guest_use_serial(void);
void print(const char *text);
void print_hex(uint64_t value);
void print_number(uint32_t value);

/* The last word of the guest's command line as a number; `otherwise` where that is none, or 0. */
uint32_t last_number(const struct multiboot_info *info, uint32_t otherwise);

/* Says "ok: what" or "FAILED: what", and remembers a failure. */
bool check(bool holds, const char *what);

/* The verdict: pass if every check held, else fail with the number of the first that did not. */
_Noreturn void guest_end(void);

uint32_t hypercall(uint32_t number, uintptr_t rbx, uintptr_t rcx, uintptr_t rdx, uintptr_t rsi);

static inline void out8(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint8_t in8(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline void cpuid(uint32_t leaf, uint32_t out[4])
{
    __asm__ volatile("cpuid"
                     : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3])
                     : "a"(leaf), "c"(0));
}

static inline uintptr_t read_cr0(void)
{
    uintptr_t value;
    __asm__ volatile("mov %%cr0, %0" : "=r"(value));
    return value;
}

static inline void set_cr0(uintptr_t value)
{
    __asm__ volatile("mov %0, %%cr0" : : "r"(value) : "memory");
}

static inline uintptr_t read_cr3(void)
{
    uintptr_t value;
    __asm__ volatile("mov %%cr3, %0" : "=r"(value));
    return value;
}

static inline void load_cr3(uintptr_t root)
{
    __asm__ volatile("mov %0, %%cr3" : : "r"(root) : "memory");
}

static inline uintptr_t read_cr4(void)
{
    uintptr_t value;
    __asm__ volatile("mov %%cr4, %0" : "=r"(value));
    return value;
}

static inline void set_cr4(uintptr_t value)
{
    __asm__ volatile("mov %0, %%cr4" : : "r"(value) : "memory");
}

/* The first byte behind the image: from here on memory is free. */
extern uint8_t image_end[];

#ifdef __x86_64__

/*
 * One access of the kind QUIRE_FAULT_*, which may fault. Returns 0 when it went through; the
 * QUIRE_FAULT_* bits when the hypervisor refused it and an expectation was set (expect_refusal());
 * GUEST_EXCEPTION + vector when the CPU raised an exception in this guest. An EXEC calls the
 * address, where a RET must stand.
 */
#define GUEST_EXCEPTION 0x100
uint64_t guest_try(unsigned access, uint64_t address);
extern const uint8_t guest_try_resume[];

/* Of the last exception. */
extern uint64_t guest_fault_code, guest_fault_address;

/* The hypervisor shall report the next refused access in [base, base + size) and let us go on. */
static inline void expect_refusal(uint64_t base, uint64_t size)
{
    hypercall(QUIRE_HC_EXPECT_FAULT, base, size, (uintptr_t)guest_try_resume, 0);
}

#endif
#endif
