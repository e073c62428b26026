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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_explain, set_up),
        cmocka_unit_test_setup(test_explain_nonsense, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
