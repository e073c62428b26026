/*
 * privileged: does what a kernel does to its CPU, and checks that the CPU behaves as the manual
 * says: control, debug and model-specific registers, instructions that are not offered, events
 * whose delivery touches memory for the first time, and registers that nobody but this guest may
 * change.
 *
 * Run it `lazy`. Several at once each keep other values in their registers while they take turns.
 */
#include "guests/guest.h"

#define UD 6
#define GP 13
#define RAISED(vector) (GUEST_EXCEPTION + (vector))

#define CR0_TS (1ull << 3)
#define CR0_NE (1ull << 5)
#define CR0_NW (1ull << 29)
#define CR0_CD (1ull << 30)
#define CR0_PG (1ull << 31)
#define CR4_MCE (1ull << 6)
#define CR4_PGE (1ull << 7)
#define CR4_OSFXSR (1ull << 9)
#define CR4_VMXE (1ull << 13)
#define CR4_OSXSAVE (1ull << 18)
#define CR4_RESERVED (1ull << 31)

#define IA32_FEATURE_CONTROL 0x3a
#define IA32_SYSENTER_ESP 0x175
#define IA32_PAT 0x277
#define IA32_VMX_BASIC 0x480
#define IA32_STAR 0xc0000081
#define IA32_LSTAR 0xc0000082
#define IA32_CSTAR 0xc0000083
#define IA32_FMASK 0xc0000084
#define IA32_FS_BASE 0xc0000100
#define IA32_KERNEL_GS_BASE 0xc0000102

#define DR6_BS (1ull << 14)
#define DR6_B0 1ull

/* Free memory in the middle of what the smallest machine for this guest has. */
#define UNTOUCHED 0xa00000ull

/* ---- Pieces of code that may fault: called by guest_try(QUIRE_FAULT_EXEC, ...) -------------- */

static volatile uint64_t argument, argument_high, argument_index, result;
static uint64_t memory_operand[2];

#define PIECE(name, code)                                                                          \
    void try_##name(void);                                                                         \
    __asm__(".pushsection .text\n\t.globl try_" #name "\ntry_" #name ":\n\t" code                  \
            "\n\tret\n\t.popsection")

PIECE(vmxon, "vmxon memory_operand(%rip)");
PIECE(vmxoff, "vmxoff");
PIECE(vmclear, "vmclear memory_operand(%rip)");
PIECE(vmptrld, "vmptrld memory_operand(%rip)");
PIECE(vmptrst, "vmptrst memory_operand(%rip)");
PIECE(vmlaunch, "vmlaunch");
PIECE(vmresume, "vmresume");
PIECE(vmread, "xor %eax, %eax\n\tvmread %rax, %rax");
PIECE(vmwrite, "xor %eax, %eax\n\tvmwrite %rax, %rax");
PIECE(invept, "xor %eax, %eax\n\tinvept memory_operand(%rip), %rax");
PIECE(invvpid, "xor %eax, %eax\n\tinvvpid memory_operand(%rip), %rax");
PIECE(vmfunc, "xor %eax, %eax\n\tvmfunc");
PIECE(monitor, "xor %ecx, %ecx\n\txor %edx, %edx\n\tmov %rsp, %rax\n\tmonitor");
PIECE(mwait, "xor %eax, %eax\n\txor %ecx, %ecx\n\tmwait");
PIECE(rdtscp, "rdtscp");
PIECE(getsec, "xor %eax, %eax\n\tgetsec");
PIECE(rdpmc, "xor %ecx, %ecx\n\trdpmc");
PIECE(wbinvd, "wbinvd");
PIECE(invd, "invd");
PIECE(write_cr0, "mov argument(%rip), %rax\n\tmov %rax, %cr0");
PIECE(write_cr4, "mov argument(%rip), %rax\n\tmov %rax, %cr4");
PIECE(write_cr8, "mov argument(%rip), %rax\n\tmov %rax, %cr8");
PIECE(read_cr8, "mov %cr8, %rax\n\tmov %rax, result(%rip)");
PIECE(wrmsr, "mov argument_index(%rip), %ecx\n\tmov argument(%rip), %eax\n\t"
             "mov argument_high(%rip), %edx\n\twrmsr");
PIECE(rdmsr, "mov argument_index(%rip), %ecx\n\trdmsr\n\tshl $32, %rdx\n\tor %rdx, %rax\n\t"
             "mov %rax, result(%rip)");
