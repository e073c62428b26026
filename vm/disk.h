/*
 * What a guest has written to its BIOS's disk. The image stays as it is; over it lie copies of the
 * pages of it that were written, in frames that are charged to the guest. The mapper keeps them:
 * the input addresses of a table are the disk's bytes. So a snapshot and a fork share them as they
 * share memory (vm/cow.h). They go when the guest ends: started anew it has its image.
 */
#ifndef QUIRE_VM_DISK_H
#define QUIRE_VM_DISK_H

#include "vm/bios_disk.h"
#include "vm/guest.h"

/* One sector from or to the disk, at a multiple of BIOS_SECTOR; what lies behind the image's end
 * reads as zeroes. E_NOMEM, E_QUOTA: nothing was written. */
void disk_read(struct guest *guest, uint64_t at, void *sector);
int disk_write(struct guest *guest, uint64_t at, const void *sector);

/* `to`, with nothing written, of a guest or its snapshot, shows what `from` shows; `guest` pays for
 * its nodes. E_NOMEM, E_QUOTA: what `to` has then is for disk_forget(). */
int disk_clone(const struct guest *guest, struct guest_disk *to, struct guest_disk *from);

/* Gives back what was written. By and by: true when nothing is left. */
void disk_forget(struct guest_disk *disk);
bool disk_forget_by(struct guest_disk *disk, uint64_t deadline);

static inline bool disk_is_written(const struct guest_disk *disk)
{
    return disk->table.table_frames != 0;
}

/* Frames that it holds under the guest's number. */
uint64_t disk_frames(struct guest *guest);

#endif
