/* Result codes. Every fallible function returns enum tca_status; TCA_OK is 0.
 *
 * The function that first detects a failure logs it, or describes it in a struct tca_error;
 * callers that only pass the status up stay silent. Vendor codes are translated once, at the
 * edge. The codes that a client can see correspond one to one to gRPC's. */
#ifndef BASE_STATUS_H
#define BASE_STATUS_H

/* One row per code keeps the enum, the names and the texts from drifting apart. */
#define TCA_STATUS_MAP(X)                                                                          \
    X(OK, 0, "ok")                                                                                 \
    X(ERR_INVALID, -1, "invalid argument")                                                         \
    X(ERR_NO_MEMORY, -2, "out of host or device memory")                                           \
    X(ERR_BUSY, -3, "no free capacity, retry later")                                               \
    X(ERR_DEVICE, -4, "GPU failure")                                                               \
    X(ERR_COMM, -5, "peer or network failure")                                                     \
    X(ERR_UNSUPPORTED, -6, "not supported")                                                        \
    X(ERR_NOT_FOUND, -7, "not found")                                                              \
    X(ERR_EXISTS, -8, "already exists")                                                            \
    X(ERR_PRECONDITION, -9, "failed precondition")                                                 \
    X(ERR_RANGE, -10, "out of range")                                                              \
    X(ERR_ABORTED, -11, "aborted")                                                                 \
    X(ERR_CANCELLED, -12, "cancelled")                                                             \
    X(ERR_DEADLINE, -13, "deadline exceeded")                                                      \
    X(ERR_UNAVAILABLE, -14, "unavailable")                                                         \
    X(ERR_DATA_LOSS, -15, "data loss")                                                             \
    X(ERR_UNAUTHENTICATED, -16, "unauthenticated")                                                 \
    X(ERR_DENIED, -17, "permission denied")                                                        \
    X(ERR_IO, -18, "file or disk failure")

enum tca_status {
#define X(name, code, text) TCA_##name = (code),
    TCA_STATUS_MAP(X)
#undef X
};

/* Static string, never NULL. */
const char *tca_status_text(enum tca_status status);

/* Pass a failure up from a function that owns nothing yet. Anything that must
 * be released goes through an explicit `goto err_...` instead. */
#define TCA_TRY(expr)                                                                              \
    do {                                                                                           \
        enum tca_status try_status_ = (expr);                                                      \
        if (try_status_ != TCA_OK)                                                                 \
            return try_status_;                                                                    \
    } while (0)

#endif
