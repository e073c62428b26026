# The hosted property tests: each names the product sources that it links.

PROPERTY_TESTS += mapper_model
PROPERTY_mapper_model_SRC := mm/table.c mm/flush.c mm/legal.c mm/attrs.c mm/addr.c mm/buddy.c \
	mm/frame.c arch/x86_64/mm/kind_kernel.c arch/x86_64/mm/kind_user.c \
	arch/x86_64/mm/kind_ept.c lib/error.c lib/format.c

PROPERTY_TESTS += buddy_model
PROPERTY_buddy_model_SRC := mm/buddy.c mm/frame.c lib/format.c
