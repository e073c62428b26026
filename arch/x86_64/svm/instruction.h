/*
 * The few instructions that exit, by their bytes: a CPU without decode assists and next-RIP saving
 * (APM Vol. 2, 15.8.4, 15.10) says neither what they are nor where they end. A pure function.
 */
#ifndef QUIRE_ARCH_SVM_INSTRUCTION_H
#define QUIRE_ARCH_SVM_INSTRUCTION_H

#include <stdbool.h>
#include <stdint.h>

#define INSTRUCTION_MOST 15

enum svm_opcode {
    OPCODE_OTHER,
    OPCODE_CPUID,
    OPCODE_HLT,
    OPCODE_INVD,
    OPCODE_WBINVD,
    OPCODE_RDMSR,
    OPCODE_WRMSR,
    OPCODE_VMMCALL,
    OPCODE_VMCALL, /* Intel's, which raises #UD */
    OPCODE_XSETBV,
    OPCODE_MOV_FROM_CR,
    OPCODE_MOV_TO_CR,
    OPCODE_MOV_FROM_DR,
    OPCODE_MOV_TO_DR,
    OPCODE_IO_STRING, /* INS and OUTS */
};

struct svm_instruction {
    enum svm_opcode opcode;
    unsigned length;
    uint8_t cr, gpr;       /* of MOV CR and MOV DR */
    bool address_override; /* prefix 67 */
    int segment;           /* by prefix, in the order of their encoding; -1: none */
};

/* `bytes`: from RIP on. False: there are fewer of them than the instruction has. */
bool svm_instruction_parse(const uint8_t *bytes, unsigned count, bool code64,
                           struct svm_instruction *out);

#endif
