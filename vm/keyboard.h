/*
 * The keyboard behind a guest's 8042: an IBM enhanced keyboard with a US layout (IBM PS/2 Hardware
 * Interface Technical Reference, "101- and 102-key keyboard"), scan code sets 1 and 2, on which the
 * console types.
 */
#ifndef QUIRE_VM_KEYBOARD_H
#define QUIRE_VM_KEYBOARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct guest;
struct keyboard;

/* Types characters: those of ASCII that have a key, with \n, \t, \b and ESC for Enter, Tab,
 * Backspace and Esc, and 1 to 26 otherwise for Ctrl and a letter. Returns how many were taken: as
 * many as there is room for, up to the first that has no key. The guest gets them as it reads. */
size_t keyboard_type(struct guest *guest, const char *text, size_t n);
bool keyboard_has_key(char c);

/* Within vm/: between the controller and the keyboard. It is switched on; it gets a byte. */
void keyboard_power_on(struct keyboard *keyboard);
void keyboard_receive(struct keyboard *keyboard, uint8_t byte);
/* Has it a byte to send? That byte, as it is at its connector; it may be put back. */
bool keyboard_has_byte(const struct keyboard *keyboard);
uint8_t keyboard_send(struct keyboard *keyboard);
void keyboard_put_back(struct keyboard *keyboard, uint8_t byte);
size_t keyboard_take_text(struct keyboard *keyboard, const char *text, size_t n);

/* A code of set 2 as the 8042 hands it on while it translates to set 1, but for the prefix of a
 * break. */
uint8_t keyboard_translate(uint8_t code);

#endif
