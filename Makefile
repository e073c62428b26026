# Quire: `make help` lists what there is to ask for.
#
# Each part brings its own rules and lists, included below:
#   boot/image.mk            the hypervisor, $(QUIRE_ELF)
#   guests/guests.mk         the demonstration guests, appended to GUEST_IMAGES
#   guests/user.mk           the ring-3 programs, likewise
#   mm/install.mk            `make install-mm`: the memory manager for other projects
#   tests/unit/tests.mk      UNIT_TESTS += name      UNIT_name_SRC := product sources it links
#   tests/property/tests.mk  PROPERTY_TESTS += name  PROPERTY_name_SRC := likewise
# A hosted test's own source is tests/unit/test_NAME.c or tests/property/test_NAME.c.

ifeq ($(origin CC),default)
CC := gcc
endif
HOSTCC ?= gcc
NASM ?= nasm
PYTHON := /usr/bin/python3
BUILD ?= build
JOBS ?= $(shell nproc)

# Commands are shown by what they make; V=1 shows them whole.
Q := $(if $(V),,@)

# $(call one_word,NAME): lists of files are split at blanks.
one_word = $(if $(word 2,$($(1))),$(error $(1) has a blank in it, which make cannot take: $($(1))))
$(call one_word,BUILD)

QUIRE_ELF := $(BUILD)/quire.elf
QUIRE_ISO := $(BUILD)/quire.iso

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules

# What guests that are PCs find as ACPI tables.
ACPI_C := $(BUILD)/acpi/tables.c

