/* fake_cache: a provider that a test can spoil. See fake_cache.h. */
#include "fake_cache.h"

#include <ap_socache.h>
#include <apr_allocator.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { OBJECTS_MAX = 4096, NAME_MAX_SIZE = 64 };

typedef struct {
    unsigned char name[NAME_MAX_SIZE];
    unsigned int name_size;
    unsigned char *bytes;
    unsigned int size;
} object_t;

struct ap_socache_instance_t {
    int is_dead;
    int epoch;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t thawed = PTHREAD_COND_INITIALIZER;
static object_t objects[OBJECTS_MAX];
static int object_count;
static fake_counts_t counts;
static int is_frozen;
static int is_stopped;
static int is_full;
/* Each stop ends the connections of an epoch. */
static int epoch;
static apr_interval_time_t delay;
static char lost_kind;
static int lost_times;
static char hook_kind;
static void (*hook)(void *data);
static void *hook_data;

/* ---- objects ------------------------------------------------------------- */

static object_t *find(const unsigned char *id, unsigned int size)
{
    for (int i = 0; i < object_count; ++i) {
        if (objects[i].name_size == size && memcmp(objects[i].name, id, size) == 0) {
            return &objects[i];
        }
    }
    return NULL;
}

static void forget(object_t *object)
{
    free(object->bytes);
    *object = objects[--object_count];
}

static void forget_all(void)
{
    while (object_count) {
        forget(&objects[0]);
    }
}

/* ---- what each call meets ------------------------------------------------ */

/* The lock is held. Returns what the call must answer, or APR_SUCCESS. */
static apr_status_t enter(ap_socache_instance_t *instance)
{
    apr_interval_time_t wait = delay;

    ++counts.inside;
    if (wait) {
        pthread_mutex_unlock(&mutex);
        apr_sleep(wait);
        pthread_mutex_lock(&mutex);
    }
    while (is_frozen) {
        pthread_cond_wait(&thawed, &mutex);
    }
    if (instance->is_dead) {
        return APR_NOTFOUND;
    }
    if (is_stopped || instance->epoch != epoch) {
        instance->is_dead = 1;
        return is_stopped ? APR_ECONNREFUSED : APR_EOF;
    }
    return APR_SUCCESS;
}

static void leave(void)
{
    --counts.inside;
    pthread_mutex_unlock(&mutex);
}

/* ---- the provider -------------------------------------------------------- */

static const char *create(ap_socache_instance_t **instance, const char *arg, apr_pool_t *tmp,
                          apr_pool_t *p)
{
    *instance = apr_pcalloc(p, sizeof(**instance));
    pthread_mutex_lock(&mutex);
    ++counts.creates;
    /* Connections are made when they are used first. */
    (*instance)->epoch = epoch;
    pthread_mutex_unlock(&mutex);
    return NULL;
}

static apr_status_t init(ap_socache_instance_t *instance, const char *cname,
                         const struct ap_socache_hints *hints, server_rec *s, apr_pool_t *pool)
{
    /* APR's clients give each connection a sub-pool, and several threads are in calls at once. */
    if (!apr_allocator_mutex_get(apr_pool_allocator_get(pool))) {
        pthread_mutex_lock(&mutex);
        ++counts.single_threaded;
        pthread_mutex_unlock(&mutex);
    }
    return strlen(cname) <= 14 ? APR_SUCCESS : APR_EINVAL;
}

static void destroy(ap_socache_instance_t *instance, server_rec *s)
{
    pthread_mutex_lock(&mutex);
    ++counts.destroys;
    pthread_mutex_unlock(&mutex);
}

static void run_hook(char kind)
{
    void (*function)(void *data) = hook;

    if (function && hook_kind == kind) {
        hook = NULL;
        pthread_mutex_unlock(&mutex);
        function(hook_data);
        pthread_mutex_lock(&mutex);
    }
}

static apr_status_t store(ap_socache_instance_t *instance, server_rec *s, const unsigned char *id,
                          unsigned int idlen, apr_time_t expiry, unsigned char *data,
                          unsigned int size, apr_pool_t *pool)
{
    apr_status_t status;
    object_t *object;

    pthread_mutex_lock(&mutex);
    ++counts.stores;
    run_hook((char)id[0]);
    status = enter(instance);
    if (status == APR_SUCCESS && is_full) {
        status = APR_EGENERAL;
    }
    if (status == APR_SUCCESS) {
        counts.last_duration = expiry - apr_time_now();
        object = find(id, idlen);
        if (!object) {
            object = &objects[object_count++];
            memset(object, 0, sizeof(*object));
            memcpy(object->name, id, idlen);
            object->name_size = idlen;
        }
        free(object->bytes);
        object->bytes = malloc(size);
        memcpy(object->bytes, data, size);
        object->size = size;
        if (lost_times && lost_kind == (char)id[0]) {
            --lost_times;
            instance->is_dead = 1;
            status = APR_EOF;
        }
    }
    leave();
    return status;
}

static apr_status_t retrieve(ap_socache_instance_t *instance, server_rec *s,
                             const unsigned char *id, unsigned int idlen, unsigned char *data,
                             unsigned int *size, apr_pool_t *pool)
{
    apr_status_t status;

    pthread_mutex_lock(&mutex);
    ++counts.retrieves;
    counts.largest_buffer = *size > counts.largest_buffer ? *size : counts.largest_buffer;
    status = enter(instance);
    if (status == APR_SUCCESS) {
        object_t *object = find(id, idlen);

        if (!object) {
            status = APR_NOTFOUND;
        }
        else if (object->size > *size) {
            status = APR_ENOMEM;
        }
        else {
            memcpy(data, object->bytes, object->size);
            *size = object->size;
        }
    }
    leave();
    return status;
}

static apr_status_t remove_object(ap_socache_instance_t *instance, server_rec *s,
                                  const unsigned char *id, unsigned int idlen, apr_pool_t *pool)
{
    apr_status_t status;

    pthread_mutex_lock(&mutex);
    ++counts.removes;
    status = enter(instance);
    if (status == APR_SUCCESS) {
        object_t *object = find(id, idlen);

        if (object) {
            forget(object);
        }
        else {
            status = APR_NOTFOUND;
        }
    }
    leave();
    return status;
}

const ap_socache_provider_t fake_provider = {
    "fake", 0, create, init, destroy, store, retrieve, remove_object, NULL, NULL,
};

ap_socache_instance_t *fake_instance(void)
{
    static ap_socache_instance_t instance;

    instance.is_dead = 0;
    instance.epoch = epoch;
    return &instance;
}

/* ---- steering ------------------------------------------------------------ */

void fake_reset(void)
{
    pthread_mutex_lock(&mutex);
    forget_all();
    memset(&counts, 0, sizeof(counts));
    is_frozen = is_stopped = is_full = lost_times = 0;
    delay = 0;
    hook = NULL;
    pthread_cond_broadcast(&thawed);
    pthread_mutex_unlock(&mutex);
}

fake_counts_t fake_counts(void)
{
    fake_counts_t now;

    pthread_mutex_lock(&mutex);
    now = counts;
    pthread_mutex_unlock(&mutex);
    return now;
}

static void set(int *flag, int value)
{
    pthread_mutex_lock(&mutex);
    *flag = value;
    pthread_cond_broadcast(&thawed);
    pthread_mutex_unlock(&mutex);
}

void fake_freeze(void)
{
    set(&is_frozen, 1);
}

void fake_thaw(void)
{
    set(&is_frozen, 0);
}

void fake_set_full(int value)
{
    set(&is_full, value);
}

void fake_set_delay(apr_interval_time_t value)
{
    pthread_mutex_lock(&mutex);
    delay = value;
    pthread_mutex_unlock(&mutex);
}

void fake_stop(void)
{
    pthread_mutex_lock(&mutex);
    is_stopped = 1;
    ++epoch;
    pthread_mutex_unlock(&mutex);
}

void fake_start(int keeps_objects)
{
    pthread_mutex_lock(&mutex);
    is_stopped = 0;
    if (!keeps_objects) {
        forget_all();
    }
    pthread_mutex_unlock(&mutex);
}

void fake_lose_answers(char kind, int times)
{
    pthread_mutex_lock(&mutex);
    lost_kind = kind;
    lost_times = times;
    pthread_mutex_unlock(&mutex);
}

void fake_before_store(char kind, void (*function)(void *data), void *data)
{
    pthread_mutex_lock(&mutex);
    hook_kind = kind;
    hook_data = data;
    hook = function;
    pthread_mutex_unlock(&mutex);
}

/* ---- intruders ----------------------------------------------------------- */

int fake_object_count(void)
{
    int count;

    pthread_mutex_lock(&mutex);
    count = object_count;
    pthread_mutex_unlock(&mutex);
    return count;
}

unsigned char *fake_object(int number, size_t *size, unsigned char **name)
{
    *size = objects[number].size;
    if (name) {
        *name = objects[number].name;
    }
    return objects[number].bytes;
}

const unsigned char *fake_dump(size_t *size)
{
    static unsigned char *all;
    size_t used = 0;

    free(all);
    all = NULL;
    for (int i = 0; i < object_count; ++i) {
        all = realloc(all, used + objects[i].name_size + objects[i].size);
        memcpy(all + used, objects[i].name, objects[i].name_size);
        used += objects[i].name_size;
        memcpy(all + used, objects[i].bytes, objects[i].size);
        used += objects[i].size;
    }
    *size = used;
    return all;
}

void fake_cut(int number, size_t size)
{
    objects[number].size = (unsigned int)size;
}

void fake_swap(int one, int other)
{
    object_t before = objects[one];

    objects[one].bytes = objects[other].bytes;
    objects[one].size = objects[other].size;
    objects[other].bytes = before.bytes;
    objects[other].size = before.size;
}

void fake_forget(int number)
{
    forget(&objects[number]);
}
