# `make mutants`: does a broken mapper fail its tests? tests/mutants/run.py says how.

.PHONY: mutants

mutants: ## break the mapper in many ways, one at a time: do the tests notice? (ONLY=text WRITE=1)
	@mkdir -p $(BUILD)
	@$(PYTHON) tests/mutants/run.py --jobs $(JOBS) $(if $(ONLY),--only "$(ONLY)") \
		$(if $(WRITE),--write docs/MUTANTS.md) \
		$(BUILD) $(sort $(PROPERTY_mapper_rounds_SRC) $(HOSTED_COMMON))