PIECE(xsetbv, "mov argument_index(%rip), %ecx\n\tmov argument(%rip), %eax\n\t"
              "xor %edx, %edx\n\txsetbv");
PIECE(xgetbv, "xor %ecx, %ecx\n\txgetbv\n\tmov %rax, result(%rip)");
/* Single step: the trap is due after the first instruction behind POPF, which an exit emulates. */
PIECE(step,
      "movq $0, result(%rip)\n\tpushf\n\torl $0x100, (%rsp)\n\txor %eax, %eax\n\tpush %rbx\n\t"
      "pop %rsi\n\tpopf\n\tcpuid\n\tmov %rsi, %rbx\n\tmovq $1, result(%rip)");
PIECE(step_output, "movq $0, result(%rip)\n\tpushf\n\torl $0x100, (%rsp)\n\tmov $0x80, %edx\n\t"
                   "popf\n\tout %al, %dx\n\tmovq $1, result(%rip)");
PIECE(step_shadow,
      "movq $0, result(%rip)\n\tmov %ss, %ecx\n\tpushf\n\torl $0x100, (%rsp)\n\tpopf\n\t"
      "mov %ecx, %ss\n\tnop\n\tmovq $1, result(%rip)");
PIECE(int1, ".byte 0xf1");
PIECE(touch_watched, "mov %rax, memory_operand(%rip)\n\tnop");
/* Events whose stack is memory that nobody has touched. guest_try() brings the old one back. */
PIECE(ud_on_new_stack, "mov argument(%rip), %rsp\n\tud2");
PIECE(int3_on_new_stack, "mov argument(%rip), %rsp\n\tint3");
PIECE(int_on_new_stack, "mov argument(%rip), %rsp\n\tint $5");
PIECE(pf_on_new_stack,
      "mov argument(%rip), %rsp\n\tmovabs $0xffff900000001234, %rax\n\tmov (%rax), %al");
PIECE(gp_on_new_stack, "mov argument(%rip), %rsp\n\tmov $0x10ff, %eax\n\tmov %eax, %ds");
#undef PIECE

static uint64_t attempt(void (*piece)(void))
{
    return guest_try(QUIRE_FAULT_EXEC, (uint64_t)(uintptr_t)piece);
}

static uint64_t write_to(void (*piece)(void), uint64_t value)
{
    argument = value;
    argument_high = value >> 32;
    return attempt(piece);
}

static uint64_t write_msr(uint32_t index, uint64_t value)
{
    argument_index = index;
    return write_to(try_wrmsr, value);
}

/* All ones when the read faults, which no register here holds. */
static uint64_t read_msr(uint32_t index)
{
    argument_index = index;
    return attempt(try_rdmsr) == 0 ? result : ~0ull;
}

