/*
 * probe64: makes accesses of every kind, from ring 0 and ring 3, to pages of every kind, and says of each
 * what the CPU made of it:
 *
 *     probe 0xffffc00000000000 w user: #PF 0x7
 *
 * Then it waits as it is, so that whoever holds it can be asked to foretell the same. Words on its
 * command line choose the control bits: nowp, nonx, smep, smap, ac. Options that it wants:
 * rom=0x2000000+64K nox=0x2100000+64K.
 */
#include "guests/guest.h"

#define P 1ull
#define W 2ull
#define U 4ull
#define A (1ull << 5)
#define D (1ull << 6)
#define PS (1ull << 7)
#define NX (1ull << 63)
#define PAGE 4096ull
#define LARGE (2ull << 20)

#define HIGH 0xffffc00000000000ull /* one PML4 slot in the upper half */
#define ROM 0x2000000ull
#define NOEXEC 0x2100000ull
#define HOLE 0xA0000ull
#define BEHIND 0x3000000ull /* no memory of this guest's */

#define CODE3 0x23
#define DATA3 0x1b
#define TSS 0x28
#define CR0_WP (1ull << 16)
#define CR4_SMEP (1ull << 20)
#define CR4_SMAP (1ull << 21)
#define RFLAGS_AC (1ull << 18)

enum { OUTCOME_NONE, OUTCOME_THROUGH, OUTCOME_PAGE_FAULT, OUTCOME_PROTECTION, OUTCOME_REFUSED };

typedef volatile uint64_t table_t[512] __attribute__((aligned(4096)));

static table_t high_pdpt, high_pd, high_pt, closed_pd, closed_pt;
static uint8_t __attribute__((aligned(4096))) target[PAGE], user_code[PAGE];

/* ---- One access ---------------------------------------------------------------------------------- */

uint64_t probe_stack, probe_outcome, probe_code, probe_address;

/* probe_access(address, code, user): jumps to `code` with the address in RSI, at ring 3 if asked. Whatever
 * happens ends at probe_back, with probe_outcome set. Its pieces for ring 0 come back by INT 0x30 as those
 * of ring 3 do. */
void probe_access(uint64_t address, const void *code, bool user);
extern const uint8_t probe_read[], probe_write[], probe_jump[], probe_pieces_end[];
extern const uint8_t probe_refused[], probe_on_fault[], probe_on_protection[], probe_on_int[];
__asm__(".pushsection .text\n"
        "probe_access:\n\t"
        "push %rbx\n\tpush %rbp\n\tpush %r12\n\tpush %r13\n\tpush %r14\n\tpush %r15\n\t"
        "mov %rsp, probe_stack(%rip)\n\t"
        "mov %rsi, %rax\n\t"
        "mov %rdi, %rsi\n\t"
        "test %dl, %dl\n\t"
        "jnz 1f\n\t"
        "jmp *%rax\n"
        "1:\tpushq $0x1b\n\t"
        "pushq $0\n\t"
        "pushfq\n\t"
        "pushq $0x23\n\t"
        "push %rax\n\t"
        "iretq\n"
        "probe_read:\n\tmov (%rsi), %rax\n\tint $0x30\n\t.balign 16\n"
        "probe_write:\n\tmov $0x90909090909030cd, %rax\n\tmov %rax, (%rsi)\n\tint $0x30\n\t"
        ".balign 16\n"
        "probe_jump:\n\tjmp *%rsi\n\t.balign 16\n"
        "probe_pieces_end:\n"
        "probe_on_int:\n\tmovq $1, probe_outcome(%rip)\n\tjmp probe_back\n"
        "probe_on_fault:\n\tmovq $2, probe_outcome(%rip)\n\tpop probe_code(%rip)\n\t"
        "mov %cr2, %rax\n\tmov %rax, probe_address(%rip)\n\tjmp probe_back\n"
        "probe_on_protection:\n\tmovq $3, probe_outcome(%rip)\n\tpop probe_code(%rip)\n\t"
        "jmp probe_back\n"
        "probe_refused:\n\tmovq $4, probe_outcome(%rip)\n\tmov %rax, probe_code(%rip)\n"
        "probe_back:\n\t"
        "mov probe_stack(%rip), %rsp\n\t"
        "pop %r15\n\tpop %r14\n\tpop %r13\n\tpop %r12\n\tpop %rbp\n\tpop %rbx\n\t"
        "ret\n\t"
        ".popsection");

/* ---- Ring 3 -------------------------------------------------------------------------------------- */

static uint64_t gdt[7] = {
    0,
    0x00af9b000000ffff,
    0x00cf93000000ffff,
    0x00cff3000000ffff, /* 0x18: data, ring 3 */
    0x00affb000000ffff, /* 0x20: 64-bit code, ring 3 */
};
static uint8_t tss[104] __attribute__((aligned(16)));
static uint8_t trap_stack[4096] __attribute__((aligned(16)));
static uint64_t idt[64][2];

