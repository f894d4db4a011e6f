/*
 * pack (floor 1): a short text made shorter against what both sides know.
 *
 * A packed text is the size of the text (7 bits in each byte, the lowest first,
 * 0x80: more follow) and then steps:
 *
 *   00nnnnnn ...                  n + 1 bytes as they are
 *   01nnnnnn ...                  n + 1 times four base64url characters in three bytes
 *   1nnnnnnn dddddddd dddddddd    n + 5 bytes as they stand d + 1 bytes before
 *
 * In the first two forms n = 63 means 64 and what two more bytes say. Numbers of
 * two bytes have the lower one first. The form is LZ4's idea with what tokens
 * need beside it: they repeat nothing, but have six bits in each character.
 */
#include "abb_pack.h"

#include <string.h>

#define STEP_BYTES 0x00
#define STEP_BASE64URL 0x40
#define STEP_MATCH 0x80

#define COUNT_MAX_SHORT 63
#define COUNT_MAX (64 + 0xffff)
#define MATCH_MIN 5
#define MATCH_MAX (MATCH_MIN + 0x7f)
#define DISTANCE_MAX 0x10000
/* Fewer characters are not worth a step of their own. */
#define RUN_MIN 12
/* A match as long as this ends a run of base64url characters. */
#define RUN_ENDING_MATCH 8

#define HASH_BITS 11
#define HASH_SIZE (1 << HASH_BITS)
/* How many earlier places with the same hash are compared. */
#define CHAIN_MAX 48

/* ---- base64url ----------------------------------------------------------- */

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static int value_of(unsigned char c)
{
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (c >= '0' && c <= '9') {
        return c - '0' + 52;
    }
    return c == '-' ? 62 : c == '_' ? 63 : -1;
}

/* ---- packing ------------------------------------------------------------- */

typedef struct {
    const unsigned char *window;
    apr_size_t size;
    /* By hash, the last place with it; by place, the one before. Places count from 1. */
    apr_uint32_t last[HASH_SIZE];
    apr_uint32_t *before;
    /* Up to which place all are entered. */
    apr_size_t entered;
    unsigned char *out;
} packer_t;

typedef struct {
    apr_size_t length;
    apr_size_t distance;
} match_t;

static apr_uint32_t hash_at(const packer_t *packer, apr_size_t at)
{
    apr_uint32_t word;

    memcpy(&word, packer->window + at, sizeof(word));
    return word * 2654435761u >> (32 - HASH_BITS);
}

/* Enter the places before `end`, as far as four bytes stand there. */
static void enter(packer_t *packer, apr_size_t end)
{
    for (; packer->entered < end && packer->entered + 4 <= packer->size; ++packer->entered) {
        apr_uint32_t hash = hash_at(packer, packer->entered);

        packer->before[packer->entered] = packer->last[hash];
        packer->last[hash] = (apr_uint32_t)packer->entered + 1;
    }
}

static apr_size_t common_length(const packer_t *packer, apr_size_t a, apr_size_t b)
{
    apr_size_t most = packer->size - b < MATCH_MAX ? packer->size - b : MATCH_MAX;
    apr_size_t length = 0;

    while (length < most && packer->window[a + length] == packer->window[b + length]) {
        ++length;
    }
    return length;
}

/* The longest match for what stands at a place; its length is 0 when there is none worth a step. */
static match_t find_match(packer_t *packer, apr_size_t at)
{
    match_t best = {0, 0};
    apr_uint32_t place;
    int steps = CHAIN_MAX;

    if (at + MATCH_MIN > packer->size) {
        return best;
    }
    enter(packer, at);
    for (place = packer->last[hash_at(packer, at)]; place > 0 && steps > 0; --steps) {
        apr_size_t from = place - 1;

        /* Who looked ahead has entered more than stands before. */
        if (from < at) {
            apr_size_t length = at - from <= DISTANCE_MAX ? common_length(packer, from, at) : 0;

            if (length >= MATCH_MIN && length > best.length) {
                best.length = length;
                best.distance = at - from;
            }
        }
        place = packer->before[from];
    }
    return best;
}

/* How many base64url characters stand at a place, in fours, before a good match begins. */
static apr_size_t find_run(packer_t *packer, apr_size_t at)
{
    apr_size_t length = 0;

    while (at + length < packer->size && length < 4 * COUNT_MAX &&
           value_of(packer->window[at + length]) >= 0 &&
           (length % 4 || find_match(packer, at + length).length < RUN_ENDING_MATCH)) {
        ++length;
    }
    return length < RUN_MIN ? 0 : length / 4 * 4;
}

