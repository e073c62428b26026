# `make bench`: hosted measurements of the shipped sources.

BENCH := $(BUILD)/bench
BENCH_ROW = $(if $(ROW),"$(ROW)")
BENCH_MM := $(filter-out mm/frames/buddy_verify%,$(BUDDY_SRC)) mm/frames/frame.c lib/format.c lib/lock.c
BENCH_CFLAGS := -std=gnu11 -O3 -march=native -g -DQUIRE_HOSTED -I. -Wall -Wextra -Werror

# The mapper is measured twice, each time together with the loops that it is held against: as it is compiled
# for the hypervisor, without vector registers; and with everything that this machine has, to compare: the limits
# are for a loop that stores one entry at a time, and a loop that stores four is not held to keep an entry whole.
BENCH_MAPPER_SRC := tests/bench/mapper_work.c tests/bench/harvest_work.c $(MAPPER_SRC) \
	$(patsubst %,arch/x86_64/mm/kind_%.c,kernel user ept npt) tests/unit/no_tlb.c lib/error.c \
	$(BENCH_MM)
BENCH_DRIVER_SRC := tests/bench/bench_mapper.c tests/bench/bench.c tests/bench/panic.c
BENCH_DRIVER_CFLAGS := -std=gnu11 -O2 -g -DQUIRE_HOSTED -I. -Wall -Wextra -Werror
BENCH_SHIPPED_CFLAGS := -std=gnu11 -O2 -mgeneral-regs-only -ffreestanding -fno-omit-frame-pointer \
	-fno-optimize-sibling-calls -fno-stack-protector -fno-strict-aliasing -fno-common \
	-g -DQUIRE_HOSTED -I. -Wall -Wextra -Werror

# The loops of both sides in *_work.c begin at a cache line: else a row depends on where the linker puts them.
$(BENCH)/%_work.o: BENCH_ALIGN := -falign-loops=64

$(BENCH)/shipped/%.o: %.c tests/bench/bench.mk
	@mkdir -p $(@D)
	$(Q)$(HOSTCC) $(BENCH_SHIPPED_CFLAGS) $(BENCH_ALIGN) -MMD -MP -c $< -o $@

$(BENCH)/native/%.o: %.c tests/bench/bench.mk
	@mkdir -p $(@D)
	$(Q)$(HOSTCC) $(BENCH_CFLAGS) $(BENCH_ALIGN) -MMD -MP -c $< -o $@

$(BENCH)/mapper: $(patsubst %.c,$(BENCH)/shipped/%.o,$(BENCH_MAPPER_SRC) lib/string.c)
$(BENCH)/mapper-native: $(BENCH_MAPPER_SRC:%.c=$(BENCH)/native/%.o)
$(BENCH)/mapper: INSTRUCTIONS := as shipped: -O2, general registers only
$(BENCH)/mapper-native: INSTRUCTIONS := with vectors: -O3 -march=native, to compare
$(BENCH)/mapper: VERDICTS := 1
$(BENCH)/mapper-native: VERDICTS := 0
$(BENCH)/mapper $(BENCH)/mapper-native: $(BENCH_DRIVER_SRC) $(wildcard tests/bench/*.h)
	$(Q)$(HOSTCC) $(BENCH_DRIVER_CFLAGS) -DINSTRUCTIONS='"$(INSTRUCTIONS)"' \
		-DVERDICTS=$(VERDICTS) -pthread $(filter %.c %.o,$^) -o $@
-include $(patsubst %.c,$(BENCH)/*/%.d,$(BENCH_MAPPER_SRC) lib/string.c)

BENCH_BUDDY_SRC := tests/bench/bench_buddy.c tests/bench/textbook_buddy.c tests/bench/bench.c tests/bench/panic.c $(BENCH_MM)

$(BENCH)/buddy: $(BENCH_BUDDY_SRC) $(wildcard mm/*.h mm/*/*.h lib/*.h tests/bench/*.h) tests/bench/bench.mk
	@mkdir -p $(@D)
	$(HOSTCC) $(BENCH_CFLAGS) $(filter %.c,$^) -o $@

BENCHES := bench-mapper bench-buddy bench-exits bench-memory bench-cpus bench-linux
.PHONY: bench $(BENCHES)
bench: ## measure the mapper and the buddy against plain code, what guests cost in instructions (ROW=text: rows with it)
	@missed=0; for part in $(BENCHES); do $(MAKE) --no-print-directory $$part || missed=1; done; exit $$missed

bench-mapper: $(BENCH)/mapper $(BENCH)/mapper-native ## the mapper alone
	@$(BENCH)/mapper $(BENCH_ROW)
	@$(BENCH)/mapper-native $(BENCH_ROW)

bench-buddy: $(BENCH)/buddy ## the buddy alone
	@$(BENCH)/buddy $(BENCH_ROW)

bench-exits: $(QUIRE_ELF) ## what exits of a guest cost, in instructions of the emulated CPU
	@QUIRE_BUILD=$(BUILD) $(PYTHON) -B tests/bench/exits.py

bench-memory: $(QUIRE_ELF) ## what a guest's memory costs as an object, in instructions of the emulated CPU
	@QUIRE_BUILD=$(BUILD) $(PYTHON) -B tests/bench/memory.py

bench-cpus: $(QUIRE_ELF) ## what flushes on several CPUs cost, in instructions of those who send and who answer (CPUS=N: on N)
	@QUIRE_BUILD=$(BUILD) $(PYTHON) -B tests/bench/cpus.py $(CPUS)

bench-linux: $(QUIRE_ELF) ## what Debian's Linux takes to its first program as a guest, against what it takes alone
	@QUIRE_BUILD=$(BUILD) $(PYTHON) -B tests/bench/linux_boot.py
