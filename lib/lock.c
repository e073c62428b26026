/* See lib/lock.h. */
#include "lib/lock.h"

#include <stddef.h>

#include "lib/panic.h"

bool locks_needed;

struct locks_held *(*locks_held_here)(void);

static bool may_follow(const struct lock *held, const struct lock *lock)
{
    if (held->order == LOCK_LEAF || held == lock)
        return false;
    if (lock->order == LOCK_TABLE && held->order == LOCK_TABLE)
        return (uintptr_t)held < (uintptr_t)lock;
    return lock->order == LOCK_LEAF || lock->order > held->order;
}

void lock_check_take(const struct lock *lock)
{
    struct locks_held *here = locks_held_here != NULL ? locks_held_here() : NULL;

    if (here == NULL)
        return;
    for (unsigned i = 0; i < here->count; i++)
        if (!may_follow(here->lock[i], lock))
            panic("a lock of place %u is taken under one of place %u, against their order",
                  lock->order, here->lock[i]->order);
    invariant(here->count < LOCKS_HELD_MOST);
    here->lock[here->count++] = lock;
}

void lock_check_drop(const struct lock *lock)
{
    struct locks_held *here = locks_held_here != NULL ? locks_held_here() : NULL;
    unsigned i;

    if (here == NULL)
        return;
    for (i = here->count; i > 0 && here->lock[i - 1] != lock; i--)
        continue;
    if (i == 0)
        panic("a lock of place %u is dropped that this CPU does not hold", lock->order);
    for (here->count--; i <= here->count; i++)
        here->lock[i - 1] = here->lock[i];
}

/* Who takes it writes `held` and then reads every `inside`; who shares it writes its own `inside`
 * and then reads `held`: one of them at least sees the other (SDM Vol. 3, 9.2.3.4 on why that takes
 * more than plain stores and loads). */
static bool try_take(struct wide_lock *lock)
{
    if (__atomic_load_n(&lock->held, __ATOMIC_RELAXED) ||
        __atomic_exchange_n(&lock->held, 1, __ATOMIC_SEQ_CST))
        return false;
    for (unsigned i = 0; i < lock->sharers; i++)
        while (__atomic_load_n(&lock->sharer[i].inside, __ATOMIC_SEQ_CST))
            __builtin_ia32_pause();
    return true;
}

static bool try_share(struct wide_lock *lock, struct lock_sharer *self)
{
    if (__atomic_load_n(&lock->held, __ATOMIC_RELAXED) ||
        __atomic_load_n(&lock->wanted, __ATOMIC_RELAXED))
        return false;
    __atomic_exchange_n(&self->inside, 1, __ATOMIC_SEQ_CST);
    if (!__atomic_load_n(&lock->held, __ATOMIC_SEQ_CST))
        return true;
    __atomic_store_n(&self->inside, 0, __ATOMIC_RELEASE);
    return false;
}

bool wide_lock_share(struct wide_lock *lock, struct lock_sharer *self)
{
    for (unsigned looks = 0; looks < WIDE_LOCK_LOOKS; looks++) {
        if (try_share(lock, self)) {
            if (LOCKS_CHECKED)
                lock_check_take(&lock->queue);
            return true;
        }
        __builtin_ia32_pause();
    }
    return false;
}

void wide_lock_unshare(struct wide_lock *lock, struct lock_sharer *self)
{
    if (LOCKS_CHECKED)
        lock_check_drop(&lock->queue);
    __atomic_store_n(&self->inside, 0, __ATOMIC_RELEASE);
}

void wide_lock_take(struct wide_lock *lock)
{
    if (!locks_needed)
        return;
    if (LOCKS_CHECKED)
        lock_check_take(&lock->queue);
    for (unsigned looks = 0; looks < WIDE_LOCK_LOOKS; looks++) {
        if (!__atomic_load_n(&lock->wanted, __ATOMIC_RELAXED) && try_take(lock))
            return;
        __builtin_ia32_pause();
    }
    lock_queue_up(&lock->queue);
    __atomic_store_n(&lock->wanted, 1, __ATOMIC_RELAXED);
    while (!try_take(lock))
        __builtin_ia32_pause();
    __atomic_store_n(&lock->wanted, 0, __ATOMIC_RELAXED);
    lock_serve_next(&lock->queue);
}

bool wide_lock_try(struct wide_lock *lock)
{
    if (!locks_needed)
        return true;
    if (__atomic_load_n(&lock->wanted, __ATOMIC_RELAXED) || !try_take(lock))
        return false;
    if (LOCKS_CHECKED)
        lock_check_take(&lock->queue);
    return true;
}

void wide_lock_drop(struct wide_lock *lock)
{
    if (!locks_needed)
        return;
    if (LOCKS_CHECKED)
        lock_check_drop(&lock->queue);
    __atomic_store_n(&lock->held, 0, __ATOMIC_RELEASE);
}
