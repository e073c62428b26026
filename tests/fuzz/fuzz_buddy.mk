# The buddy as a second target of tests/fuzz/fuzz.mk: memory maps and sequences of calls.

FUZZ_LOGS += $(FUZZ)/buddy.log
FUZZ_buddy_PRODUCT := $(BUDDY_SRC) mm/frame.c
FUZZ_buddy_OBJ := $(FUZZ_buddy_PRODUCT:%.c=$(FUZZ)/watched/%.o) \
	$(patsubst %.c,$(FUZZ)/world/%.o,tests/fuzz/fuzz_buddy.c lib/lock.c lib/format.c)
-include $(FUZZ_buddy_OBJ:.o=.d)

$(FUZZ)/buddy: $(FUZZ_buddy_OBJ)
	@echo "link  $@"
	$(Q)clang -fsanitize=fuzzer,address,undefined $^ -o $@

test-fuzz: $(FUZZ)/buddy.log
