/* Explanations in words. See explain.h. */
#include "arch/x86_64/mm/explain_rules.h"

#include "arch/x86_64/mm/ept.h"
#include "arch/x86_64/mm/npt.h"
#include "lib/string.h"
#include "x86/control.h"

const char *explain_outcome_name(const struct explanation *e)
{
    static const char *const names[EXPLAIN_OUTCOMES] = {
        [EXPLAIN_ALLOWED] = "allowed",
        [EXPLAIN_PAGE_FAULT] = "#PF",
        [EXPLAIN_GENERAL] = "#GP",
        [EXPLAIN_UNKNOWN] = "cannot be told",
    };

    if (e->outcome == EXPLAIN_VIOLATION)
        return e->second->violation;
    if (e->outcome == EXPLAIN_MISCONFIG)
        return e->second->misconfig;
    return names[e->outcome];
}

bool explain_exits(const struct explanation *e)
{
    return e->outcome == EXPLAIN_VIOLATION || e->outcome == EXPLAIN_MISCONFIG;
}

/* Of the first level, and where both levels have the same words; %s is the second level's name. */
static const struct {
    const char *text, *section;
} rules[EXPLAIN_RULES] = {
    [EXPLAIN_RULE_NONE] = {"every level lets it through", "SDM Vol. 3, 4.6.1"},
    [EXPLAIN_NOT_PRESENT] = {"the entry is not present", "SDM Vol. 3, 4.7"},
    [EXPLAIN_ILLEGAL] = {"", ""},
    [EXPLAIN_SUPERVISOR] = {"user mode may not reach a supervisor-mode address (U/S is 0)",
                            "SDM Vol. 3, 4.6.1"},
    [EXPLAIN_READ_ONLY] = {"a write where R/W is 0, by user mode or while CR0.WP is 1",
                           "SDM Vol. 3, 4.6.1"},
    [EXPLAIN_NO_EXECUTE] = {"an instruction fetch where XD is 1", "SDM Vol. 3, 4.6.1"},
    [EXPLAIN_SMEP] = {"with CR4.SMEP, supervisor mode may not execute at a user-mode address",
                      "SDM Vol. 3, 4.6.1"},
    [EXPLAIN_SMAP] = {"with CR4.SMAP and EFLAGS.AC clear, supervisor mode may not touch data at a "
                      "user-mode address",
                      "SDM Vol. 3, 4.6.1"},
    [EXPLAIN_NOT_CANONICAL] = {"the address is not canonical: bits 63 to 47 are not all equal",
                               "SDM Vol. 1, 3.3.7.1"},
    [EXPLAIN_BEYOND_32_BITS] = {"outside 64-bit mode a linear address has 32 bits",
                                "SDM Vol. 3, 4.1.1"},
    [EXPLAIN_SECOND_BEYOND] = {"the guest-physical address has more bits than the %s translates",
                               ""},
    [EXPLAIN_SECOND_NO_READ] = {"a read that the %s does not allow", ""},
    [EXPLAIN_SECOND_NO_WRITE] = {"a write that the %s does not allow", ""},
    [EXPLAIN_SECOND_NO_EXECUTE] = {"an instruction fetch that the %s does not allow", ""},
    [EXPLAIN_SECOND_SUPERVISOR] = {"every access of a guest is a user access to the %s, and U/S is "
                                   "0",
                                   ""},
    [EXPLAIN_SECOND_UPDATE] = {"the CPU must set A or D in the guest's entry, which lies where the "
                               "%s allows no write",
                               ""},
    [EXPLAIN_UNREADABLE] = {"the next entry lies where there is no memory to read", ""},
    [EXPLAIN_NOT_WALKED] = {"5-level paging of a guest is not walked", ""},
};

static const char *text_of(const struct explanation *e)
{
    switch (e->rule) {
    case EXPLAIN_ILLEGAL:
        return rule_text(e->entry_rule);
    case EXPLAIN_SECOND_ABSENT:
        return e->second->absent;
    case EXPLAIN_SECOND_WALK:
        return e->second->walk;
    default:
        return rules[e->rule].text;
    }
}

const char *explain_rule_text(char buffer[EXPLAIN_TEXT], const struct explanation *e)
{
    format_buffer(buffer, EXPLAIN_TEXT, text_of(e), e->second ? e->second->name : "");
    return buffer;
}

const char *explain_section(const struct explanation *e)
{
    if (e->rule == EXPLAIN_ILLEGAL)
        return rule_section(e->outcome == EXPLAIN_MISCONFIG ? e->second->kind : KIND_GUEST64,
                            e->entry_rule);
    if (e->rule == EXPLAIN_SECOND_ABSENT || e->rule == EXPLAIN_SECOND_BEYOND)
        return e->second->section_of_absent;
    bool of_second = e->rule >= EXPLAIN_SECOND_NO_READ && e->rule <= EXPLAIN_SECOND_UPDATE;
    bool one_level = !e->linear || e->mode == PAGING_NONE;
    if (of_second || (e->rule == EXPLAIN_RULE_NONE && one_level))
        return e->second->section_of_refusal;
    return rules[e->rule].section;
}

