# `make install-mm` puts the memory manager where another project finds it by pkg-config.
# docs/LIFT-MM.md says how it is used.
#
#   $(PREFIX)/include/quire/    the headers of lib/ and mm/, and those of arch/ and x86/ that a kind includes
#   $(PREFIX)/lib/              libquire-mm.a: frames, paging, audit and what they need of lib/
#                               libquire-KIND.a: one for each arch/x86_64/mm/kind_KIND.c
#                               libquire-string.a: memcpy() and its like, where there is no libc
#   $(PREFIX)/lib/pkgconfig/    quire-mm.pc; quire-mm-freestanding.pc has libquire-string as well
#
# One build serves programs and kernels: position-independent, general registers only, no red zone.

PREFIX ?= /usr/local
$(call one_word,PREFIX)
MM_VERSION := 1.0

MM := $(BUILD)/lift
MM_FLAGS := -std=gnu11 -ffreestanding -fpie -mno-red-zone -mgeneral-regs-only -O2 -g \
	-fno-omit-frame-pointer -fno-stack-protector -fno-strict-aliasing \
	-fno-asynchronous-unwind-tables -fno-common -ffunction-sections -fdata-sections \
	-Wall -Wextra -Werror -I.

MM_C := $(wildcard mm/*.c mm/*/*.c arch/x86_64/mm/lifted/*.c) $(filter-out lib/string.c,$(wildcard lib/*.c))
# A guest's own tables are read by what knows guests, and stay here.
MM_KINDS := $(patsubst arch/x86_64/mm/kind_%.c,%,$(filter-out \
	arch/x86_64/mm/kind_guest%.c,$(wildcard arch/x86_64/mm/kind_*.c)))
MM_LIBS := $(MM_KINDS:%=quire-%) quire-mm # a kind needs the mapper, not the other way round
MM_ARCHIVES := $(patsubst %,$(MM)/lib%.a,$(MM_LIBS) quire-string)
MM_HEADERS := $(wildcard lib/*.h mm/*.h mm/*/*.h)

$(MM)/%.o: %.c mm/install.mk
	@mkdir -p $(@D)
	@echo "cc    $@"
	$(Q)$(CC) $(MM_FLAGS) -MMD -MP -c $< -o $@

$(MM)/libquire-mm.a: $(MM_C:%.c=$(MM)/%.o)
$(MM)/libquire-string.a: $(MM)/lib/string.o
$(MM_KINDS:%=$(MM)/libquire-%.a): $(MM)/libquire-%.a: $(MM)/arch/x86_64/mm/kind_%.o
$(MM_ARCHIVES):
	@echo "ar    $@"
	@rm -f $@
	$(Q)$(AR) crs $@ $^

-include $(MM_C:%.c=$(MM)/%.d) $(MM)/lib/string.d $(MM_KINDS:%=$(MM)/arch/x86_64/mm/kind_%.d)

# $(call mm_pc,name,libraries)
define mm_pc
prefix=$(PREFIX)
includedir=$${prefix}/include/quire
libdir=$${prefix}/lib

Name: $(1)
Description: page tables of any kind and a buddy allocator
Version: $(MM_VERSION)
Cflags: -I$${includedir}
Libs: -L$${libdir} $(2:%=-l%)
endef

.PHONY: install-mm
install-mm: export MM_PC := $(call mm_pc,quire-mm,$(MM_LIBS))
install-mm: export MM_PC_BARE := $(call mm_pc,quire-mm-freestanding,$(MM_LIBS) quire-string)
install-mm: $(MM_ARCHIVES) ## install mm/ for other projects (PREFIX=/usr/local DESTDIR=)
	@echo "install $(DESTDIR)$(PREFIX)"
	$(Q)set -e; to='$(DESTDIR)$(PREFIX)'; \
	kinds=$$(sed 's/\\$$//' $(MM_KINDS:%=$(MM)/arch/x86_64/mm/kind_%.d) | tr -s ' :' '\n' | \
		grep -E '^(arch|x86)/.*\.h$$' | sort -u); \
	for header in $(MM_HEADERS) $$kinds; do \
		install -D -m 644 $$header "$$to/include/quire/$$header"; \
	done; \
	install -d "$$to/lib/pkgconfig"; \
	install -m 644 $(MM_ARCHIVES) "$$to/lib"; \
	printf '%s\n' "$$MM_PC" >"$$to/lib/pkgconfig/quire-mm.pc"; \
	printf '%s\n' "$$MM_PC_BARE" >"$$to/lib/pkgconfig/quire-mm-freestanding.pc"

# The examples' tests install and build from what is there: nothing is compiled twice at a time.
$(TOOLS_XML) $(EMULATOR_XML): $(MM_ARCHIVES)
