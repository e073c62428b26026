/*
 * Saved guests, well formed or not: the input is the file up to its digest, which is put behind it
 * where the first byte of the magic says so. Refused with a sentence, or read: then every value is
 * within what the rest of vm/ can bear, and every page unpacks to just one page of a slot.
 */
#include "vm/saved.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/bits.h"
#include "lib/error.h"
#include "lib/sha256.h"
#include "vm/options.h"

#define must(condition)                                                                            \
    ((condition) ? (void)0                                                                         \
                 : (fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition), abort()))

static void judge(struct saved *saved)
{
    static uint8_t page[PAGE_SIZE], devices[SAVED_DEVICES_MOST];
    uint64_t last = 0, count = 0;
    gpa_t at;

    must(saved->slots <= GUEST_SLOTS && saved->cpus >= 1 && saved->cpus <= GUEST_VCPUS);
    for (unsigned i = 0; i < saved->cpus; i++)
        must(saved->cpu[i].rest.fpu_size <= VCPU_FPU_MOST &&
             saved->devices.lapic[i].timer.tsc_share != 0);
    must(saved->around != 0 && saved->around <= OPTION_AROUND && saved->hz != 0);
    must(saved->devices.clock.hz != 0 && saved->devices.hpet.tsc_hz != 0);
    must(saved->devices.serial.input_first < SERIAL_INPUT);
    must(saved->devices.keyboard.keyboard.queued <= KEYBOARD_QUEUE);
    must(saved->devices.vga.dac_read < VGA_DAC);
    must(saved_devices_put(&saved->devices, devices) <= SAVED_DEVICES_MOST);
    while (saved_next_page(saved, &at, page)) {
        must(is_aligned(at.v, PAGE_SIZE) && (count == 0 || at.v > last));
        last = at.v;
        count++;
    }
    must(count == saved->page_count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct saved saved;
    uint8_t *file = malloc(size + SHA256_BYTES);
    struct sha256 digest;
    char why[160] = "";

    must(file != NULL);
    memcpy(file, data, size);
    memset(file + size, 0, SHA256_BYTES);
    if (size != 0 && file[0] == 'q') { /* sealed */
        file[0] = 'Q';
        sha256_begin(&digest);
        sha256_add(&digest, file, size);
        sha256_end(&digest, file + size);
    }
    if (saved_read(file, size + SHA256_BYTES, &saved, why, sizeof(why)) == E_OK)
        judge(&saved);
    else
        must(why[0] != '\0');
    free(file);
    return 0;
}
