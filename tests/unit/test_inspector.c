/*
 * The inspector's commands, on the machine that the console's test plays: its tables, its guests
 * and its fakes are included here, its own tests run in their own program.
 */
#define main test_monitor_main
#include "tests/unit/test_monitor.c"
#undef main

#include "mm/paging/page_source.h"

/* 4-level paging of g3 with one page, 0xffff800000000000, at gpa 0x5000: a supervisor's, read-only.
 */
#define G3_PAGE "0xffff800000000000"

static void give_g3_tables(void)
{
    cpu_of_guest.cr0 = CR0_PE | CR0_PG | CR0_WP;
    cpu_of_guest.cr3 = 0x1000;
    cpu_of_guest.cr4 = CR4_PAE;
    cpu_of_guest.efer = EFER_LME | EFER_LMA | EFER_NXE;
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

/* An entry of the second level that was broken so as to lead out of all RAM, under a table of the
 * guest's: nothing follows it there. */
static void test_a_guests_table_outside_memory(void **state)
{
    (void)state;
    give_g3_tables();
    *entry_of(&guest[3].table, 0x2000) = UINT64_C(0xfee00000) | EPT_R | EPT_W;
    answers("walk g3 gva " G3_PAGE, "rule: the next table lies where the guest has no memory\n");
    answers("map g3 gva", "tables that are not there: 1\n");
    answers("explain g3 gva " G3_PAGE, "verdict: cannot be told\n");
    refuses(E_PERM, "peek g3 gva " G3_PAGE, "no memory to read");
    refuses(E_RANGE, "peek g3 gva " G3_PAGE " force", "the guest's tables map nothing there");
}

static void test_explain_nonsense(void **state)
{
    (void)state;
    refuses(E_INVAL, "explain", "arguments are missing; usage: explain host VA [r|w|x]");
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
    guest[3].vcpu = guest[3].cpu[0].vcpu = &vcpu[2];
    refuses(E_HARDWARE, "explain g3 gva 0x1000", "cannot be read");
    answers("explain g3 gpa 0x1000", "verdict: allowed");
}

/* FNV-1a, by its definition. */
#define FNV_START UINT64_C(14695981039346656037)

static uint64_t fnv_of(uint64_t value, const void *bytes, size_t count)
{
    const uint8_t *byte = bytes;

    for (size_t i = 0; i < count; i++)
        value = (value ^ byte[i]) * UINT64_C(1099511628211);
    return value;
}

static uint64_t digest_told(const char *line)
{
    answers(line, "\ndigest: 0x");
    return strtoull(strstr(screen, "\ndigest: ") + 9, NULL, 16);
}

/* Pages without a frame count as zeroes, so that lazy memory and other is the same. */
static void test_digest(void **state)
{
    static uint8_t nothing[1 * MiB];
    char said[80];

    (void)state;
    assert_true(fnv_of(FNV_START, "foobar", 6) == UINT64_C(0x85944171f73967e8)); /* its authors' */
    uint64_t slot[] = {
        fnv_of(FNV_START, arena + G3_FRAMES, 0xa0000),
        fnv_of(fnv_of(FNV_START, nothing, 1 * MiB), arena + G3_FRAMES + 2 * MiB, 2 * MiB),
    };
    uint64_t all = fnv_of(FNV_START, slot, sizeof(slot));
    assert_true(digest_told("digest g3") == all);
    snprintf(said, sizeof(said), "           0x0      640K  RAM                 640K  %#18lx\n",
             slot[0]);
    assert_non_null(strstr(screen, said));
    assert_non_null(strstr(screen, "0x100000        3M  lazy RAM              2M  0x"));
    assert_non_null(strstr(screen, "memory: 3712K\nthere: 2688K\n"));
    arena[G3_FRAMES + 0x9ffff] ^= 1;
    assert_true(digest_told("digest g3") != all);
    arena[G3_FRAMES + 0x9ffff] ^= 1;
    assert_true(digest_told("digest g3") == all);
    refuses(E_STATE, "digest g1", "g1 hello1 has no table (passed)");
    refuses(E_NOENT, "digest g9", "there is no g9");
}

static void test_who(void **state)
{
    char said[160];
    struct walk walk;
    hpa_t block;

    (void)state;
    assert_int_equal(buddy_alloc(4, PURPOSE_GUEST_RAM, guest_owner(&guest[3]), &block), E_OK);
    map_in(&guest[3].table, 0x600000, block.v, 0x10000, RIGHT_RX);
    snprintf(said, sizeof(said), "who 0x%lx", block.v + 0x3456);
    answers(said, "memory: usable\nstate: tail\npurpose: guest memory\nowner: g3 hello3\n");
    snprintf(said, sizeof(said), "\nblock: 0x%lx\norder: 4\nblock size: 64K\nmappings: 2\n",
             block.v);
    assert_non_null(strstr(screen, said));
    snprintf(said, sizeof(said), "  host          %#18lx    2M  rw--g   WB    yes  yes",
             (DIRECT_BASE + block.v + 0x3000));
    assert_non_null(strstr(screen, said));
    assert_non_null(
        strstr(screen, "  g3 hello3               0x603000    4K  r-x--   WB    no   no"));
    buddy_free(block, 4, guest_owner(&guest[3]));

    /* Through the guest's own tables as well. */
    give_g3_tables();
    put_guest_entry(0x4000, 2, 0x7000 | PTE_P | PTE_RW | PTE_US | PTE_PCD);
    put_guest_entry(0x3000, 4, PTE_P | PTE_PS | PTE_A); /* 0xffff800000800000: all from gpa 0 on */
    answers("who 0x2007123", "  g3 hello3                 0x7000    4K  rwx--   WB    ");
    assert_non_null(strstr(screen,
                           "  g3's own      0xffff800000002000    4K  rwx--   UC-   no   no "
                           "  0x7017\n"));
    assert_non_null(strstr(screen,
                           "  g3's own      0xffff800000807000    2M  r-x--   WB    yes  no "
                           "   0xa1\n"));
    assert_non_null(strstr(screen, "\nmappings: 4\n"));
    for (unsigned i = 0; i < 512; i++) /* without end */
        put_guest_entry(0x1000, i, 0x1000 | PTE_P | PTE_RW);
    answers("who 0x2007123", "The tables that g3 hello3 has built were searched up to 0x");
    cpu_of_guest.cr0 = CR0_PE;
    answers("who 0x2007123", "\nmappings: 2\n");

    /* A table's own frame. */
    table_walk(&guest[3].table, 0x5000, &walk);
    snprintf(said, sizeof(said), "who 0x%lx", walk.step[3].address.v);
    answers(said, "purpose: EPT tables\nowner: g3 hello3\n");
    assert_non_null(strstr(
        screen, "payload: 0xa0\nit means: present entries of the table: 160\ntable level: PT\n"));
    map_in(&guest[3].table, 0x800000, 0x5001000, 2 * MiB, RIGHT_RX);
    table_walk(&guest[3].table, 0x800000, &walk);
    snprintf(said, sizeof(said), "who 0x%lx", walk.step[3].address.v);
    answers(said, " of the table: 512\ntable level: PT\n");
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
    snprintf(said, sizeof(said), "\nfree frames: %lu (", stats.free_frames);
    assert_non_null(strstr(screen, said));
    assert_non_null(strstr(screen, "\nlargest free block: 16M\n"));
    assert_non_null(strstr(screen, "too small for 1G: 100\n"));
    buddy_free(block, 5, guest_owner(&guest[3]));
    answers("mem", "\n  part                  frames        size  share\n  used  ");
    assert_non_null(strstr(screen, "#...................\n"));
}

static void test_peek_and_poke(void **state)
{
    uint64_t *word = (uint64_t *)(arena + G3_FRAMES + 0x5000);
    char said[200];

    (void)state;
    give_g3_tables();
    word[0] = 0x1122334455667788;
    answers("peek g3 gpa 0x5000",
            "address: 0x5000\nhpa: 0x2005000\nbytes: 8\nvalue: 0x1122334455667788\n");
    answers("peek g3 gpa 0x5001 2", "bytes: 2\nvalue: 0x6677\n");
    answers("peek g3 gva " G3_PAGE " 1", "value: 0x88\n");
    answers("peek hpa 0x2005004 4", "value: 0x11223344\n");
    answers("peek hva 0xffff800002005000", "value: 0x1122334455667788\n");
    /* Across a page's end. */
    memcpy(arena + G3_FRAMES + 0x5ffe, "\x01\x02\x03\x04", 4);
    answers("peek g3 gpa 0x5ffe 4", "value: 0x4030201\n");

    answers("poke g3 gpa 0x5000 0xabcd 2", "bytes: 2\nwas: 0x7788\nvalue: 0xabcd\n");
    assert_int_equal(word[0], 0x112233445566abcd);
    answers("poke g3 gpa 0x5ffe 0xa0b0c0d 4", "was: 0x4030201\n");
    answers("peek g3 gpa 0x6000 2", "value: 0xa0b\n");

    /* The guest's own rights: a read-only page. */
    refuses(E_PERM, "poke g3 gva " G3_PAGE " 1", "#PF: a write where R/W is 0");
    answers("poke g3 gva " G3_PAGE " 1 force", "value: 0x1\n");
    assert_int_equal(word[0], 1);
    refuses(E_PERM, "peek g3 gva 0xffff800000002000", "#PF: the entry is not present");
    refuses(E_NOENT, "peek g3 gva 0xffff800000002000 force",
            "the guest's tables map nothing there");
    refuses(E_PERM, "peek g3 gva 0xffff800000001000", "EPT violation: ");

    /* The hypervisor's own things. */
    snprintf(said, sizeof(said), "poke hpa 0x%lx 0", guest[3].table.root.v);
    uint64_t entry = *(uint64_t *)direct(guest[3].table.root);
    refuses(E_PERM, said, "is no guest's memory (`who 0x");
    assert_int_equal(*(uint64_t *)direct(guest[3].table.root), entry);
    strcat(said, " force");
    answers(said, "value: 0x0\n");
    assert_int_equal(*(uint64_t *)direct(guest[3].table.root), 0);
    *(uint64_t *)direct(guest[3].table.root) = entry;
    refuses(E_PERM, "poke hva 0xffffffff80200000 0", "the table allows r-x-g there; `force`");

    /* What is not there. */
    refuses(E_NOENT, "peek g3 gpa 0xa0000", "0xa0000: the EPT table maps nothing there");
    refuses(E_NOENT, "peek g3 gpa 1M", "lazy RAM that has no frame: ");
    refuses(E_NOENT, "peek hpa 1G", "no RAM of the direct map");
    refuses(E_NOENT, "peek hva 0xffffd00000000000", "maps nothing there");
    refuses(E_RANGE, "peek hva 0x1000", "no address of the kernel table: those are 0x");
    refuses(E_NOENT, "poke g3 gpa 0x9fffe 1 4", "0xa0000: ");
    assert_int_equal(*(uint16_t *)(arena + G3_FRAMES + 0x9fffe), 0);

    refuses(E_INVAL, "peek g3 gpa 0x5000 3", "1, 2, 4 or 8 bytes, not 3");
    refuses(E_INVAL, "peek g3 gpa 0x5000 4 4", "\"4\" is one word too many");
    refuses(E_INVAL, "peek g3 0x5000 4", "no kind of address");
    refuses(E_INVAL, "peek hva force", "an argument is missing; usage: peek hva|hpa X");
    refuses(E_RANGE, "poke g3 gpa 0x5000 0x100 1", "0x100 does not fit 1 byte");
    refuses(E_INVAL, "poke g3 gpa 0x5000", "an argument is missing");
    refuses(E_STATE, "peek g1 gpa 0", "g1 hello1 has no memory any more (passed)");
    refuses(E_NOENT, "peek g7 gpa 0", "there is no g7");
}

static void test_dump(void **state)
{
    (void)state;
    memset(arena + G3_FRAMES + 0x9f000, 0, 0x1000);
    strcpy((char *)arena + G3_FRAMES + 0x9ffe4, "A line\x1b of text");
    answers("dump g3 gpa 0x9ffe4 20",
            "             0x9ffe4  41 20 6c 69 6e 65 1b 20 6f 66 20 74               A line. of t\n"
            "             0x9fff0  65 78 74 00 00 00 00 00                           ext.....\n");
    answers("dump g3 gpa 0x9fff0 32", "0xa0000 and the 16 bytes from there: the EPT table maps "
                                      "nothing there (nothing is there)\n");
    assert_int_equal(run("dump hpa 0x2000000"), E_OK);
    assert_non_null(strstr(screen, "0x2000070"));
    assert_null(strstr(screen, "0x2000080"));
    refuses(E_NOENT, "dump g3 gpa 0xa0000", "maps nothing there");
    refuses(E_RANGE, "dump hpa 0 4097", "1 to 4096 bytes");
    refuses(E_RANGE, "dump hpa 0 0", "1 to 4096 bytes");
    refuses(E_RANGE, "dump hpa 0xffffffffffffffff 2", "within the address space");
    refuses(E_INVAL, "dump hpa 0 16 16", "one word too many");
}

static void test_find(void **state)
{
    (void)state;
    memset(arena + G3_FRAMES, 0, 0xa0000);
    memcpy(arena + G3_FRAMES + 0x4ffd, "needle", 6); /* across two pages */
    memcpy(arena + G3_FRAMES + 0x8000, "needle", 6);
    answers("find g3 gpa 0 1M needle",
            "              0x4ffd     0x2004ffd  6e 65 65 64 6c 65 00 00");
    assert_non_null(strstr(screen, "              0x8000     0x2008000  6e 65 65 64 6c 65 00"));
    assert_non_null(strstr(screen, "searched: 640K\nnot there: 384K\nfound: 2\n"));
    *(uint32_t *)(arena + G3_FRAMES + 0x6004) = 0x1badb002;
    answers("find g3 gpa 0x6000 0x1000 0x1badb002", "found: 1\n");
    *(uint64_t *)(arena + G3_FRAMES + 0x6010) = 0x1122334455;
    answers("find hpa 0x2006000 4096 0x1122334455", "           0x2006010     0x2006010  55 44");
    answers("find g3 gpa 0 0x4ffd needle", "found: 0\n");
    answers("find g3 gpa 0 0x5002 needle", "found: 0\n");
    answers("find g3 gpa 0 0x5003 needle", "found: 1\n");
    answers("find g3 gpa 0 4K 0", "found: 4093\nOf these the first 32 are shown.\n");
    answers("find g3 gpa 0 1M needle",
            "\rfind: 0%\rfind: 1%\r\033[K             address           hpa  bytes");
    assert_non_null(strstr(screen, "find: 99%\r\033[Ksearched: 640K\n"));
    assert_null(strstr(screen, "100%"));
    assert_int_equal(run("find g3 gpa 0 1M needle --json"), E_OK);
    assert_null(strchr(screen, '\r'));
    refuses(E_RANGE, "find hpa 0 257M x", "1 byte to 256M");
    refuses(E_INVAL, "find hpa 0 4K \"\"", "1 to 64 characters, or is a number");
    refuses(E_INVAL, "find hpa 0 4K", "an argument is missing");
    refuses(E_FORMAT, "find hpa 0 much x", "find: ");
}

static void unmap(struct table *table, uint64_t in, uint64_t size)
{
    struct flush_batch batch;

    flush_begin(&batch, table);
    assert_int_equal(table_unmap(table, in, size, &batch), E_OK);
    flush_commit(&batch);
}

static void test_map_filters(void **state)
{
    hpa_t block;

    (void)state;
    answers("map g3 page=2M", "            0x200000            0x3fffff");
    assert_non_null(strstr(screen, "\nruns: 1\n"));
    answers("map g3 to=0x1fffff", "0x9ffff     640K");
    assert_non_null(strstr(screen, "\nruns: 1\n"));
    answers("map g3 from=0x9f000", "\nruns: 2\n");
    answers("map g3 from=0xa0000 rights=rx", "\nruns: 1\n");
    answers("map g3 rights=wu", "mapped: 0B\nruns: 0\n");
    answers("map g3 \"what=lazy RAM\"", "\nruns: 1\n");
    answers("map host what=image rights=x", "mapped: 12K\nruns: 1\n");
    answers("map host rights=w what=image", "mapped: 0B\nruns: 0\n");
    answers("map host to=0x1000", "mapped: 0B\nruns: 0\n");

    /* Of the direct map the parts that serve a purpose. */
    assert_int_equal(buddy_alloc(3, PURPOSE_STACK, OWNER_HOST, &block), E_OK);
    answers("map host purpose=stacks", "\nruns: 1\n");
    assert_non_null(strstr(screen, "mapped: 32K\n"));
    assert_non_null(
        strstr(screen, "    2M       1           1         32K\n")); /* part of a page */
    answers("map host \"purpose=guest memory\" from=0xffff800002000000 to=0xffff800003ffffff",
            "mapped:");
    assert_int_equal(buddy_free(block, 3, OWNER_HOST), E_OK);
    answers("map host purpose=stacks", "mapped: 0B\nruns: 0\n");

    refuses(E_INVAL, "map g3 page", "\"page\" is none of from= to=");
    refuses(E_INVAL, "map g3 rights=q", "\"q\" is no right");
    refuses(E_INVAL, "map g3 purpose=fun", "\"fun\" is no purpose");
    refuses(E_RANGE, "map g3 from=2 to=1", "from=0x2 lies behind to=0x1");
    refuses(E_FORMAT, "map g3 from=", "map: ");
    refuses(E_INVAL, "map host gva", "\"gva\" goes with a guest, not with host");
    refuses(E_INVAL, "map user save", "goes with a guest or host, not with user");
}

static void test_map_gva(void **state)
{
    (void)state;
    refuses(E_STATE, "map g3 gva", "without paging the guest has no tables");
    give_g3_tables();
    put_guest_entry(0x4000, 2, 0x101000 | PTE_P | PTE_RW | PTE_A);
    put_guest_entry(0x4000, 3, 0x102000 | PTE_P | PTE_RW | PTE_A | PTE_PCD);
    put_guest_entry(0x4000, 4, 0x102000 | PTE_P | BIT(45));
    put_guest_entry(0x3000, 7, 0x200000 | PTE_P | PTE_PS);
    put_guest_entry(0x3000, 8, 0x10000000 | PTE_P); /* a table where there is no memory */
    put_guest_entry(0x1000, 3, 0x7000 | PTE_P | PTE_RW);
    put_guest_entry(0x7000, 1, PTE_P | PTE_PS);
    answers("map g3 gva", "4-level paging of g3 hello3, CR3 0x1000\n");
    assert_non_null(strstr(
        screen,
        "  0xffff800000000000  0xffff800000000fff       4K    4K        0x5000  r-x--   WB    RAM\n"
        "  0xffff800000001000  0xffff800000002fff       8K    4K      0x100000  rwx--   WB    lazy "
        "RAM\n"
        "  0xffff800000003000  0xffff800000003fff       4K    4K      0x102000  rwx--   UC-   lazy "
        "RAM\n"
        "  0xffff800000e00000  0xffff800000ffffff       2M    2M      0x200000  r-x--   WB    lazy "
        "RAM\n"));
    assert_non_null(
        strstr(screen, "root: 0x1000\nillegal entries: 2\ntables that are not there: 1\n"));
    answers("map g3 gva from=0xffff800000002000 to=0xffff800000002fff",
            "  0xffff800000002000  0xffff800000002fff       4K");
    assert_non_null(strstr(screen, "\nwalks: 1\n"));

    /* Tables that lead back to themselves end all the same. */
    for (unsigned i = 0; i < 512; i++)
        put_guest_entry(0x1000, i, 0x1000 | PTE_P | PTE_RW);
    answers("map g3 gva", "There is more: `from=0x7d0000` goes on from there.\n");
    assert_non_null(strstr(screen, "\nruns: 2000\n"));
    answers("map g3 gva from=0x7d0000 rights=u", "walks: 200000\n");

    refuses(E_INVAL, "map g3 gva purpose=heap", "purpose= asks for frames of the host");
    cpu_of_guest.cr4 |= CR4_LA57;
    refuses(E_UNSUPPORTED, "map g3 gva", "5-level paging");
}

static unsigned lines_of(const char *text)
{
    unsigned lines = 0;

    for (; *text; text++)
        lines += *text == '\n';
    return lines;
}

/* As many lines as there are runs, whatever is mapped. */
static void test_map_of_512_gib(void **state)
{
    (void)state;
    map_in(&guest[3].table, 512 * GiB, 0, 512 * GiB, RIGHT_RX);
    answers("map g3 from=512G", "        0x8000000000        0xffffffffff     512G    1G         "
                                "  0x0  r-x--   WB    outside every slot\n");
    assert_non_null(strstr(screen, "    1G       1         512        512G\n"));
    assert_int_equal(lines_of(screen), 1 + 1 + 2 + 4);
    /* A hole of one page: large pages are split around it. */
    unmap(&guest[3].table, 768 * GiB + 0x5000, 0x1000);
    answers("map g3 from=512G", "        0xc000006000        0xc0001fffff    2024K    4K  "
                                "0x4000006000  r-x--   WB    outside every slot\n");
    assert_non_null(strstr(screen, "    1G       2         511        511G\n"));
    assert_non_null(strstr(screen, "\nruns: 5\n"));
    assert_int_equal(lines_of(screen), 1 + 5 + 4 + 4);
}

static void test_map_diff(void **state)
{
    (void)state;
    refuses(E_STATE, "map g3 diff", "no map of it has been saved");
    answers("map g3 save", "2 runs are kept;");
    answers("map g3 diff", "new: 0B\ngone: 0B\nchanged: 0B\n");
    unmap(&guest[3].table, 0x8000, 0x2000);
    map_in(&guest[3].table, 0x100000, 0x300000, 0x3000, RIGHT_RX);
    unmap(&guest[3].table, 0x10000, 0x1000);
    map_in(&guest[3].table, 0x10000, 0x303000, 0x1000, RIGHT_R);
    answers("map g3 diff", "  gone                 0x8000              0x9fff       8K        4K   "
                           "  0x2008000  rwx--   "
                           "   -             -  -\n"
                           "  changed             0x10000             0x10fff       4K        4K   "
                           "  0x2010000  rwx--   "
                           "  4K      0x303000  r----\n"
                           "  new                0x100000            0x102fff      12K         -   "
                           "          -  -       "
                           "  4K      0x300000  r-x--\n"
                           "new: 12K\ngone: 8K\nchanged: 4K\n");
    answers("map g3 save", "6 runs are kept;");
    answers("map g3 diff", "new: 0B\ngone: 0B\nchanged: 0B\n");
    assert_int_equal(run("map g3 forget"), E_OK);
    refuses(E_NOENT, "map g3 forget", "no map of it has been saved");
    refuses(E_STATE, "map g3 diff", "no map of it has been saved");
    answers("map host save", "2 runs are kept;");
    map_in(&kernel_table, UINT64_MAX - 0xfff, 0x300000, 0x1000, RIGHT_R);
    answers("map host diff", "new: 4K\n");
    refuses(E_INVAL, "map g3 diff rights=x", "no filter goes with them");
    refuses(E_STATE, "map g1 save", "g1 hello1 has no table");
    for (uint64_t i = 0; i < 4096; i++)
        map_in(&guest[3].table, 0x10000000 + i * 0x2000, 0x300000, 0x1000, RIGHT_R);
    refuses(E_FULL, "map g3 save", "the map has more than 4095 runs");
}

static void test_trace(void **state)
{
    hpa_t block;

    (void)state;
    refuses(E_STATE, "trace show", "nothing has been traced: `trace on` begins it");
    answers("trace", "tracing: no\nwritten: 0\nkept: 0\n");
    answers("trace on mapper free", "tracing: yes\nevents: map unmap protect split merge harvest "
                                    "clone copy destroy free\nwritten: 0\n");
    map_in(&guest[3].table, 0x600000, 0x300000, 0x2000, RIGHT_R);
    unmap(&guest[3].table, 0x600000, 0x1000);
    map_in(&kernel_table, UINT64_MAX - 0x1fff, 0x300000, 0x1000, RIGHT_R);
    assert_int_equal(buddy_alloc(2, PURPOSE_STACK, OWNER_HOST, &block), E_OK);
    assert_int_equal(buddy_free(block, 2, OWNER_HOST), E_OK);
    assert_int_equal(buddy_free(block, 2, OWNER_HOST), E_DOUBLE_FREE);
    answers("trace show map", "    3  g3 hello3   map                0x600000      8K  to 0x300000 "
                              "            ok      somebody+0x10\n");
    assert_non_null(strstr(screen, "    3  host        map      0xffffffffffffe000      4K"));
    assert_non_null(strstr(screen, "\nwritten: 5\n"));
    assert_null(strstr(screen, "unmap  "));
    answers("trace show g3", "  unmap              0x600000      4K  ");
    assert_null(strstr(screen, "  host  "));
    answers("trace show free", "     16K");
    assert_non_null(strstr(screen, "E_DOUBLE_FREE"));
    answers("trace show 1", "E_DOUBLE_FREE");
    assert_null(strstr(screen, " ok "));
    answers("trace show flush", "No event of these is in the ring.\n");

    /* Past its size the ring keeps the newest. */
    answers("trace on allocator", "events: alloc free share release\n");
    for (unsigned i = 0; i < 2000; i++) {
        assert_int_equal(buddy_alloc(0, PURPOSE_STACK, OWNER_HOST, &block), E_OK);
        assert_int_equal(buddy_free(block, 0, OWNER_HOST), E_OK);
    }
    answers("trace show 2", "\n   4003  ");
    assert_non_null(strstr(screen, "  alloc    "));
    assert_non_null(strstr(screen, "  stacks "));
    assert_non_null(strstr(screen, "written: 4005\nkept: 2048\nat most: 2048\n"));
    answers("trace off", "tracing: no\n");
    assert_int_equal(buddy_alloc(0, PURPOSE_STACK, OWNER_HOST, &block), E_OK);
    assert_int_equal(buddy_free(block, 0, OWNER_HOST), E_OK);
    answers("trace", "written: 4005\n");

    refuses(E_INVAL, "trace up", "\"up\": it is `trace on [EVENT ...] | off |");
    refuses(E_INVAL, "trace off now", "\"now\": it is");
    refuses(E_INVAL, "trace on maps", "\"maps\" is no event: there are map unmap");
    refuses(E_INVAL, "trace show guests", "is no event");
    refuses(E_NOENT, "trace show g77", "there is no g77");
    refuses(E_INVAL, "trace counters all", "nothing follows");
}

static void test_trace_by_cpu(void **state)
{
    (void)state;
    assert_int_equal(run("trace on map"), E_OK);
    map_in(&guest[3].table, 0x600000, 0x300000, 0x1000, RIGHT_R);
    current_cpu = 1;
    map_in(&guest[3].table, 0x700000, 0x300000, 0x1000, RIGHT_R);
    current_cpu = 3;
    answers("trace show cpu=1", "    1  g3 hello3   map                0x700000 ");
    assert_null(strstr(screen, "0x600000"));
    answers("trace show map g3 cpu=1+2", "    3  g3 hello3   map                0x600000 ");
    assert_null(strstr(screen, "0x700000"));
    answers("trace show cpu=2", "No event of these is in the ring.\n");
    refuses(E_FORMAT, "trace show cpu=", "\"\" is no CPU's number");
    refuses(E_INVAL, "trace show cpu", "is no event");
}

/* What several hold, and what is given back together. */
static void test_trace_of_sharing(void **state)
{
    struct table other;
    struct table_caps caps = guest[3].table.caps;
    struct buddy_pages pages;
    struct flush_batch batch;
    hpa_t block, frames[3];
    char said[120];
    bool last;

    (void)state;
    assert_int_equal(
        table_init(&other, &ept_kind, &caps, &buddy_env, PURPOSE_EPT_TABLE, guest_owner(&guest[2])),
        E_OK);
    assert_int_equal(run("trace on clone copy share release free"), E_OK);
    flush_begin(&batch, &guest[3].table);
    assert_int_equal(table_clone(&other, &guest[3].table, 0, 0x4000, NULL, &batch), E_OK);
    flush_commit(&batch);
    buddy_pages_init(&pages, PURPOSE_GUEST_RAM, guest_owner(&guest[2]));
    assert_int_equal(table_copy(&other, &guest[3].table, 0x8000, 0x1000, &pages.source), E_OK);
    assert_int_equal(table_copy(&other, &guest[3].table, 0x8000, 0x1000, &pages.source), E_EXIST);
    answers("trace show", "    3  g2 hello2   clone                   0x0     16K  of g3 hello3 "
                          "           ok      somebody");
    assert_non_null(strstr(screen, "    3  g2 hello2   copy                 0x8000      4K  of g3 "
                                   "hello3            ok  "));
    assert_non_null(strstr(screen, "  E_EXIST"));
    answers("trace show mapper g3", "No event of these is in the ring.\n");

    assert_int_equal(buddy_alloc(1, PURPOSE_STACK, OWNER_HOST, &block), E_OK);
    assert_int_equal(buddy_share(block, OWNER_HOST), E_OK);
    assert_int_equal(buddy_release(block, 1, OWNER_HOST, &last), E_OK);
    assert_int_equal(buddy_release(block, 1, OWNER_HOST, &last), E_OK);
    assert_int_equal(buddy_share(block, OWNER_HOST), E_DOUBLE_FREE);
    answers("trace show share", "  share  ");
    snprintf(said, sizeof(said), "%#18lx      8K  one holder more         ok ", block.v);
    assert_non_null(strstr(screen, said));
    assert_non_null(strstr(screen, "  E_DOUBLE_FREE"));
    answers("trace show release", "      8K  one holder fewer        ok  ");
    assert_non_null(strstr(screen, "      8K  freed with the last     ok  "));

    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(buddy_alloc(0, PURPOSE_STACK, OWNER_HOST, &frames[i]), E_OK);
    assert_int_equal(buddy_free_frames(frames, 3, OWNER_HOST), E_OK);
    answers("trace show free host", "      4K  3 frames                ok  ");
}

static void test_trace_counters(void **state)
{
    (void)state;
    unmap(&guest[3].table, 0x8000, 0x2000);
    unmap(&guest[3].table, 0x20000, 0x1000);
    tlb_counters.one_guest_table = 7;
    answers("trace counters", "  table                asked    ranges     whole    spared\n");
    assert_non_null(strstr(screen, "  g3 hello3                2         2         0         2\n"));
    assert_non_null(strstr(screen, "one guest table: 7\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_explain, set_up),
        cmocka_unit_test_setup(test_a_guests_table_outside_memory, set_up),
        cmocka_unit_test_setup(test_explain_nonsense, set_up),
        cmocka_unit_test_setup(test_digest, set_up),
        cmocka_unit_test_setup(test_who, set_up),
        cmocka_unit_test_setup(test_frames, set_up),
        cmocka_unit_test_setup(test_peek_and_poke, set_up),
        cmocka_unit_test_setup(test_dump, set_up),
        cmocka_unit_test_setup(test_find, set_up),
        cmocka_unit_test_setup(test_map_filters, set_up),
        cmocka_unit_test_setup(test_trace, set_up),
        cmocka_unit_test_setup(test_trace_by_cpu, set_up),
        cmocka_unit_test_setup(test_trace_of_sharing, set_up),
        cmocka_unit_test_setup(test_trace_counters, set_up),
        cmocka_unit_test_setup(test_map_gva, set_up),
        cmocka_unit_test_setup(test_map_of_512_gib, set_up),
        cmocka_unit_test_setup(test_map_diff, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
