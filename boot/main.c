/*
 * The boot, from the first line of C to the console. Each step needs the one before it:
 *
 *   serial port, traps -> CPU -> boot information -> memblock -> early allocator -> kernel's table
 *   -> buddy takes over -> guarded stacks -> VMX or SVM -> guests -> ring-3 programs -> console
 *
 * What cannot be done without stops the machine with a sentence; the rest is said and goes on.
 */
#include "arch/x86_64/speculation.h"
#include "arch/x86_64/cpu.h"
#include "arch/x86_64/idle.h"
#include "arch/x86_64/mm/kernel.h"
#include "arch/x86_64/mm/kernel_space.h"
#include "arch/x86_64/mm/layout.h"
#include "arch/x86_64/percpu.h"
#include "arch/x86_64/pic.h"
#include "arch/x86_64/power.h"
#include "arch/x86_64/trap.h"
#include "arch/x86_64/uart.h"
#include "arch/x86_64/user.h"
#include "arch/x86_64/svm/svm.h"
#include "arch/x86_64/vmx/vmx.h"
#include "boot/host_date.h"
#include "boot/memory_map.h"
#include "boot/multiboot2.h"
#include "boot/other_cpus.h"
#include "boot/selftest.h"
#include "lib/log.h"
#include "lib/string.h"
#include "mm/frames/buddy.h"
#include "mm/frames/scrub.h"
#include "mm/frames/early.h"
#include "monitor/monitor.h"
#include "vm/guest.h"
#include "vm/report.h"
#include "vm/sched.h"

/* What the tables of entry.asm map: no physical address beyond is within reach before our own. */
#define BOOT_MAP_END (4 * GiB)

/* Frames that guests may not have, so that the host can always make a table or a structure. */
#define DEFAULT_RESERVE (2 * MiB)

#define OPTION_TEXT 32
#define WHY_TEXT 160

/* The words of the kernel's command line. */
struct boot_options {
    uint64_t reserve; /* bytes that only the host may take */
    uint64_t memory;  /* bytes of free memory to use; the rest is left alone */
    char selftest[OPTION_TEXT];
    uint64_t cpus;            /* at most so many of the machine's */
    uint64_t report;          /* lines of a report that go into the log */
    char stress[OPTION_TEXT]; /* the arguments of the console's command; empty: none */
};

static struct boot_info info;
static struct memblock memory;
static struct early early;
static struct boot_options options = {.reserve = DEFAULT_RESERVE,
                                      .memory = UINT64_MAX,
                                      .cpus = UINT64_MAX,
                                      .report = UINT64_MAX};

/* linker.ld, entry.asm */
extern const char kernel_text[], kernel_text_end[], kernel_data[], kernel_data_end[];
extern const char kernel_rodata[], kernel_rodata_end[], kernel_image_end[];
extern const uint64_t boot_entry_tsc;
_Noreturn void stack_continue(uint64_t top, void (*next)(void));

_Noreturn void quire_main(uint32_t magic, uint32_t info_address);

/* The end of a boot that cannot go on. */
#define boot_stop(...)                                                                             \
    do {                                                                                           \
        log_line(__VA_ARGS__);                                                                     \
        power_off(1);                                                                              \
    } while (0)

static void show_cpu(void)
{
    const struct cpu_features *f = &cpu_features;
    log_line("CPU: %s, %s, family %u model %u stepping %u%s%s", f->brand[0] ? f->brand : "no name",
             f->vendor, f->family, f->model, f->stepping, f->hypervisor[0] ? ", under " : "",
             f->hypervisor);
    log_line("CPU: physical addresses of %u bits, linear of %u;%s%s%s%s%s%s%s%s%s", f->maxphyaddr,
             f->linear_bits, f->page1g ? " 1G pages" : "", f->pge ? " PGE" : "",
             f->pcid ? " PCID" : "", f->invpcid ? " INVPCID" : "", f->smep ? " SMEP" : "",
             f->smap ? " SMAP" : "", f->umip ? " UMIP" : "", f->vmx ? " VMX" : "",
             f->svm ? " SVM" : "");
}

