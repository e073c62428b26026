/*
 * Instructions carried out on devices (arch/x86_64/mm/emulate.h): a device that is as good as
 * memory has to come to what the same instruction comes to on memory, whatever it is and wherever
 * it reaches: into the device, across its pages, from memory into it and back.
 *
 * 64-bit code behind four levels of tables, and flat 32-bit and 16-bit code without any. The
 * instruction itself is proven elsewhere (test_insn_execute.c, by the CPU); here it is which bytes
 * it reaches, in which pieces, in which order, and that a refusal has touched nothing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "arch/x86_64/mm/emulate.h"
#include "arch/x86_64/mm/host_entry.h"
#include "lib/bits.h"
#include "lib/error.h"
#include "tests/unit/random.h"
#include "x86/control.h"

#define CASES 100000

/* Guest-physical memory, which linear addresses are as well: tables, code, memory up to the device,
 * two pages of device, memory again, and a page that is not there. */
#define TABLES 0x1000
#define CODE 0x10000
#define DEVICE 0x20000
#define DEVICE_END 0x22000
#define ABSENT 0x24000
#define END 0x25000
#define DATA (DEVICE - 64) /* what operands reach begins here */

static struct random chance;
static uint8_t memory[END], reference[END];
static unsigned device_reads, device_writes;

static uint64_t pick(uint64_t n)
{
    return random_below(&chance, n);
}

/* ---- The machine -------------------------------------------------------------------------------
 */

static int reach(void *ctx, gpa_t at, unsigned access, uint8_t **bytes, unsigned *allowed)
{
    (void)ctx;
    *allowed = RIGHT_NONE;
    if (at.v >= ABSENT)
        return E_NOENT;
    *allowed = at.v >= DEVICE && at.v < DEVICE_END ? RIGHT_RW : RIGHT_RWX;
    if (access & ~*allowed)
        return E_PERM;
    *bytes = at.v >= DEVICE && at.v < DEVICE_END ? NULL : memory + at.v;
    return E_OK;
}

static void mark(void *ctx, gpa_t at, bool write)
{
    (void)ctx;
    (void)write;
    assert_true(at.v < DEVICE || at.v >= DEVICE_END);
}

static void assert_fits_device(gpa_t at, unsigned bytes)
{
    assert_true(bytes == 1 || bytes == 2 || bytes == 4 || bytes == 8);
    assert_int_equal(at.v % bytes, 0);
    assert_true(at.v >= DEVICE && at.v + bytes <= DEVICE_END);
}

static uint64_t read_device(void *ctx, gpa_t at, unsigned bytes)
{
    uint64_t value = 0;

    (void)ctx;
    assert_fits_device(at, bytes);
    device_reads++;
    memcpy(&value, memory + at.v, bytes);
    return value;
}

static void write_device(void *ctx, gpa_t at, unsigned bytes, uint64_t value)
{
    (void)ctx;
    assert_fits_device(at, bytes);
    device_writes++;
    memcpy(memory + at.v, &value, bytes);
}

static struct operand_segment flat(void *ctx, enum operand_register which)
{
    (void)ctx;
    return (struct operand_segment){
        .limit = UINT32_MAX,
        .access = which == OPERAND_CS ? 0xc09b : 0xc093,
    };
}

static void put64(uint64_t at, uint64_t value)
{
    memcpy(memory + at, &value, sizeof(value));
}

/* The first 2 MiB by pages of 4 KiB, each its own address. */
static void make_tables(void)
{
    put64(TABLES, (TABLES + 0x1000) | PTE_P | PTE_RW);
    put64(TABLES + 0x1000, (TABLES + 0x2000) | PTE_P | PTE_RW);
    put64(TABLES + 0x2000, (TABLES + 0x3000) | PTE_P | PTE_RW);
    for (uint64_t page = 0; page < 512; page++)
        put64(TABLES + 0x3000 + page * 8,
              page * PAGE_SIZE < ABSENT ? page * PAGE_SIZE | PTE_P | PTE_RW | PTE_A | PTE_D : 0);
    for (unsigned level = 0; level < 3; level++)
        memory[TABLES + level * 0x1000] |= PTE_A;
}

static struct emulate_cpu make_cpu(enum insn_mode mode)
{
    struct emulate_cpu cpu = {
        .access =
            {
                .registers = {.maxphyaddr = 40},
                .code64 = mode == INSN_CODE64,
                .reach = reach,
                .mark = mark,
            },
        .segment = flat,
        .read = read_device,
        .write = write_device,
        .mode = mode,
    };

