# Coverage-guided fuzzing of the mapper (libFuzzer, which comes with clang). `make test` runs the kept corpus
# and a fixed number of mutations of it; `make fuzz` goes on for FUZZ_SECONDS and keeps what it finds in
# build/fuzz/corpus.

FUZZ := $(BUILD)/fuzz
FUZZ_SECONDS ?= 600
FUZZ_RUNS ?= 4000
FUZZ_TESTS := mapper
FUZZ_LOGS := $(FUZZ_TESTS:%=$(FUZZ)/%.log)

# The mapper itself is watched and sanitized; the world around it only has to be fast.
FUZZ_CFLAGS := -std=gnu11 -O2 -g -fno-omit-frame-pointer -DQUIRE_HOSTED -I. -Wall -Wextra -Werror
FUZZ_WATCHED := -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
FUZZ_mapper_PRODUCT := tests/property/hooked_kinds.c tests/property/hooked_flush.c \
	tests/property/five_levels.c mm/table.c
FUZZ_mapper_WORLD := tests/fuzz/fuzz_mapper.c lib/lock.c \
	$(filter-out $(FUZZ_mapper_PRODUCT),$(MAPPER_WORLD_SRC))

$(FUZZ)/watched/%.o: %.c Makefile tests/fuzz/fuzz.mk
	@mkdir -p $(@D)
	@echo "clang $@"
	$(Q)clang $(FUZZ_CFLAGS) $(FUZZ_WATCHED) -MMD -MP -c $< -o $@

$(FUZZ)/world/%.o: %.c Makefile tests/fuzz/fuzz.mk
	@mkdir -p $(@D)
	@echo "clang $@"
	$(Q)clang $(FUZZ_CFLAGS) -MMD -MP -c $< -o $@

FUZZ_mapper_OBJ := $(FUZZ_mapper_PRODUCT:%.c=$(FUZZ)/watched/%.o) \
	$(FUZZ_mapper_WORLD:%.c=$(FUZZ)/world/%.o)
-include $(FUZZ_mapper_OBJ:.o=.d)

$(FUZZ)/mapper: $(FUZZ_mapper_OBJ)
	@echo "link  $@"
	$(Q)clang -fsanitize=fuzzer,address,undefined $^ -o $@

# In the words of a cmocka program, for the summary. An input that fails is left in build/fuzz.
$(FUZZ)/%.log: $(FUZZ)/% FORCE
	@echo "test  fuzz/$*"
	@rm -rf $(FUZZ)/new/$* && mkdir -p $(FUZZ)/new/$*
	@{ echo "[ RUN      ] fuzz_$*"; \
	   timeout $(TEST_SECONDS) $< -seed=1 -runs=$(FUZZ_RUNS) -max_total_time=15 -max_len=194 \
	       -timeout=60 -print_final_stats=1 -artifact_prefix=$(FUZZ)/ \
	       $(FUZZ)/new/$* tests/fuzz/corpus/$* && echo "[       OK ] fuzz_$*"; \
	   echo "exit status $$?"; } >$@ 2>&1

.PHONY: test-fuzz fuzz fuzz-keep

test-fuzz: $(FUZZ_LOGS) ## the short fuzzing run that `make test` does
	@$(PYTHON) tools/summary.py fuzz $(FUZZ_LOGS)

fuzz: $(FUZZ)/mapper ## fuzz the mapper (FUZZ_SECONDS=600, on as many processes as JOBS)
	@mkdir -p $(FUZZ)/corpus/mapper
	$(FUZZ)/mapper -max_total_time=$(FUZZ_SECONDS) -max_len=194 -timeout=60 -fork=$(JOBS) \
		-artifact_prefix=$(FUZZ)/ $(FUZZ)/corpus/mapper tests/fuzz/corpus/mapper

fuzz-keep: $(FUZZ)/mapper ## make tests/fuzz/corpus the smallest that covers what was found
	@rm -rf $(FUZZ)/kept/mapper && mkdir -p $(FUZZ)/kept/mapper
	$(FUZZ)/mapper -set_cover_merge=1 -use_counters=0 -max_len=194 $(FUZZ)/kept/mapper $(FUZZ)/corpus/mapper \
		tests/fuzz/corpus/mapper
	rm -f tests/fuzz/corpus/mapper/*
	cp $(FUZZ)/kept/mapper/* tests/fuzz/corpus/mapper/

# In a coverage build the programs are not fuzzed: each input of the corpus is run once, by a plain loop.
FUZZ_COVERAGE_LOGS := $(if $(findstring coverage-mapping,$(HOSTED_CFLAGS)),$(HOSTED)/fuzz/mapper.log)
$(HOSTED)/fuzz/mapper: $(patsubst %.c,$(HOSTED)/obj/%.o,$(FUZZ_mapper_PRODUCT) $(FUZZ_mapper_WORLD) \
		tests/fuzz/replay.c)
	@mkdir -p $(@D)
	@echo "link  $@"
	$(Q)$(HOSTCC) $(HOSTED_CFLAGS) $^ -o $@
