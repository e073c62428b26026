/*
 * The inspector's commands, on the machine that the console's test plays: its tables, its guests and
 * its fakes are included here, its own tests run in their own program.
 */
#define main test_monitor_main
#include "tests/unit/test_monitor.c"
#undef main

/* 4-level paging of g3 with one page, 0xffff800000000000, at gpa 0x5000: a supervisor's, read-only. */
#define G3_PAGE "0xffff800000000000"

static void give_g3_tables(void)
{
    cpu_of_guest.cr0 = CR0_PE | CR0_PG | CR0_WP;
    cpu_of_guest.cr3 = 0x1000;
    cpu_of_guest.cr4 = CR4_PAE;
    cpu_of_guest.efer = EFER_LME | EFER_LMA | EFER_NXE;
    cpu_of_guest.pat = UINT64_C(0x0007040600070406);
    memset(arena + G3_FRAMES, 0, 0xa0000);
    put_guest_entry(0x1000, 256, 0x2000 | PTE_P | PTE_RW | PTE_A);
    put_guest_entry(0x2000, 0, 0x3000 | PTE_P | PTE_RW | PTE_A);
    put_guest_entry(0x3000, 0, 0x4000 | PTE_P | PTE_RW | PTE_A);
    put_guest_entry(0x4000, 0, 0x5000 | PTE_P | PTE_A);
    put_guest_entry(0x4000, 1, 0x100000 | PTE_P | PTE_RW | PTE_A);
}

static void test_explain(void **state)
{
    (void)state;
    give_g3_tables();
    answers("explain g3 gva " G3_PAGE, "4-level paging of g3 hello3, CR3 0x1000\n");
    assert_non_null(strstr(screen, "         24  EPT    PT         5             -"));
    assert_non_null(strstr(screen, "          5  guest  PML4     256        0x1800     0x2001800"
                                   "              0x2023  table         0x2000  rwx--   -     yes  "
                                   "-\n"));
    assert_non_null(strstr(screen, "verdict: allowed\naccess: supervisor read of GVA " G3_PAGE
                                   "\ngva: " G3_PAGE "\ngpa: 0x5000\nhpa: 0x2005000\npage: 4K\n"
                                   "rights: r-x--\ntype: WB\n"));
    answers("explain g3 gva " G3_PAGE " w", "verdict: #PF\n");
    assert_non_null(strstr(screen, "error code: 0x3\nthe code says: present, write\ndecided at: "
                                   "guest PT entry 0\n"));
    answers("explain g3 gva " G3_PAGE " user x", "error code: 0x15\n");
    answers("explain g3 gva 0xffff800000001000 w", "qualification: 0x182\n");
    assert_non_null(strstr(screen, "slot: lazy RAM\nAt this exit lazy RAM gets its frame"));
    answers("explain g3 gva 0x800000000000", "verdict: #GP\n");

    answers("explain g3 gpa 0x201000 x", "verdict: allowed\naccess: instruction fetch from GPA "
                                         "0x201000\ngpa: 0x201000\nhpa: 0x2201000\npage: 2M\n");
    answers("explain g3 gpa 0xa0000", "slot: outside every slot\n");
    assert_null(strstr(screen, "lazy"));

    *entry_of(&guest[3].table, 0x5000) = 0x2005000 | EPT_W;
    answers("explain g3 gva " G3_PAGE, "verdict: EPT misconfiguration\n");
    assert_non_null(
        strstr(screen, "rule: writable but not readable\nmanual: SDM Vol. 3, 29.3.3.1"));

    answers("explain host 0xffff800000001234 w", "verdict: allowed\naccess: supervisor write to "
                                                 "HVA 0xffff800000001234\n");
    assert_non_null(strstr(screen, "hpa: 0x1234\npage: 2M\nrights: rw---\ntype: WB\n"));
    answers("explain host 0xffffffff80200000 w", "error code: 0x3\n");
    answers("explain host 0x1000 user", "error code: 0x4\n");
    answers("explain host 0x800000000000", "verdict: #GP\n");
}

