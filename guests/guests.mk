# The test guests. GUESTS32 and GUESTS64 are made of guests/NAME.c, the shared runtime and guests/guest.ld,
# PROBES32 and PROBES64 also of guests/probe.c and probe.asm; GUESTS16 are flat images; GUESTS_NASM32 and GUESTS_NASM64 stand alone. Products: build/guests/NAME.elf and NAME.bin.

GUESTS32 := hello touch spin writer copies parser victim ring reckon balloon cpus
GUESTS64 := longmode rogue privileged devices
PROBES32 := probe32 probepae
PROBES64 := probe64
GUESTS16 := realmode modes
GUESTS_NASM32 := hostile
GUESTS_NASM64 := chaos

GUEST := $(BUILD)/guests
GUEST_CFLAGS := -std=gnu11 -ffreestanding -fno-pic -fno-pie -mgeneral-regs-only -mno-red-zone -O2 \
	-fno-stack-protector -fno-asynchronous-unwind-tables -fno-strict-aliasing \
	-fno-omit-frame-pointer -fno-optimize-sibling-calls -Wall -Wextra -Werror -I.
PROBE_ELFS32 := $(PROBES32:%=$(GUEST)/%.elf)
PROBE_ELFS64 := $(PROBES64:%=$(GUEST)/%.elf)
GUEST_ELFS32 := $(GUESTS32:%=$(GUEST)/%.elf) $(PROBE_ELFS32)
GUEST_ELFS64 := $(GUESTS64:%=$(GUEST)/%.elf) $(PROBE_ELFS64)
GUEST_BINS := $(GUESTS16:%=$(GUEST)/%.bin)
NASM_ELFS32 := $(GUESTS_NASM32:%=$(GUEST)/%.elf)
NASM_ELFS64 := $(GUESTS_NASM64:%=$(GUEST)/%.elf)
GUEST_IMAGES += $(NASM_ELFS32) $(NASM_ELFS64) $(GUEST_ELFS32) $(GUEST_ELFS64) $(GUEST_BINS)

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

# start32.asm, start64.asm; probe.asm serves both widths.
GUEST_NASM32 := $(GUEST)/start32.o $(GUEST)/probe.32.asm.o $(GUEST)/cpus_start.o
GUEST_NASM64 := $(GUEST)/start64.o $(GUEST)/probe.64.asm.o

$(GUEST)/start32.o: guests/start32.asm
$(GUEST)/cpus_start.o: guests/cpus_start.asm
$(GUEST)/start64.o: guests/start64.asm
$(GUEST)/probe.32.asm.o $(GUEST)/probe.64.asm.o: guests/probe.asm

$(GUEST_NASM32):
	@mkdir -p $(@D)
	@echo "nasm  $@"
	$(Q)$(NASM) -felf32 $< -o $@

$(GUEST_NASM64):
	@mkdir -p $(@D)
	@echo "nasm  $@"
	$(Q)$(NASM) -felf64 $< -o $@

$(PROBE_ELFS32): $(GUEST)/probe.32.o $(GUEST)/probe.32.asm.o
$(GUEST)/cpus.elf: $(GUEST)/cpus_start.o
$(PROBE_ELFS64): $(GUEST)/probe.64.o $(GUEST)/probe.64.asm.o

GUEST_LD := ld -static -nostdlib -no-pie -z max-page-size=4096 -z noexecstack -T guests/guest.ld

$(GUEST_ELFS32): $(GUEST)/%.elf: $(GUEST)/%.32.o $(GUEST)/guest.32.o $(GUEST)/start32.o guests/guest.ld
	@echo "link  $@"
	$(Q)$(GUEST_LD) -m elf_i386 $(filter %.o,$^) -o $@

$(GUEST_ELFS64): $(GUEST)/%.elf: $(GUEST)/%.64.o $(GUEST)/guest.64.o $(GUEST)/unexpected.64.o \
		$(GUEST)/start64.o guests/guest.ld
	@echo "link  $@"
	$(Q)$(GUEST_LD) $(filter %.o,$^) -o $@

$(NASM_ELFS32): $(GUEST)/%.elf: guests/%.asm $(GUEST)/abi.inc guests/guest.ld
	@echo "nasm  $@"
	$(Q)$(NASM) -felf32 -I $(GUEST)/ $< -o $(@:.elf=.o)
	$(Q)$(GUEST_LD) -m elf_i386 $(@:.elf=.o) -o $@

$(NASM_ELFS64): $(GUEST)/%.elf: guests/%.asm $(GUEST)/abi.inc guests/guest.ld
	@echo "nasm  $@"
	$(Q)$(NASM) -felf64 -I $(GUEST)/ $< -o $(@:.elf=.o)
	$(Q)$(GUEST_LD) $(@:.elf=.o) -o $@

$(GUEST_BINS): $(GUEST)/%.bin: guests/%.asm $(GUEST)/abi.inc
	@echo "nasm  $@"
	$(Q)$(NASM) -fbin -I $(GUEST)/ $< -o $@

-include $(wildcard $(GUEST)/*.32.d $(GUEST)/*.64.d)
