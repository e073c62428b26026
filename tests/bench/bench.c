/* See bench.h. */
#define _GNU_SOURCE
#include "tests/bench/bench.h"

#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MIN_RUNS 9
#define MAX_RUNS 101
#define SECONDS_A_ROW 1.5

static const char *filter;
static unsigned rows, missed;

double bench_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *values, unsigned n)
{
    qsort(values, n, sizeof(values[0]), compare);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

void bench_row(const char *name, const char *bound_name, bench_fn subject, bench_fn bound,
               void *ctx, double limit)
{
    static double ours[MAX_RUNS], theirs[MAX_RUNS], ratio[MAX_RUNS];
    double start = bench_now();
    unsigned n = 0;

    if (filter && !strstr(name, filter))
        return;
    for (int run = -1; run < MAX_RUNS; run++) {
        uint64_t units;
        double a = subject(ctx, &units) / (double)units;
        double b = bound(ctx, &units) / (double)units;

        if (run < 0)
            continue; /* warm-up */
        ours[n] = a;
        theirs[n] = b;
        ratio[n++] = a / b;
        if (n >= MIN_RUNS && bench_now() - start > SECONDS_A_ROW * 1e9)
            break;
    }
    double r = median(ratio, n);
    printf("%-44s %9.3f ns  %-28s %9.3f ns  %7.2f x  ", name, median(ours, n), bound_name,
           median(theirs, n), r);
    if (limit > 0) {
        rows++;
        missed += r > limit;
        printf("<= %5.2f  %s (%u runs)\n", limit, r <= limit ? "ok" : "MISSED", n);
    } else {
        printf("(%u runs, to compare)\n", n);
    }
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

void bench_start(const char *title, const char *only)
{
    cpu_set_t set;

    filter = only;
    CPU_ZERO(&set);
    CPU_SET((unsigned)sched_getcpu(), &set);
    sched_setaffinity(0, sizeof(set), &set);
    printf("%s: medians; a ratio is the median of the runs' ratios\n", title);
    print_machine();
}

int bench_end(void)
{
    printf("%u rows, %u within their limit, %u not\n", rows, rows - missed, missed);
    return 0;
}
