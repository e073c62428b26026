/*
 * The VMX instructions that vmcs.c and vmx.c turn into calls with errors, one function each, and
 * nothing else (SDM Vol. 3, chapter 31). Those of the exit path are in vmx_cpu.h.
 */
#ifndef QUIRE_ARCH_VMX_INSTRUCTIONS_H
#define QUIRE_ARCH_VMX_INSTRUCTIONS_H

#include <stdbool.h>
#include <stdint.h>

/* How a VMX instruction ends (31.2 "Conventions"). */
struct vm_flags {
    bool invalid; /* CF: VMfailInvalid, there is no current VMCS to hold a number */
    bool valid;   /* ZF: VMfailValid, the number is in the VM-instruction error field */
};

static inline struct vm_flags insn_vmread(uint64_t field, uint64_t *value)
{
    struct vm_flags failed;
    __asm__ volatile("vmread %[field], %[value]"
                     : [value] "=r"(*value), "=@ccc"(failed.invalid), "=@ccz"(failed.valid)
                     : [field] "r"(field));
    return failed;
}

static inline struct vm_flags insn_vmwrite(uint64_t field, uint64_t value)
{
    struct vm_flags failed;
    __asm__ volatile("vmwrite %[value], %[field]"
                     : "=@ccc"(failed.invalid), "=@ccz"(failed.valid)
                     : [value] "r"(value), [field] "r"(field)
                     : "memory");
    return failed;
}

/* Of the region at this physical address. */
#define REGION_INSTRUCTION(name)                                                                   \
    static inline struct vm_flags insn_##name(uint64_t region)                                     \
    {                                                                                              \
        struct vm_flags failed;                                                                    \
        __asm__ volatile(#name " %[region]"                                                        \
                         : "=@ccc"(failed.invalid), "=@ccz"(failed.valid)                          \
                         : [region] "m"(region)                                                    \
                         : "memory");                                                              \
        return failed;                                                                             \
    }
REGION_INSTRUCTION(vmptrld)
REGION_INSTRUCTION(vmclear)
REGION_INSTRUCTION(vmxon)
#undef REGION_INSTRUCTION

/* By a type and a descriptor of two words: EPTP and 0; VPID and linear address. */
#define INVALIDATION(name)                                                                         \
    static inline struct vm_flags insn_##name(uint64_t type, uint64_t low, uint64_t high)          \
    {                                                                                              \
        struct {                                                                                   \
            uint64_t low, high;                                                                    \
        } descriptor = {low, high};                                                                \
        struct vm_flags failed;                                                                    \
        __asm__ volatile(#name " %[descriptor], %[type]"                                           \
                         : "=@ccc"(failed.invalid), "=@ccz"(failed.valid)                          \
                         : [descriptor] "m"(descriptor), [type] "r"(type)                          \
                         : "memory");                                                              \
        return failed;                                                                             \
    }
INVALIDATION(invept)
INVALIDATION(invvpid)
#undef INVALIDATION

#endif
