# `make bench`: hosted measurements of the shipped sources, at full optimisation.

BENCH := $(BUILD)/bench
BENCH_ROW = $(if $(ROW),"$(ROW)")
BENCH_MM := $(filter-out mm/buddy_verify.c,$(BUDDY_SRC)) mm/frame.c lib/format.c lib/lock.c
BENCH_CFLAGS := -std=gnu11 -O3 -march=native -g -DNDEBUG -DQUIRE_HOSTED -I. -Wall -Wextra -Werror
BENCH_MAPPER_SRC := tests/bench/bench_mapper.c tests/bench/bench.c tests/bench/panic.c mm/table.c \
	mm/flush.c mm/legal.c mm/attrs.c mm/addr.c $(BENCH_MM) \
	arch/x86_64/mm/kind_kernel.c arch/x86_64/mm/kind_user.c arch/x86_64/mm/kind_ept.c \
	lib/error.c

$(BENCH)/mapper: $(BENCH_MAPPER_SRC) $(wildcard mm/*.h arch/x86_64/mm/*.h lib/*.h tests/bench/*.h) \
		tests/bench/bench.mk
	@mkdir -p $(@D)
	$(HOSTCC) $(BENCH_CFLAGS) $(filter %.c,$^) -o $@

BENCH_BUDDY_SRC := tests/bench/bench_buddy.c tests/bench/bench.c tests/bench/panic.c $(BENCH_MM)

$(BENCH)/buddy: $(BENCH_BUDDY_SRC) $(wildcard mm/*.h lib/*.h tests/bench/*.h) tests/bench/bench.mk
	@mkdir -p $(@D)
	$(HOSTCC) $(BENCH_CFLAGS) $(filter %.c,$^) -o $@

.PHONY: bench-mapper bench-buddy
bench: $(BENCH)/mapper $(BENCH)/buddy ## measure the mapper and the buddy against plain loops (ROW=text: rows with it)
	@$(BENCH)/mapper $(BENCH_ROW)
	@$(BENCH)/buddy $(BENCH_ROW)

bench-mapper: $(BENCH)/mapper ## the mapper alone
	@$(BENCH)/mapper $(BENCH_ROW)

bench-buddy: $(BENCH)/buddy ## the buddy alone
	@$(BENCH)/buddy $(BENCH_ROW)
