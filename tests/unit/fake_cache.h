/*
 * fake_cache: a provider of httpd's small object caches that a test can spoil.
 *
 * All instances share one heap of objects, as connections to one server do. It
 * behaves as the clients for Redis and memcached of APR: an instance that had a
 * fault takes its server for dead from then on and answers "not found".
 */
#ifndef FAKE_CACHE_H
#define FAKE_CACHE_H

#include <apr_time.h>

struct ap_socache_provider_t;
struct ap_socache_instance_t;

/* What a test sees and does. Change it with the functions below. */
typedef struct {
    int creates;
    int destroys;
    int retrieves;
    int stores;
    int removes;
    /* Calls that have not returned. */
    int inside;
    /* How long the last stored object was to stay. */
    apr_interval_time_t last_duration;
    /* The longest buffer that a retrieve brought. */
    unsigned int largest_buffer;
    /* Instances whose memory only one thread at a time may use, sub-pools included. */
    int single_threaded;
} fake_counts_t;

extern const struct ap_socache_provider_t fake_provider;

/* No objects, no faults. */
void fake_reset(void);
fake_counts_t fake_counts(void);

/* An instance, initialized. */
struct ap_socache_instance_t *fake_instance(void);

/* No call returns until it is thawed. */
void fake_freeze(void);
void fake_thaw(void);
/* Each call takes so long. */
void fake_set_delay(apr_interval_time_t delay);
/* Nobody listens; connections that were there are dead for good. */
void fake_stop(void);
/* Somebody listens again, with no objects unless they are kept. */
void fake_start(int keeps_objects);
/* It answers each store with an error. */
void fake_set_full(int is_full);
/* Objects whose name begins with `kind` are stored, and the connection dies without a word; so
 * many times. */
void fake_lose_answers(char kind, int times);
/* Called before each store of an object whose name begins with `kind`, once. */
void fake_before_store(char kind, void (*function)(void *data), void *data);
/* ---- objects as an intruder sees them ------------------------------------- */

int fake_object_count(void);
/* All objects, one after the other, with their names. Static memory. */
const unsigned char *fake_dump(size_t *size);
/* The bytes of the object with the number, in no order; they may be changed. */
unsigned char *fake_object(int number, size_t *size, unsigned char **name);
/* Make an object shorter. */
void fake_cut(int number, size_t size);
void fake_swap(int one, int other);
void fake_forget(int number);

#endif
