/* See bench.h. */
#define _GNU_SOURCE
#include "tests/bench/bench.h"

#include <errno.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lib/panic.h"

#define MIN_RUNS 36
#define MAX_RUNS 2000
#define SECONDS_A_ROUND 1.5
#define ROUNDS 6 /* of runs for a row, until one is quiet */
#define LONG_RUN                                                                                   \
    1e6               /* nanoseconds; in shorter ones a system call would itself disturb the next  \
                       */
#define PREEMPTED 1e9 /* the disturbance of a run during which another thread ran here */
#define QUIET 1.1     /* times the least disturbance that was seen at the start */
#define CALIBRATIONS 10000 /* of each CPU, at the start: some 20 milliseconds */
#define KEPT 4             /* one run of so many: those that were disturbed least */

static const char *filter;

/* Of all parts together. */
struct total {
    unsigned rows, missed, disturbed;
    double least; /* disturbance() */
};
static struct total *total;

double bench_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/*
 * How much the other hardware thread of this core, which may belong to another machine's guest, is
 * in the way: the time of many additions that wait for nothing against that of multiplications that
 * wait for each other. These take as long as ever; those share the core's units. Grows with the
 * disturbance.
 */
static double disturbance(void)
{
    uint64_t a = 1, b = 1, c = 1, d = 1, e = 1, f = 1;
    double start = bench_now();

    for (unsigned i = 0; i < 500; i++)
        __asm__ volatile("imul %0, %0\n\timul %0, %0" : "+r"(a));
    double middle = bench_now();
    for (unsigned i = 0; i < 500; i++)
        __asm__ volatile("add $1, %0\n\tadd $1, %1\n\tadd $1, %2\n\t"
                         "add $1, %3\n\tadd $1, %4\n\tadd $1, %5\n\t"
                         "add $1, %0\n\tadd $1, %1\n\tadd $1, %2\n\t"
                         "add $1, %3\n\tadd $1, %4\n\tadd $1, %5"
                         : "+r"(a), "+r"(b), "+r"(c), "+r"(d), "+r"(e), "+r"(f));
    return (bench_now() - middle) / (middle - start);
}

struct measured {
    double ours, theirs, disturbance;
};

static double disturbance_of(const struct measured *m)
{
    return m->disturbance;
}

static double ours_of(const struct measured *m)
{
    return m->ours;
}

static double theirs_of(const struct measured *m)
{
    return m->theirs;
}

static double ratio_of(const struct measured *m)
{
    return m->ours / m->theirs;
}

static double (*sort_key)(const struct measured *m);

static int compare(const void *a, const void *b)
{
    double x = sort_key(a), y = sort_key(b);

    return (x > y) - (x < y);
}

static void sort_by(double (*key)(const struct measured *m), struct measured *runs, unsigned n)
{
    sort_key = key;
    qsort(runs, n, sizeof(runs[0]), compare);
}

static double median(double (*key)(const struct measured *m), struct measured *runs, unsigned n)
{
    sort_by(key, runs, n);
    return n % 2 ? key(&runs[n / 2]) : (key(&runs[n / 2 - 1]) + key(&runs[n / 2])) / 2;
}

static double max(double a, double b)
{
    return a > b ? a : b;
}

/* How often this thread had to make way for another. */
static long preemptions(void)
{
    struct rusage usage;

    if (getrusage(RUSAGE_THREAD, &usage) != 0)
        panic("no count of preemptions");
    return usage.ru_nivcsw;
}

/* As many runs as there is time for, those first that were disturbed least. Returns how many. */
static unsigned measure(struct measured *runs, bench_fn subject, bench_fn bound, void *ctx)
{
    double start = bench_now();
    long preempted = preemptions();
    unsigned n = 0;

    for (int run = -1; run < MAX_RUNS; run++) {
        uint64_t units;
        double begun = bench_now();
        double before = disturbance();
        double a = subject(ctx, &units) / (double)units;
        double between = disturbance();
        double b = bound(ctx, &units) / (double)units;
        double after = disturbance();

        if (run < 0)
            continue; /* warm-up */
        runs[n++] = (struct measured){a, b, max(between, max(before, after))};
        if (bench_now() - begun > LONG_RUN) {
            long seen = preemptions();
            if (seen != preempted)
                runs[n - 1].disturbance = PREEMPTED;
            preempted = seen;
        }
        if (n >= MIN_RUNS && bench_now() - start > SECONDS_A_ROUND * 1e9)
            break;
    }
    sort_by(disturbance_of, runs, n);
    return n;
}

