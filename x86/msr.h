/*
 * Model-specific registers, by the manual's names (SDM Vol. 4, chapter 2). Those of VMX are in
 * arch/x86_64/vmx/.
 */
#ifndef QUIRE_X86_MSR_H
#define QUIRE_X86_MSR_H

#include "lib/bits.h"

#define IA32_TIME_STAMP_COUNTER 0x010
#define IA32_APIC_BASE 0x01b
#define APIC_BASE_BSP BIT(8)
#define APIC_BASE_EXTD BIT(10)
#define APIC_BASE_EN BIT(11)
#define IA32_FEATURE_CONTROL 0x03a
#define FEATURE_CONTROL_LOCK BIT(0)
#define FEATURE_CONTROL_VMX_IN_SMX BIT(1)
#define FEATURE_CONTROL_VMX_OUTSIDE_SMX BIT(2)
#define IA32_SPEC_CTRL 0x048
#define IA32_PRED_CMD 0x049
#define IA32_BIOS_UPDT_TRIG 0x079
#define IA32_BIOS_SIGN_ID 0x08b
#define IA32_MTRRCAP 0x0fe
#define MTRRCAP_COUNT BITS(7, 0)
#define MTRRCAP_FIXED BIT(8)
#define IA32_ARCH_CAPABILITIES 0x10a
#define IA32_SYSENTER_CS 0x174
#define IA32_SYSENTER_ESP 0x175
#define IA32_SYSENTER_EIP 0x176
#define IA32_MCG_CAP 0x179
#define IA32_MCG_STATUS 0x17a
#define MCG_STATUS_RIPV BIT(0)
#define MCG_STATUS_EIPV BIT(1)
#define MCG_STATUS_MCIP BIT(2)
#define IA32_MISC_ENABLE 0x1a0
#define IA32_DEBUGCTL 0x1d9
#define IA32_MTRR_PHYSBASE0 0x200
#define IA32_MTRR_PHYSMASK0 0x201
#define IA32_PAT 0x277
#define IA32_MTRR_DEF_TYPE 0x2ff
#define IA32_PERF_GLOBAL_CTRL 0x38f
#define IA32_TSC_DEADLINE 0x6e0
#define IA32_XSS 0xda0

#define IA32_EFER 0xc0000080
#define AMD_SYSCFG 0xc0010010
#define SYSCFG_TOM2_ENABLED BIT(21)
#define SYSCFG_TOM2_WRITE_BACK BIT(22)
#define AMD_TOP_MEM2 0xc001001d
#define IA32_STAR 0xc0000081
#define IA32_LSTAR 0xc0000082
#define IA32_CSTAR 0xc0000083
#define IA32_FMASK 0xc0000084
#define IA32_FS_BASE 0xc0000100
#define IA32_GS_BASE 0xc0000101
#define IA32_KERNEL_GS_BASE 0xc0000102
#define IA32_TSC_AUX 0xc0000103

/* Memory types as IA32_PAT encodes them (SDM Vol. 3, 11.12.2 "IA32_PAT MSR"). */
#define PAT_UC 0
#define PAT_WC 1
#define PAT_WT 4
#define PAT_WP 5
#define PAT_WB 6
#define PAT_UC_MINUS 7
#define PAT_ENTRY(index, type) ((uint64_t)(type) << (8 * (index)))

#endif