static const char *access_name(unsigned access)
{
    if (access & RIGHT_W)
        return "write to";
    return access & RIGHT_X ? "instruction fetch from" : "read of";
}

const char *explain_access_text(char buffer[EXPLAIN_TEXT], const struct explanation *e)
{
    const char *who = e->user ? "user" : "supervisor";

    if (!e->linear)
        format_buffer(buffer, EXPLAIN_TEXT, "%s GPA 0x%lx", access_name(e->access), e->at);
    else
        format_buffer(buffer, EXPLAIN_TEXT, "%s %s %s 0x%lx", who, access_name(e->access),
                      e->two_levels ? "GVA" : "HVA", e->at);
    return buffer;
}

const char *explain_table_name(const struct explanation *e, const struct explain_step *step)
{
    if (step->table == EXPLAIN_SECOND)
        return e->second->name;
    return e->two_levels ? "guest" : "host";
}

const char *explain_decided_text(char buffer[EXPLAIN_TEXT], const struct explanation *e)
{
    buffer[0] = '\0';
    if (e->decided >= e->count)
        return buffer;
    const struct explain_step *step = &e->step[e->decided];
    size_t n = format_buffer(buffer, EXPLAIN_TEXT, "%s %s entry %u", explain_table_name(e, step),
                             step->table == EXPLAIN_REGISTER ? "PDPTE register"
                                                             : level_name(step->entry.level),
                             step->entry.index);
    if (step->table == EXPLAIN_SECOND && e->during_walk)
        format_buffer(buffer + n, EXPLAIN_TEXT - n,
                      ", on the way to a table of the guest's at 0x%lx", e->exit_gpa.v);
    return buffer;
}

struct word {
    uint64_t bit;
    const char *text;
};

static void list_words(char buffer[EXPLAIN_TEXT], size_t n, uint64_t value,
                       const struct word *words, unsigned count, const char *between)
{
    bool any = false;

    for (unsigned i = 0; i < count && n < EXPLAIN_TEXT; i++)
        if (value & words[i].bit) {
            n += format_buffer(buffer + n, EXPLAIN_TEXT - n, "%s%s", any ? between : "",
                               words[i].text);
            any = true;
        }
}

const char *explain_code_text(char buffer[EXPLAIN_TEXT], uint64_t code)
{
    static const struct word words[] = {
        {PF_WRITE, ", write"},
        {PF_USER, ", user"},
        {PF_RESERVED, ", reserved bit"},
        {PF_FETCH, ", fetch"},
        {NPT_FAULT_FINAL, "; at the final address"},
        {NPT_FAULT_WALK, "; at a table of the guest's"},
    };
    size_t n =
        format_buffer(buffer, EXPLAIN_TEXT, "%s", code & PF_PRESENT ? "present" : "not present");
    list_words(buffer, n, code, words, ARRAY_SIZE(words), "");
    return buffer;
}

const char *explain_qualification_text(char buffer[EXPLAIN_TEXT], uint64_t qualification)
{
    static const struct word accesses[] = {
        {RIGHT_R, "read"}, {RIGHT_W, "write"}, {RIGHT_X, "fetch"}};
    static const struct word rest[] = {
        {QUALIFICATION_USER_EXECUTE, "; executable for user mode"},
        {QUALIFICATION_LINEAR, "; linear address known"},
        {QUALIFICATION_FINAL, "; at the final address"},
        {QUALIFICATION_USER_ADDRESS, "; user-mode address"},
        {QUALIFICATION_WRITABLE, "; writable by the guest's tables"},
        {QUALIFICATION_NO_EXECUTE, "; not executable by the guest's tables"},
    };
    char rights[RIGHTS_TEXT];

    buffer[0] = '\0';
    list_words(buffer, 0, qualification, accesses, ARRAY_SIZE(accesses), " and ");
    size_t n = strlen(buffer);
    rights_text(rights, (unsigned)(qualification >> QUALIFICATION_ALLOWED_SHIFT) & RIGHT_RWX);
    n += format_buffer(buffer + n, EXPLAIN_TEXT - n, "; the table gives %.3s", rights);
    if ((qualification & (QUALIFICATION_LINEAR | QUALIFICATION_FINAL)) == QUALIFICATION_LINEAR)
        n += format_buffer(buffer + n, EXPLAIN_TEXT - n, "; at a table of the guest's");
    list_words(buffer, n, qualification, rest, ARRAY_SIZE(rest), "");
    return buffer;
}