$(ACPI_C): tools/acpi.py $(wildcard vm/acpi/*.asl)
	@mkdir -p $(@D)
	@echo "acpi  $@"
	$(Q)$(PYTHON) tools/acpi.py -o $@ vm/acpi

-include boot/image.mk guests/guests.mk guests/user.mk

# A recipe that calls make again runs in parallel whether or not the person asked for -j.
PARALLEL = $(if $(filter -j%,$(MAKEFLAGS)),,-j$(JOBS))

.PHONY: all iso run linux picture transcript setup test test-unit test-property test-tools test-emulator bench
.PHONY: test-nested test-kvm format format-check headers-check clang-check poison-check schema
.PHONY: clean help FORCE

all: $(QUIRE_ELF) $(GUEST_IMAGES) ## build the hypervisor and the guests

iso: $(QUIRE_ISO) ## make the bootable image, build/quire.iso

$(QUIRE_ISO): boot/grub.cfg tools/image.py $(QUIRE_ELF) $(GUEST_IMAGES)
	@echo "iso   $@"
	$(Q)$(PYTHON) tools/image.py build --config boot/grub.cfg --files $(BUILD) -o $@

# ENGINE=auto|kvm|bochs|qemu|nested  CPU=model  CPUS=N  MEMORY=MiB  CMDS="guests; mem; quit"
# PATIENCE=seconds  SUITE=trixie (Debian's, for ENGINE=nested)
export ENGINE CPU CPUS MEMORY CMDS PATIENCE SUITE

run: ## install what is missing, build, boot, and stay at the console (ENGINE= CPU= CPUS= MEMORY= CMDS=)
	@tools/setup.sh run
	@$(MAKE) --no-print-directory $(PARALLEL) $(QUIRE_ISO)
	@$(PYTHON) tools/launch.py $(QUIRE_ISO)

PICTURE ?= $(BUILD)/picture.html

picture: ## boot, and draw memory and guests as a page: build/picture.html
	@tools/setup.sh run
	@$(MAKE) --no-print-directory $(PARALLEL) $(QUIRE_ISO)
	@$(PYTHON) tools/picture.py --boot $(QUIRE_ISO) -o $(PICTURE)

LINUX_ISO := $(BUILD)/linux.iso

linux: ## boot with Debian's Linux, unmodified, as a guest; `attach g1` for its shell (fetches two packages)
	@tools/setup.sh run
	@$(MAKE) --no-print-directory $(PARALLEL) $(QUIRE_ISO)
	@$(PYTHON) tools/linux.py --elf $(BUILD)/quire.elf -o $(LINUX_ISO)
	@MEMORY=$${MEMORY:-384} $(PYTHON) tools/launch.py $(LINUX_ISO)

transcript: $(QUIRE_ISO) ## write the session in README.md and docs/transcript.txt anew
	@$(PYTHON) tools/transcript.py $(QUIRE_ISO)

setup: ## install everything that building, running and testing need
	@tools/setup.sh run test

# Hosted tests: cmocka programs under AddressSanitizer and UndefinedBehaviorSanitizer.
HOSTED_CFLAGS := -std=gnu11 -O1 -g -fno-omit-frame-pointer -DQUIRE_HOSTED -I. \
	-Wall -Wextra -Werror -fsanitize=address,undefined -fno-sanitize-recover=all
HOSTED := $(BUILD)/hosted
TEST_SECONDS ?= 300

# Beside its own source and those of its list, every hosted test has these.
HOSTED_COMMON := tests/unit/hosted.c tests/unit/no_tlb.c lib/lock.c

# For the lists of those who link them: the buddy, the mapper, the walk of a guest's own tables.
BUDDY_SRC := $(sort $(wildcard mm/frames/buddy*.c))
MAPPER_SRC := $(patsubst %,mm/paging/%.c,table cursor nodes copies flush legal attrs) mm/addr.c
GUEST_WALK := $(patsubst %,arch/x86_64/mm/%.c,guest_walk kind_guest32 kind_guestpae kind_guest64)
EXPLAIN_SRC := $(wildcard arch/x86_64/mm/explain*.c)
KIND_EPT := arch/x86_64/mm/kind_ept.c

-include tests/unit/tests.mk tests/property/tests.mk

UNIT_LOGS := $(UNIT_TESTS:%=$(HOSTED)/unit/%.log) $(UNIT_TSAN:%=%.log)
PROPERTY_LOGS := $(PROPERTY_TESTS:%=$(HOSTED)/property/%.log) $(PROPERTY_TSAN:%=%.log)
TOOLS_XML := $(BUILD)/tools.xml
EMULATOR_XML := $(BUILD)/emulator.xml
NESTED_XML := $(BUILD)/nested.xml
KVM_XML := $(BUILD)/kvm.xml

$(HOSTED)/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	@echo "cc    $@"
	$(Q)$(HOSTCC) $(HOSTED_CFLAGS) -MMD -MP -c $< -o $@

# Sources that use privileged instructions, for the CPU that a test plays.
$(HOSTED)/model/%.o: %.c Makefile
	@mkdir -p $(@D)
	@echo "cc    $@"
	$(Q)$(HOSTCC) $(HOSTED_CFLAGS) -include tests/unit/model_cpu.h -MMD -MP -c $< -o $@

# $(call hosted_test,folder,name,sources,sources for the model of a CPU)
define hosted_test
$(HOSTED)/$(1)/$(2): $(patsubst %.c,$(HOSTED)/obj/%.o,tests/$(1)/test_$(2).c $(HOSTED_COMMON) $(3)) \
		$(patsubst %.c,$(HOSTED)/model/%.o,$(4))
	@mkdir -p $$(@D)
	@echo "link  $$@"
	$$(Q)$$(HOSTCC) $$(HOSTED_CFLAGS) $$^ $$($(2)_LIBS) -lcmocka -o $$@
-include $(patsubst %.c,$(HOSTED)/obj/%.d,tests/$(1)/test_$(2).c)
HOSTED_PRODUCT += $(3)
MODEL_PRODUCT += $(4)
endef
$(foreach t,$(UNIT_TESTS),$(eval $(call hosted_test,unit,$(t),$(UNIT_$(t)_SRC),$(UNIT_$(t)_MODEL))))
$(foreach t,$(PROPERTY_TESTS),$(eval $(call hosted_test,property,$(t),$(PROPERTY_$(t)_SRC))))
-include $(patsubst %.c,$(HOSTED)/obj/%.d,$(sort $(HOSTED_PRODUCT) $(HOSTED_COMMON)))
-include $(patsubst %.c,$(HOSTED)/model/%.d,$(sort $(MODEL_PRODUCT)))

# Always run again; a failure is in the log, for the summary to find, and stops no other test.
$(HOSTED)/%.log: $(HOSTED)/% FORCE
	@echo "test  $*"
	@timeout $(TEST_SECONDS) $< >$@ 2>&1; echo "exit status $$?" >>$@

# Likewise; pytest shows each failure at once. One worker more than processors, for tests wait now and then.
$(EMULATOR_XML): $(QUIRE_ISO) poison-check
$(TOOLS_XML) $(EMULATOR_XML): $(BUILD)/%.xml: FORCE
	@rm -f $@
	@echo "test  $*"
	@QUIRE_BUILD=$(BUILD) $(PYTHON) -B -m pytest -q -n $$(($(JOBS) + 1)) -p no:cacheprovider \
		--junitxml=$@ tests/$* $(PYTEST) || true

# Put together before two workers ask for it.
MAKE_STACK = PYTHONPATH=tools $(PYTHON) -B -c "from quire_machine import nested_stack as n; n.main()"

# Under the real KVM. Each of two workers boots Linux once; the next test goes to the one that is free, for
# a test is minutes.
$(NESTED_XML) $(KVM_XML): $(QUIRE_ISO) FORCE
	@rm -f $@
	@echo "test  $(basename $(@F))"
	@$(if $(filter $(KVM_XML),$@),,$(MAKE_STACK) || true)
	@QUIRE_BUILD=$(BUILD) QUIRE_KVM=$(if $(filter $(KVM_XML),$@),1) $(PYTHON) -B -m pytest -q -n 2 \
		--dist loadgroup -p no:cacheprovider --junitxml=$@ tests/nested $(PYTEST) || true

test: ## install what is missing, build, and run every test; ends with one summary
	@tools/setup.sh run test
	@$(MAKE) --no-print-directory $(PARALLEL) all $(QUIRE_ISO) format-check headers-check clang-check poison-check
	@$(MAKE) --no-print-directory $(PARALLEL) $(UNIT_LOGS) $(PROPERTY_LOGS) $(FUZZ_LOGS) $(TOOLS_XML)
	@$(MAKE) --no-print-directory $(EMULATOR_XML)
	@$(MAKE) --no-print-directory $(NESTED_XML)
	@$(PYTHON) tools/summary.py unit $(UNIT_LOGS) -- property $(PROPERTY_LOGS) \
		-- fuzz $(FUZZ_LOGS) -- tools $(TOOLS_XML) -- emulator $(EMULATOR_XML) -- nested $(NESTED_XML)

test-unit: $(UNIT_LOGS) ## the hosted unit tests
	@$(PYTHON) tools/summary.py unit $(UNIT_LOGS)

test-property: $(PROPERTY_LOGS) ## the hosted property tests
	@$(PYTHON) tools/summary.py property $(PROPERTY_LOGS)

test-tools: $(TOOLS_XML) ## the tests of the launcher and its fellows
	@$(PYTHON) tools/summary.py tools $(TOOLS_XML)

test-emulator: $(EMULATOR_XML) ## the whole-machine tests (PYTEST="-k name" narrows them)
	@$(PYTHON) tools/summary.py emulator $(EMULATOR_XML)

test-nested: $(NESTED_XML) ## the same guests under the real KVM, in a Linux in Bochs
	@$(PYTHON) tools/summary.py nested $(NESTED_XML)

test-kvm: ## the same under this machine's own KVM, where it has VMX; ends with a report to send in
	@ENGINE=kvm tools/setup.sh run test
	@$(PYTHON) tools/kvm_report.py check
	@$(MAKE) --no-print-directory $(PARALLEL) $(KVM_XML)
	@$(PYTHON) tools/kvm_report.py report $(KVM_XML)
	@$(PYTHON) tools/summary.py kvm $(KVM_XML)

-include tests/fuzz/fuzz.mk tests/coverage/coverage.mk tests/mutants/mutants.mk

include tests/bench/bench.mk mm/install.mk

ROOMS := lib mm x86 arch vm monitor boot guests examples tests
HEADERS := $(shell find $(ROOMS) -name '*.h' 2>/dev/null)
C_FILES = $(HEADERS) $(shell find $(ROOMS) -name '*.c')
# One version, for another lays out a few lines otherwise.
CLANG_FORMAT ?= clang-format-14

format: ## lay out every C file by .clang-format
	$(CLANG_FORMAT) -i $(C_FILES)

format-check: ## tell which C files are not laid out by .clang-format
	$(Q)$(CLANG_FORMAT) --dry-run -Werror $(C_FILES)

headers-check: $(HEADERS:%=$(BUILD)/headers/%.ok) ## compile each header on its own, by gcc and clang; who includes whom
	@$(PYTHON) tools/layers.py docs/ARCHITECTURE.md $(C_FILES)

# The parts of the mapper's template (mm/paging/template.h) are compiled for some kind.
HEADER_CFLAGS := -std=gnu11 -ffreestanding -mgeneral-regs-only -I. -Wall -Wextra -Werror \
	-fsyntax-only
$(BUILD)/headers/mm/paging/%.ok: HEADER_CFLAGS += -DKIND=kernel_kind -DKIND_NAME=kernel \
	-Wno-unused-function -Wno-unused-variable -Wno-unused-const-variable
$(BUILD)/headers/%.ok: % Makefile
	@mkdir -p $(@D)
	@printf '#include "%s"\n#include "%s"\n' $< $< >$(@:.ok=.c)
	$(Q)gcc $(HEADER_CFLAGS) -MMD -MF $(@:.ok=.d) -MT $@ -MP $(@:.ok=.c)
	$(Q)clang $(HEADER_CFLAGS) $(@:.ok=.c)
	@touch $@
-include $(HEADERS:%=$(BUILD)/headers/%.d)

clang-check: ## build the hypervisor by clang as well, into build/clang
	@$(MAKE) --no-print-directory CC=clang BUILD=$(BUILD)/clang $(BUILD)/clang/quire.elf

# Freed frames are poisoned, small objects have red zones: mm/frames/scrub.h, mm/frames/slab.h.
poison-check: $(GUEST_IMAGES) ## build the hypervisor for debugging as well, into build/poison
	@$(MAKE) --no-print-directory POISON=1 BUILD=$(BUILD)/poison $(BUILD)/poison/quire.elf

schema: ## write docs/monitor.schema.json anew, after a record of the console has changed
	$(PYTHON) tools/schema.py

clean: ## remove every product
	rm -rf $(BUILD)

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' \
		Makefile $(filter mm/%.mk tests/%.mk,$(MAKEFILE_LIST))
