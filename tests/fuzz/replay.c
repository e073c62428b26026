/* Runs the fuzzing target that this program is named after once on each file of its kept corpus,
 * without libFuzzer. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int main(int argc, char **argv)
{
    char folder[256];

    (void)argc;
    const char *name = strrchr(argv[0], '/');
    snprintf(folder, sizeof(folder), "tests/fuzz/corpus/%s", name ? name + 1 : argv[0]);
    DIR *corpus = opendir(folder);
    struct dirent *entry;
    unsigned runs = 0;

    if (!corpus)
        return 1;
    printf("[ RUN      ] replay of %s\n", folder);
    while ((entry = readdir(corpus)) != NULL) {
        char path[512];
        uint8_t data[4096];
        FILE *file;

        snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
        if (entry->d_name[0] == '.' || (file = fopen(path, "rb")) == NULL)
            continue;
        size_t size = fread(data, 1, sizeof(data), file);
        fclose(file);
        LLVMFuzzerTestOneInput(data, size);
        runs++;
    }
    closedir(corpus);
    if (!runs)
        return 1;
    printf("[       OK ] replay of %s: %u inputs\n", folder, runs);
    return 0;
}