    if (mode == INSN_CODE64) {
        cpu.access.registers.cr0 = CR0_PE | CR0_PG;
        cpu.access.registers.cr3 = TABLES;
        cpu.access.registers.cr4 = CR4_PAE;
        cpu.access.registers.efer = EFER_LME | EFER_LMA;
    }
    cpu.state.stack_bytes = mode == INSN_CODE64 ? 8 : mode == INSN_CODE32 ? 4 : 2;
    cpu.state.code_limit = UINT32_MAX;
    cpu.state.rflags = random_next(&chance) & 0xcd5;
    cpu.state.rip = mode == INSN_CODE16 ? CODE & 0xffff : CODE;
    return cpu;
}

/* ---- Cases -------------------------------------------------------------------------------------
 */

/* Where boundaries are near. */
static uint64_t any_target(void)
{
    static const uint64_t near[] = {DEVICE,     DEVICE + 0x800,      DEVICE + 0x1000, DEVICE_END,
                                    DEVICE_END, DEVICE_END + 0x1000, ABSENT};

    return near[pick(ARRAY_SIZE(near))] - 20 + pick(40);
}

/* Random bytes until they are an instruction whose operand can be aimed by its base register. */
static bool any_instruction(struct emulate_cpu *cpu, struct insn *insn)
{
    for (unsigned i = 0; i < INSN_LONGEST; i++)
        memory[CODE + i] = (uint8_t)random_next(&chance);
    if (insn_decode(memory + CODE, INSN_LONGEST, cpu->mode, insn) != INSN_DECODED)
        return false;
    for (unsigned i = 0; i < INSN_REGISTERS; i++)
        cpu->state.gpr[i] = pick(4) ? pick(1 << 16) : random_next(&chance);
    cpu->state.gpr[INSN_RSP] = any_target();
    if (insn_is_string(insn)) {
        cpu->state.gpr[INSN_RSI] = any_target();
        cpu->state.gpr[INSN_RDI] = any_target();
        cpu->state.gpr[INSN_RCX] = pick(3);
        return insn->memory.segment != INSN_CS && insn->address_bytes != 2;
    }
    unsigned base = insn->memory.base;
    if (base >= INSN_REGISTERS || base == insn->memory.index || insn->address_bytes == 2)
        return false;
    cpu->state.gpr[base] += any_target() - insn_offset(insn, &cpu->state);
    return insn->memory.segment != INSN_CS || cpu->mode == INSN_CODE64;
}

/* The reference: the same instruction, every byte at its address. */
static int read_reference(void *ctx, const struct insn_place *place, uint64_t value[2])
{
    (void)ctx;
    value[0] = value[1] = 0;
    memcpy(value, reference + place->offset, place->bytes);
    return 0;
}

static int write_reference(void *ctx, const struct insn_place *place, const uint64_t value[2])
{
    (void)ctx;
    memcpy(reference + place->offset, value, place->bytes);
    return 0;
}

enum fate { REACHES, FAULTS, OUTSIDE };

/* Which fate the places have: all below ABSENT, or one that goes beyond it. */
static enum fate fate_of(const struct insn *insn, const struct insn_state *state)
{
    struct insn_place place[INSN_PLACES];
    unsigned places = insn_places(insn, state, place);
    enum fate fate = REACHES;

    for (unsigned i = 0; i < places; i++) {
        if (place[i].offset < DATA || place[i].offset + place[i].bytes > END)
            return OUTSIDE;
        if (place[i].aligned && place[i].offset % place[i].bytes != 0)
            fate = FAULTS;
        if (place[i].offset + place[i].bytes > ABSENT)
            fate = FAULTS;
    }
    return fate;
}

static void assert_same_state(const struct insn_state *a, const struct insn_state *b)
{
    assert_memory_equal(a->gpr, b->gpr, sizeof(a->gpr));
    assert_int_equal(a->rip, b->rip);
    assert_int_equal(a->rflags, b->rflags);
}

static void assert_refused(const struct emulate_cpu *cpu, const struct insn_state *before,
                           enum emulate_outcome outcome, const struct emulation *emulation)
{
    bool paged = cpu->mode == INSN_CODE64;

    assert_int_equal(device_reads + device_writes, 0);
    assert_same_state(&cpu->state, before);
    assert_memory_equal(memory + DATA, reference + DATA, END - DATA);
    if (outcome == EMULATE_VIOLATION) {
        assert_false(paged);
        assert_true(emulation->place[0].refused.gpa.v >= ABSENT);
        return;
    }
    assert_int_equal(outcome, EMULATE_EXCEPTION);
    if (emulation->place[0].fault.vector == VECTOR_PF) {
        assert_true(paged);
        assert_true(emulation->place[0].fault.address >= ABSENT - 16);
    } else {
        assert_int_equal(emulation->place[0].fault.vector, VECTOR_GP);
    }
}

