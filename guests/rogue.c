/*
 * rogue: reaches for everything that it was not given, and says of each attempt how it ended. The
 * hypervisor must refuse and report each one; with QUIRE_HC_EXPECT_FAULT it lets the guest go on.
 *
 * Options that it wants: rom=0x2000000+64K nox=0x2100000+64K. With `-- unannounced` it makes one
 * attempt without warning, for which it is stopped.
 */
#include "guests/guest.h"

#define P 1ull
#define W 2ull
#define PS (1ull << 7)
#define ROM 0x2000000ull
#define NOEXEC 0x2100000ull
#define HOLE 0xA0000ull
#define LARGE (2ull << 20)
#define FAR_SLOT 8 /* of the PDPT: far above the 4 GiB that are mapped */

static volatile uint64_t __attribute__((aligned(4096))) far_pd[512];

/* One announced attempt: the hypervisor must name exactly this access. */
static void attempt(unsigned access, uint64_t address, uint64_t physical, const char *what)
{
    expect_refusal(physical & ~0xfffull, 4096);
    uint64_t outcome = guest_try(access, address);
    if (outcome != access) {
        print("outcome ");
        print_hex(outcome);
        print(" of ");
    }
    check(outcome == access, what);
}

static bool has_word(const char *text, const char *word)
{
    for (; *text; text++) {
        size_t n = 0;
        while (word[n] && text[n] == word[n])
            n++;
        if (!word[n])
            return true;
    }
    return false;
}

/* A window of one large page, far up, onto any guest-physical address. */
static uint64_t window(uint64_t physical)
{
    uint64_t *pml4 = (uint64_t *)(uintptr_t)(read_cr3() & ~0xfffull);
    uint64_t *pdpt = (uint64_t *)(uintptr_t)(pml4[0] & 0x000ffffffffff000ull);

    far_pd[0] = (physical & ~(LARGE - 1)) | P | W | PS;
    pdpt[FAR_SLOT] = (uint64_t)(uintptr_t)far_pd | P | W;
    load_cr3(read_cr3());
    return ((uint64_t)FAR_SLOT << 30) + (physical & (LARGE - 1));
}

void guest_main(const struct multiboot_info *info)
{
    uint32_t out[4];

    if (!check(info != NULL && info->flags & MULTIBOOT_INFO_CMDLINE, "command line given"))
        guest_end();
    uint64_t ram_end = 0x100000 + (uint64_t)info->mem_upper * 1024;
    if (has_word((const char *)(uintptr_t)info->cmdline, "unannounced")) {
        print("reading behind the end of my memory, unannounced\n");
        guest_try(QUIRE_FAULT_READ, ram_end + 0x1000);
        check(false, "I was stopped");
        guest_end();
    }

    attempt(QUIRE_FAULT_READ, ram_end + 0x5000, ram_end + 0x5000,
            "a read behind the end of memory is refused");
    attempt(QUIRE_FAULT_WRITE, ram_end + 0x5000, ram_end + 0x5000,
            "a write behind the end of memory is refused");

    check(hypercall(QUIRE_HC_BACKING, ROM, 0, 0, 0) == QUIRE_BACKING_ROM, "there is ROM");
    uint64_t before = *(volatile uint64_t *)ROM;
    attempt(QUIRE_FAULT_WRITE, ROM, ROM, "a write to ROM is refused");
    check(*(volatile uint64_t *)ROM == before, "and changed nothing");

    check(hypercall(QUIRE_HC_BACKING, NOEXEC, 0, 0, 0) == QUIRE_BACKING_NOEXEC,
          "there is no-execute memory");
    *(volatile uint8_t *)NOEXEC = 0xc3; /* RET: it would come back */
    attempt(QUIRE_FAULT_EXEC, NOEXEC, NOEXEC, "executing no-execute memory is refused");
    attempt(QUIRE_FAULT_EXEC, HOLE, HOLE, "a jump into a hole is refused");
    attempt(QUIRE_FAULT_EXEC, 0xfffffff0, 0xfffffff0,
            "a jump to where a firmware would be is refused");

    cpuid(0x80000008, out);
    unsigned width = out[0] & 0xff;
    print("physical addresses have ");
    print_number(width);
    print(" bits\n");
    uint64_t highest = (1ull << width) - LARGE;
    attempt(QUIRE_FAULT_WRITE, window(highest), highest,
            "a write to the highest physical address is refused");
    if (width < 52) {
        uint64_t outcome = guest_try(QUIRE_FAULT_READ, window(1ull << width));
        check(outcome == GUEST_EXCEPTION + 14 && (guest_fault_code & 8),
              "an address beyond MAXPHYADDR is a reserved-bit page fault");
    }
    guest_end();
}
