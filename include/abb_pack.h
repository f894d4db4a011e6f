/*
 * pack (floor 1): a short text made shorter against what both sides know.
 *
 * For texts of some hundred bytes of which most was seen before: whoever packs
 * and whoever unpacks lay the same known bytes before the text, and what stands
 * there already costs three bytes. Knows no record, no JSON, no key.
 *
 * Both functions work on a window: the known bytes, and right behind them the
 * text. Who may see the size of a packed text learns how much of it was known
 * before; so pack only what belongs to one person.
 * Threads: any; no state.
 */
#ifndef ABB_PACK_H
#define ABB_PACK_H

#include <apr_pools.h>

/* Longest text, in bytes. */
#define ABB_PACK_TEXT_MAX (1024 * 1024)
/* The most that packing adds to a text that has nothing in common with anything, in bytes. */
#define ABB_PACK_OVERHEAD_MAX 64

/*
 * Pack the text of a window of `size` bytes, the first `known` of which are the
 * known bytes. packed has room for the text and ABB_PACK_OVERHEAD_MAX more.
 * Returns the size of the packed text. p: for 4 bytes for each byte of the
 * window, and 8 KiB; no byte of the text is left there.
 */
apr_size_t abb_pack_encode(const unsigned char *window, apr_size_t known, apr_size_t size,
                           unsigned char *packed, apr_pool_t *p);

/*
 * How long a packed text is when unpacked: what its first bytes say.
 * Errors: APR_EINVAL when they say nothing, or more than ABB_PACK_TEXT_MAX.
 */
apr_status_t abb_pack_read_size(const unsigned char *packed, apr_size_t packed_size,
                                apr_size_t *text_size);

/*
 * Unpack behind the known bytes of a window. The window's size is `known` and
 * what abb_pack_read_size said. Never reads or writes outside of what is given.
 * Errors: APR_EINVAL when `packed` is not what abb_pack_encode makes.
 */
apr_status_t abb_pack_decode(const unsigned char *packed, apr_size_t packed_size,
                             unsigned char *window, apr_size_t known, apr_size_t size);

#endif
