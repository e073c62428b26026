/*
 * The VMX instructions on a VMCS and on cached translations, with failures as values.
 *
 * Which VMCS is current is tracked for each CPU, so that to ask without one is E_STATE and not an
 * undefined opcode. A VMfail with a number (VMfailValid) is E_HARDWARE, and the number is kept.
 */
#ifndef QUIRE_ARCH_VMX_VMCS_H
#define QUIRE_ARCH_VMX_VMCS_H

#include <stdbool.h>
#include <stdint.h>

#include "arch/x86_64/vmx/controls.h"
#include "arch/x86_64/vmx/vmcs_fields.h"
#include "mm/addr.h"

/* The field that holds each word of controls. */
extern const uint32_t vmcs_control_field[CONTROLS_COUNT];

/*
 * The field of the current VMCS. E_STATE: this CPU has no current VMCS, or is not in VMX operation;
 * E_HARDWARE: the CPU refused (no such field here, or a read-only one), see vmcs_error().
 */
int vmcs_read(uint32_t field, uint64_t *out);
int vmcs_write(uint32_t field, uint64_t value);

/* The VM-instruction error of this CPU's last E_HARDWARE (vm_instruction_error_name() has its
 * text). */
uint32_t vmcs_error(void);

/*
 * Makes the region current, or takes it out of use: VMCLEAR writes what the CPU holds of it to
 * memory, sets its launch state to clear, and leaves no VMCS current if it was this one. The region
 * is a frame with the revision identifier in its first word. E_STATE outside VMX operation,
 * E_HARDWARE as above.
 */
int vmcs_load(hpa_t region);
int vmcs_clear(hpa_t region);

/* The current VMCS of this CPU; false when there is none. */
bool vmcs_current(hpa_t *region);

/*
 * Invalidate translations derived from EPT (of one EPTP, or all), or tagged with a VPID (SDM Vol.
 * 3, 29.4.3.1). Where the CPU lacks the type asked for, the next wider one is used. E_STATE outside
 * VMX operation, E_UNSUPPORTED, E_INVAL, E_HARDWARE.
 */
int invept(unsigned type, uint64_t eptp);
int invvpid(unsigned type, uint16_t vpid, uint64_t gva);

#endif