static void parse_boot_information(uint32_t magic, uint32_t address)
{
    char why[MULTIBOOT2_WHY];
    if (magic != MULTIBOOT2_BOOT_MAGIC)
        boot_stop("boot information: the loader's magic number is 0x%x, a Multiboot 2 loader's is "
                  "0x%x",
                  magic, MULTIBOOT2_BOOT_MAGIC);
    if (multiboot2_parse(direct(hpa(address)), MULTIBOOT2_SIZE_MAX, &info, why, sizeof(why)))
        boot_stop("boot information at 0x%x: %s", address, why);
    log_line("boot: by %s, %u modules, command line \"%s\"",
             info.loader[0] ? info.loader : "an unnamed loader", info.modules, info.cmdline);
}

/* `word` is `name` and a value behind it: where the value begins, and its length. */
static const char *option_value(const char *word, size_t length, const char *name, size_t *left)
{
    size_t n = strlen(name);
    if (length <= n || memcmp(word, name, n) != 0)
        return NULL;
    *left = length - n;
    return word + n;
}

/* SIZE, or SIZE and SEED with a comma in between: as the words that the command `stress` takes. */
static bool parse_stress(const char *value, size_t n)
{
    const char *comma = memchr(value, ',', n);
    size_t size_length = comma ? (size_t)(comma - value) : n;
    uint64_t number;

    if (n >= OPTION_TEXT || parse_size(value, size_length, &number) != E_OK ||
        (comma && parse_size(comma + 1, n - size_length - 1, &number) != E_OK))
        return false;
    memcpy(options.stress, value, n);
    options.stress[n] = 0;
    if (comma)
        options.stress[size_length] = ' ';
    return true;
}

static void parse_option(const char *word, size_t length)
{
    const char *value;
    size_t n;

    if ((value = option_value(word, length, "reserve=", &n)) &&
        parse_size(value, n, &options.reserve) == E_OK)
        return;
    if ((value = option_value(word, length, "memory=", &n)) &&
        parse_size(value, n, &options.memory) == E_OK)
        return;
    if ((value = option_value(word, length, "cpus=", &n)) &&
        parse_size(value, n, &options.cpus) == E_OK)
        return;
    if ((value = option_value(word, length, "report=", &n)) &&
        parse_size(value, n, &options.report) == E_OK)
        return;
    if ((value = option_value(word, length, "selftest=", &n)) && n < OPTION_TEXT) {
        memcpy(options.selftest, value, n);
        options.selftest[n] = 0;
        return;
    }
    if ((value = option_value(word, length, "stress=", &n)) && parse_stress(value, n))
        return;
    log_line("boot: option \"%.*s\" means nothing here; known: cpus=N memory=SIZE report=N "
             "reserve=SIZE selftest=NAME stress=SIZE[,SEED]",
             (int)(length < OPTION_TEXT ? length : OPTION_TEXT), word);
}

static void parse_options(const char *line)
{
    while (*line) {
        size_t length = 0;
        while (line[length] && line[length] != ' ')
            length++;
        if (length)
            parse_option(line, length);
        line += length + (line[length] != 0);
    }
}

static void find_memory(uint32_t info_address)
{
    char text[SIZE_TEXT];
    struct memory_map_input input = {
        .info = &info,
        .info_at = hpa(info_address),
        .image = image_hpa(kernel_text),
        .image_size = (uint64_t)(kernel_image_end - kernel_text),
        .maxphyaddr = cpu_features.maxphyaddr,
        .mtrrs = mtrrs_of_this_cpu(),
    };
    int error = memory_map_build(&memory, &input);
    if (error)
        boot_stop("memory: the loader's memory map cannot be used: %s", error_text(error));
    log_line("memory: %s usable, RAM ends at 0x%lx, %zu regions, %zu reserved",
             size_text(text, memblock_usable_bytes(&memory)), memblock_ram_end(&memory),
             memory.memory.count, memory.reserved.count);
}

static int add_size(void *total, uint64_t base, uint64_t size)
{
    (void)base;
    *(uint64_t *)total += size;
    return 0;
}

/* Keeps our hands off all free memory but options.memory bytes of it: the largest pieces first, so
 * that few are needed. */
static void leave_memory(void)
{
    uint64_t total = 0, at;
    memblock_visit_free(&memory, add_size, &total);
    if (total <= options.memory)
        return;
    uint64_t surplus = align_down(total - options.memory, PAGE_SIZE);
    for (uint64_t piece = BIT(highest_bit(surplus | 1)); piece >= PAGE_SIZE; piece /= 2)
        while (surplus >= piece &&
               memblock_find(&memory, piece, PAGE_SIZE, 0, UINT64_MAX, &at) == E_OK &&
               memblock_reserve(&memory, at, piece, PURPOSE_FIRMWARE) == E_OK)
            surplus -= piece;
}