struct __attribute__((packed)) table_pointer {
    uint16_t limit;
    uint64_t base;
};

static void set_gate(unsigned vector, const void *handler, unsigned dpl)
{
    uint64_t at = (uint64_t)(uintptr_t)handler;

    idt[vector][0] =
        (at & 0xffff) | 8ull << 16 | (0x8e00ull | dpl << 13) << 32 | (at >> 16 & 0xffff) << 48;
    idt[vector][1] = at >> 32;
}

static void set_up_rings(void)
{
    struct table_pointer pointer;
    uint64_t at = (uint64_t)(uintptr_t)tss;

    *(uint64_t *)(tss + 4) = (uint64_t)(uintptr_t)(trap_stack + sizeof(trap_stack));
    *(uint16_t *)(tss + 102) = sizeof(tss);
    gdt[5] = (sizeof(tss) - 1) | (at & 0xffffff) << 16 | 0x89ull << 40 | (at >> 24 & 0xff) << 56;
    gdt[6] = at >> 32;
    pointer = (struct table_pointer){sizeof(gdt) - 1, (uint64_t)(uintptr_t)gdt};
    __asm__ volatile("lgdt %0" : : "m"(pointer));
    __asm__ volatile("ltr %w0" : : "r"(TSS));

    __asm__ volatile("sidt %0" : "=m"(pointer));
    const uint64_t(*old)[2] = (const uint64_t(*)[2])(uintptr_t)pointer.base;
    for (unsigned i = 0; i < 32; i++) {
        idt[i][0] = old[i][0];
        idt[i][1] = old[i][1];
    }
    set_gate(13, probe_on_protection, 0);
    set_gate(14, probe_on_fault, 0);
    set_gate(0x30, probe_on_int, 3);
    pointer = (struct table_pointer){sizeof(idt) - 1, (uint64_t)(uintptr_t)idt};
    __asm__ volatile("lidt %0" : : "m"(pointer));
}

/* ---- Probes -------------------------------------------------------------------------------------- */

static uint64_t physical(const volatile void *p)
{
    return (uint64_t)(uintptr_t)p;
}

static void probe(uint64_t address, unsigned access, bool user)
{
    const uint8_t *code = access == QUIRE_FAULT_READ    ? probe_read
                          : access == QUIRE_FAULT_WRITE ? probe_write
                                                        : probe_jump;

    if (user)
        code = (const uint8_t *)(uintptr_t)(HIGH + 511 * PAGE + (uint64_t)(code - probe_read));
    __asm__ volatile("invlpg (%0)" : : "r"(address) : "memory");
    probe_outcome = OUTCOME_NONE;
    probe_access(address, code, user);
    /* The line at once: several guests of this kind may print. */
    print("probe ");
    print_hex(address);
    print(access == QUIRE_FAULT_READ ? " r" : access == QUIRE_FAULT_WRITE ? " w" : " x");
    print(user ? " user: " : ": ");
    print(probe_outcome == OUTCOME_THROUGH      ? "allowed"
          : probe_outcome == OUTCOME_PAGE_FAULT ? "#PF "
          : probe_outcome == OUTCOME_PROTECTION ? "#GP "
                                                : "refused ");
    if (probe_outcome != OUTCOME_THROUGH)
        print_hex(probe_code);
    print("\n");
    if (probe_outcome == OUTCOME_PAGE_FAULT && probe_address != address)
        check(false, "CR2 is the address");
}

static void probe_all(uint64_t address)
{
    for (unsigned access = QUIRE_FAULT_READ; access <= QUIRE_FAULT_EXEC; access <<= 1)
        for (unsigned user = 0; user < 2; user++)
            probe(address, access, user);
}

/* One that the hypervisor is to refuse, at the guest-physical address `at`. Ring 0 alone: that is where it
 * resumes. */
static void probe_refusal(uint64_t address, uint64_t at, unsigned access)
{
    hypercall(QUIRE_HC_EXPECT_FAULT, at & ~(PAGE - 1), PAGE, (uintptr_t)probe_refused, 0);
    probe(address, access, false);
    hypercall(QUIRE_HC_EXPECT_FAULT, 0, 0, 0, 0);
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

static void set_bits(const char *words)
{
    uint64_t cr0, cr4;
    uint32_t out[4];

    cpuid(7, out);
    __asm__ volatile("mov %%cr0, %0" : "=r"(cr0));
    __asm__ volatile("mov %%cr4, %0" : "=r"(cr4));
    if (has_word(words, "nowp"))
        cr0 &= ~CR0_WP;
    if (has_word(words, "smep") && (out[1] & 1u << 7))
        cr4 |= CR4_SMEP;
    if (has_word(words, "smap") && (out[1] & 1u << 20))
        cr4 |= CR4_SMAP;
    __asm__ volatile("mov %0, %%cr0" : : "r"(cr0));
    __asm__ volatile("mov %0, %%cr4" : : "r"(cr4));
    if (has_word(words, "nonx")) {
        uint32_t low, high;
        __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(0xc0000080));
        __asm__ volatile("wrmsr" : : "a"(low & ~(1u << 11)), "d"(high), "c"(0xc0000080));
    }
    if (has_word(words, "ac"))
        __asm__ volatile("pushfq\n\torq %0, (%%rsp)\n\tpopfq" : : "i"(RFLAGS_AC) : "cc", "memory");
}

