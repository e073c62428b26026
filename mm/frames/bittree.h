/*
 * A set of bits with summaries, searched at one word a level: the allocator's free blocks and the
 * pages of initialised records are such sets.
 *
 *   level 2 (top)   [ one word                        ]   bit i: word i of level 1 is not zero
 *   level 1         [ word 0 ][ word 1 ] ...              bit i: word i of level 0 is not zero
 *   level 0         [ word 0 ][ word 1 ][ word 2 ] ...    the set itself
 *
 * Initialisation is lazy. A summary bit of 0 says that the word below it counts as zero *whatever
 * it holds*; whoever sets the first bit of such a word writes the whole word. Only the upper
 * levels, from `eager` (1 or more) on, are zeroed at the start: a handful of words, however large
 * the set is. So the memory of an untouched part is never read and never written.
 *
 * Every defined word below `eager` is therefore not zero: when the last bit goes, the summary bit
 * goes with it. Writers hold whatever lock guards the set. bittree_test() may run beside a writer:
 * words are loaded and stored whole, and the word below is written before the bit above that
 * defines it.
 */
#ifndef QUIRE_MM_BITTREE_H
#define QUIRE_MM_BITTREE_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/bits.h"

#define BITTREE_LEVELS 7 /* 64^7 bits: 2^42 */
#define BITTREE_NONE UINT64_MAX

struct bittree {
    uint64_t *word[BITTREE_LEVELS];
    uint64_t bits;
    uint8_t top;   /* the level of one word */
    uint8_t eager; /* the lowest level whose words are all defined */
};

/* Words of one level of a set of `bits` bits. */
static inline uint64_t bittree_level_words(uint64_t bits, unsigned level)
{
    uint64_t words = bits;
    for (unsigned l = 0; l <= level; l++)
        words = (words + 63) / 64;
    return words;
}

/* Words that a set of `bits` bits (1 .. 2^42) needs, all levels; there are at least two. */
static inline uint64_t bittree_words(uint64_t bits)
{
    uint64_t words = (bits + 63) / 64;
    uint64_t total = words;
    do {
        words = (words + 63) / 64;
        total += words;
    } while (words > 1);
    return total;
}

/* Starts an empty set in bittree_words(bits) words at `memory`, which may hold anything. `eager` is
 * the lowest level above 0 that has no more than eager_words words. Returns the first word behind
 * the set. */
static inline uint64_t *bittree_init(struct bittree *tree, uint64_t *memory, uint64_t bits,
                                     uint64_t eager_words)
{
    uint64_t words = (bits + 63) / 64;
    unsigned level = 0;
    tree->bits = bits;
    tree->eager = 0;
    tree->word[0] = memory;
    do {
        memory += words;
        words = (words + 63) / 64;
        tree->word[++level] = memory;
        if (tree->eager == 0 && words <= eager_words)
            tree->eager = (uint8_t)level;
        for (uint64_t i = 0; tree->eager != 0 && i < words; i++)
            memory[i] = 0;
    } while (words > 1);
    tree->top = (uint8_t)level;
    return memory + 1;
}

