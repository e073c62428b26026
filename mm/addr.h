/*
 * The four kinds of address. Each is its own one-member struct, so that to pass one where
 * another is meant does not compile.
 *
 *   guest-virtual  --guest's CR3-->  guest-physical  --EPT-->  host-physical
 *   host-virtual   --host's CR3--->  host-physical
 */
#ifndef QUIRE_MM_ADDR_H
#define QUIRE_MM_ADDR_H

#include <stdint.h>

#include "lib/bits.h"

typedef struct {
    uint64_t v;
} hva_t;
typedef struct {
    uint64_t v;
} hpa_t;
typedef struct {
    uint64_t v;
} gva_t;
typedef struct {
    uint64_t v;
} gpa_t;

static inline hva_t hva(uint64_t v)
{
    return (hva_t){v};
}
static inline hpa_t hpa(uint64_t v)
{
    return (hpa_t){v};
}
static inline gva_t gva(uint64_t v)
{
    return (gva_t){v};
}
static inline gpa_t gpa(uint64_t v)
{
    return (gpa_t){v};
}

static inline hpa_t hpa_add(hpa_t base, uint64_t bytes)
{
    return hpa(base.v + bytes);
}
static inline gpa_t gpa_add(gpa_t base, uint64_t bytes)
{
    return gpa(base.v + bytes);
}
static inline hva_t hva_add(hva_t base, uint64_t bytes)
{
    return hva(base.v + bytes);
}

/* A frame number is a host-physical address in units of 4 KiB. */
static inline uint64_t pfn_of(hpa_t address)
{
    return address.v >> PAGE_SHIFT;
}
static inline hpa_t hpa_of_pfn(uint64_t pfn)
{
    return hpa(pfn << PAGE_SHIFT);
}

/*
 * Where host-physical address 0 appears in our own address space: the base of the direct map,
 * or in a hosted program the base of the arena that plays physical memory. Set once, before
 * anything in mm/ runs; defined in mm/addr.c.
 */
extern uint64_t direct_base;

static inline void *direct(hpa_t address)
{
    return (void *)(uintptr_t)(direct_base + address.v);
}
static inline hpa_t direct_hpa(const void *pointer)
{
    return hpa((uint64_t)(uintptr_t)pointer - direct_base);
}

#endif
