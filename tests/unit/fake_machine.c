/* See fake_machine.h. */
#include "tests/unit/fake_machine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "arch/x86_64/mm/ept.h"
#include "arch/x86_64/mm/guest_memory.h"
#include "lib/bits.h"
#include "lib/error.h"
#include "lib/log.h"
#include "mm/frames/buddy.h"
#include "mm/frames/scrub.h"
#include "tests/unit/buddy_env.h"
#include "vm/guest.h"

#define LOG_KEPT (1 << 20)

static uint8_t *arena;
static uint64_t arena_bytes;
static void *metadata;
static uint64_t now;
static char logged[LOG_KEPT];
static size_t logged_length;

void (*machine_cpu)(struct fake_vcpu *vcpu, struct vm_exit *exit);
void (*machine_cpuid)(uint32_t leaf, uint32_t subleaf, uint32_t out[4]);
struct table_caps machine_caps;
uint64_t machine_base, machine_unmapped, machine_read_only, machine_xcr0_mask;
int machine_vcpu_error;
bool machine_logs;
unsigned (*machine_self)(void);
uint64_t machine_stolen;
uint64_t machine_touches;

/* ---- Where vCPUs are active, as VMCSs are (SDM Vol. 3, 25.1) ---- */

#define VCPUS 128
static struct fake_vcpu *vcpus[VCPUS];

static void load(struct vcpu *vcpu)
{
    struct fake_vcpu *fake = (struct fake_vcpu *)vcpu;
    unsigned self = 1 + (machine_self != NULL ? machine_self() : 0);

    if (fake->active != 0 && fake->active != self)
        __atomic_fetch_add(&machine_stolen, 1, __ATOMIC_RELAXED);
    fake->active = self;
}

static void put_all(void)
{
    unsigned self = 1 + (machine_self != NULL ? machine_self() : 0);

    for (unsigned i = 0; i < VCPUS; i++)
        if (vcpus[i] != NULL && vcpus[i]->active == self)
            vcpus[i]->active = 0;
}

static void enlist(const struct fake_vcpu *was, struct fake_vcpu *is)
{
    for (unsigned i = 0; i < VCPUS; i++) {
        if (vcpus[i] == was) {
            vcpus[i] = is;
            return;
        }
    }
}

static const struct table_caps *table_caps(void)
{
    return &machine_caps;
}

static const struct table_env *table_env(void)
{
    return &buddy_env;
}

static void cpuid(uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    machine_cpuid(leaf, subleaf, out);
}

static uint64_t ticks(void)
{
    return __atomic_add_fetch(&now, 1000, __ATOMIC_RELAXED);
}

static uint64_t xcr0_mask(void)
{
    return machine_xcr0_mask;
}

static int vcpu_create(struct guest *guest, struct table *table, owner_t owner, struct vcpu **out)
{
    struct fake_vcpu *vcpu;

    (void)table;
    (void)owner;
    if (machine_vcpu_error != E_OK)
        return machine_vcpu_error;
    vcpu = calloc(1, sizeof(*vcpu));
    assert_non_null(vcpu);
    vcpu->vcpu.guest = guest;
    *out = &vcpu->vcpu;
    enlist(NULL, vcpu);
    load(*out);
    return E_OK;
}

static void vcpu_destroy(struct vcpu *vcpu)
{
    load(vcpu);
    enlist((struct fake_vcpu *)vcpu, NULL);
    free(vcpu);
}

static int vcpu_copy(struct vcpu *to, struct vcpu *from)
{
    struct fake_vcpu *target = (struct fake_vcpu *)to, *source = (struct fake_vcpu *)from;

    load(from);
    load(to);
    memcpy(to->gpr, from->gpr, sizeof(to->gpr));
    to->cr8 = from->cr8;
    target->state = source->state;
    target->halted = source->halted;
    target->window = source->window;
    return E_OK;
}

