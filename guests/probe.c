/* See probe.h: what the three formats have in common. */
#include "guests/probe.h"

#define CODE0 0x08
#define DATA0 0x10
#define DATA3 0x1b
#define TSS 0x28

/* A gate of long mode has two words, and its code segments other flags. */
#ifdef __x86_64__
#define GATE_WORDS 2
#define CODE_FLAGS 0xaull /* G, L */
#else
#define GATE_WORDS 1
#define CODE_FLAGS 0xcull /* G, D */
#endif

#define EXCEPTIONS 32
#define VECTORS 64
#define VECTOR_PROTECTION 13
#define VECTOR_PAGE_FAULT 14
#define VECTOR_BACK 0x30

enum outcome {
    OUTCOME_NONE,
    OUTCOME_THROUGH,
    OUTCOME_PAGE_FAULT,
    OUTCOME_PROTECTION,
    OUTCOME_REFUSED,
};

/* INT 0x30; NOP; NOP: what all that may be executed holds. */
#define COMES_BACK 0x909030cdu

/* guests/probe.asm */
void probe_access(uintptr_t address, const void *code, bool user);
void probe_allow_user_access(void);
extern const uint8_t probe_read[], probe_write[], probe_jump[], probe_pieces_end[];
extern const uint8_t probe_on_back[], probe_on_page_fault[], probe_on_protection[];
extern const uint8_t probe_on_refusal[];
extern volatile uint32_t probe_outcome;
extern volatile uintptr_t probe_code, probe_address;

static const struct probe_format *format;
static const char *command_line = "";
static probe_table_t page_table, closed_table;
uint8_t probe_target[PAGE] __attribute__((aligned(4096)));
static uint8_t user_code[PAGE] __attribute__((aligned(4096)));

/* ---- Rings
 * --------------------------------------------------------------------------------------- */

static uint64_t gdt[7] = {
    0,
    0x000f9b000000ffffull | CODE_FLAGS << 52,
    0x00cf93000000ffffull,
    0x00cff3000000ffffull,                    /* data, ring 3 */
    0x000ffb000000ffffull | CODE_FLAGS << 52, /* code, ring 3 */
};
static uint8_t tss[104] __attribute__((aligned(16)));
static uint8_t trap_stack[4096] __attribute__((aligned(16)));
static uint64_t idt[VECTORS * GATE_WORDS];

struct __attribute__((packed)) table_pointer {
    uint16_t limit;
    uintptr_t base;
};

uint64_t probe_physical(const volatile void *p)
{
    return (uintptr_t)p;
}

static void set_gate(unsigned vector, const void *handler, unsigned dpl)
{
    uint64_t at = probe_physical(handler);
    uint64_t *gate = &idt[vector * GATE_WORDS];

    gate[0] =
        (at & 0xffff) | CODE0 << 16 | (0x8e00ull | dpl << 13) << 32 | (at >> 16 & 0xffff) << 48;
    if (GATE_WORDS > 1)
        gate[GATE_WORDS - 1] = at >> 32;
}

/* Gates for what a probe may come to; for other exceptions those that were there, if any. */
static void set_gates(void)
{
    struct table_pointer pointer;

    __asm__ volatile("sidt %0" : "=m"(pointer));
    const uint64_t *old = (const uint64_t *)pointer.base;
    for (unsigned i = 0; i < EXCEPTIONS * GATE_WORDS && 8 * i + 7 <= pointer.limit; i++)
        idt[i] = old[i];
    set_gate(VECTOR_PROTECTION, probe_on_protection, 0);
    set_gate(VECTOR_PAGE_FAULT, probe_on_page_fault, 0);
    set_gate(VECTOR_BACK, probe_on_back, 3);
    pointer = (struct table_pointer){sizeof(idt) - 1, (uintptr_t)idt};
    __asm__ volatile("lidt %0" : : "m"(pointer));
}

static void set_up_rings(void)
{
    struct table_pointer pointer = {sizeof(gdt) - 1, (uintptr_t)gdt};
    uint64_t at = probe_physical(tss);

    *(uint32_t *)(tss + 8) = DATA0; /* SS0 of 32 bits; of 64, RSP0 reaches over it */
    *(uintptr_t *)(tss + 4) = (uintptr_t)(trap_stack + sizeof(trap_stack));
    *(uint16_t *)(tss + 102) = sizeof(tss);
    gdt[5] = (sizeof(tss) - 1) | (at & 0xffffff) << 16 | 0x89ull << 40 | (at >> 24 & 0xff) << 56;
    gdt[6] = at >> 32;
    __asm__ volatile("lgdt %0" : : "m"(pointer));
    __asm__ volatile("ltr %w0" : : "r"(TSS));
    /* Of a lower privilege, so that the way to ring 3 leaves them as they are. */
    __asm__ volatile("mov %0, %%ds\n\tmov %0, %%es" : : "r"(DATA3));
    set_gates();
}

