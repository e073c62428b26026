# The hypervisor's image, $(BUILD)/quire.elf: every C and NASM source of these folders is part of it.
#
# It is linked twice: the first pass yields the addresses, of which tools/symbols.py makes the symbol
# table that the second pass adds at the image's end (boot/linker.ld), where it moves nothing. That it
# moved nothing is checked.

IMAGE_FOLDERS := lib mm mm/frames mm/paging mm/audit arch/x86_64 arch/x86_64/mm arch/x86_64/vmx arch/x86_64/svm arch/x86_64/guest arch/x86_64/insn arch/x86_64/oracle vm monitor \
	boot
IMAGE_C := $(sort $(wildcard $(addsuffix /*.c,$(IMAGE_FOLDERS)))) $(ACPI_C)
IMAGE_ASM := $(sort $(wildcard $(addsuffix /*.asm,$(IMAGE_FOLDERS))))

IMAGE := $(BUILD)/image
IMAGE_OBJECTS := $(IMAGE_C:%.c=$(IMAGE)/%.o) $(IMAGE_ASM:%.asm=$(IMAGE)/%.asm.o)
IMAGE_SYMBOLS := $(IMAGE)/symbols.asm

IMAGE_CFLAGS := -std=gnu11 -ffreestanding -fno-pic -fno-pie -mcmodel=kernel -mno-red-zone \
	-mgeneral-regs-only -O2 -g -fno-omit-frame-pointer -fno-optimize-sibling-calls \
	-fno-stack-protector -fno-strict-aliasing -fno-asynchronous-unwind-tables -fno-common \
	-Wall -Wextra -Werror -I. $(if $(POISON),-DQUIRE_POISON)
IMAGE_NASMFLAGS := -f elf64 -g -F dwarf -Wall -Werror -I ./
IMAGE_LDFLAGS := -nostdlib -static -z max-page-size=0x1000 -z noexecstack --fatal-warnings \
	-T boot/linker.ld

ifeq ($(origin LD),default)
LD := ld
endif
NM ?= nm
OBJCOPY ?= objcopy

# Rewritten only when the tools or their flags change, so that everything is then made anew.
IMAGE_TOOLS := $(IMAGE)/tools
$(IMAGE_TOOLS): FORCE
	@mkdir -p $(@D)
	@echo '$(CC) $(IMAGE_CFLAGS) $(NASM) $(IMAGE_NASMFLAGS) $(LD) $(IMAGE_LDFLAGS)' >$@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

$(IMAGE)/%.o: %.c $(IMAGE_TOOLS)
	@mkdir -p $(@D)
	@echo "cc    $@"
	$(Q)$(CC) $(IMAGE_CFLAGS) -MMD -MP -c $< -o $@

$(IMAGE)/%.asm.o: %.asm $(IMAGE_TOOLS)
	@mkdir -p $(@D)
	@echo "nasm  $@"
	$(Q)$(NASM) $(IMAGE_NASMFLAGS) -MD $(@:.o=.d) -MP -o $@ $<

# The list of objects is a prerequisite too: a source that was removed makes a new image.
IMAGE_LIST := $(IMAGE)/objects
$(IMAGE_LIST): FORCE
	@mkdir -p $(@D)
	@echo '$(IMAGE_OBJECTS)' >$@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

$(IMAGE)/pass1.elf: $(IMAGE_OBJECTS) $(IMAGE_LIST) boot/linker.ld
	@echo "link  $@"
	$(Q)$(LD) $(IMAGE_LDFLAGS) -o $@ $(IMAGE_OBJECTS)

$(IMAGE_SYMBOLS): $(IMAGE)/pass1.elf tools/symbols.py
	$(Q)$(PYTHON) tools/symbols.py $(NM) $< $@

$(IMAGE)/symbols.o: $(IMAGE_SYMBOLS)
	$(Q)$(NASM) -f elf64 -Wall -Werror -o $@ $<

# GRUB loads every section that a file has: what only a debugger wants stands beside, in quire.elf.debug, where gdb
# and addr2line look by themselves.
$(QUIRE_ELF): $(IMAGE)/symbols.o $(IMAGE_OBJECTS) boot/linker.ld boot/image.mk
	@echo "link  $@"
	$(Q)$(LD) $(IMAGE_LDFLAGS) -o $@ $(IMAGE_OBJECTS) $(IMAGE)/symbols.o
	$(Q)$(PYTHON) tools/symbols.py $(NM) $@ $(IMAGE)/symbols.again
	@cmp $(IMAGE_SYMBOLS) $(IMAGE)/symbols.again
	$(Q)$(OBJCOPY) --only-keep-debug $@ $@.debug
	$(Q)$(OBJCOPY) --strip-debug --add-gnu-debuglink=$@.debug $@

-include $(IMAGE_OBJECTS:.o=.d)
