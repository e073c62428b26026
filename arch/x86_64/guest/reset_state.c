/* See reset_state.h. */
#include "arch/x86_64/guest/reset_state.h"

#include "lib/bits.h"
#include "x86/control.h"

#define DR7_FIXED BIT(10)

const struct vcpu_state guest_reset_state = {
    .rflags = RFLAGS_FIXED,
    .rip = 0xfff0,
    .cr0 = CR0_ET,
    .segment =
        {
            [SEG_ES] = {.limit = 0xffff, .access = 0x93},
            [SEG_CS] = {.limit = 0xffff, .access = 0x9b, .selector = 0xf000, .base = 0xf0000},
            [SEG_SS] = {.limit = 0xffff, .access = 0x93},
            [SEG_DS] = {.limit = 0xffff, .access = 0x93},
            [SEG_FS] = {.limit = 0xffff, .access = 0x93},
            [SEG_GS] = {.limit = 0xffff, .access = 0x93},
            [SEG_LDTR] = {.limit = 0xffff, .access = 0x82},
            [SEG_TR] = {.limit = 0xffff, .access = 0x8b},
        },
    .idt_limit = 0xffff,
    .gdt_limit = 0xffff,
    .dr7 = DR7_FIXED,
};
