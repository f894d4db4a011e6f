/*
 * targets: the table. A new target is a line here, a function fuzz_NAME in one of the
 * files f_*.c, and a first example in corpus/NAME.
 */
#ifndef TARGETS_H
#define TARGETS_H

#include "fuzz.h"

/* Name, and the longest input worth trying. */
#define FUZZ_TARGETS(T)                                                                          \
    T(cookie, 4096)                                                                              \
    T(base64url, 256)                                                                            \
    T(escape, 1024)                                                                              \
    T(path, 2100) T(query, 1024) T(duration, 32) T(uuid, 64) T(callback, 2400) T(handover, 2200) \
        T(ticket, 1400) T(ticket_inside, 2200) T(ticket_forged, 300) T(record, 4096)             \
            T(record_fields, 4096) T(record_sealed, 4096) T(record_forged, 600) T(pack, 4096)    \
                T(session, 2048) T(badge, 400) T(draft, 4096) T(reply_tokens, 4096)              \
                    T(reply_user, 4096) T(reply_emails, 4096) T(reply_permission, 4096)          \
                        T(reply_member, 4096) T(reply_repository, 4096) T(reply_error, 4096)     \
                            T(answer, 2048) T(paging, 512) T(credential, 2048) T(require, 1024)  \
                                T(form, 4096) T(page, 2048) T(headers, 2048) T(segment, 1024)    \
                                    T(segment_proved, 1024) T(key_file, 800) T(cache_object, 1024)

#define FUZZ_DECLARE(name, size_max) fuzz_function_t fuzz_##name;
FUZZ_TARGETS(FUZZ_DECLARE)

#endif