static int get_state(struct vcpu *vcpu, struct vcpu_state *out)
{
    struct fake_vcpu *fake = (struct fake_vcpu *)vcpu;

    load(vcpu);
    *out = fake->state;
    memcpy(out->gpr, vcpu->gpr, sizeof(out->gpr));
    return E_OK;
}

static int get_modes(struct vcpu *vcpu, struct vm_modes *out)
{
    const struct vcpu_state *state = &((struct fake_vcpu *)vcpu)->state;

    *out = (struct vm_modes){
        .cr4 = state->cr4,
        .xcr0 = state->xcr0,
        .code64 = state->efer & BIT(10) && state->segment[SEG_CS].access & BIT(13),
    };
    return E_OK;
}

static int set_state(struct vcpu *vcpu, const struct vcpu_state *in)
{
    struct fake_vcpu *fake = (struct fake_vcpu *)vcpu;

    load(vcpu);
    fake->state = *in;
    memcpy(vcpu->gpr, in->gpr, sizeof(in->gpr));
    return E_OK;
}

static int get_rest(struct vcpu *vcpu, struct vcpu_rest *out)
{
    *out = ((struct fake_vcpu *)vcpu)->rest;
    out->cr8 = vcpu->cr8;
    return E_OK;
}

static int set_rest(struct vcpu *vcpu, const struct vcpu_rest *in)
{
    if (in->cr8 > 15)
        return E_ILLEGAL;
    ((struct fake_vcpu *)vcpu)->rest = *in;
    vcpu->cr8 = (uint8_t)in->cr8;
    return E_OK;
}

static bool touched(struct vcpu *vcpu, const struct vm_exit *exit)
{
    bool done = vcpu_touch(vcpu, exit->memory.gpa, exit->memory.access);

    __atomic_fetch_add(&machine_touches, done, __ATOMIC_RELAXED);
    return done;
}

static int run(struct vcpu *vcpu, uint64_t slice, struct vm_exit *exit)
{
    struct fake_vcpu *fake = (struct fake_vcpu *)vcpu;

    load(vcpu);
    vcpu->entries++;
    vcpu_drop_lock(vcpu);
    do {
        memset(exit, 0, sizeof(*exit));
        if (machine_cpu != NULL)
            machine_cpu(fake, exit);
        else
            exit->kind = VM_EXIT_SLICE;
    } while (exit->kind == VM_EXIT_MEMORY && touched(vcpu, exit));
    vcpu_take_lock(vcpu, ticks);
    if (exit->rip == 0)
        exit->rip = fake->state.rip;
    if (exit->kind == VM_EXIT_SLICE)
        machine_pass(slice);
    return exit->kind == VM_EXIT_BAD_STATE ? E_HARDWARE : E_OK;
}

static bool trap_follows(const struct fake_vcpu *fake)
{
    return fake->state.rflags >> 8 & 1;
}

static bool skip_exit(struct vcpu *vcpu, const struct vm_exit *exit)
{
    struct fake_vcpu *fake = (struct fake_vcpu *)vcpu;

    fake->state.rip += exit->length;
    return trap_follows(fake);
}

static bool iterated(struct vcpu *vcpu)
{
    return trap_follows((struct fake_vcpu *)vcpu);
}

static void retry(struct vcpu *vcpu)
{
    ((struct fake_vcpu *)vcpu)->retries++;
}

static void note_port(struct vcpu *vcpu, uint16_t port, unsigned width)
{
    ((struct fake_vcpu *)vcpu)->noted = port + width;
}

static int inject(struct vcpu *vcpu, struct vm_event event)
{
    struct fake_vcpu *fake = (struct fake_vcpu *)vcpu;

    fake->event = event;
    if (event.vector == 14)
        fake->state.cr2 = event.address;
    fake->events++;
    return E_OK;
}

static void set_halted(struct vcpu *vcpu, bool halted)
{
    ((struct fake_vcpu *)vcpu)->halted = halted;
}

