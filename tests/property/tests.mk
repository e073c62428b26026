# The hosted property tests: each names the product sources that it links.

# Every kind that is written, by the names of their files.
WRITTEN_KINDS := $(filter-out arch/x86_64/mm/kind_guest%,$(sort $(wildcard arch/x86_64/mm/kind_*.c)))

PROPERTY_TESTS += mapper_model
PROPERTY_mapper_model_SRC := $(MAPPER_SRC) $(BUDDY_SRC) $(WRITTEN_KINDS) \
	mm/frames/frame.c lib/error.c lib/format.c tests/property/sdm_rules.c

# The shipped kinds and flush batches, compiled so that a test sees every access to an entry; with five levels, too.
MAPPER_HOOKED_SRC := $(sort $(wildcard tests/property/hooked_*.c tests/property/five_*.c))

# The rest of the mapper: what no hooked_NAME.c stands for.
MAPPER_UNHOOKED := $(filter-out $(MAPPER_HOOKED_SRC:tests/property/hooked_%=mm/paging/%),$(MAPPER_SRC))

# They, and the world in which they are put to the proof.
MAPPER_WORLD_SRC := $(sort $(wildcard tests/property/world*.c)) tests/property/sdm_rules.c $(MAPPER_HOOKED_SRC) \
	$(MAPPER_UNHOOKED) $(BUDDY_SRC) arch/x86_64/mm/shootdown.c \
	mm/frames/frame.c lib/error.c lib/format.c tests/unit/no_tlb.c

PROPERTY_TESTS += mapper_conformance
PROPERTY_mapper_conformance_SRC := $(MAPPER_WORLD_SRC)

PROPERTY_TESTS += mapper_entries
PROPERTY_mapper_entries_SRC := $(MAPPER_WORLD_SRC)

PROPERTY_TESTS += mapper_rounds
PROPERTY_mapper_rounds_SRC := $(sort $(wildcard tests/property/rounds_*.c)) $(MAPPER_WORLD_SRC) \
	mm/paging/page_source.c mm/frames/scrub.c

# Real threads on one table. Whoever waits for a lock yields: there may be fewer cores than threads, and a ticket
# lock is handed on in order.
PROPERTY_TSAN := $(HOSTED)/property/mapper_threads_tsan
$(PROPERTY_TSAN): tests/property/test_mapper_threads.c $(HOSTED_COMMON) $(MAPPER_SRC) $(BUDDY_SRC) mm/frames/frame.c \
		$(WRITTEN_KINDS) arch/x86_64/mm/shootdown.c lib/error.c lib/format.c \
		$(wildcard mm/*.h mm/*/*.h lib/*.h arch/x86_64/mm/*.h tests/unit/*.h)
	@mkdir -p $(@D)
	@echo "link  $@"
	$(Q)$(HOSTCC) $(TSAN_CFLAGS) -include sched.h -D__builtin_ia32_pause=sched_yield $(filter %.c,$^) \
		-lcmocka -o $@

# The protocol of flushes on several CPUs, by all of its interleavings.
PROPERTY_TESTS += shootdown_model

PROPERTY_TESTS += buddy_damage
PROPERTY_buddy_damage_SRC := $(BUDDY_SRC) mm/frames/frame.c lib/format.c mm/addr.c

PROPERTY_TESTS += buddy_model
PROPERTY_buddy_model_SRC := $(BUDDY_SRC) mm/frames/frame.c lib/format.c

# Operands of instructions that are carried out for guests, against a model of their own.
PROPERTY_TESTS += operand
PROPERTY_operand_SRC := arch/x86_64/mm/operand.c $(EXPLAIN_SRC) $(GUEST_WALK) $(KIND_EPT) \
	$(MAPPER_SRC) $(BUDDY_SRC) mm/frames/frame.c lib/format.c

# Instructions that reach devices, against the same on memory.
PROPERTY_TESTS += emulate
PROPERTY_emulate_SRC := arch/x86_64/mm/emulate.c $(INSN_SRC) $(PROPERTY_operand_SRC)

# The decoder of instructions against an independent disassembler.
PROPERTY_TESTS += insn_decode
PROPERTY_insn_decode_SRC := tests/property/insn_reference.c $(INSN_SRC) lib/format.c
insn_decode_LIBS := -lZydis

# What the instructions do, against the CPU that runs the test.
PROPERTY_TESTS += insn_execute
PROPERTY_insn_execute_SRC := $(addprefix tests/property/,insn_cpu.c insn_trial.c) $(INSN_SRC) lib/format.c
PROPERTY_TESTS += insn_legacy
PROPERTY_insn_legacy_SRC := $(addprefix tests/property/,insn_legacy_cpu.c insn_trial.c) $(INSN_SRC) lib/format.c
