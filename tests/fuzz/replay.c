/* Runs a fuzzing target once on each file of its kept corpus, without libFuzzer. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define CORPUS "tests/fuzz/corpus/mapper"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int main(void)
{
    DIR *corpus = opendir(CORPUS);
    struct dirent *entry;
    unsigned runs = 0;

    if (!corpus)
        return 1;
    printf("[ RUN      ] replay of %s\n", CORPUS);
    while ((entry = readdir(corpus)) != NULL) {
        char path[512];
        uint8_t data[4096];
        FILE *file;

        snprintf(path, sizeof(path), CORPUS "/%s", entry->d_name);
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
    printf("[       OK ] replay of %s: %u inputs\n", CORPUS, runs);
    return 0;
}
