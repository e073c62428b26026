/*
 * Error values: every function that can fail returns E_OK or one of these negative values,
 * up to whoever can say something useful about it. error_name() gives the identifier and
 * error_text() a short phrase for people.
 */
#ifndef QUIRE_LIB_ERROR_H
#define QUIRE_LIB_ERROR_H

enum error {
    E_OK = 0,
    E_NOMEM = -1,        /* no frame (or no object) could be had */
    E_EXIST = -2,        /* something is mapped, registered or reserved there already */
    E_NOENT = -3,        /* nothing is there */
    E_RANGE = -4,        /* an address or size lies outside what is allowed, or wraps */
    E_ALIGN = -5,        /* not aligned to the unit asked for */
    E_INVAL = -6,        /* an argument that makes no sense, whatever the state */
    E_PERM = -7,         /* not the caller's: foreign owner, rights missing */
    E_STATE = -8,        /* right request, wrong moment (no current VMCS, guest not paused) */
    E_DOUBLE_FREE = -9,  /* the frame is free already */
    E_ORDER = -10,       /* freed at another order than it was allocated */
    E_QUOTA = -11,       /* the owner's quota, or the host's reserve, forbids it */
    E_FULL = -12,        /* a table of fixed size has no slot left */
    E_FORMAT = -13,      /* input that does not follow its format */
    E_TRUNC = -14,       /* input that ends before its format says */
    E_UNSUPPORTED = -15, /* well-formed, but this CPU or this build cannot do it */
    E_HARDWARE = -16,    /* the CPU refused (VMfail, failed VM entry) */
    E_ILLEGAL = -17,     /* a table entry that the CPU would call reserved or misconfigured */
    E_SHARED = -18,      /* a frame with several holders, treated as if it had one */
    E_STOPPED = -19,     /* whoever asked for it has had it stopped before its end */
};

const char *error_name(int error);
const char *error_text(int error);

#endif
