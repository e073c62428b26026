# The test guests. GUESTS32 and GUESTS64 are made of guests/NAME.c, the shared runtime and guests/guest.ld;
# GUESTS16 are flat images. Products: build/guests/NAME.elf and NAME.bin.

GUESTS32 := hello touch spin
GUESTS64 := longmode rogue privileged devices probe64
GUESTS16 := realmode modes

GUEST := $(BUILD)/guests
GUEST_CFLAGS := -std=gnu11 -ffreestanding -fno-pic -fno-pie -mgeneral-regs-only -mno-red-zone -O2 \
	-fno-stack-protector -fno-asynchronous-unwind-tables -fno-strict-aliasing -Wall -Wextra -Werror -I.
GUEST_ELFS32 := $(GUESTS32:%=$(GUEST)/%.elf)
GUEST_ELFS64 := $(GUESTS64:%=$(GUEST)/%.elf)
GUEST_BINS := $(GUESTS16:%=$(GUEST)/%.bin)
GUEST_IMAGES += $(GUEST_ELFS32) $(GUEST_ELFS64) $(GUEST_BINS)

# The numbers of abi.h for NASM.
$(GUEST)/abi.inc: guests/abi.h
	@mkdir -p $(@D)
	$(Q)sed -n 's/^#define \(QUIRE_[A-Z0-9_]*\) \([0-9][0-9A-Za-z]*\).*/\1 equ \2/p' $< >$@

$(GUEST)/%.32.o: guests/%.c guests/guests.mk
	@mkdir -p $(@D)
	@echo "cc    $@"
	$(Q)$(CC) $(GUEST_CFLAGS) -m32 -MMD -MP -c $< -o $@

$(GUEST)/%.64.o: guests/%.c guests/guests.mk
	@mkdir -p $(@D)
	@echo "cc    $@"
	$(Q)$(CC) $(GUEST_CFLAGS) -MMD -MP -c $< -o $@

$(GUEST)/start32.o: guests/start32.asm
	@mkdir -p $(@D)
	@echo "nasm  $@"
	$(Q)$(NASM) -felf32 $< -o $@

$(GUEST)/start64.o: guests/start64.asm
	@mkdir -p $(@D)
	@echo "nasm  $@"
	$(Q)$(NASM) -felf64 $< -o $@

GUEST_LD := ld -static -nostdlib -no-pie -z max-page-size=4096 -z noexecstack -T guests/guest.ld

$(GUEST_ELFS32): $(GUEST)/%.elf: $(GUEST)/%.32.o $(GUEST)/guest.32.o $(GUEST)/start32.o guests/guest.ld
	@echo "link  $@"
	$(Q)$(GUEST_LD) -m elf_i386 $(filter %.o,$^) -o $@

$(GUEST_ELFS64): $(GUEST)/%.elf: $(GUEST)/%.64.o $(GUEST)/guest.64.o $(GUEST)/unexpected.64.o \
		$(GUEST)/start64.o guests/guest.ld
	@echo "link  $@"
	$(Q)$(GUEST_LD) $(filter %.o,$^) -o $@

$(GUEST_BINS): $(GUEST)/%.bin: guests/%.asm $(GUEST)/abi.inc
	@echo "nasm  $@"
	$(Q)$(NASM) -fbin -I $(GUEST)/ $< -o $@

-include $(wildcard $(GUEST)/*.32.d $(GUEST)/*.64.d)
