# The hosted unit tests: each names the product sources that it links.

UNIT_TESTS += line_editor
UNIT_line_editor_SRC := monitor/line_editor.c monitor/fold.c lib/format.c

UNIT_TESTS += arguments
UNIT_arguments_SRC := monitor/arguments.c lib/format.c

# lib/string.c has the libc's own names; its test gets it through string_renamed.c, which includes it
# under other ones. A hosted program otherwise takes these functions from the libc, so lib/string.c
# itself stands in no list here.
UNIT_TESTS += lib
UNIT_lib_SRC := lib/error.c lib/format.c lib/log.c tests/unit/string_renamed.c

UNIT_TESTS += sha256
UNIT_sha256_SRC := lib/sha256.c

UNIT_TESTS += regions

UNIT_TESTS += memblock
UNIT_memblock_SRC := mm/frames/memblock.c mm/frames/regions.c

UNIT_TESTS += multiboot2
UNIT_multiboot2_SRC := boot/multiboot2.c lib/format.c tests/unit/boot_table.c

UNIT_TESTS += madt
UNIT_madt_SRC := boot/madt.c lib/format.c

UNIT_TESTS += low_page
UNIT_low_page_SRC := boot/low_page.c boot/multiboot2.c mm/addr.c lib/format.c tests/unit/boot_table.c

UNIT_TESTS += early
UNIT_early_SRC := mm/frames/early.c mm/frames/memblock.c mm/frames/regions.c $(BUDDY_SRC) mm/frames/frame.c mm/addr.c lib/format.c

UNIT_TESTS += window
UNIT_window_SRC := arch/x86_64/mm/window.c