static bool interrupts_open(struct vcpu *vcpu)
{
    return ((struct fake_vcpu *)vcpu)->state.rflags >> 9 & 1;
}

static void want_window(struct vcpu *vcpu, bool wanted)
{
    ((struct fake_vcpu *)vcpu)->window = wanted;
}

static bool page_faults(const struct fake_vcpu *fake, const struct vm_operand *operand,
                        uint64_t linear, struct vm_operand_place *out)
{
    bool write = operand->access & RIGHT_W, present = linear < machine_unmapped;

    if (present && (!write || linear < machine_read_only))
        return false;
    out->event = (struct vm_event){
        .kind = VM_EVENT_EXCEPTION,
        .vector = 14,
        .has_code = true,
        .code = (present ? 1u : 0) | (write ? 2u : 0) |
                (segment_dpl(&fake->state.segment[SEG_SS]) == 3 ? 4u : 0),
        .address = linear,
    };
    return true;
}

/* Pages as above, then the guest's second-level table. */
static enum vm_operand_outcome operand_at(struct vcpu *vcpu, const struct vm_exit *exit,
                                          const struct vm_operand *operand,
                                          struct vm_operand_place *out)
{
    uint64_t mask =
        operand->address_bytes == 8 ? UINT64_MAX : BITS(8 * operand->address_bytes - 1, 0);
    uint64_t linear = machine_base + (operand->offset & mask);
    unsigned left = operand->bytes;

    memset(out, 0, sizeof(*out));
    out->run = 1;
    for (unsigned i = 0; left > 0; i++) {
        uint64_t room = PAGE_SIZE - linear % PAGE_SIZE;
        unsigned bytes = left < room ? left : (unsigned)room, allowed = 0;

        if (page_faults((struct fake_vcpu *)vcpu, operand, linear, out))
            return VM_OPERAND_EXCEPTION;
        struct guest_view view = {.table = &vcpu->guest->table};
        int error =
            guest_memory_reach(&view, gpa(linear), operand->access, &out->piece[i].at, &allowed);
        if (error != E_OK) {
            out->exit = *exit;
            out->exit.kind = error == E_ILLEGAL ? VM_EXIT_MISCONFIG : VM_EXIT_MEMORY;
            out->exit.memory.gpa = gpa(linear);
            out->exit.memory.gva = gva(linear);
            out->exit.memory.gva_valid = true;
            out->exit.memory.walk = false;
            out->exit.memory.access = operand->access;
            out->exit.memory.allowed = allowed;
            return VM_OPERAND_MEMORY;
        }
        out->piece[i].bytes = bytes;
        linear += bytes;
        left -= bytes;
    }
    return VM_OPERAND_REACHED;
}

static int log_start(struct vcpu *vcpu)
{
    if (!machine_logs)
        return E_UNSUPPORTED;
    ((struct fake_vcpu *)vcpu)->logs = true;
    return E_OK;
}

static void log_stop(struct vcpu *vcpu)
{
    ((struct fake_vcpu *)vcpu)->logs = false;
    ((struct fake_vcpu *)vcpu)->logged = 0;
}

static void log_take(struct vcpu *vcpu, vm_logged_fn fn, void *ctx)
{
    struct fake_vcpu *fake = (struct fake_vcpu *)vcpu;

    for (unsigned i = 0; i < fake->logged; i++)
        fn(ctx, fake->log[i]);
    fake->logged = 0;
}

static int read_root(struct vcpu *vcpu, struct vm_root *out)
{
    *out = (struct vm_root){.frame = vcpu->guest->table.root, .type = MEM_WB, .levels = 4};
    return E_OK;
}

/* Without paging. */
static bool read_linear(struct vcpu *vcpu, const struct vcpu_state *state, uint64_t at, void *to,
                        unsigned size)
{
    (void)state;
    return guest_read(vcpu->guest, gpa(at), to, size) == size;
}