static bool one_case(enum insn_mode mode)
{
    const struct insn_bus bus = {read_reference, write_reference, NULL};
    struct emulate_cpu cpu = make_cpu(mode);
    struct emulation emulation;
    struct insn insn;

    if (!any_instruction(&cpu, &insn))
        return false;
    enum fate fate = fate_of(&insn, &cpu.state);
    if (fate == OUTSIDE)
        return false;
    memcpy(reference + DATA, memory + DATA, END - DATA);
    device_reads = device_writes = 0;
    struct insn_state before = cpu.state, expected = cpu.state;

    assert_int_equal(emulate_decode(&cpu, &emulation), EMULATE_DONE);
    assert_memory_equal(&emulation.insn, &insn, sizeof(insn));
    enum emulate_outcome outcome = emulate_step(&cpu, &emulation);
    if (fate == FAULTS) {
        assert_refused(&cpu, &before, outcome, &emulation);
        return true;
    }
    switch (insn_execute(&insn, &expected, &bus)) {
    case INSN_DONE:
        assert_int_equal(outcome, EMULATE_DONE);
        break;
    case INSN_REPEATS:
        assert_int_equal(outcome, EMULATE_REPEATS);
        break;
    default:
        assert_int_equal(outcome, EMULATE_EXCEPTION);
        assert_int_equal(emulation.place[0].fault.vector, VECTOR_GP);
        expected = before;
    }
    assert_same_state(&cpu.state, &expected);
    assert_memory_equal(memory + DATA, reference + DATA, END - DATA);
    return true;
}

static void run_cases(enum insn_mode mode)
{
    unsigned done = 0;

    memset(memory, 0, sizeof(memory));
    for (unsigned i = DATA; i < ABSENT; i++)
        memory[i] = (uint8_t)random_next(&chance);
    make_tables();
    for (unsigned i = 0; i < 100 * CASES && done < CASES; i++)
        done += one_case(mode);
    assert_int_equal(done, CASES);
}

static void test_64bit_code(void **state)
{
    (void)state;
    run_cases(INSN_CODE64);
}

static void test_32bit_code(void **state)
{
    (void)state;
    run_cases(INSN_CODE32);
}

/* ---- Fetching ----------------------------------------------------------------------------------
 */

/* An instruction is fetched page by page, and only as far as it goes. */
static void test_fetches(void **state)
{
    struct emulation emulation;

    (void)state;
    make_tables();
    for (unsigned before = 1; before <= 7; before++) {
        struct emulate_cpu cpu = make_cpu(INSN_CODE64);

        /* MOV [RBX], 0x12345678: six bytes; the page behind is absent. */
        static const uint8_t mov[] = {0xc7, 0x03, 0x78, 0x56, 0x34, 0x12};
        memcpy(memory + ABSENT - before, mov, before < sizeof(mov) ? before : sizeof(mov));
        cpu.state.rip = ABSENT - before;
        cpu.access.registers.efer |= EFER_NXE;
        enum emulate_outcome outcome = emulate_decode(&cpu, &emulation);
        if (before >= sizeof(mov)) {
            assert_int_equal(outcome, EMULATE_DONE);
            assert_int_equal(emulation.insn.length, sizeof(mov));
            continue;
        }
        assert_int_equal(outcome, EMULATE_EXCEPTION);
        assert_int_equal(emulation.place[0].fault.vector, VECTOR_PF);
        assert_int_equal(emulation.place[0].fault.address, ABSENT);
        assert_int_equal(emulation.place[0].fault.code, PF_FETCH);
    }
    struct emulate_cpu cpu = make_cpu(INSN_CODE64);
    memcpy(memory + CODE, "\x0f\x01\xd0", 3); /* XGETBV has no operand in memory */
    assert_int_equal(emulate_decode(&cpu, &emulation), EMULATE_UNKNOWN);
    assert_non_null(strstr(emulation.why, "0F 01 D0"));
}

/* Of code that was fetched before, nothing is marked that is; what the guest has changed meanwhile
 * is as the CPU would find it now. */
static void test_fetches_again(void **state)
{
    struct emulate_cpu cpu = make_cpu(INSN_CODE64);
    uint8_t *entry = memory + TABLES + 0x3000 + CODE / PAGE_SIZE * 8;
    struct emulation emulation;

    (void)state;
    make_tables();
    memcpy(memory + CODE, "\x8b\x03", 2); /* MOV EAX, [RBX] */
    *entry &= (uint8_t)~PTE_A;
    assert_int_equal(emulate_decode(&cpu, &emulation), EMULATE_DONE);
    assert_true(*entry & PTE_A);
    cpu.access.user = true;
    assert_int_equal(emulate_decode(&cpu, &emulation), EMULATE_EXCEPTION);
    assert_int_equal(emulation.place[0].fault.code, PF_PRESENT | PF_USER);
    cpu.access.user = false;
    cpu.access.registers.efer |= EFER_NXE;
    entry[7] |= 0x80;
    assert_int_equal(emulate_decode(&cpu, &emulation), EMULATE_EXCEPTION);
    assert_int_equal(emulation.place[0].fault.code, PF_PRESENT | PF_FETCH);
}

