/*
 * hello: speaks over its serial port, looks at CPUID and at what the loader told it.
 */
#include "guests/guest.h"

static bool equal(const char *a, const char *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (a[i] != b[i])
            return false;
    return true;
}

static void check_cpuid(void)
{
    uint32_t out[4];
    char text[13] = {0};

    cpuid(1, out);
    check(out[2] >> 31, "CPUID says that a hypervisor is present");
    check(!(out[2] & 1u << 5), "CPUID hides VMX");
    cpuid(QUIRE_CPUID_BASE, out);
    for (unsigned i = 0; i < 12; i++)
        text[i] = (char)(out[1 + i / 4] >> i % 4 * 8);
    print("hypervisor: ");
    print(text);
    print("\n");
    check(equal(text, QUIRE_CPUID_TEXT, 12), "the hypervisor is Quire");
    check(out[0] >= QUIRE_CPUID_BASE + 1, "it has its interface leaf");
    cpuid(QUIRE_CPUID_BASE + 1, out);
    check(out[0] == QUIRE_ABI_VERSION, "the interface's version is the one I was built for");
    print("I am guest g");
    print_number(out[1]);
    print("\n");
}

static void check_boot_information(const struct multiboot_info *info)
{
    uint32_t available = 0, entries = 0;

    if (!check(info != NULL, "started by a Multiboot 1 loader"))
        return;
    check(info->flags & MULTIBOOT_INFO_MEMORY, "memory sizes given");
    check(info->mem_lower == 640 || info->mem_lower == 639, "the lower memory of a PC");
    if (info->flags & MULTIBOOT_INFO_CMDLINE) {
        print("command line: ");
        print((const char *)(uintptr_t)info->cmdline);
        print("\n");
    }
    check(info->flags & MULTIBOOT_INFO_CMDLINE, "command line given");
    check(info->flags & MULTIBOOT_INFO_MMAP, "memory map given");
    for (uint32_t at = 0; at < info->mmap_length;) {
        const struct multiboot_mmap *entry =
            (const struct multiboot_mmap *)(uintptr_t)(info->mmap_addr + at);
        entries++;
        if (entry->type == MULTIBOOT_MEMORY_AVAILABLE && entry->base >= 0x100000)
            available += (uint32_t)(entry->length >> 10);
        at += entry->size + 4;
    }
    print("memory map: ");
    print_number(entries);
    print(" entries, ");
    print_number(available);
    print(" KiB above 1 MiB\n");
    check(available >= info->mem_upper, "the map agrees with the upper memory size");
}

void guest_main(const struct multiboot_info *info)
{
    guest_use_serial();
    print("hello from a guest\n");
    check_cpuid();
    check_boot_information(info);
    guest_end();
}