static void set_clock(struct vcpu *vcpu, uint64_t offset)
{
    ((struct fake_vcpu *)vcpu)->clock = offset;
}

static void dump(struct vcpu *vcpu, struct sink *to)
{
    (void)vcpu;
    format(to, "raw state of the fake CPU\n");
}

const struct vm_backend machine_backend = {
    .detail = "qualification",
    .name = "fake",
    .cpuid = cpuid,
    .ticks = ticks,
    .xcr0_mask = xcr0_mask,
    .table_caps = table_caps,
    .table_env = table_env,
    .kind = &ept_kind,
    .vcpu_create = vcpu_create,
    .vcpu_destroy = vcpu_destroy,
    .vcpu_copy = vcpu_copy,
    .get_state = get_state,
    .get_modes = get_modes,
    .set_state = set_state,
    .get_rest = get_rest,
    .set_rest = set_rest,
    .set_clock = set_clock,
    .put_all = put_all,
    .run = run,
    .skip = skip_exit,
    .iterated = iterated,
    .retry = retry,
    .note_port = note_port,
    .inject = inject,
    .set_halted = set_halted,
    .interrupts_open = interrupts_open,
    .want_window = want_window,
    .operand = operand_at,
    .log_start = log_start,
    .log_stop = log_stop,
    .log_take = log_take,
    .read_root = read_root,
    .read_linear = read_linear,
    .dump = dump,
};

static void keep_line(struct sink *sink, const char *bytes, size_t n)
{
    (void)sink;
    if (n > LOG_KEPT - 1 - logged_length)
        n = LOG_KEPT - 1 - logged_length;
    memcpy(logged + logged_length, bytes, n);
    logged_length += n;
    logged[logged_length] = '\0';
}

static struct sink log_sink = {keep_line};

const char *machine_log(void)
{
    return logged;
}

void machine_forget_log(void)
{
    logged_length = 0;
    logged[0] = '\0';
}

static void no_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    (void)subleaf;
    memset(out, 0, 4 * sizeof(out[0]));
    if (leaf == 0x80000000u)
        out[0] = 0x80000008u;
    else if (leaf == 0x80000008u)
        out[0] = machine_caps.maxphyaddr | 48 << 8;
}

void machine_start(uint64_t bytes)
{
    uint64_t size = buddy_metadata_size(bytes);

    arena_bytes = bytes;
    arena = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                 -1, 0);
    assert_true(arena != MAP_FAILED);
    direct_base = (uint64_t)(uintptr_t)arena;
    metadata = aligned_alloc(PAGE_SIZE, align_up(size, PAGE_SIZE));
    assert_non_null(metadata);
    assert_int_equal(buddy_init(metadata, size, bytes), E_OK);
    poison_start();
    assert_int_equal(buddy_add(hpa(0), bytes), E_OK);
    machine_caps = (struct table_caps){
        .maxphyaddr = 40,
        .leaf_top = 3,
        .nx = true,
        .accessed_dirty = true,
        .execute_only = true,
        .mem_types = BIT(MEM_UC) | BIT(MEM_WB),
    };
    machine_cpu = NULL;
    machine_cpuid = no_cpuid;
    machine_base = 0;
    machine_unmapped = machine_read_only = UINT64_MAX;
    machine_xcr0_mask = 0;
    machine_vcpu_error = E_OK;
    machine_logs = false;
    machine_self = NULL;
    machine_stolen = 0;
    machine_forget_log();
    log_attach(&log_sink);
}

void machine_stop(void)
{
    log_attach(NULL);
    free(metadata);
    munmap(arena, arena_bytes);
}

uint64_t machine_free_frames(void)
{
    struct buddy_stats stats;

    buddy_stats(&stats);
    return stats.free_frames;
}

void machine_pass(uint64_t passed)
{
    __atomic_fetch_add(&now, passed, __ATOMIC_RELAXED);
}
