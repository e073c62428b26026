# Coverage-guided fuzzing (libFuzzer, which comes with clang). `make test` runs each target on its kept corpus and
# a number of mutations of it; `make fuzz` goes on for FUZZ_SECONDS a target and keeps what it finds in
# build/fuzz/corpus. FUZZ_TARGETS="buddy" narrows both.

FUZZ := $(BUILD)/fuzz
FUZZ_SECONDS ?= 600
FUZZ_TARGETS ?= mapper buddy memory memory_map madt insn load saved
FUZZ_LOGS := $(FUZZ_TARGETS:%=$(FUZZ)/%.log)

# Of each target: what is watched and sanitized; the world around it, which only has to be fast; the longest input; how
# many inputs make a short run.
FUZZ_mapper_PRODUCT := $(MAPPER_HOOKED_SRC) mm/paging/nodes.c
FUZZ_mapper_WORLD := $(filter-out $(FUZZ_mapper_PRODUCT),$(MAPPER_WORLD_SRC)) lib/lock.c
FUZZ_mapper_LENGTH := 194
FUZZ_mapper_RUNS ?= 4000

FUZZ_buddy_PRODUCT := $(BUDDY_SRC) mm/frames/frame.c
FUZZ_buddy_WORLD := lib/format.c lib/lock.c
FUZZ_buddy_LENGTH := 1024
FUZZ_buddy_RUNS ?= 4000

FUZZ_memory_PRODUCT := $(patsubst %,vm/%.c,slots slot_change backing touch cow dirty page_set snapshot fork merge balloon)
FUZZ_memory_WORLD := $(filter-out $(FUZZ_memory_PRODUCT),$(VM_SRC)) $(HOSTED_COMMON) \
	$(patsubst %,tests/unit/%.c,memory_model model_balloon model_slots)
FUZZ_memory_LIBS := -lcmocka
FUZZ_memory_LENGTH := 402
FUZZ_memory_RUNS ?= 1000

FUZZ_memory_map_PRODUCT := boot/multiboot2.c boot/memory_map.c mm/frames/memblock.c mm/frames/regions.c mm/frames/early.c $(BUDDY_SRC) mm/frames/frame.c
FUZZ_memory_map_WORLD := lib/format.c lib/lock.c lib/error.c arch/x86_64/mtrr.c mm/paging/attrs.c
FUZZ_memory_map_LENGTH := 1024
FUZZ_memory_map_RUNS ?= 20000

FUZZ_madt_PRODUCT := boot/madt.c
FUZZ_madt_WORLD := lib/format.c
FUZZ_madt_LENGTH := 1024
FUZZ_madt_RUNS ?= 100000

FUZZ_insn_PRODUCT := $(INSN_SRC)
FUZZ_insn_WORLD := lib/format.c
FUZZ_insn_LENGTH := 160
FUZZ_insn_RUNS ?= 100000

FUZZ_load_PRODUCT := $(wildcard vm/load*.c) vm/bios_rom.c vm/bios_geometry.c vm/elf.c
FUZZ_load_WORLD := lib/format.c lib/error.c $(ACPI_C)
FUZZ_load_LENGTH := 4400
FUZZ_load_RUNS ?= 20000

FUZZ_saved_PRODUCT := vm/saved.c vm/saved_fields.c vm/saved_devices.c
FUZZ_saved_WORLD := lib/format.c lib/error.c lib/sha256.c
FUZZ_saved_LENGTH := 8192
FUZZ_saved_RUNS ?= 20000

FUZZ_CFLAGS := -std=gnu11 -O2 -g -fno-omit-frame-pointer -DQUIRE_HOSTED -I. -Wall -Wextra -Werror
FUZZ_WATCHED := -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all

$(FUZZ)/watched/%.o: %.c Makefile tests/fuzz/fuzz.mk
	@mkdir -p $(@D)
	@echo "clang $@"
	$(Q)clang $(FUZZ_CFLAGS) $(FUZZ_WATCHED) -MMD -MP -c $< -o $@

$(FUZZ)/world/%.o: %.c Makefile tests/fuzz/fuzz.mk
	@mkdir -p $(@D)
	@echo "clang $@"
	$(Q)clang $(FUZZ_CFLAGS) -MMD -MP -c $< -o $@

