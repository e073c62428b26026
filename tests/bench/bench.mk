# `make bench`: hosted measurements of the shipped sources, at full optimisation.

BENCH := $(BUILD)/bench
BENCH_CFLAGS := -std=gnu11 -O3 -march=native -g -DNDEBUG -DQUIRE_HOSTED -I. -Wall -Wextra -Werror
BENCH_MAPPER_SRC := tests/bench/bench_mapper.c tests/bench/bench.c tests/bench/panic.c mm/table.c \
	mm/flush.c mm/legal.c mm/attrs.c mm/addr.c mm/buddy.c mm/frame.c \
	arch/x86_64/mm/kind_kernel.c arch/x86_64/mm/kind_user.c arch/x86_64/mm/kind_ept.c \
	lib/error.c lib/format.c lib/lock.c

$(BENCH)/mapper: $(BENCH_MAPPER_SRC) $(wildcard mm/*.h arch/x86_64/mm/*.h lib/*.h tests/bench/*.h) \
		tests/bench/bench.mk
	@mkdir -p $(@D)
	$(HOSTCC) $(BENCH_CFLAGS) $(filter %.c,$^) -o $@

bench: $(BENCH)/mapper ## measure the mapper against plain loops (ROW=text: only rows that contain it)
	@$(BENCH)/mapper $(if $(ROW),"$(ROW)")

BENCH_BUDDY_SRC := tests/bench/bench_buddy.c tests/bench/bench.c tests/bench/panic.c mm/buddy.c \
	mm/frame.c lib/format.c lib/lock.c

$(BENCH)/buddy: $(BENCH_BUDDY_SRC) $(wildcard mm/*.h lib/*.h tests/bench/*.h) tests/bench/bench.mk
	@mkdir -p $(@D)
	$(HOSTCC) $(BENCH_CFLAGS) $(filter %.c,$^) -o $@

.PHONY: bench-buddy
bench-buddy: $(BENCH)/buddy ## measure the buddy against empty functions and plain loops (ROW=text)
	@$(BENCH)/buddy $(if $(ROW),"$(ROW)")
