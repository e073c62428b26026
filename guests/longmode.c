/*
 * longmode: a 64-bit guest that builds 4-level tables of its own and checks what they mean, page
 * size by page size, through an EPT that it does not see.
 */
#include "guests/guest.h"

#define P 1ull
#define W 2ull
#define A (1ull << 5)
#define D (1ull << 6)
#define PS (1ull << 7)
#define NX (1ull << 63)
#define PAGE 4096ull
#define LARGE (2ull << 20)

#define PAGE_FAULT (GUEST_EXCEPTION + 14)
#define CODE_PRESENT 1u
#define CODE_WRITE 2u
#define CODE_RESERVED 8u
#define CODE_FETCH 16u

/* Where the aliases go: one PML4 slot in the upper half. */
#define HIGH 0xffffc00000000000ull
#define SLOT(address, level) ((address) >> (12 + 9 * ((level)-1)) & 511)

static volatile uint64_t __attribute__((aligned(4096))) high_pdpt[512], high_pd[512], high_pt[512];
static uint8_t __attribute__((aligned(4096))) page_a[PAGE], page_b[PAGE];

static uint64_t physical(const volatile void *p)
{
    return (uint64_t)(uintptr_t)p; /* the image is mapped one to one */
}

static void flush(uint64_t address)
{
    __asm__ volatile("invlpg (%0)" : : "r"(address) : "memory");
}

static void check_small_pages(void)
{
    uint64_t at = HIGH;
    volatile uint64_t *alias = (volatile uint64_t *)at;

    high_pt[0] = physical(page_a) | P | W;
    *alias = 0x1122334455667788;
    check(*(volatile uint64_t *)page_a == 0x1122334455667788, "a 4 KiB page shows its frame");
    check((high_pt[0] & (A | D)) == (A | D), "the CPU set A and D in my entry");

    high_pt[0] = physical(page_b) | P | W;
    flush(at);
    *alias = 42;
    check(*(volatile uint64_t *)page_b == 42, "after INVLPG it shows the other frame");
    check(*(volatile uint64_t *)page_a == 0x1122334455667788, "and the first one is as it was");
}

static void check_rights(void)
{
    uint64_t at = HIGH;

    high_pt[0] = physical(page_a) | P;
    flush(at);
    check(guest_try(QUIRE_FAULT_READ, at) == 0, "a read-only page can be read");
    check(guest_try(QUIRE_FAULT_WRITE, at) == PAGE_FAULT &&
              guest_fault_code == (CODE_PRESENT | CODE_WRITE) && guest_fault_address == at,
          "a write to it is my own page fault, with the right code and address");

    page_a[0] = 0xc3; /* RET */
    check(guest_try(QUIRE_FAULT_EXEC, at) == 0, "an executable page can be called");
    high_pt[0] = physical(page_a) | P | NX;
    flush(at);
    check(guest_try(QUIRE_FAULT_EXEC, at) == PAGE_FAULT &&
              guest_fault_code == (CODE_PRESENT | CODE_FETCH),
          "a no-execute page cannot");
    high_pt[0] = 0;
    flush(at);
    check(guest_try(QUIRE_FAULT_READ, at) == PAGE_FAULT && guest_fault_code == 0,
          "an absent page is an absent page");
}

static void check_large_pages(void)
{
    uint64_t at = HIGH + LARGE;
    uint64_t frame = physical(page_a) & ~(LARGE - 1);
    uint32_t out[4];

    high_pd[1] = frame | P | W | PS;
    *(volatile uint64_t *)page_b = 7;
    check(*(volatile uint64_t *)(at + (physical(page_b) - frame)) == 7,
          "a 2 MiB page shows its frames");
    high_pd[1] |= 1ull << 13;
    flush(at);
    check(guest_try(QUIRE_FAULT_READ, at) == PAGE_FAULT && (guest_fault_code & CODE_RESERVED),
          "a reserved bit in a large entry is a reserved-bit page fault");

    cpuid(0x80000001, out);
    if (!(out[3] & 1u << 26)) {
        print("no 1 GiB pages on this CPU\n");
        return;
    }
    high_pdpt[1] = P | W | PS;
    check(*(volatile uint64_t *)(HIGH + (1ull << 30) + physical(page_b)) == 7,
          "a 1 GiB page shows its frames");
}

static void check_registers(void)
{
    uint64_t r8 = 0x8888888888888888, product_high;

    __asm__ volatile("mov %1, %%r8\n\t"
                     "mov $16, %%eax\n\t"
                     "mul %%r8\n\t"
                     "mov %%rdx, %0"
                     : "=r"(product_high)
                     : "r"(r8)
                     : "rax", "rdx", "r8");
    check(product_high == 8, "64-bit registers multiply to 128 bits");
}

void guest_main(const struct multiboot_info *info)
{
    uint64_t *root = (uint64_t *)(uintptr_t)(read_cr3() & ~(PAGE - 1));

    check(info != NULL, "started by a Multiboot 1 loader");
    print("64-bit mode, my tables at ");
    print_hex(read_cr3());
    print("\n");
    check_registers();
    high_pd[0] = physical(high_pt) | P | W;
    high_pdpt[0] = physical(high_pd) | P | W;
    root[SLOT(HIGH, 4)] = physical(high_pdpt) | P | W;
    check_small_pages();
    check_rights();
    check_large_pages();
    guest_end();
}
