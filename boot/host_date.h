/*
 * The date by this machine's own clock.
 */
#ifndef QUIRE_BOOT_HOST_DATE_H
#define QUIRE_BOOT_HOST_DATE_H

/* Reads it, for the clocks of guests; to be called before there are any. */
void host_date_read(void);

#endif