void bench_row(const char *name, const char *bound_name, bench_fn subject, bench_fn bound,
               void *ctx, double limit)
{
    static struct measured measured[2][MAX_RUNS];
    struct measured *runs = measured[0], *next = measured[1];
    unsigned n = 0, kept = 0;
    double worst = 0; /* of the kept ones */
    bool quiet = false;

    if (filter && !strstr(name, filter))
        return;
    /* The quietest round counts. */
    for (unsigned round = 0; round < ROUNDS && !quiet; round++) {
        unsigned made = measure(next, subject, bound, ctx);
        double disturbed = next[made / KEPT - 1].disturbance;

        if (round == 0 || disturbed < worst) {
            struct measured *other = runs;
            runs = next;
            next = other;
            n = made;
            kept = n / KEPT;
            worst = disturbed;
        }
        quiet = worst < total->least * QUIET;
    }
    double r = median(ratio_of, runs, kept);
    printf("%-44s %9.3f ns  %-28s %9.3f ns  %7.2f x  ", name, median(ours_of, runs, kept),
           bound_name, median(theirs_of, runs, kept), r);
    if (limit > 0) {
        total->rows++;
        total->missed += r > limit;
        printf("<= %5.2f  %s (%u of %u runs", limit, r <= limit ? "ok" : "MISSED", kept, n);
    } else {
        printf("(%u of %u runs, to compare", kept, n);
    }
    total->disturbed += !quiet;
    printf("%s)\n", quiet ? "" : ", disturbed");
    fflush(stdout);
}

static void print_machine(void)
{
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "r");

    while (f && fgets(line, sizeof(line), f)) {
        if (strncmp(line, "model name", 10) == 0) {
            printf("machine: %s", strchr(line, ':') + 2);
            break;
        }
    }
    if (f)
        fclose(f);
    printf("         %ld CPUs online, compiler %s\n", sysconf(_SC_NPROCESSORS_ONLN), __VERSION__);
}

void bench_pin(unsigned cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof(set), &set) != 0)
        panic("CPU %u cannot be had: %s", cpu, strerror(errno));
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Of the CPUs that this process may use, the one that is disturbed least just now. What the best
 * moments of any were like is what later is held to be quiet. */
static unsigned quietest_cpu(void)
{
    static double seen[CALIBRATIONS];
    cpu_set_t allowed;
    double best = 0;
    unsigned quietest = 0;

    if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0)
        panic("no list of CPUs");
    for (unsigned cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &allowed))
            continue;
        bench_pin(cpu);
        for (unsigned i = 0; i < CALIBRATIONS; i++)
            seen[i] = disturbance();
        qsort(seen, CALIBRATIONS, sizeof(seen[0]), compare_doubles);
        if (total->least == 0 || seen[CALIBRATIONS / 20] < total->least)
            total->least = seen[CALIBRATIONS / 20];
        if (best == 0 || seen[CALIBRATIONS / 2] < best) {
            best = seen[CALIBRATIONS / 2];
            quietest = cpu;
        }
    }
    return quietest;
}

/* A part is told by these what it is, and where all parts count. */
#define PART "BENCH_PART"
#define TOTAL "BENCH_TOTAL"

static void count_in(int file)
{
    if (file < 0 || ftruncate(file, sizeof(*total)) != 0)
        panic("no file to count in");
    total = mmap(NULL, sizeof(*total), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (total == MAP_FAILED)
        panic("no memory to count in");
}

const char *bench_start(const char *title, const char *only)
{
    const char *part = getenv(PART);

    filter = only;
    if (part) {
        const char *file = getenv(TOTAL);
        count_in(file ? atoi(file) : -1);
        return part;
    }
    int file = memfd_create("total", 0);
    char number[16];
    count_in(file);
    snprintf(number, sizeof(number), "%d", file);
    setenv(TOTAL, number, 1);
    bench_pin(quietest_cpu());
    printf("%s: medians of the least disturbed quarter of the runs; a ratio is the median of these "
           "runs' ratios\n",
           title);
    print_machine();
    return NULL;
}

void bench_part(const char *part)
{
    int status;

    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        setenv(PART, part, 1);
        execl("/proc/self/exe", "bench", filter, NULL);
        _exit(1);
    }
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
        panic("the part '%s' of the benchmark failed", part);
}

int bench_end(void)
{
    if (total->rows)
        printf("%u rows, %u within their limit, %u not\n", total->rows, total->rows - total->missed,
               total->missed);
    if (total->disturbed)
        printf("%u rows disturbed: something else was at work on this CPU, or on the core that it "
               "shares, all along\n",
               total->disturbed);
    return 0;
}