static void put_count(packer_t *packer, int step, apr_size_t count)
{
    if (count <= COUNT_MAX_SHORT) {
        *packer->out++ = (unsigned char)(step | (count - 1));
        return;
    }
    *packer->out++ = (unsigned char)(step | COUNT_MAX_SHORT);
    *packer->out++ = (unsigned char)(count - 64);
    *packer->out++ = (unsigned char)((count - 64) >> 8);
}

static void put_bytes(packer_t *packer, apr_size_t from, apr_size_t to)
{
    while (from < to) {
        apr_size_t count = to - from < COUNT_MAX ? to - from : COUNT_MAX;

        put_count(packer, STEP_BYTES, count);
        memcpy(packer->out, packer->window + from, count);
        packer->out += count;
        from += count;
    }
}

static void put_run(packer_t *packer, apr_size_t at, apr_size_t length)
{
    put_count(packer, STEP_BASE64URL, length / 4);
    for (const unsigned char *in = packer->window + at; length > 0; length -= 4, in += 4) {
        int bits =
            value_of(in[0]) << 18 | value_of(in[1]) << 12 | value_of(in[2]) << 6 | value_of(in[3]);

        *packer->out++ = (unsigned char)(bits >> 16);
        *packer->out++ = (unsigned char)(bits >> 8);
        *packer->out++ = (unsigned char)bits;
    }
}

static void put_match(packer_t *packer, const match_t *match)
{
    *packer->out++ = (unsigned char)(STEP_MATCH | (match->length - MATCH_MIN));
    *packer->out++ = (unsigned char)(match->distance - 1);
    *packer->out++ = (unsigned char)((match->distance - 1) >> 8);
}

static void put_size(packer_t *packer, apr_size_t size)
{
    for (; size >= 0x80; size >>= 7) {
        *packer->out++ = (unsigned char)(0x80 | (size & 0x7f));
    }
    *packer->out++ = (unsigned char)size;
}

/* The most that so many bytes as they are take. */
static apr_size_t bytes_cost(apr_size_t count)
{
    return count + 3 * ((count + COUNT_MAX - 1) / COUNT_MAX);
}

/* A match or a run at a place, after the bytes from `pending` on that are neither. */
typedef struct {
    apr_size_t pending;
    apr_size_t at;
    match_t match;
    apr_size_t run;
} step_t;

/* Find the next step from step->at on; at the end there is none. */
static void find_step(packer_t *packer, step_t *step)
{
    for (; step->at < packer->size; ++step->at) {
        step->match = find_match(packer, step->at);
        step->run = step->match.length ? 0 : find_run(packer, step->at);
        /* What begins one byte later may be longer. */
        if (step->run || (step->match.length &&
                          find_match(packer, step->at + 1).length <= step->match.length + 1)) {
            return;
        }
    }
    step->match.length = step->run = 0;
}

/* Put the steps for the text from `known` on. Returns 0 when they take more than `room` bytes. */
static int put_steps(packer_t *packer, apr_size_t known, apr_size_t room)
{
    const unsigned char *end = packer->out + room;
    step_t step = {known, known, {0, 0}, 0};

    do {
        find_step(packer, &step);
        if ((apr_size_t)(end - packer->out) <
            bytes_cost(step.at - step.pending) + 3 + step.run / 4 * 3) {
            return 0;
        }
        put_bytes(packer, step.pending, step.at);
        if (step.run) {
            put_run(packer, step.at, step.run);
        }
        else if (step.match.length) {
            put_match(packer, &step.match);
        }
        step.at += step.run + step.match.length;
        step.pending = step.at;
    } while (step.at < packer->size);
    return 1;
}

apr_size_t abb_pack_encode(const unsigned char *window, apr_size_t known, apr_size_t size,
                           unsigned char *packed, apr_pool_t *p)
{
    packer_t *packer = apr_pcalloc(p, sizeof(*packer));
    apr_size_t text_size = size - known;
    unsigned char *steps;

    packer->window = window;
    packer->size = size;
    packer->before = apr_palloc(p, (size + 1) * sizeof(*packer->before));
    packer->out = packed;
    put_size(packer, text_size);
    steps = packer->out;
    /* Room for one step more, so that a short text is not given up too early. */
    if (!put_steps(packer, known, bytes_cost(text_size) + 3)) {
        packer->out = steps;
        put_bytes(packer, known, size);
    }
    return (apr_size_t)(packer->out - packed);
}

/* ---- unpacking ----------------------------------------------------------- */

