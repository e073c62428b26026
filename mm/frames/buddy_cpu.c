/*
 * CPUs: each has a stock of small blocks, a share of the quotas, and counters. They are in its own
 * struct cpu, which it uses without a lock and without an atomic read-modify-write. Everything else
 * belongs to the holder of `lock`.
 *
 * The holder may also work in another CPU's struct, after buddy_stop_others(). A bit in `closed`
 * keeps the owner out, who then goes for the lock instead; `busy` shows that he is inside. Between
 * the two the owner executes no barrier: the fence that the embedding program supplies stands for
 * it. In his own struct the holder works without further ado.
 */
#include "mm/frames/buddy_internal.h"

#include "lib/panic.h"

struct buddy_state buddy __attribute__((aligned(128)));
struct account buddy_accounts[OWNER_LIMIT];
struct cpu buddy_cpus[BUDDY_CPUS];

unsigned (*buddy_cpu_index)(void);
bool buddy_alone_open;
static void (*cpu_fence)(void);

struct cpu *buddy_this_cpu(void)
{
    unsigned index = buddy_cpu_index != NULL ? buddy_cpu_index() : 0;
    invariant(index < BUDDY_CPUS);
    return computed(&buddy_cpus[index]);
}

/* What closes a CPU's struct when nobody works there. */
static unsigned closed_at_rest(void)
{
    return (buddy.pressed ? CLOSED_PRESSED : 0u) | (buddy.watcher != NULL ? CLOSED_WATCHED : 0u);
}

struct cpu *buddy_take_lock(void)
{
    struct cpu *self = buddy_this_cpu();
    lock_take(&buddy.lock);
    buddy.holdings++;
    for (; self >= &buddy_cpus[buddy.cpus]; buddy.cpus++)
        poke(buddy_cpus[buddy.cpus].closed, closed_at_rest());
    return self;
}

static void set_closed(unsigned bits)
{
    for (unsigned i = 0; i < buddy.cpus; i++)
        __atomic_store_n(&buddy_cpus[i].closed, bits, __ATOMIC_RELEASE);
}

static void set_alone(void)
{
    poke(buddy_alone_open, buddy_cpu_index == NULL && closed_at_rest() == 0);
}

void buddy_open(void)
{
    buddy_take_lock();
    set_alone();
    buddy_drop_lock();
}

void buddy_drop_lock(void)
{
    bool pressed = buddy.free_frames < buddy.host_reserve;
    if (buddy.pressed != pressed) {
        buddy.pressed = pressed;
        set_closed(closed_at_rest());
        set_alone();
    }
    lock_drop(&buddy.lock);
}

void buddy_stop_others(const struct cpu *self)
{
    if (cpu_fence == NULL)
        return;
    set_closed(CLOSED_STOP);
    cpu_fence();
    for (unsigned i = 0; i < buddy.cpus; i++)
        while (&buddy_cpus[i] != self &&
               __atomic_load_n(&buddy_cpus[i].busy, __ATOMIC_ACQUIRE) != 0)
            __builtin_ia32_pause();
}

void buddy_resume_others(void)
{
    set_closed(closed_at_rest());
}

int buddy_set_cpus(unsigned (*index)(void), void (*fence)(void))
{
    if ((index == NULL) != (fence == NULL))
        return E_INVAL;
    buddy_cpu_index = index;
    cpu_fence = fence;
    set_alone();
    return E_OK;
}

void buddy_set_watch(const struct buddy_watch *watch)
{
    buddy_take_lock();
    buddy.watcher = watch;
    set_closed(closed_at_rest());
    set_alone();
    buddy_drop_lock();
}