INSN_SRC := $(sort $(wildcard arch/x86_64/insn/*.c))

# The mapper, the buddy under it, and the kernel kind.
UNIT_KERNEL_TABLE := $(MAPPER_SRC) $(BUDDY_SRC) mm/frames/frame.c \
	mm/frames/memblock.c mm/frames/regions.c mm/frames/scrub.c arch/x86_64/mm/kind_kernel.c lib/error.c \
	lib/format.c

# The auditor; its self-test; audit_one.c, which logs, is by itself.
AUDIT_SELFTEST_SRC := $(wildcard mm/audit/*selftest*.c)
AUDIT_SRC := $(filter-out $(AUDIT_SELFTEST_SRC) mm/audit/audit_one.c,$(wildcard mm/audit/*.c))

UNIT_TESTS += kernel_space
UNIT_kernel_space_SRC := arch/x86_64/mm/direct_map.c arch/x86_64/mm/image.c \
	arch/x86_64/mm/space_check.c $(AUDIT_SRC) $(UNIT_KERNEL_TABLE)

UNIT_TESTS += kernel_windows
UNIT_kernel_windows_SRC := arch/x86_64/mm/windows.c arch/x86_64/mm/window.c \
	arch/x86_64/mm/stacks.c arch/x86_64/mm/direct_map.c $(UNIT_KERNEL_TABLE)

UNIT_TESTS += user_space
UNIT_user_space_SRC := arch/x86_64/user_space.c arch/x86_64/mm/kind_user.c vm/elf.c \
	$(UNIT_KERNEL_TABLE)

# On CPUs that the test plays.
UNIT_TESTS += shootdown
UNIT_shootdown_SRC := arch/x86_64/mm/shootdown.c arch/x86_64/mm/kind_user.c $(KIND_EPT) $(UNIT_KERNEL_TABLE)

UNIT_AUDIT := $(AUDIT_SRC) tests/unit/audit_fixture.c arch/x86_64/mm/kind_user.c $(KIND_EPT) \
	$(UNIT_KERNEL_TABLE)

UNIT_TESTS += audit
UNIT_audit_SRC := $(AUDIT_SELFTEST_SRC) $(UNIT_AUDIT) arch/x86_64/mm/kind_npt.c

UNIT_TESTS += audit_alias
UNIT_audit_alias_SRC := $(UNIT_AUDIT)

UNIT_TESTS += audit_limits
UNIT_audit_limits_SRC := $(UNIT_AUDIT)

UNIT_TESTS += visit_nodes
UNIT_visit_nodes_SRC := $(UNIT_AUDIT)

UNIT_TESTS += tally
UNIT_tally_SRC := $(UNIT_AUDIT)

UNIT_TESTS += translate
UNIT_translate_SRC := arch/x86_64/mm/kind_user.c arch/x86_64/mm/kind_ept.c $(UNIT_KERNEL_TABLE)

UNIT_TESTS += flush
UNIT_flush_SRC := arch/x86_64/mm/kind_user.c arch/x86_64/mm/kind_ept.c arch/x86_64/mm/kind_npt.c $(UNIT_KERNEL_TABLE)

# What a CPU has cached after each writer, by the instructions that the kinds and backends really use. The sources of
# UNIT_name_MODEL are compiled for the CPU that tests/unit/model_cpu.h plays.
MODEL_VMX := $(patsubst %,tests/unit/model_%.c,cpu tlb vmx vmx_checks) \
	$(patsubst %,arch/x86_64/mm/%.c,shootdown tlb_counters)

UNIT_TESTS += tlb
UNIT_tlb_SRC := $(MODEL_VMX) arch/x86_64/mm/kind_ept.c arch/x86_64/mm/kind_npt.c \
	arch/x86_64/vmx/controls.c arch/x86_64/vmx/names.c arch/x86_64/guest/legal.c $(UNIT_KERNEL_TABLE)
UNIT_tlb_MODEL := $(addprefix arch/x86_64/,mm/tlb.c mm/kind_user.c vmx/vmcs.c vmx/eptp.c vmx/vpid.c svm/asid.c)

# The backends as they stand, on that CPU. What stays in the CPU between exits is the model's.
MODEL_GUEST := $(MODEL_VMX) tests/unit/model_guest.c $(EXPLAIN_SRC) mm/frames/early.c mm/frames/slab.c mm/frames/slab_check.c \
	arch/x86_64/mm/kind_npt.c $(GUEST_WALK) $(INSN_SRC) lib/log.c $(KIND_EPT) $(UNIT_KERNEL_TABLE)
BACKEND_SRC := $(filter-out %/resident.c,$(wildcard arch/x86_64/guest/*.c)) \
	$(patsubst %,arch/x86_64/mm/%.c,tlb guest_memory operand emulate physical table_envs) arch/x86_64/machine_check.c

UNIT_TESTS += vmx
UNIT_vmx_SRC := $(MODEL_GUEST) tests/unit/vmx_guest.c
UNIT_vmx_MODEL := $(wildcard arch/x86_64/vmx/*.c) $(BACKEND_SRC)

UNIT_TESTS += vmx_exits
UNIT_vmx_exits_SRC := $(UNIT_vmx_SRC)
UNIT_vmx_exits_MODEL := $(UNIT_vmx_MODEL)

UNIT_TESTS += svm_guest
UNIT_svm_guest_SRC := $(filter-out %/model_vmx.c %/model_vmx_checks.c,$(MODEL_GUEST)) tests/unit/model_svm.c
UNIT_svm_guest_MODEL := $(wildcard arch/x86_64/svm/*.c) arch/x86_64/vmx/vmx_caps.c arch/x86_64/vmx/controls.c $(BACKEND_SRC)

UNIT_TESTS += options
UNIT_options_SRC := $(wildcard vm/options*.c) lib/format.c

UNIT_TESTS += elf
UNIT_elf_SRC := vm/elf.c

UNIT_TESTS += load
UNIT_load_SRC := $(wildcard vm/load*.c) vm/bios_rom.c vm/bios_geometry.c vm/elf.c lib/error.c lib/format.c \
	$(ACPI_C)

UNIT_TESTS += load_linux
UNIT_load_linux_SRC := $(UNIT_load_SRC)

UNIT_TESTS += load_linux16
UNIT_load_linux16_SRC := $(UNIT_load_SRC)

UNIT_TESTS += load_pvh
UNIT_load_pvh_SRC := $(UNIT_load_SRC)

UNIT_TESTS += load_multiboot2
UNIT_load_multiboot2_SRC := $(UNIT_load_SRC)

UNIT_TESTS += load_image
UNIT_load_image_SRC := $(UNIT_load_SRC)

UNIT_TESTS += monitor
UNIT_monitor_SRC := $(wildcard monitor/*.c) lib/error.c lib/format.c lib/log.c $(MAPPER_SRC) \
	$(BUDDY_SRC) mm/frames/frame.c mm/frames/memblock.c mm/frames/regions.c mm/frames/slab.c \
	mm/frames/slab_check.c mm/paging/snapshot.c $(GUEST_WALK) $(KIND_EPT) arch/x86_64/mm/kind_kernel.c \
	arch/x86_64/mm/kind_user.c $(EXPLAIN_SRC) arch/x86_64/mm/physical.c \
	arch/x86_64/user_last.c arch/x86_64/speculation_decide.c arch/x86_64/call_chain.c $(AUDIT_SRC) $(AUDIT_SELFTEST_SRC) \
	mm/audit/audit_one.c vm/guest_audit.c mm/paging/page_source.c mm/frames/scrub.c \
	$(wildcard vm/symbols*.c) vm/backtrace.c vm/elf.c vm/interrupt_origin.c arch/x86_64/guest/read_linear.c \
	vm/page_set.c vm/options.c vm/options_areas.c arch/x86_64/mtrr.c tests/unit/monitor_memory.c

UNIT_TESTS += memory_map
UNIT_memory_map_SRC := boot/memory_map.c arch/x86_64/mtrr.c mm/paging/attrs.c boot/multiboot2.c mm/frames/memblock.c mm/frames/regions.c lib/error.c lib/format.c \
	lib/log.c tests/unit/boot_table.c

# What vm/ is made of, on the real mapper and the real buddy, with a backend that the test plays.
VM_SRC := $(wildcard vm/*.c mm/*.c mm/*/*.c) $(KIND_EPT) arch/x86_64/mm/guest_memory.c \
	$(filter-out lib/string.c,$(wildcard lib/*.c)) tests/unit/fake_machine.c $(ACPI_C)

UNIT_TESTS += slots
UNIT_slots_SRC := $(VM_SRC)

UNIT_TESTS += buddy
UNIT_buddy_SRC := $(BUDDY_SRC) mm/frames/frame.c lib/format.c

UNIT_TESTS += frame
UNIT_frame_SRC := $(BUDDY_SRC) mm/frames/frame.c lib/format.c

UNIT_TESTS += guests
UNIT_guests_SRC := $(VM_SRC)

# Dirty pages, copies on write: with the auditor after each step.
UNIT_TESTS += guest_memory
UNIT_guest_memory_SRC := $(VM_SRC) tests/unit/memory_model.c tests/unit/model_balloon.c

UNIT_TESTS += guest_slots
UNIT_guest_slots_SRC := $(UNIT_guest_memory_SRC) tests/unit/model_slots.c

UNIT_TESTS += guest_accesses
UNIT_guest_accesses_SRC := $(UNIT_guest_memory_SRC)

UNIT_TESTS += guest_balloon
UNIT_guest_balloon_SRC := $(UNIT_guest_memory_SRC)

UNIT_TESTS += guest_shared
UNIT_guest_shared_SRC := $(UNIT_guest_memory_SRC)

# What is written to the BIOS's disk, with the auditor after each step.
UNIT_TESTS += disk
UNIT_disk_SRC := $(UNIT_guest_memory_SRC)

UNIT_TESTS += page_set
UNIT_page_set_SRC := vm/page_set.c mm/frames/scrub.c $(BUDDY_SRC) mm/frames/frame.c mm/addr.c lib/format.c

UNIT_TESTS += call_chain
UNIT_call_chain_SRC := arch/x86_64/call_chain.c lib/format.c

UNIT_TESTS += halt

UNIT_TESTS += speculation
UNIT_speculation_SRC := arch/x86_64/speculation_decide.c

UNIT_TESTS += mtrr
UNIT_mtrr_SRC := arch/x86_64/mtrr.c

UNIT_TESTS += machine_check
UNIT_machine_check_SRC := arch/x86_64/machine_check.c lib/format.c

UNIT_TESTS += shares
UNIT_shares_SRC := $(VM_SRC)

# Guests on several CPUs: played in turn, and as threads.
UNIT_TESTS += guest_cpus
UNIT_guest_cpus_SRC := $(VM_SRC)

UNIT_TESTS += sched
UNIT_sched_SRC := $(VM_SRC)

UNIT_TESTS += touch
UNIT_touch_SRC := $(VM_SRC)

UNIT_TESTS += sched_threads
UNIT_sched_threads_SRC := $(VM_SRC)

UNIT_TESTS += guest_load
UNIT_guest_load_SRC := $(VM_SRC)

UNIT_TESTS += saved
UNIT_saved_SRC := $(VM_SRC)

UNIT_TESTS += guest_symbols
UNIT_guest_symbols_SRC := $(VM_SRC)

UNIT_TESTS += bios
UNIT_bios_SRC := $(VM_SRC)

UNIT_TESTS += interrupts
UNIT_interrupts_SRC := $(VM_SRC)

# The devices of a PC, through their ports.
PC_SRC := $(VM_SRC) tests/unit/pc_guest.c

UNIT_TESTS += dev_chipset
UNIT_dev_chipset_SRC := $(PC_SRC)

UNIT_TESTS += dev_cmos
UNIT_dev_cmos_SRC := $(PC_SRC)

UNIT_TESTS += dev_keyboard
UNIT_dev_keyboard_SRC := $(PC_SRC)

UNIT_TESTS += dev_any
UNIT_dev_any_SRC := $(PC_SRC)

UNIT_TESTS += dev_acpi
UNIT_dev_acpi_SRC := $(PC_SRC)

UNIT_TESTS += dev_vga
UNIT_dev_vga_SRC := $(PC_SRC)

UNIT_TESTS += apic
UNIT_apic_SRC := $(PC_SRC)

UNIT_TESTS += svm
UNIT_svm_SRC := arch/x86_64/svm/instruction.c arch/x86_64/svm/names.c

UNIT_TESTS += vmx_controls
UNIT_vmx_controls_SRC := $(addprefix arch/x86_64/vmx/,controls.c names.c entry_check.c) \
	$(addprefix arch/x86_64/guest/,debug.c legal.c)

# Includes mm/frames/buddy_cpu.c, to have who waits for a lock yield.
UNIT_TESTS += buddy_threads
UNIT_buddy_threads_SRC := $(filter-out mm/frames/buddy_cpu.c,$(BUDDY_SRC)) mm/frames/frame.c lib/format.c

UNIT_TESTS += bittree
UNIT_bittree_SRC :=

UNIT_TESTS += output
UNIT_output_SRC := monitor/output.c monitor/layout.c monitor/row.c monitor/fold.c lib/error.c lib/format.c

# The inspector's commands on the machine that the console's test plays.
UNIT_TESTS += inspector
UNIT_inspector_SRC = $(UNIT_monitor_SRC)

UNIT_TESTS += explain
UNIT_explain_SRC := $(EXPLAIN_SRC) $(GUEST_WALK) $(KIND_EPT) \
	$(MAPPER_SRC) $(BUDDY_SRC) mm/frames/frame.c lib/format.c

# Over AMD's nested tables, on the memory that the test before plays.
UNIT_TESTS += explain_npt
UNIT_explain_npt_SRC := $(UNIT_explain_SRC) arch/x86_64/mm/kind_npt.c

UNIT_TESTS += complete
UNIT_complete_SRC := monitor/complete.c monitor/arguments.c lib/format.c

UNIT_TESTS += pager
UNIT_pager_SRC := monitor/pager.c lib/format.c

# Includes arch/x86_64/uart.c, to be the port that it drives.
UNIT_TESTS += uart
UNIT_uart_SRC := lib/format.c

UNIT_TESTS += scrub
UNIT_scrub_SRC := mm/frames/scrub.c mm/paging/page_source.c $(BUDDY_SRC) mm/frames/frame.c mm/addr.c lib/format.c

UNIT_TESTS += slab
UNIT_slab_SRC := mm/frames/slab.c mm/frames/slab_check.c $(BUDDY_SRC) mm/frames/frame.c mm/addr.c lib/format.c

UNIT_TESTS += insn
UNIT_insn_SRC := $(INSN_SRC) lib/format.c

UNIT_TESTS += insn_effects
UNIT_insn_effects_SRC := $(INSN_SRC) lib/format.c

# Threads under ThreadSanitizer, which wants the addresses of a program laid out as ever.
UNALTERED = $(shell setarch -R true 2>/dev/null && echo setarch -R)
TSAN_CFLAGS := -std=gnu11 -O1 -g -DQUIRE_HOSTED -I. -Wall -Wextra -Werror -fsanitize=thread

$(HOSTED)/%_tsan.log: $(HOSTED)/%_tsan FORCE
	@echo "test  $*_tsan"
	@timeout $(TEST_SECONDS) $(UNALTERED) $< >$@ 2>&1; echo "exit status $$?" >>$@

UNIT_TSAN := $(HOSTED)/unit/buddy_threads_tsan
$(UNIT_TSAN): tests/unit/test_buddy_threads.c tests/unit/hosted.c lib/lock.c \
		$(UNIT_buddy_threads_SRC) $(wildcard mm/frames/buddy*.[ch] mm/*.h mm/*/*.h lib/*.h tests/unit/*.h)
	@mkdir -p $(@D)
	@echo "link  $@"
	$(Q)$(HOSTCC) $(TSAN_CFLAGS) $(filter-out mm/frames/buddy_cpu.c,$(filter %.c,$^)) -lcmocka -o $@

UNIT_TSAN += $(HOSTED)/unit/sched_threads_tsan
$(HOSTED)/unit/sched_threads_tsan: tests/unit/test_sched_threads.c $(HOSTED_COMMON) $(VM_SRC) \
		$(wildcard vm/*.h mm/*.h mm/*/*.h lib/*.h arch/x86_64/mm/*.h tests/unit/*.h)
	@mkdir -p $(@D)
	@echo "link  $@"
	$(Q)$(HOSTCC) $(TSAN_CFLAGS) -include sched.h -D__builtin_ia32_pause=sched_yield $(filter %.c,$^) -lcmocka -o $@