/* Leaves of every kind, page by page; then large ones, tables that take rights away, and tables and
 * pages where there is no memory or not enough rights. */
static void probe_pages(bool nx)
{
    const uint64_t frame = physical(target);
    const uint64_t leaf[] = {0,
                             frame | P,
                             frame | P | W,
                             frame | P | U,
                             frame | P | U | W,
                             frame | P | U | W | NX,
                             frame | P | W | NX,
                             frame | P | 1ull << 51};
    unsigned leaves = sizeof(leaf) / sizeof(leaf[0]);

    for (unsigned i = 0; i < leaves; i++) {
        high_pt[i] = leaf[i];
        probe_all(HIGH + i * PAGE);
    }
    high_pd[1] = (frame & ~(LARGE - 1)) | P | W | U | PS;
    probe_all(HIGH + LARGE + (frame & (LARGE - 1)));
    high_pd[2] = (frame & ~(LARGE - 1)) | P | W | U | PS | 1ull << 13;
    probe_all(HIGH + 2 * LARGE);
    high_pdpt[1] = P | W | U | PS;
    probe_all(HIGH + (1ull << 30) + frame);
    closed_pt[0] = frame | P | W | U;
    closed_pd[0] = physical(closed_pt) | P | W; /* not for ring 3 */
    closed_pd[1] = physical(closed_pt) | P | U; /* not writable */
    high_pdpt[2] = physical(closed_pd) | P | W | U | (nx ? NX : 0);
    probe_all(HIGH + (2ull << 30));
    probe_all(HIGH + (2ull << 30) + LARGE);
    probe(0x0000800000000000, QUIRE_FAULT_READ, false);
    probe(0x7fff00000000, QUIRE_FAULT_WRITE, true);
}

static void probe_second_level(void)
{
    high_pt[16] = ROM | P | W | A | D;
    high_pt[17] = NOEXEC | P | W | A | D;
    high_pt[18] = HOLE | P | W | A | D;
    high_pt[19] = BEHIND | P | U | A | D;
    probe(HIGH + 16 * PAGE, QUIRE_FAULT_READ, false);
    probe_refusal(HIGH + 16 * PAGE, ROM, QUIRE_FAULT_WRITE);
    *(volatile uint64_t *)NOEXEC = 0x90909090909030cd;
    probe(HIGH + 17 * PAGE, QUIRE_FAULT_WRITE, false);
    probe_refusal(HIGH + 17 * PAGE, NOEXEC, QUIRE_FAULT_EXEC);
    for (unsigned access = QUIRE_FAULT_READ; access <= QUIRE_FAULT_EXEC; access <<= 1)
        probe_refusal(HIGH + 18 * PAGE, HOLE, access);
    probe_refusal(HIGH + 19 * PAGE, BEHIND, QUIRE_FAULT_READ);
    /* The guest's own tables: one in ROM, one in a hole. */
    high_pd[3] = ROM | P | W | A;
    probe_refusal(HIGH + 3 * LARGE, ROM, QUIRE_FAULT_READ);
    high_pd[4] = HOLE | P | W | A;
    probe_refusal(HIGH + 4 * LARGE, HOLE, QUIRE_FAULT_WRITE);
}

void guest_main(const struct multiboot_info *info)
{
    uint64_t *root = (uint64_t *)(uintptr_t)(read_cr3() & ~(PAGE - 1));
    const char *words = (const char *)(uintptr_t)info->cmdline;

    *(uint64_t *)target = 0x90909090909030cd; /* INT 0x30 */
    for (const uint8_t *from = probe_read; from < probe_pieces_end; from++)
        user_code[from - probe_read] = *from;
    high_pt[511] = physical(user_code) | P | U;
    high_pd[0] = physical(high_pt) | P | W | U;
    high_pdpt[0] = physical(high_pd) | P | W | U;
    root[HIGH >> 39 & 511] = physical(high_pdpt) | P | W | U;
    set_up_rings();
    set_bits(words);
    probe_pages(!has_word(words, "nonx"));
    probe_second_level();
    print("probes made\n");
    for (;;)
        hypercall(QUIRE_HC_YIELD, 0, 0, 0, 0);
}
