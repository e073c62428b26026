/*
 * Who has how much: accounts of owners and purposes, quotas, and the share of them that CPUs lease.
 *
 * What an owner has taken for a purpose is charged to both in the same units, frames. Charged
 * are those in use plus those leased to CPUs, which may hand them out without asking and refill
 * with what comes back; so one number changes when a block does, and exact counts are a sum over
 * CPUs. Quotas bound what is charged; leases are called in before a request is refused, and an
 * owner beyond its quota (which was lowered) has none.
 */
#include "mm/frames/buddy_cache.h"

/* Changes what is charged by `frames`, modulo 2^64. */
void buddy_add_charge(uint64_t key, uint64_t frames)
{
    buddy_accounts[frame_record_owner(key)].charged += frames;
    buddy.charged_for[frame_record_purpose(key)] += frames;
}

static void lease_return(struct lease *lease)
{
    buddy_add_charge(lease->key, -lease->left);
    poke(lease->left, 0);
    poke(lease->key, 0);
}

static bool is_leased_to(const struct cpu *cpu, owner_t owner)
{
    for (unsigned n = 0; n < LEASES; n++)
        if (frame_record_owner(peek(cpu->lease[n].key)) == owner)
            return true;
    return false;
}

/* Calls in every lease of this owner's quota, an empty one too. */
void buddy_recall_leases(struct cpu *self, owner_t owner)
{
    bool others = false;
    for (unsigned i = 0; i < buddy.cpus; i++)
        others = others || (&buddy_cpus[i] != self && is_leased_to(&buddy_cpus[i], owner));
    if (others)
        buddy_stop_others(self);
    for (unsigned i = 0; i < buddy.cpus; i++)
        for (unsigned n = 0; n < LEASES && (others || &buddy_cpus[i] == self); n++)
            if (frame_record_owner(buddy_cpus[i].lease[n].key) == owner)
                lease_return(&buddy_cpus[i].lease[n]);
    if (others)
        buddy_resume_others();
}

/* Frames that may still be charged to an owner. */
static uint64_t quota_left(owner_t owner)
{
    uint64_t quota = quota_of(owner), charged = buddy_accounts[owner].charged;
    return quota > charged ? quota - charged : 0;
}

/* Gives the CPU a fresh lease, if the quota has room, so that what follows needs no lock. */
void buddy_renew_lease(struct cpu *self, uint64_t key)
{
    owner_t owner = frame_record_owner(key);
    struct lease *lease = lease_of(self, frame_record_purpose(key), owner);
    if (lease->key == key && lease->left >= LEASE_FRAMES / 2)
        return;
    lease_return(lease);
    if (buddy_accounts[owner].charged > quota_of(owner))
        return;
    uint64_t room = quota_left(owner), grant = room < LEASE_FRAMES ? room : LEASE_FRAMES;
    buddy_add_charge(key, grant);
    poke(lease->key, key);
    poke(lease->left, grant);
}

/* May so many frames be charged? If so, they are. */
int buddy_charge(struct cpu *self, uint64_t key, uint64_t frames)
{
    owner_t owner = frame_record_owner(key);
    if (quota_left(owner) < frames) {
        buddy_recall_leases(self, owner);
        if (quota_left(owner) < frames)
            return E_QUOTA;
    }
    if (owner != OWNER_HOST && buddy.host_reserve > 0) {
        uint64_t available = buddy.free_frames + buddy_cached_frames();
        if (available < frames)
            return E_NOMEM;
        if (available - frames < buddy.host_reserve)
            return E_QUOTA;
    }
    buddy_add_charge(key, frames);
    return E_OK;
}

int buddy_move_charge(struct cpu *self, uint64_t from, uint64_t to, uint64_t frames)
{
    owner_t owner = frame_record_owner(to);
    if (quota_left(owner) < frames)
        buddy_recall_leases(self, owner);
    if (quota_left(owner) < frames)
        return E_QUOTA;
    buddy_add_charge(to, frames);
    buddy_add_charge(from, -frames);
    return E_OK;
}

int buddy_set_quota(owner_t owner, uint64_t frames)
{
    if (owner == OWNER_NONE || owner >= OWNER_LIMIT)
        return E_INVAL;
    buddy_recall_leases(buddy_take_lock(),
                        owner); /* what is leased could be taken beyond a smaller quota */
    buddy_accounts[owner].forbidden = UINT64_MAX - frames;
    buddy_drop_lock();
    return E_OK;
}

void buddy_set_reserve(uint64_t frames)
{
    buddy_take_lock();
    buddy.host_reserve = frames;
    buddy_drop_lock();
}

uint64_t buddy_quota(owner_t owner)
{
    if (owner >= OWNER_LIMIT)
        return 0;
    buddy_take_lock();
    uint64_t quota = quota_of(owner);
    buddy_drop_lock();
    return quota;
}