# In a coverage build the programs are not fuzzed: each input of the corpus is run once, by a plain loop.
FUZZ_COVERAGE_LOGS := $(if $(findstring coverage-mapping,$(HOSTED_CFLAGS)),\
	$(FUZZ_TARGETS:%=$(HOSTED)/fuzz/%.log))

# $(call fuzz_target,name)
define fuzz_target
FUZZ_$(1)_ALL := $$(FUZZ_$(1)_PRODUCT) tests/fuzz/fuzz_$(1).c $$(FUZZ_$(1)_WORLD)
FUZZ_$(1)_OBJ := $$(FUZZ_$(1)_PRODUCT:%.c=$(FUZZ)/watched/%.o) \
	$$(patsubst %.c,$(FUZZ)/world/%.o,tests/fuzz/fuzz_$(1).c $$(FUZZ_$(1)_WORLD))
-include $$(FUZZ_$(1)_OBJ:.o=.d)
$(FUZZ)/$(1): $$(FUZZ_$(1)_OBJ)
	@echo "link  $$@"
	$$(Q)clang -fsanitize=fuzzer,address,undefined $$^ $$(FUZZ_$(1)_LIBS) -o $$@
$(HOSTED)/fuzz/$(1): $$(patsubst %.c,$(HOSTED)/obj/%.o,$$(FUZZ_$(1)_ALL) tests/fuzz/replay.c)
	@mkdir -p $$(@D)
	@echo "link  $$@"
	$$(Q)$$(HOSTCC) $$(HOSTED_CFLAGS) $$^ $$(FUZZ_$(1)_LIBS) -o $$@
endef
$(foreach t,$(FUZZ_TARGETS),$(eval $(call fuzz_target,$(t))))

# In the words of a cmocka program, for the summary. An input that fails is left in build/fuzz.
$(FUZZ)/%.log: $(FUZZ)/% FORCE
	@echo "test  fuzz/$*"
	@rm -rf $(FUZZ)/new/$* && mkdir -p $(FUZZ)/new/$*
	@{ echo "[ RUN      ] fuzz_$*"; \
	   timeout $(TEST_SECONDS) $< -seed=1 -runs=$(FUZZ_$*_RUNS) -max_total_time=15 \
	       -max_len=$(FUZZ_$*_LENGTH) -timeout=60 -print_final_stats=1 -artifact_prefix=$(FUZZ)/ \
	       $(FUZZ)/new/$* tests/fuzz/corpus/$* && echo "[       OK ] fuzz_$*"; \
	   echo "exit status $$?"; } >$@ 2>&1

.PHONY: test-fuzz fuzz fuzz-keep

test-fuzz: $(FUZZ_LOGS) ## the short fuzzing run that `make test` does
	@$(PYTHON) tools/summary.py fuzz $(FUZZ_LOGS)

# One after the other, each on as many processes as JOBS.
define fuzz_for_long
@mkdir -p $(FUZZ)/corpus/$(1)
$(FUZZ)/$(1) -max_total_time=$(FUZZ_SECONDS) -max_len=$(FUZZ_$(1)_LENGTH) -timeout=60 -fork=$(JOBS) \
	-artifact_prefix=$(FUZZ)/ $(FUZZ)/corpus/$(1) tests/fuzz/corpus/$(1)

endef

define fuzz_kept
@rm -rf $(FUZZ)/kept/$(1) && mkdir -p $(FUZZ)/kept/$(1) $(FUZZ)/corpus/$(1)
$(FUZZ)/$(1) -set_cover_merge=1 -use_counters=0 -max_len=$(FUZZ_$(1)_LENGTH) $(FUZZ)/kept/$(1) \
	$(FUZZ)/corpus/$(1) tests/fuzz/corpus/$(1)
rm -f tests/fuzz/corpus/$(1)/*
cp $(FUZZ)/kept/$(1)/* tests/fuzz/corpus/$(1)/

endef

fuzz: $(FUZZ_TARGETS:%=$(FUZZ)/%) ## fuzz mapper, buddy, guests' memory, memory maps, ACPI's CPUs, instructions, loaders, saved guests (FUZZ_SECONDS=600 each, FUZZ_TARGETS=)
	$(foreach t,$(FUZZ_TARGETS),$(call fuzz_for_long,$(t)))

fuzz-keep: $(FUZZ_TARGETS:%=$(FUZZ)/%) ## make tests/fuzz/corpus the smallest that covers what was found
	$(foreach t,$(FUZZ_TARGETS),$(call fuzz_kept,$(t)))