/* ---- Control bits
 * -------------------------------------------------------------------------------- */

bool probe_word(const char *word)
{
    for (const char *text = command_line; *text; text++) {
        size_t n = 0;
        while (word[n] && text[n] == word[n])
            n++;
        if (!word[n])
            return true;
    }
    return false;
}

static void set_bits(void)
{
    uintptr_t cr0 = read_cr0(), cr4 = read_cr4();
    uint32_t features[4], low, high;

    cpuid(7, features);
    if (probe_word("nowp"))
        cr0 &= ~CR0_WP;
    if (probe_word("smep") && (features[1] & 1u << 7))
        cr4 |= CR4_SMEP;
    if (probe_word("smap") && (features[1] & 1u << 20))
        cr4 |= CR4_SMAP;
    set_cr0(cr0);
    set_cr4(cr4);
    if (probe_word("nonx")) {
        __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(IA32_EFER));
        __asm__ volatile("wrmsr" : : "a"(low & ~EFER_NXE), "d"(high), "c"(IA32_EFER));
    }
    if (probe_word("ac"))
        probe_allow_user_access();
}

/* ---- Probes
 * -------------------------------------------------------------------------------------- */

void probe_set(volatile void *table, unsigned index, uint64_t entry)
{
    if (format->entry_bytes == 4)
        ((volatile uint32_t *)table)[index] = (uint32_t)entry;
    else
        ((volatile uint64_t *)table)[index] = entry;
}

static void say(uint64_t address, unsigned access, bool user)
{
    static const char *const outcomes[] = {
        [OUTCOME_NONE] = "nothing ",    [OUTCOME_THROUGH] = "allowed",
        [OUTCOME_PAGE_FAULT] = "#PF ",  [OUTCOME_PROTECTION] = "#GP ",
        [OUTCOME_REFUSED] = "refused ",
    };

    print("probe ");
    print_hex(address);
    print(access == QUIRE_FAULT_READ ? " r" : access == QUIRE_FAULT_WRITE ? " w" : " x");
    print(user ? " user: " : ": ");
    print(outcomes[probe_outcome]);
    if (probe_outcome != OUTCOME_THROUGH)
        print_hex(probe_code);
    print("\n");
}

void probe(uint64_t address, unsigned access, bool user)
{
    const uint8_t *code = access == QUIRE_FAULT_READ    ? probe_read
                          : access == QUIRE_FAULT_WRITE ? probe_write
                                                        : probe_jump;

    if (user)
        code = (const uint8_t *)(uintptr_t)(format->high + 511 * PAGE +
                                            (uintptr_t)(code - probe_read));
    __asm__ volatile("invlpg (%0)" : : "r"((uintptr_t)address) : "memory");
    probe_outcome = OUTCOME_NONE;
    probe_access((uintptr_t)address, code, user);
    say(address, access, user);
    if (probe_outcome == OUTCOME_PAGE_FAULT && probe_address != address)
        check(false, "CR2 is the address");
}

void probe_all(uint64_t address)
{
    for (unsigned access = QUIRE_FAULT_READ; access <= QUIRE_FAULT_EXEC; access <<= 1)
        for (unsigned user = 0; user < 2; user++)
            probe(address, access, user);
}

void probe_refusal(uint64_t address, uint64_t at, unsigned access)
{
    /* With 32 bits an expectation cannot begin at 4 GiB or more, but it can reach there. */
    bool reaches = (uintptr_t)at != at;
    uintptr_t base = reaches ? (uintptr_t)-PAGE : (uintptr_t)(at & ~(PAGE - 1));

    hypercall(QUIRE_HC_EXPECT_FAULT, base, reaches ? UINTPTR_MAX : PAGE,
              (uintptr_t)probe_on_refusal, 0);
    probe(address, access, false);
    hypercall(QUIRE_HC_EXPECT_FAULT, 0, 0, 0, 0);
}

/* ---- What is asked of all formats
 * ---------------------------------------------------------------- */

/* Our part of the directory, entry by entry. */
enum {
    OURS_TABLE,
    OURS_LARGE,
    OURS_LARGE_CLOSED,
    OURS_LARGE_RESERVED,
    OURS_IN_ROM,
    OURS_IN_HOLE,
    OURS_SUPERVISOR,
    OURS_READ_ONLY,
    OURS_NO_EXECUTE,
    OURS_ODD,
};

