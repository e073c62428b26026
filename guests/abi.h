/*
 * The interface between a Quire guest and Quire. docs/GUEST-INTERFACE.md describes it; a guest
 * may use any part of it or none. This header is plain preprocessor so that NASM sources can use
 * the same numbers (guests/abi.inc is made from it).
 *
 * Debug port: a byte written to QUIRE_PORT_DEBUG is a character of the guest's output.
 * Result port: a 32-bit value written to QUIRE_PORT_RESULT ends the guest: 0 is pass, any other
 * value is fail with that number.
 *
 * Hypercall: VMCALL with the number in EAX and arguments in EBX, ECX, EDX, ESI (RBX ... in
 * 64-bit mode). The answer is in EAX: 0 or a QUIRE_E_* value. In any mode, at privilege level 0;
 * elsewhere it raises #UD.
 */
#ifndef QUIRE_GUESTS_ABI_H
#define QUIRE_GUESTS_ABI_H

#define QUIRE_PORT_DEBUG 0xE9
#define QUIRE_PORT_RESULT 0x510

/* CPUID leaf 0x40000000: EAX highest hypervisor leaf, EBX ECX EDX this text ("QuireQuireQu"). Leaf
 * 0x40000001: EAX interface version, EBX guest number. */
#define QUIRE_CPUID_BASE 0x40000000
#define QUIRE_CPUID_TEXT "QuireQuireQu"
#define QUIRE_ABI_VERSION 1

/* Hypercall numbers. */
#define QUIRE_HC_PASS 0x51520001  /* end: pass */
#define QUIRE_HC_FAIL 0x51520002  /* end: fail; EBX a number for the report */
#define QUIRE_HC_PUTS 0x51520003  /* EBX guest-physical address, ECX length (at most 4096) */
#define QUIRE_HC_YIELD 0x51520004 /* give up the rest of the time slice */
/*
 * One-shot: the next memory fault that would stop this guest and whose guest-physical address
 * lies in [EBX, EBX+ECX) is reported in full but does not stop it; instead execution resumes at
 * the address in EDX with RAX = QUIRE_FAULT_* bits of what was tried. In 64-bit mode RBX, RCX,
 * RDX. ESI 0. Calling it again replaces the earlier expectation; ECX 0 clears it.
 */
#define QUIRE_HC_EXPECT_FAULT 0x51520005
/* Asks how a guest-physical address (EBX) is backed: EAX = QUIRE_BACKING_*. */
#define QUIRE_HC_BACKING 0x51520006
/* An input has been dealt with: where the guest is fuzzed, the end of a round; else nothing. */
#define QUIRE_HC_DONE 0x51520007

/*
 * The pages of [EBX, EBX+ECX), RAM of the guest's own, lose their frames: what was in them is gone.
 * They stay RAM: each reads as zeroes from then on, and gets a frame, as lazy memory does, when it
 * is touched, or by QUIRE_HC_TAKE. QUIRE_E_INVAL: not whole pages of 4096 bytes, or beyond the last
 * address; QUIRE_E_NORAM: some of it is a hole, ROM, a device's, shared by name or may not be
 * written; nothing has changed. QUIRE_E_NOMEM: a part of a large page, and there is no frame for
 * the table that its other parts need.
 *
 * A call for much memory may take several turns: EBX and ECX move on then, interrupts come in
 * between, and it goes on by itself. When it has answered ECX is 0, or, after QUIRE_E_NOMEM, what
 * is left.
 */
#define QUIRE_HC_GIVE 0x51520008
/* Each page of [EBX, EBX+ECX) that has no frame gets one, zeroed; the others stay as they are.
 * QUIRE_E_NOMEM: there is none for the page at EBX; those before it have theirs. A touch would have
 * the guest paused there. All else as QUIRE_HC_GIVE. */
#define QUIRE_HC_TAKE 0x51520009

#define QUIRE_FAULT_READ 1
#define QUIRE_FAULT_WRITE 2
#define QUIRE_FAULT_EXEC 4

#define QUIRE_BACKING_NONE 0
#define QUIRE_BACKING_RAM 1
#define QUIRE_BACKING_LAZY_ABSENT 2 /* RAM, of any kind, without a frame */
#define QUIRE_BACKING_ROM 3
#define QUIRE_BACKING_NOEXEC 4
#define QUIRE_BACKING_DEVICE 5
#define QUIRE_BACKING_EXEC_ONLY 6

#define QUIRE_E_OK 0
#define QUIRE_E_INVAL 0xFFFFFFFF
#define QUIRE_E_UNKNOWN 0xFFFFFFFE
#define QUIRE_E_NORAM 0xFFFFFFFD
#define QUIRE_E_NOMEM 0xFFFFFFFC

#endif