static void build_kernel_space(void)
{
    char text[SIZE_TEXT], data[SIZE_TEXT], rodata[SIZE_TEXT];
    early_init(&early, &memory, 0, BOOT_MAP_END - 1);
    int error = kernel_space_build(&memory, &early);
    if (error == E_NOMEM)
        boot_stop("memory: too little for the hypervisor's own page tables: %s usable, %lu frames "
                  "taken",
                  size_text(text, memblock_usable_bytes(&memory)), early.frames);
    if (error)
        boot_stop("memory: the hypervisor's own page tables cannot be built: %s",
                  error_text(error));
    cpu_enable_pcid();
    early_extend(&early, UINT64_MAX); /* the direct map holds all RAM now */
    log_line("image: text %s, rodata %s, data %s at 0x%lx; %lu frames of page tables",
             size_text(text, (uint64_t)(kernel_text_end - kernel_text)),
             size_text(rodata, (uint64_t)(kernel_rodata_end - kernel_rodata)),
             size_text(data, (uint64_t)(kernel_data_end - kernel_data)), image_hpa(kernel_text).v,
             kernel_table.table_frames);
}

static void start_buddy(void)
{
    char text[SIZE_TEXT];
    hpa_t metadata, culprit;
    uint64_t handed, recorded, ram_end = memblock_ram_end(&memory);
    uint64_t size = buddy_metadata_size(ram_end);

    int error = early_alloc(&early, size, PAGE_SIZE, PURPOSE_FRAME_DB, &metadata);
    if (error)
        boot_stop("memory: no room for the frame database of %s: %s", size_text(text, size),
                  error_text(error));
    error = buddy_init(direct(metadata), size, ram_end);
    if (error == E_OK)
        error = early_hand_over(&early, &handed, &recorded);
    if (error)
        boot_stop("memory: the buddy allocator cannot take over: %s", error_text(error));
    poison_at_boot();
    error = early_verify_hand_over(&early, &culprit);
    if (error)
        boot_stop("memory: the frame at 0x%lx was handed over wrongly", culprit.v);
    error = kernel_space_adopt();
    if (error)
        boot_stop("memory: the buddy cannot adopt the kernel's page tables: %s", error_text(error));
    log_line("memory: buddy has %lu frames free and %lu recorded in use, each verified; frame "
             "database %s",
             handed, recorded, size_text(text, size));
}

/* From here on a stack that overflows meets an absent page. */
static void finish_boot(void);

static _Noreturn void continue_on_guarded_stack(void)
{
    hva_t top;
    int error = stack_alloc(&top);
    if (error)
        boot_stop("memory: no stack to be had: %s", error_text(error));
    this_cpu()->stack[STACK_MAIN] = (struct stack_range){top.v - STACK_SIZE, top.v};
    tss_set_rsp0(top.v);
    stack_continue(top.v, finish_boot);
}

struct vendor {
    int (*init)(const struct vm_backend **backend, const char **why_not);
    cpu_enable_fn enable_other;
    void (*show)(struct sink *to);
    const struct table_kind *second_level;
};

/* Intel's way where the CPU has it, else AMD's. A CPU with neither is told that it has no VMX. */
static const struct vendor *find_vendor(void)
{
    static const struct vendor intel = {vmx_init, vmx_enable_other, vmx_show, &ept_kind};
    static const struct vendor amd = {svm_init, svm_enable_cpu, svm_show, &npt_kind};

    return cpu_features.svm && !cpu_features.vmx ? &amd : &intel;
}

static void start_backend(const struct vendor *vendor)
{
    const struct vm_backend *backend = NULL;
    const char *why_not = NULL;
    speculation_init();
    int error = vendor->init(&backend, &why_not);
    if (error) {
        backend = NULL;
        log_line("no guests can run: %s", why_not ? why_not : error_text(error));
    }
    other_cpus_start(&info, options.cpus, backend ? vendor->enable_other : NULL,
                     selftest_has_lost_cpu(options.selftest));
    selftest_of_cpus(options.selftest);
    guests_init(backend, why_not);
    other_cpus_run_guests(selftest_of_guests(options.selftest, guests_run_here));
}