static inline uint64_t bittree_load(const uint64_t *word)
{
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static inline void bittree_store(uint64_t *word, uint64_t value)
{
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
}

/* The word of `bit`'s path at a level, and the bit in it that stands for what is below. */
static inline uint64_t *bittree_word(const struct bittree *tree, unsigned level, uint64_t bit)
{
    return &tree->word[level][bit >> (6 * level + 6)];
}

static inline uint64_t bittree_mask(unsigned level, uint64_t bit)
{
    return UINT64_C(1) << ((bit >> (6 * level)) & 63);
}

/* The lowest level on the path to `bit` whose word is defined: 0 when the bit's own word is. Above
 * level 0 the answer means that everything below that word's bit is zero. */
static inline unsigned bittree_depth(const struct bittree *tree, uint64_t bit)
{
    unsigned level = tree->eager;
    while (level > 0 &&
           (bittree_load(bittree_word(tree, level, bit)) & bittree_mask(level, bit)) != 0)
        level--;
    return level;
}

static inline bool bittree_test(const struct bittree *tree, uint64_t bit)
{
    return bittree_depth(tree, bit) == 0 &&
           (bittree_load(bittree_word(tree, 0, bit)) & bittree_mask(0, bit)) != 0;
}

/* The same for a set whose only lazy level is level 0: started with eager_words UINT64_MAX. */
static inline bool bittree_test_flat(const struct bittree *tree, uint64_t bit)
{
    return (bittree_load(&tree->word[1][bit >> 12]) >> ((bit >> 6) & 63) & 1) != 0 &&
           (bittree_load(&tree->word[0][bit >> 6]) >> (bit & 63) & 1) != 0;
}

/* Adds a bit whose depth is known. */
static inline void bittree_set_at(struct bittree *tree, uint64_t bit, unsigned depth)
{
    for (unsigned level = 0; level < depth; level++)
        bittree_store(bittree_word(tree, level, bit), bittree_mask(level, bit));
    for (unsigned level = depth; level <= tree->top; level++) {
        uint64_t *word = bittree_word(tree, level, bit);
        uint64_t old = *word;
        bittree_store(word, old | bittree_mask(level, bit));
        if (old != 0)
            return;
    }
}

static inline void bittree_set(struct bittree *tree, uint64_t bit)
{
    bittree_set_at(tree, bit, bittree_depth(tree, bit));
}

/* Removes a bit that is set. */
static inline void bittree_clear(struct bittree *tree, uint64_t bit)
{
    for (unsigned level = 0; level <= tree->top; level++) {
        uint64_t *word = bittree_word(tree, level, bit);
        uint64_t rest = *word & ~bittree_mask(level, bit);
        bittree_store(word, rest);
        if (rest != 0)
            return;
    }
}

/* The highest bit of a set that is not empty. */
static inline uint64_t bittree_last(const struct bittree *tree)
{
    uint64_t index = 0;
    for (unsigned level = tree->top; level > 0; level--)
        index = index << 6 | highest_bit(tree->word[level][index]);
    return index << 6 | highest_bit(tree->word[0][index]);
}

/*
 * The lowest bit at or above `bit`, and the highest at or below it; BITTREE_NONE when there is
 * none. First up, from the deepest defined word of the path to the first one with a candidate (a
 * word that the path came from had none, so its own bit is none either), then down along the
 * nearest bits.
 */
static inline uint64_t bittree_next(const struct bittree *tree, uint64_t bit)
{
    if (bit >= tree->bits)
        return BITTREE_NONE;
    unsigned level = bittree_depth(tree, bit);
    uint64_t index = bit >> (6 * level); /* of a bit at this level */
    uint64_t candidates = ~UINT64_C(0) << (index & 63);
    while ((candidates &= tree->word[level][index >> 6]) == 0) {
        if (level == tree->top)
            return BITTREE_NONE;
        level++;
        index >>= 6;
        candidates = ~UINT64_C(0) << (index & 63);
        candidates &= candidates - 1;
    }
    index = (index & ~UINT64_C(63)) | lowest_bit(candidates);
    for (; level > 0; level--)
        index = index << 6 | lowest_bit(tree->word[level - 1][index]);
    return index;
}

static inline uint64_t bittree_previous(const struct bittree *tree, uint64_t bit)
{
    if (bit >= tree->bits)
        bit = tree->bits - 1;
    unsigned level = bittree_depth(tree, bit);
    uint64_t index = bit >> (6 * level);
    uint64_t candidates = ~UINT64_C(0) >> (63 - (index & 63));
    while ((candidates &= tree->word[level][index >> 6]) == 0) {
        if (level == tree->top)
            return BITTREE_NONE;
        level++;
        index >>= 6;
        candidates = (UINT64_C(1) << (index & 63)) - 1;
    }
    index = (index & ~UINT64_C(63)) | highest_bit(candidates);
    for (; level > 0; level--)
        index = index << 6 | highest_bit(tree->word[level - 1][index]);
    return index;
}

/* ---- Checking, a few words at a time ---- */

/* How far a check has come. It goes down level by level, since the words that a level has are
 * found by the level above. All zeros but for `level`, which is tree->top, is the start. */
struct bittree_check {
    unsigned level;
    bool done;
    uint64_t next;  /* word of that level */
    uint64_t count; /* bits of the set, so far */
};

/* Has this word bits that stand for nothing? */
static inline bool bittree_strays(const struct bittree *tree, unsigned level, uint64_t word)
{
    uint64_t bits = level == 0 ? tree->bits : bittree_level_words(tree->bits, level - 1);
    return word == bits >> 6 && tree->word[level][word] >> (bits & 63) != 0;
}

/* The first word at or behind `from` that the level above says is there; BITTREE_NONE: none. */
static inline uint64_t bittree_next_word(const struct bittree *tree, unsigned level, uint64_t from)
{
    if (level >= tree->eager) /* all are */
        return from < bittree_level_words(tree->bits, level) ? from : BITTREE_NONE;
    unsigned above = level + 1;
    struct bittree upper = {.bits = bittree_level_words(tree->bits, level),
                            .top = (uint8_t)(tree->top - above),
                            .eager = (uint8_t)(tree->eager - above)};
    for (unsigned l = above; l <= tree->top; l++)
        upper.word[l - above] = tree->word[l];
    return bittree_next(&upper, from);
}

/* Is a word, which is there, as its summary bit says? */
static inline bool bittree_word_fits(const struct bittree *tree, unsigned level, uint64_t word)
{
    bool summary = true;
    if (level < tree->top && level >= tree->eager)
        summary = (tree->word[level + 1][word >> 6] >> (word & 63) & 1) != 0;
    bool empty = tree->word[level][word] == 0;
    return !bittree_strays(tree, level, word) && (level == tree->top || empty != summary);
}

/* Judges up to `words` more. False: one is wrong. Changes in between do not matter. */
static inline bool bittree_check(const struct bittree *tree, struct bittree_check *check,
                                 unsigned words)
{
    for (; words > 0 && !check->done; words--) {
        uint64_t word = bittree_next_word(tree, check->level, check->next);
        if (word == BITTREE_NONE) {
            check->done = check->level == 0;
            check->level -= check->level > 0;
            check->next = 0;
            continue;
        }
        if (!bittree_word_fits(tree, check->level, word))
            return false;
        if (check->level == 0)
            for (uint64_t bits = tree->word[0][word]; bits != 0; bits &= bits - 1)
                check->count++;
        check->next = word + 1;
    }
    return true;
}

#endif