typedef struct {
    const unsigned char *in;
    const unsigned char *in_end;
    unsigned char *start;
    unsigned char *out;
    unsigned char *out_end;
} unpacker_t;

static int has_in(const unpacker_t *unpacker, apr_size_t size)
{
    return (apr_size_t)(unpacker->in_end - unpacker->in) >= size;
}

static int has_room(const unpacker_t *unpacker, apr_size_t size)
{
    return (apr_size_t)(unpacker->out_end - unpacker->out) >= size;
}

static apr_status_t take_size(unpacker_t *unpacker, apr_size_t *size)
{
    unsigned char byte;

    *size = 0;
    for (int shift = 0; shift <= 14 + 7; shift += 7) {
        if (!has_in(unpacker, 1)) {
            return APR_EINVAL;
        }
        byte = *unpacker->in++;
        *size |= (apr_size_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            return *size <= ABB_PACK_TEXT_MAX ? APR_SUCCESS : APR_EINVAL;
        }
    }
    return APR_EINVAL;
}

/* The count of a step, or 0 when the bytes end. */
static apr_size_t take_count(unpacker_t *unpacker, unsigned char step)
{
    apr_size_t count = step & 0x3f;

    if (count < COUNT_MAX_SHORT) {
        return count + 1;
    }
    if (!has_in(unpacker, 2)) {
        return 0;
    }
    count = 64 + (apr_size_t)(unpacker->in[0] | unpacker->in[1] << 8);
    unpacker->in += 2;
    return count;
}

static int take_bytes(unpacker_t *unpacker, apr_size_t count)
{
    if (count == 0 || !has_in(unpacker, count) || !has_room(unpacker, count)) {
        return 0;
    }
    memcpy(unpacker->out, unpacker->in, count);
    unpacker->in += count;
    unpacker->out += count;
    return 1;
}

static int take_run(unpacker_t *unpacker, apr_size_t count)
{
    if (count == 0 || !has_in(unpacker, 3 * count) || !has_room(unpacker, 4 * count)) {
        return 0;
    }
    for (; count > 0; --count, unpacker->in += 3) {
        const unsigned char *in = unpacker->in;

        *unpacker->out++ = (unsigned char)alphabet[in[0] >> 2];
        *unpacker->out++ = (unsigned char)alphabet[(in[0] & 0x03) << 4 | in[1] >> 4];
        *unpacker->out++ = (unsigned char)alphabet[(in[1] & 0x0f) << 2 | in[2] >> 6];
        *unpacker->out++ = (unsigned char)alphabet[in[2] & 0x3f];
    }
    return 1;
}

static int take_match(unpacker_t *unpacker, unsigned char step)
{
    apr_size_t length = MATCH_MIN + (step & 0x7f);
    apr_size_t distance;
    const unsigned char *from;

    if (!has_in(unpacker, 2) || !has_room(unpacker, length)) {
        return 0;
    }
    distance = 1 + (apr_size_t)(unpacker->in[0] | unpacker->in[1] << 8);
    unpacker->in += 2;
    if (distance > (apr_size_t)(unpacker->out - unpacker->start)) {
        return 0;
    }
    /* Byte by byte, since a match may reach into what it makes. */
    for (from = unpacker->out - distance; length > 0; --length) {
        *unpacker->out++ = *from++;
    }
    return 1;
}

static int take_step(unpacker_t *unpacker)
{
    unsigned char step = *unpacker->in++;

    if (step & STEP_MATCH) {
        return take_match(unpacker, step);
    }
    return step & STEP_BASE64URL ? take_run(unpacker, take_count(unpacker, step))
                                 : take_bytes(unpacker, take_count(unpacker, step));
}

apr_status_t abb_pack_read_size(const unsigned char *packed, apr_size_t packed_size,
                                apr_size_t *text_size)
{
    unpacker_t unpacker = {packed, packed + packed_size, NULL, NULL, NULL};

    return take_size(&unpacker, text_size);
}

apr_status_t abb_pack_decode(const unsigned char *packed, apr_size_t packed_size,
                             unsigned char *window, apr_size_t known, apr_size_t size)
{
    unpacker_t unpacker = {packed, packed + packed_size, window, window + known, window + size};
    apr_size_t text_size;

    if (take_size(&unpacker, &text_size) != APR_SUCCESS || text_size != size - known) {
        return APR_EINVAL;
    }
    while (unpacker.in < unpacker.in_end) {
        if (!take_step(&unpacker)) {
            return APR_EINVAL;
        }
    }
    return unpacker.out == unpacker.out_end ? APR_SUCCESS : APR_EINVAL;
}