/* What the CPU tells of the instruction is not fetched, but for the rest of it. */
static void test_what_was_fetched(void **state)
{
    static const uint8_t mov[] = {0xc7, 0x03, 0x78, 0x56, 0x34, 0x12};
    struct emulate_cpu cpu = make_cpu(INSN_CODE64);
    struct emulation emulation;

    (void)state;
    make_tables();
    cpu.fetched = mov;
    for (unsigned told = 0; told <= sizeof(mov); told++) {
        memset(memory + CODE, 0x90, sizeof(mov));
        memcpy(memory + CODE + told, mov + told, sizeof(mov) - told);
        cpu.fetched_bytes = told;
        assert_int_equal(emulate_decode(&cpu, &emulation), EMULATE_DONE);
        assert_int_equal(emulation.insn.length, sizeof(mov));
        assert_int_equal(emulation.insn.immediate, 0x12345678);
    }
    put64(TABLES, 0); /* nothing of it is fetched */
    assert_int_equal(emulate_decode(&cpu, &emulation), EMULATE_DONE);
}

/* Where the CPU has come to by itself the guest's tables are not gone through again: for this page,
 * and for such an access. */
static void test_where_the_cpu_has_come_to(void **state)
{
    struct emulate_cpu cpu = make_cpu(INSN_CODE64);
    uint64_t linear = 5 * PAGE_SIZE, entry = TABLES + 0x3000 + linear / PAGE_SIZE * 8;
    struct emulation emulation;

    (void)state;
    make_tables();
    put64(entry, 0);
    cpu.access.exited.linear = linear + 0x123;
    cpu.access.exited.gpa = gpa(DEVICE + 0x123);
    cpu.access.exited.access = RIGHT_R;
    memcpy(memory + CODE, "\x8b\x03", 2); /* MOV EAX, [RBX] */
    put64(DEVICE + 0x40, 0x12345678);
    cpu.state.gpr[INSN_RBX] = linear + 0x40;
    assert_int_equal(emulate_decode(&cpu, &emulation), EMULATE_DONE);
    assert_int_equal(emulate_step(&cpu, &emulation), EMULATE_DONE);
    assert_int_equal(cpu.state.gpr[INSN_RAX], 0x12345678);
    /* The next page, or this one and the next. */
    for (unsigned at = 0xffd; at < 0x1001; at++) {
        cpu.state.rip = CODE;
        cpu.state.gpr[INSN_RBX] = linear + at;
        put64(entry + 8, 0);
        assert_int_equal(emulate_step(&cpu, &emulation), EMULATE_EXCEPTION);
        assert_int_equal(emulation.place[0].fault.address, linear + 0x1000);
    }
    /* A write. */
    memcpy(memory + CODE, "\x89\x03", 2); /* MOV [RBX], EAX */
    cpu.state.gpr[INSN_RBX] = linear;
    assert_int_equal(emulate_decode(&cpu, &emulation), EMULATE_DONE);
    assert_int_equal(emulate_step(&cpu, &emulation), EMULATE_EXCEPTION);
    assert_int_equal(emulation.place[0].fault.code, PF_WRITE);
    cpu.access.exited.access = RIGHT_W;
    assert_int_equal(emulate_step(&cpu, &emulation), EMULATE_DONE);
}

/* Tables in a device: the walk is refused, and the device not asked. */
static void test_tables_in_a_device(void **state)
{
    struct emulate_cpu cpu = make_cpu(INSN_CODE64);
    struct emulation emulation;

    (void)state;
    make_tables();
    device_reads = device_writes = 0;
    put64(TABLES + 0x2000 + 8, DEVICE | PTE_P | PTE_RW | PTE_A); /* for 2 to 4 MiB */
    memcpy(memory + CODE, "\x8b\x03", 2);                        /* MOV EAX, [RBX] */
    cpu.state.gpr[3] = 2 * MiB;
    assert_int_equal(emulate_decode(&cpu, &emulation), EMULATE_DONE);
    assert_int_equal(emulate_step(&cpu, &emulation), EMULATE_VIOLATION);
    assert_true(emulation.place[0].refused.walk);
    assert_int_equal(emulation.place[0].refused.gpa.v, DEVICE);
    assert_int_equal(device_reads + device_writes, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_64bit_code),
        cmocka_unit_test(test_32bit_code),
        cmocka_unit_test(test_fetches),
        cmocka_unit_test(test_fetches_again),
        cmocka_unit_test(test_where_the_cpu_has_come_to),
        cmocka_unit_test(test_what_was_fetched),
        cmocka_unit_test(test_tables_in_a_device),
    };

    chance.state = 0xe301a7e;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