/* The modules as images, in memory that stays: guests may be started again from them. NULL and 0
 * when there are none. */
static const struct guest_image *list_modules(unsigned *count)
{
    hpa_t at;
    struct boot_module module;
    uint32_t cursor = 0;
    uint64_t bytes = info.modules * sizeof(struct guest_image);

    *count = 0;
    if (info.modules == 0)
        return NULL;
    int error =
        buddy_alloc_frames(align_up(bytes, PAGE_SIZE) / PAGE_SIZE, PURPOSE_HEAP, OWNER_HOST, &at);
    if (error) {
        log_line("boot: no room for a list of %u modules: %s", info.modules, error_text(error));
        return NULL;
    }
    struct guest_image *images = direct(at);
    while (*count < info.modules && boot_module_next(&info, &cursor, &module))
        images[(*count)++] = (struct guest_image){
            .bytes = direct(module.base), .size = module.size, .cmdline = module.cmdline};
    for (unsigned i = 0; i < *count; i++) {
        images[i].modules = &images[i + 1];
        images[i].module_count = *count - i - 1;
    }
    return images;
}

static void run_user_programs(const struct guest_image *images, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (guest_is_user_program(images[i].cmdline))
            user_run_module(images[i].bytes, images[i].size, images[i].cmdline);
}

static void list_scripts(const struct guest_image *images, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (!guest_is_script(images[i].cmdline))
            continue;
        int error =
            monitor_script(images[i].cmdline, (const char *)images[i].bytes, images[i].size);
        if (error)
            log_line("module %u: this script is one too many: %s", i + 1, error_text(error));
    }
}

/* The first round of the guests is over: says how long the way to it was. */
static void show_first_entry(void)
{
    uint64_t first = guests_first_entry();
    if (first != 0)
        log_line("%lu %s from entry to the first guest instruction", first - boot_entry_tsc,
                 tsc_counts_instructions() ? "instructions" : "TSC ticks");
}

/* Before anything depends on the allocator, and while nothing else uses it. */
static void stress_allocator(void)
{
    char command[OPTION_TEXT + sizeof("stress ")];
    struct output out;

    format_buffer(command, sizeof(command), "stress %s", options.stress);
    log_line("boot: %s", command);
    output_init(&out, &uart_sink);
    int error = monitor_execute(&out, command);
    if (error)
        boot_stop("memory: the allocator does not stand this: %s", error_text(error));
}

static void finish_boot(void)
{
    char why[WHY_TEXT];
    unsigned modules;
    int error = traps_init();
    if (error)
        boot_stop("memory: no stacks for exceptions to be had: %s", error_text(error));
    error = kernel_space_check(why, sizeof(why));
    if (error)
        boot_stop("memory: the hypervisor's own page tables break a rule: %s", why);
    buddy_set_reserve(options.reserve / PAGE_SIZE);
    report_set_logged(options.report);
    if (options.selftest[0])
        selftest(options.selftest);
    if (options.stress[0])
        stress_allocator();

    const struct vendor *vendor = find_vendor();
    start_backend(vendor);
    host_date_read();
    const struct guest_image *images = list_modules(&modules);
    if (modules != 0)
        guests_create(images, modules);
    boot_facts = (struct boot_facts){
        .cmdline = info.cmdline,
        .loader = info.loader,
        .memory = &memory,
        .entry_tsc = boot_entry_tsc,
        .show_virtualization = cpu_features.vmx || cpu_features.svm ? vendor->show : NULL,
        .second_level = vendor->second_level,
    };
    idle_init();
    monitor_init();
    guests_round();
    show_first_entry();
    run_user_programs(images, modules);
    list_scripts(images, modules);
    guests_go_on();
    monitor_run();
}

void quire_main(uint32_t magic, uint32_t info_address)
{
    direct_base = DIRECT_BASE;
    percpu_install_boot();
    if (uart_init()) {
        if (tsc_counts_instructions())
            uart_hold_sender(); /* before anybody has reason to type */
        log_attach(&uart_sink);
    }
    traps_init_early();
    pic_disable();
    log_line("Quire, a hypervisor's memory manager");
    cpu_detect();
    cpu_enable();
    show_cpu();
    parse_boot_information(magic, info_address);
    parse_options(info.cmdline);
    other_cpus_find(&info);
    find_memory(info_address);
    leave_memory();
    build_kernel_space();
    start_buddy();
    continue_on_guarded_stack();
}