static uint64_t at_entry(unsigned entry)
{
    return format->high + entry * format->large;
}

/* Leaves, then tables that take rights away from a leaf that has them all. */
void probe_pages(void)
{
    const uint64_t frame = probe_physical(probe_target), all = P | W | U;
    const uint64_t leaf[] = {
        0,
        frame | P,
        frame | P | W,
        frame | P | U,
        frame | all,
        frame | all | NX,
        frame | P | W | NX,
        frame | P | format->odd[0],
        frame | all | format->odd[1],
    };
    const uint64_t table[] = {
        [OURS_SUPERVISOR] = P | W,
        [OURS_READ_ONLY] = P | U,
        [OURS_NO_EXECUTE] = all | format->no_execute,
        [OURS_ODD] = all | format->odd[0],
    };

    for (unsigned i = 0; i < sizeof(leaf) / sizeof(leaf[0]); i++) {
        probe_set(page_table, i, leaf[i]);
        probe_all(format->high + i * PAGE);
    }
    probe_set(closed_table, 0, frame | all);
    for (unsigned i = OURS_SUPERVISOR; i <= OURS_ODD; i++) {
        probe_set(format->directory, i, probe_physical(closed_table) | table[i]);
        probe_all(at_entry(i));
    }
    probe_all(at_entry(OURS_ODD + 1)); /* no table */
}

void probe_large(void)
{
    const uint64_t frame = probe_physical(probe_target), base = frame & ~(format->large - 1);

    probe_set(format->directory, OURS_LARGE, base | P | W | U | PS);
    probe_all(at_entry(OURS_LARGE) + frame - base);
    probe_set(format->directory, OURS_LARGE_CLOSED, base | P | U | PS | format->no_execute);
    probe_all(at_entry(OURS_LARGE_CLOSED) + frame - base);
    probe_set(format->directory, OURS_LARGE_RESERVED,
              base | P | W | U | PS | format->large_reserved);
    probe_all(at_entry(OURS_LARGE_RESERVED));
}

void probe_second_level(void)
{
    enum { ROM = 16, NOEXEC, HOLE, BEHIND };
    const uint64_t page = format->high;

    probe_set(page_table, ROM, PROBE_ROM | P | W | A | D);
    probe_set(page_table, NOEXEC, PROBE_NOEXEC | P | W | A | D);
    probe_set(page_table, HOLE, PROBE_HOLE | P | W | A | D);
    probe_set(page_table, BEHIND, PROBE_BEHIND | P | U | A | D);
    probe(page + ROM * PAGE, QUIRE_FAULT_READ, false);
    probe_refusal(page + ROM * PAGE, PROBE_ROM, QUIRE_FAULT_WRITE);
    *(volatile uint32_t *)(uintptr_t)PROBE_NOEXEC = COMES_BACK;
    probe(page + NOEXEC * PAGE, QUIRE_FAULT_WRITE, false);
    probe_refusal(page + NOEXEC * PAGE, PROBE_NOEXEC, QUIRE_FAULT_EXEC);
    for (unsigned access = QUIRE_FAULT_READ; access <= QUIRE_FAULT_EXEC; access <<= 1)
        probe_refusal(page + HOLE * PAGE, PROBE_HOLE, access);
    probe_refusal(page + BEHIND * PAGE, PROBE_BEHIND, QUIRE_FAULT_READ);
    /* The guest's own tables: one in ROM, one in a hole. */
    probe_set(format->directory, OURS_IN_ROM, PROBE_ROM | P | W | A);
    probe_refusal(at_entry(OURS_IN_ROM), PROBE_ROM, QUIRE_FAULT_READ);
    probe_set(format->directory, OURS_IN_HOLE, PROBE_HOLE | P | W | A);
    probe_refusal(at_entry(OURS_IN_HOLE), PROBE_HOLE, QUIRE_FAULT_WRITE);
}

/* ---- The beginning and the end
 * --------------------------------------------------------------------- */

void probe_begin(const struct probe_format *of, const struct multiboot_info *info)
{
    format = of;
    command_line = (const char *)(uintptr_t)info->cmdline;
    *(uint32_t *)probe_target = COMES_BACK;
    for (const uint8_t *from = probe_read; from < probe_pieces_end; from++)
        user_code[from - probe_read] = *from;
    probe_set(page_table, 511, probe_physical(user_code) | P | U);
    probe_set(format->directory, OURS_TABLE, probe_physical(page_table) | P | W | U);
    set_up_rings();
    set_bits();
}

_Noreturn void probe_end(void)
{
    print("probes made\n");
    for (;;)
        hypercall(QUIRE_HC_YIELD, 0, 0, 0, 0);
}
