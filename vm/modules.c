/* Boot modules as guests: which of them are, and making them. See guest.h. */
#include "lib/error.h"
#include "lib/log.h"
#include "lib/string.h"
#include "vm/guest.h"

#define USER_PROGRAM "user:"
#define SCRIPT "script:"

static bool begins_with(const char *cmdline, const char *what)
{
    while (*cmdline == ' ')
        cmdline++;
    return strncmp(cmdline, what, strlen(what)) == 0;
}

bool guest_is_user_program(const char *cmdline)
{
    return begins_with(cmdline, USER_PROGRAM);
}

bool guest_is_script(const char *cmdline)
{
    return begins_with(cmdline, SCRIPT);
}

unsigned guests_create(const struct guest_image *modules, unsigned count)
{
    if (guests_backend() == NULL)
        return 0;
    for (unsigned i = 0; i < count; i++) {
        struct guest_image image = modules[i];
        struct guest *guest;
        int error;

        if (guest_is_user_program(image.cmdline) || guest_is_script(image.cmdline))
            continue;
        image.modules = &modules[i + 1];
        image.module_count = count - i - 1;
        error = guest_create(&image, &guest);
        if (guest == NULL) {
            log_line("module %u: no guest made of it: %s", i + 1, error_text(error));
            continue;
        }
        if (guest->options.mods <= image.module_count)
            i += guest->options.mods;
    }
    return guest_count();
}
