# The hosted property tests: each names the product sources that it links.

PROPERTY_TESTS += mapper_model
PROPERTY_mapper_model_SRC := mm/table.c mm/flush.c mm/legal.c mm/attrs.c mm/addr.c $(BUDDY_SRC) \
	mm/frame.c arch/x86_64/mm/kind_kernel.c arch/x86_64/mm/kind_user.c \
	arch/x86_64/mm/kind_ept.c lib/error.c lib/format.c tests/property/sdm_rules.c

# The shipped kinds and flush batches as tests/property/hooked_*.c compile them, so that a test sees every
# access to an entry, and the world in which they are put to the proof.
MAPPER_WORLD_SRC := tests/property/world.c tests/property/sdm_rules.c \
	tests/property/five_levels.c tests/property/hooked_kinds.c tests/property/hooked_flush.c \
	mm/table.c mm/legal.c mm/attrs.c mm/addr.c $(BUDDY_SRC) \
	mm/frame.c lib/error.c lib/format.c

PROPERTY_TESTS += mapper_conformance
PROPERTY_mapper_conformance_SRC := $(MAPPER_WORLD_SRC)

PROPERTY_TESTS += mapper_entries
PROPERTY_mapper_entries_SRC := $(MAPPER_WORLD_SRC)

PROPERTY_TESTS += mapper_rounds
PROPERTY_mapper_rounds_SRC := $(MAPPER_WORLD_SRC) mm/page_source.c mm/scrub.c

PROPERTY_TESTS += buddy_damage
PROPERTY_buddy_damage_SRC := $(BUDDY_SRC) mm/frame.c lib/format.c mm/addr.c

PROPERTY_TESTS += buddy_model
PROPERTY_buddy_model_SRC := $(BUDDY_SRC) mm/frame.c lib/format.c