#define READ_REGISTER(name)                                                                        \
    static inline uint64_t read_##name(void)                                                       \
    {                                                                                              \
        uint64_t value;                                                                            \
        __asm__ volatile("mov %%" #name ", %0" : "=r"(value));                                     \
        return value;                                                                              \
    }                                                                                              \
    static inline void set_##name(uint64_t value)                                                  \
    {                                                                                              \
        __asm__ volatile("mov %0, %%" #name : : "r"(value) : "memory");                            \
    }
READ_REGISTER(cr2)
READ_REGISTER(dr0)
READ_REGISTER(dr1)
READ_REGISTER(dr2)
READ_REGISTER(dr3)
READ_REGISTER(dr6)
READ_REGISTER(dr7)
#undef READ_REGISTER

/* ---- What is not offered ------------------------------------------------------------------- */

static void check_instructions(void)
{
    static const struct {
        void (*piece)(void);
        const char *name;
    } undefined[] = {
        {try_vmxon, "VMXON is undefined"},       {try_vmxoff, "VMXOFF is undefined"},
        {try_vmclear, "VMCLEAR is undefined"},   {try_vmptrld, "VMPTRLD is undefined"},
        {try_vmptrst, "VMPTRST is undefined"},   {try_vmlaunch, "VMLAUNCH is undefined"},
        {try_vmresume, "VMRESUME is undefined"}, {try_vmread, "VMREAD is undefined"},
        {try_vmwrite, "VMWRITE is undefined"},   {try_invept, "INVEPT is undefined"},
        {try_invvpid, "INVVPID is undefined"},   {try_vmfunc, "VMFUNC is undefined"},
        {try_monitor, "MONITOR is undefined"},   {try_mwait, "MWAIT is undefined"},
        {try_rdtscp, "RDTSCP is undefined"},     {try_getsec, "GETSEC is undefined"},
    };
    for (unsigned i = 0; i < sizeof(undefined) / sizeof(undefined[0]); i++)
        check(attempt(undefined[i].piece) == RAISED(UD), undefined[i].name);
    check(attempt(try_rdpmc) == RAISED(GP), "RDPMC is refused");
    memory_operand[1] = 0x1234567;
    check(attempt(try_wbinvd) == 0, "WBINVD goes through");
    check(attempt(try_invd) == 0 && memory_operand[1] == 0x1234567, "INVD too, and loses nothing");
}

/* ---- Control registers --------------------------------------------------------------------- */

static void check_cr0(void)
{
    uint64_t cr0 = read_cr0();

    check(write_to(try_write_cr0, cr0 | CR0_NE) == 0 && read_cr0() == (cr0 | CR0_NE),
          "CR0.NE can be set");
    check(write_to(try_write_cr0, cr0 & ~CR0_NE) == 0 && read_cr0() == (cr0 & ~CR0_NE),
          "and cleared");
    check(write_to(try_write_cr0, cr0 | CR0_CD) == 0 && read_cr0() == (cr0 | CR0_CD),
          "CR0.CD can be set");
    check(write_to(try_write_cr0, cr0 | CR0_CD | CR0_TS) == 0 &&
              read_cr0() == (cr0 | CR0_CD | CR0_TS),
          "CR0.TS with it");
    __asm__ volatile("clts");
    check(read_cr0() == (cr0 | CR0_CD), "CLTS clears it");
    __asm__ volatile("lmsw %0" : : "r"((uint16_t)(read_cr0() | CR0_TS)));
    check(read_cr0() == (cr0 | CR0_CD | CR0_TS), "LMSW sets it");
    check(write_to(try_write_cr0, cr0 | CR0_NW) == RAISED(GP), "CR0.NW without CD is refused");
    check(write_to(try_write_cr0, cr0 & ~CR0_PG) == RAISED(GP),
          "leaving paging in 64-bit mode is refused");
    check(write_to(try_write_cr0, cr0 | 1ull << 32) == RAISED(GP), "a wide CR0 is refused");
    check(read_cr0() == (cr0 | CR0_CD | CR0_TS), "and what is refused changes nothing");
    set_cr0(cr0);
}

static void check_cr4(void)
{
    uint64_t cr4 = read_cr4();

    check(!(cr4 & (CR4_VMXE | CR4_MCE)), "CR4 shows neither VMXE nor MCE");
    check(write_to(try_write_cr4, cr4 | CR4_VMXE) == RAISED(GP), "CR4.VMXE is refused");
    check(write_to(try_write_cr4, cr4 | CR4_RESERVED) == RAISED(GP), "a reserved bit of CR4 too");
    check(write_to(try_write_cr4, cr4 & ~0x20ull) == RAISED(GP), "clearing CR4.PAE too");
    check(write_to(try_write_cr4, cr4 | CR4_MCE | CR4_PGE) == 0 &&
              read_cr4() == (cr4 | CR4_MCE | CR4_PGE),
          "CR4.MCE can be set");
    check(write_to(try_write_cr4, cr4) == 0 && read_cr4() == cr4, "and cleared");
    check(write_to(try_write_cr8, 5) == 0 && attempt(try_read_cr8) == 0 && result == 5,
          "CR8 keeps a priority");
    check(write_to(try_write_cr8, 16) == RAISED(GP), "and refuses one that does not exist");
}

static void check_xcr0(void)
{
    uint64_t cr4 = read_cr4();

    if (write_to(try_write_cr4, cr4 | CR4_OSXSAVE) != 0) {
        print("no XSAVE on this CPU\n");
        return;
    }
    check(attempt(try_xgetbv) == 0 && result == 1, "XCR0 starts with x87 alone");
    argument_index = 0;
    check(write_to(try_xsetbv, 3) == 0 && attempt(try_xgetbv) == 0 && result == 3,
          "SSE can be enabled");
    check(write_to(try_xsetbv, 2) == RAISED(GP), "x87 cannot be disabled");
    check(write_to(try_xsetbv, 5) == RAISED(GP), "AVX without SSE is refused");
    check(write_to(try_xsetbv, 1u << 31 | 3) == RAISED(GP), "an unknown component too");
    argument_index = 1;
    check(write_to(try_xsetbv, 3) == RAISED(GP), "XCR1 too");
    argument_index = 0;
    check(attempt(try_xgetbv) == 0 && result == 3, "and what is refused changes nothing");
    check(write_to(try_xsetbv, 1) == 0, "SSE can be disabled");
    set_cr4(cr4);
}

/* ---- Model-specific registers -------------------------------------------------------------- */

static void check_msrs(void)
{
    static const uint32_t own[] = {IA32_STAR,    IA32_LSTAR,          IA32_CSTAR,       IA32_FMASK,
                                   IA32_FS_BASE, IA32_KERNEL_GS_BASE, IA32_SYSENTER_ESP};
    bool kept = true;

    for (unsigned i = 0; i < sizeof(own) / sizeof(own[0]); i++)
        kept = kept && write_msr(own[i], 0x1000 + i) == 0 && read_msr(own[i]) == 0x1000 + i;
    check(kept, "the registers of system calls keep what is written");
    write_msr(IA32_FS_BASE, 0);
    check(write_msr(IA32_LSTAR, 1ull << 50) == RAISED(GP), "LSTAR refuses what is not canonical");
    check(write_msr(IA32_PAT, 2) == RAISED(GP), "PAT refuses a type that does not exist");
    check(read_msr(IA32_FEATURE_CONTROL) == ~0ull && read_msr(IA32_VMX_BASIC) == ~0ull,
          "the registers of VMX are not there");
    check(write_msr(0x12345678, 1) == RAISED(GP), "nor is one that no CPU has");
}

/* ---- Debug --------------------------------------------------------------------------------- */

static void check_debug(void)
{
    set_dr6(0);
    check(attempt(try_step) == RAISED(1) && result == 0 && (read_dr6() & DR6_BS),
          "a single step over CPUID traps behind it");
    set_dr6(0);
    check(attempt(try_step_output) == RAISED(1) && result == 0 && (read_dr6() & DR6_BS),
          "and one over OUT");
    set_dr6(0);
    check(attempt(try_step_shadow) == RAISED(1) && result == 0, "and one past MOV SS");
    set_dr6(0);
    check(attempt(try_int1) == RAISED(1) && !(read_dr6() & DR6_BS), "INT1 is a debug exception");

    set_dr0((uint64_t)(uintptr_t)memory_operand);
    set_dr6(0);
    set_dr7(0xd0602); /* DR0: writes of 4 bytes; enabled; GE */
    check(attempt(try_touch_watched) == RAISED(1) && (read_dr6() & 0xf) == DR6_B0,
          "a watched write is caught");
    set_dr7(0x400);
    set_dr6(0);
}

/* ---- Events that touch memory for the first time --------------------------------------------- */

static void check_first_touch(void)
{
    static const struct {
        void (*piece)(void);
        unsigned vector;
        const char *name;
    } events[] = {
        {try_ud_on_new_stack, UD, "an undefined opcode arrives on a stack without a frame"},
        {try_int3_on_new_stack, 3, "so does INT3"},
        {try_int_on_new_stack, 5, "so does INT n"},
        {try_gp_on_new_stack, GP, "so does a fault with an error code"},
        {try_pf_on_new_stack, 14, "so does a page fault"},
    };
    uint64_t at = UNTOUCHED;

    for (unsigned i = 0; i < sizeof(events) / sizeof(events[0]); i++, at += 0x10000) {
        bool lazy = hypercall(QUIRE_HC_BACKING, at - 8, 0, 0, 0) == QUIRE_BACKING_LAZY_ABSENT;
        check(write_to(events[i].piece, at) == RAISED(events[i].vector), events[i].name);
        if (lazy)
            check(hypercall(QUIRE_HC_BACKING, at - 8, 0, 0, 0) == QUIRE_BACKING_RAM,
                  "and has one now");
    }
    check(read_cr2() == 0xffff900000001234ull && guest_fault_code == 0,
          "the page fault's address and code are right");
}

/* ---- What is ours alone -------------------------------------------------------------------- */

struct __attribute__((aligned(16))) fpu {
    uint64_t xmm[16][2];
    uint64_t mmx;
};

static void load_fpu(const struct fpu *from)
{
    __asm__ volatile("movdqa 0(%0), %%xmm0\n\tmovdqa 16(%0), %%xmm1\n\tmovdqa 112(%0), %%xmm7\n\t"
                     "movdqa 128(%0), %%xmm8\n\tmovdqa 240(%0), %%xmm15\n\tmovq 256(%0), %%mm3"
                     :
                     : "r"(from)
                     : "memory");
}

static void store_fpu(struct fpu *to)
{
    __asm__ volatile("movdqa %%xmm0, 0(%0)\n\tmovdqa %%xmm1, 16(%0)\n\tmovdqa %%xmm7, 112(%0)\n\t"
                     "movdqa %%xmm8, 128(%0)\n\tmovdqa %%xmm15, 240(%0)\n\tmovq %%mm3, 256(%0)"
                     :
                     : "r"(to)
                     : "memory");
}

static bool same_fpu(const struct fpu *a, const struct fpu *b)
{
    static const unsigned used[] = {0, 1, 7, 8, 15};
    bool same = a->mmx == b->mmx;

    for (unsigned i = 0; i < sizeof(used) / sizeof(used[0]); i++)
        same = same && a->xmm[used[i]][0] == b->xmm[used[i]][0] &&
               a->xmm[used[i]][1] == b->xmm[used[i]][1];
    return same;
}

static bool only_zeroes(const struct fpu *fpu)
{
    static const struct fpu zero;
    return same_fpu(fpu, &zero);
}

static void check_own_registers(void)
{
    static struct fpu mine, seen;
    uint32_t out[4];
    bool fpu = true, debug = true, msrs = true, cr2 = true, cr8 = true;

    set_cr4(read_cr4() | CR4_OSFXSR);
    store_fpu(&seen);
    check(only_zeroes(&seen), "the vector registers come empty");
    check(read_msr(IA32_PAT) == 0x0007040600070406ull, "PAT is as after a reset");
    cpuid(QUIRE_CPUID_BASE + 1, out);
    uint64_t mark = 0x1111111111111111ull * (out[1] & 7);
    for (unsigned i = 0; i < 16; i++) {
        mine.xmm[i][0] = mark + i;
        mine.xmm[i][1] = ~mark - i;
    }
    mine.mmx = mark ^ 0x55;
    load_fpu(&mine);
    set_dr0(mark & 0xffffffff);
    set_dr1(mark & 0xfffffff0);
    set_dr2(mark & 0xffffff00);
    set_dr3(mark & 0xfffff000);
    write_msr(IA32_LSTAR, mark & 0x7fffffff);
    write_msr(IA32_KERNEL_GS_BASE, mark & 0x7fffff00);
    write_msr(IA32_PAT, 0x0606060606060606ull - (out[1] & 1) * 6);
    set_cr2(mark);
    write_to(try_write_cr8, out[1] & 7);

    for (unsigned turn = 0; turn < 50; turn++) {
        hypercall(QUIRE_HC_YIELD, 0, 0, 0, 0);
        store_fpu(&seen);
        fpu = fpu && same_fpu(&seen, &mine);
        debug = debug && read_dr0() == (mark & 0xffffffff) && read_dr1() == (mark & 0xfffffff0) &&
                read_dr2() == (mark & 0xffffff00) && read_dr3() == (mark & 0xfffff000);
        cr2 = cr2 && read_cr2() == mark;
        msrs = msrs && read_msr(IA32_LSTAR) == (mark & 0x7fffffff) &&
               read_msr(IA32_KERNEL_GS_BASE) == (mark & 0x7fffff00) &&
               read_msr(IA32_PAT) == 0x0606060606060606ull - (out[1] & 1) * 6;
        cr8 = cr8 && attempt(try_read_cr8) == 0 && result == (out[1] & 7);
    }
    check(fpu, "vector and x87 registers keep their values while others run");
    check(debug, "so do DR0 to DR3");
    check(msrs, "so do the registers of system calls and PAT");
    check(cr2, "so does CR2");
    check(cr8, "so does CR8");
}

void guest_main(const struct multiboot_info *info)
{
    (void)info;
    check_own_registers();
    check_instructions();
    check_cr0();
    check_cr4();
    check_xcr0();
    check_msrs();
    check_debug();
    check_first_touch();
    guest_end();
}
