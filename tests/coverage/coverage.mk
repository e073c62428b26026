# `make coverage`: how much of mm/ the hosted tests run, by line and by branch. Its own build of them, by
# clang, in build/coverage; tests/coverage/table.py makes the table. What is not covered is explained in
# docs/COVERAGE.md.

COVERAGE := $(BUILD)/coverage
COVERAGE_CFLAGS := -std=gnu11 -O1 -g -DQUIRE_HOSTED -I. -fprofile-instr-generate -fcoverage-mapping

.PHONY: coverage coverage-logs

coverage: ## line and branch coverage of mm/ by the hosted tests (SHOW=1: what is missing)
	@tools/setup.sh coverage
	@rm -rf $(COVERAGE)/raw && mkdir -p $(COVERAGE)/raw
	@LLVM_PROFILE_FILE=$(COVERAGE)/raw/%m.%p.profraw $(MAKE) --no-print-directory $(PARALLEL) \
		BUILD=$(COVERAGE) HOSTCC=clang HOSTED_CFLAGS="$(COVERAGE_CFLAGS)" coverage-logs
	@$(PYTHON) tests/coverage/table.py $(if $(SHOW),--show) $(COVERAGE) mm

coverage-logs: $(UNIT_LOGS) $(PROPERTY_LOGS) $(FUZZ_COVERAGE_LOGS)
	@$(PYTHON) tools/summary.py hosted $^
