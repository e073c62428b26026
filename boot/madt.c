/* See boot/madt.h. Numbers are little-endian and read by memcpy: tables have any alignment. */
#include "boot/madt.h"

#include "boot/bytes.h"
#include "lib/format.h"
#include "lib/string.h"

/* The header of every table (ACPI 6.5, 5.2.6). */
#define HEADER_LENGTH 4u
#define HEADER_SIZE 36u
#define SIGNATURE_SIZE 4u

/* More than any firmware has; a longer table is taken for garbage. */
#define TABLE_MOST (UINT64_C(1) << 20)

/* 5.2.12: the header, the local APICs' address, flags; then the entries. */
#define MADT_ENTRIES 44u
#define ENTRY_TYPE 0u
#define ENTRY_LENGTH 1u
#define ENTRY_HEADER 2u

/* 5.2.12.2 "Processor Local APIC Structure" */
#define TYPE_LOCAL_APIC 0u
#define LOCAL_UID 2u
#define LOCAL_ID 3u
#define LOCAL_FLAGS 4u
#define LOCAL_SIZE 8u
#define LOCAL_NOBODY 0xffu

/* 5.2.12.12 "Processor Local x2APIC Structure" */
#define TYPE_LOCAL_X2APIC 9u
#define X2_ID 4u
#define X2_FLAGS 8u
#define X2_UID 12u
#define X2_SIZE 16u
#define X2_NOBODY UINT32_MAX

#define FLAG_ENABLED 1u
#define FLAG_ONLINE_CAPABLE 2u

struct reader {
    madt_reach_fn reach;
    void *ctx;
    char *why;
    size_t why_size;
};

/* A table, whole and with its checksum right. */
struct table_bytes {
    const uint8_t *at;
    uint64_t address;
    uint32_t size;
};

__attribute__((format(printf, 3, 4))) static int refuse(struct reader *reader, int error,
                                                        const char *text, ...)
{
    va_list args;

    va_start(args, text);
    vformat_buffer(reader->why, reader->why_size, text, args);
    va_end(args);
    return error;
}

static bool sums_to_zero(const uint8_t *bytes, uint32_t n)
{
    uint8_t sum = 0;

    for (uint32_t i = 0; i < n; i++)
        sum = (uint8_t)(sum + bytes[i]);
    return sum == 0;
}

/* The table at an address, which has to be a `signature`. */
static int open_table(struct reader *reader, uint64_t address, const char *signature,
                      struct table_bytes *out)
{
    const uint8_t *at = reader->reach(reader->ctx, address, HEADER_SIZE);

    if (at == NULL)
        return refuse(reader, E_RANGE, "the %s at 0x%lx lies where memory cannot be read",
                      signature, address);
    if (memcmp(at, signature, SIGNATURE_SIZE) != 0)
        return refuse(reader, E_FORMAT, "what should be the %s at 0x%lx does not begin with \"%s\"",
                      signature, address, signature);
    uint32_t size = read32(at + HEADER_LENGTH);
    if (size < HEADER_SIZE || size > TABLE_MOST)
        return refuse(reader, E_TRUNC, "the %s at 0x%lx gives its length as %u; %u to %lu is right",
                      signature, address, size, HEADER_SIZE, TABLE_MOST);
    at = reader->reach(reader->ctx, address, size);
    if (at == NULL)
        return refuse(reader, E_RANGE, "the %u bytes of the %s at 0x%lx cannot all be read", size,
                      signature, address);
    if (!sums_to_zero(at, size))
        return refuse(reader, E_FORMAT, "the %u bytes of the %s at 0x%lx must sum to 0 modulo 256",
                      size, signature, address);
    *out = (struct table_bytes){at, address, size};
    return E_OK;
}

