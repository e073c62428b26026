# `make mutants`: does a broken product fail its tests? tests/mutants/run.py says how. What was broken, and by what it
# was noticed, is in build/MUTANTS.md then.

.PHONY: mutants mutants-check

MUTANTS = $(PYTHON) -B tests/mutants/run.py --jobs $(JOBS) $(if $(ONLY),--only "$(ONLY)") $(if $(BY),--by "$(BY)")
MUTANTS_WORLD = $(filter-out tests/property/rounds_%,$(PROPERTY_mapper_rounds_SRC))
MUTANTS_SRC = --world $(sort $(MUTANTS_WORLD) $(HOSTED_COMMON)) --flush $(sort $(UNIT_flush_SRC) $(HOSTED_COMMON))

mutants: $(QUIRE_ISO) ## break the product in many ways, one at a time: do the tests notice? (ONLY=text, BY=unit; writes build/MUTANTS.md)
	@mkdir -p $(BUILD)
	@$(MUTANTS) $(if $(ONLY)$(BY),,--write $(BUILD)/MUTANTS.md) $(BUILD) $(MUTANTS_SRC)

mutants-check: ## does each of these breaks still find its place in the sources?
	@$(MUTANTS) --check $(BUILD) $(MUTANTS_SRC)
