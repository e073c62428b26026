# The ring-3 programs: build/guests/user_NAME.elf from guests/user_NAME.c, guests/user_start.asm and
# guests/user.ld. They reach the machine as GRUB modules whose command line begins with `user:`.

USER_PROGRAMS := user_hello user_stray user_runaway
USER_CFLAGS := -std=gnu11 -ffreestanding -fno-pic -fno-pie -mgeneral-regs-only -mno-red-zone -O2 \
	-fno-stack-protector -fno-asynchronous-unwind-tables -Wall -Wextra -Werror -I.
USER_ELFS := $(USER_PROGRAMS:%=$(BUILD)/guests/%.elf)
GUEST_IMAGES += $(USER_ELFS)

$(BUILD)/guests/user_start.o: guests/user_start.asm
	@mkdir -p $(@D)
	@echo "nasm  $@"
	$(Q)$(NASM) -felf64 $< -o $@

$(USER_PROGRAMS:%=$(BUILD)/guests/%.o): $(BUILD)/guests/%.o: guests/%.c guests/user.mk
	@mkdir -p $(@D)
	@echo "cc    $@"
	$(Q)$(CC) $(USER_CFLAGS) -MMD -MP -c $< -o $@

$(USER_ELFS): $(BUILD)/guests/%.elf: $(BUILD)/guests/%.o $(BUILD)/guests/user_start.o guests/user.ld
	@echo "link  $@"
	$(Q)ld -static -nostdlib -no-pie -z max-page-size=4096 -z noexecstack -T guests/user.ld \
		$(BUILD)/guests/$*.o $(BUILD)/guests/user_start.o -o $@

-include $(USER_PROGRAMS:%=$(BUILD)/guests/%.d)