static void test_explain_nonsense(void **state)
{
    (void)state;
    refuses(E_INVAL, "explain", "arguments are missing; usage: explain host VA |");
    refuses(E_INVAL, "explain g3 gpa", "which gpa? for example: explain g1 gpa 0x101000 w");
    refuses(E_INVAL, "explain g3 hpa 0x1000", "is no kind of address");
    refuses(E_INVAL, "explain g3 gpa 0x1000 q", "\"q\" after the address");
    refuses(E_INVAL, "explain g3 gva 0x1000 r w", "\"w\" after the address");
    refuses(E_INVAL, "explain g3 gva 0x1000 rw", "\"rw\" after the address");
    refuses(E_INVAL, "explain g3 gva 0x1000 \"\"", "\"\" after the address");
    refuses(E_INVAL, "explain host 0x1000 user user", "\"user\" after the address");
    refuses(E_INVAL, "explain g3 gpa 0x1000 user", "no privilege level");
    refuses(E_FORMAT, "explain host zero", "explain:");
    refuses(E_NOENT, "explain g9 gpa 0", "there is no g9");
    refuses(E_STATE, "explain g1 gpa 0", "g1 hello1 has no table (passed); `start g1 paused`");
    guest[3].vcpu = &vcpu[2];
    refuses(E_HARDWARE, "explain g3 gva 0x1000", "cannot be read");
    answers("explain g3 gpa 0x1000", "verdict: allowed");
}

static void test_who(void **state)
{
    char said[160];
    struct walk walk;
    hpa_t block;

    (void)state;
    assert_int_equal(buddy_alloc(4, PURPOSE_GUEST_RAM, guest_owner(&guest[3]), &block), E_OK);
    map_in(&guest[3].table, 0x600000, block.v, 0x10000, RIGHT_RX);
    snprintf(said, sizeof(said), "who 0x%llx", (unsigned long long)block.v + 0x3456);
    answers(said, "memory: usable\nstate: tail\npurpose: guest memory\nowner: g3 hello3\n");
    snprintf(said, sizeof(said), "\nblock: 0x%llx\norder: 4\nblock size: 64K\nmappings: 2\n",
             (unsigned long long)block.v);
    assert_non_null(strstr(screen, said));
    snprintf(said, sizeof(said), "  host          %#18llx    2M  rw--g   WB    yes  yes",
             (unsigned long long)(DIRECT_BASE + block.v + 0x3000));
    assert_non_null(strstr(screen, said));
    assert_non_null(
        strstr(screen, "  g3 hello3               0x603000    4K  r-x--   WB    no   no"));
    buddy_free(block, 4, guest_owner(&guest[3]));

    /* A table's own frame. */
    table_walk(&guest[3].table, 0x5000, &walk);
    snprintf(said, sizeof(said), "who 0x%llx", (unsigned long long)walk.step[3].address.v);
    answers(said, "purpose: EPT tables\nowner: g3 hello3\n");
    assert_non_null(
        strstr(screen, "payload: 0xa0\nit means: present entries of the table\ntable level: PT\n"));
    answers("who 0x1000", "memory: usable\nmappings: 1\n");

    answers("who 0x9fc00", "memory: reserved\n");
    answers("who 1G", "memory: none: no RAM of the memory map\nmappings: 0\n");
    answers("who 0x400000", "state: free\n");
    assert_null(strstr(screen, "owner:"));

    /* Often mapped: shown up to a bound, and counted. */
    for (uint64_t i = 0; i < 70; i++)
        map_in(&guest[3].table, 0x10000000 + i * 0x2000, 0x300000, 0x1000, RIGHT_R);
    answers("who 0x300000", "mappings: 71\nOf these mappings the first 64 are shown.\n");

    refuses(E_RANGE, "who 0x10000000000000", "52 bits at the most");
    refuses(E_FORMAT, "who me", "who:");
    refuses(E_INVAL, "who", "arguments are missing; usage: who HPA");
}

static void test_frames(void **state)
{
    struct buddy_stats stats;
    char said[80];
    hpa_t block;

    (void)state;
    assert_int_equal(buddy_alloc(5, PURPOSE_GUEST_RAM, guest_owner(&guest[3]), &block), E_OK);
    answers("frames", "used, by purpose and owner\n");
    assert_non_null(strstr(screen, "  guest memory      g3 hello3                704       2816K"));
    assert_non_null(strstr(screen, "  EPT tables        g3 hello3 "));
    buddy_stats(&stats);
    snprintf(said, sizeof(said), "\nfree frames: %llu (", (unsigned long long)stats.free_frames);
    assert_non_null(strstr(screen, said));
    assert_non_null(strstr(screen, "\nlargest free block: 16M\n"));
    assert_non_null(strstr(screen, "too small for 1G: 100\n"));
    buddy_free(block, 5, guest_owner(&guest[3]));
    answers("mem", "\n  part                  frames        size  share\n  used  ");
    assert_non_null(strstr(screen, "#...................\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_explain, set_up),
        cmocka_unit_test_setup(test_explain_nonsense, set_up),
        cmocka_unit_test_setup(test_who, set_up),
        cmocka_unit_test_setup(test_frames, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