/* Where the MADT is, by the list of tables. One that cannot be reached is not it. */
static int find_madt(struct reader *reader, const struct boot_rsdp *rsdp, struct table_bytes *out)
{
    bool wide = rsdp->xsdt.v != 0;
    const char *name = wide ? "XSDT" : "RSDT";
    unsigned step = wide ? 8 : 4;
    struct table_bytes list;
    int error = open_table(reader, wide ? rsdp->xsdt.v : rsdp->rsdt.v, name, &list);

    if (error != E_OK)
        return error;
    for (uint32_t at = HEADER_SIZE; list.size - at >= step; at += step) {
        uint64_t address = wide ? read64(list.at + at) : read32(list.at + at);
        const void *table = reader->reach(reader->ctx, address, SIGNATURE_SIZE);

        if (table != NULL && memcmp(table, "APIC", SIGNATURE_SIZE) == 0)
            return open_table(reader, address, "APIC", out);
    }
    return refuse(reader, E_NOENT, "the %s at 0x%lx lists no MADT", name, list.address);
}

/* Firmware may describe a CPU by both kinds of entry. */
static void note_cpu(struct madt *out, struct madt_cpu cpu, uint32_t flags)
{
    cpu.enabled = (flags & FLAG_ENABLED) != 0;
    cpu.online_capable = (flags & FLAG_ONLINE_CAPABLE) != 0;
    for (unsigned i = 0; i < out->count; i++) {
        if (out->cpu[i].apic_id != cpu.apic_id)
            continue;
        out->cpu[i].enabled |= cpu.enabled;
        out->cpu[i].online_capable |= cpu.online_capable;
        return;
    }
    if (out->count < MADT_CPUS)
        out->cpu[out->count++] = cpu;
    else
        out->dropped++;
}

static int read_entry(struct reader *reader, const struct table_bytes *madt, uint32_t offset,
                      uint8_t length, struct madt *out)
{
    const uint8_t *at = madt->at + offset;
    uint8_t type = at[ENTRY_TYPE];
    unsigned least = type == TYPE_LOCAL_APIC     ? LOCAL_SIZE
                     : type == TYPE_LOCAL_X2APIC ? X2_SIZE
                                                 : ENTRY_HEADER;

    if (length < least)
        return refuse(reader, E_TRUNC,
                      "the MADT's entry of type %u at 0x%x has %u bytes; it needs %u", type, offset,
                      length, least);
    if (type == TYPE_LOCAL_APIC && at[LOCAL_ID] != LOCAL_NOBODY)
        note_cpu(out, (struct madt_cpu){.apic_id = at[LOCAL_ID], .uid = at[LOCAL_UID]},
                 read32(at + LOCAL_FLAGS));
    if (type == TYPE_LOCAL_X2APIC && read32(at + X2_ID) != X2_NOBODY)
        note_cpu(out, (struct madt_cpu){.apic_id = read32(at + X2_ID), .uid = read32(at + X2_UID)},
                 read32(at + X2_FLAGS));
    return E_OK;
}

static int read_entries(struct reader *reader, const struct table_bytes *madt, struct madt *out)
{
    uint32_t offset = MADT_ENTRIES;

    if (madt->size < MADT_ENTRIES)
        return refuse(reader, E_TRUNC, "the MADT at 0x%lx has %u bytes; it needs %u", madt->address,
                      madt->size, MADT_ENTRIES);
    while (offset < madt->size) {
        uint32_t left = madt->size - offset;
        uint8_t length = left >= ENTRY_HEADER ? madt->at[offset + ENTRY_LENGTH] : 0;

        if (length < ENTRY_HEADER || length > left)
            return refuse(reader, E_TRUNC,
                          "the MADT's entry at 0x%x gives its length as %u; there are %u bytes "
                          "left",
                          offset, length, left);
        int error = read_entry(reader, madt, offset, length, out);
        if (error != E_OK)
            return error;
        offset += length;
    }
    return E_OK;
}

int madt_read(const struct boot_rsdp *rsdp, madt_reach_fn reach, void *ctx, struct madt *out,
              char *why, size_t why_size)
{
    struct reader reader = {reach, ctx, why, why_size};
    struct table_bytes madt;
    int error;

    *out = (struct madt){0};
    if (!rsdp->present || (rsdp->xsdt.v == 0 && rsdp->rsdt.v == 0))
        return refuse(&reader, E_NOENT, "the boot loader passed no ACPI root pointer");
    error = find_madt(&reader, rsdp, &madt);
    if (error == E_OK)
        error = read_entries(&reader, &madt, out);
    if (error != E_OK)
        out->count = out->dropped = 0;
    return error;
}
