/*
 * Images that say in their Multiboot header where they go (Multiboot 0.6.96, 3.1.3; Multiboot 2,
 * 3.1.5).
 */
#include "lib/error.h"
#include "vm/load_parts.h"

int load_by_addresses(struct loader *loader, const struct load_addresses *a, struct load_text *out)
{
    uint64_t before = (uint64_t)a->header - a->load; /* header within the text */
    uint64_t start;

    if (a->header < a->load || before > a->offset)
        return load_refuse(loader, E_FORMAT,
                           "the Multiboot load address puts the image's text before its file: "
                           "header_addr is where the header itself is loaded");
    start = a->offset - before;
    out->bytes = loader->bytes + start;
    out->at = a->load;
    out->file_size = loader->size - start;
    if (a->load_end != 0) {
        if (a->load_end < a->load)
            return load_refuse(loader, E_FORMAT,
                               "the Multiboot load end lies before its start; 0 there loads all of "
                               "the file");
        if (a->load_end - a->load > out->file_size)
            return load_refuse(loader, E_TRUNC,
                               "the image ends before the Multiboot header's load end: is the file "
                               "whole? load_end_addr 0 loads all of it");
        out->file_size = a->load_end - a->load;
    }
    out->memory_size = out->file_size;
    if (a->bss_end == 0)
        return E_OK;
    if (a->bss_end < a->load || a->bss_end - a->load < out->file_size)
        return load_refuse(loader, E_FORMAT,
                           "the Multiboot bss ends before the loaded bytes; 0 there means no bss");
    out->memory_size = a->bss_end - a->load;
    return E_OK;
}
