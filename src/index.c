/* index (floor 4): which sessions an account has. See abb_index.h. */
#include "abb_index.h"

#include <apr_strings.h>
#include <string.h>

#include "abb_clock.h"

#define PURPOSE "account index"
/* How long others may be at the same list: longer than the lease of one that died. */
#define PATIENCE apr_time_from_sec(5)
/* Each pause between two tries is longer than the one before by so much. */
#define PAUSE_STEP apr_time_from_msec(5)
#define LEASE apr_time_from_sec(2)

/* One session in an account's record. */
typedef struct {
    abb_store_key_t key;
    apr_int64_t created_at;
    apr_int64_t ends_at;
    apr_uint64_t kind;
} entry_t;

/* Since when somebody waits for a turn at the list, and the next pause. */
typedef struct {
    apr_time_t began;
    apr_interval_time_t pause;
} turn_t;

/* An account's record in the making. */
typedef struct {
    abb_store_key_t key;
    entry_t entries[ABB_SESSION_PER_ACCOUNT_MAX + 1];
    int count;
    /* As it was read; 0: there was none. */
    apr_uint64_t generation;
} page_t;

/* ---- the record of an account -------------------------------------------- */

/* Under one of the ring's keys. */
static apr_status_t name_page(const abb_sessions_t *sessions, const abb_crypto_key_t *key,
                              const char *uuid, abb_store_key_t *name, apr_pool_t *p,
                              abb_error_t *err)
{
    const char *text = apr_pstrcat(p, PURPOSE ":", uuid, NULL);
    unsigned char code[ABB_CRYPTO_KEY_SIZE];
    apr_status_t status = abb_crypto_authenticate(key, text, strlen(text), code, err);

    return status == APR_SUCCESS ? abb_session_find_key(sessions, ABB_SESSION_KIND_INDEX, code,
                                                        sizeof(code), name, err)
                                 : status;
}

/*
 * Read what there is, leaving out what has ended in any case. Here and below both parts
 * are asked for, since of one part a machine may have an old copy.
 */
static apr_status_t read_page(const abb_sessions_t *sessions, page_t *page, apr_time_t now,
                              apr_pool_t *p, abb_error_t *err)
{
    abb_store_record_t stored;
    apr_status_t status =
        abb_store_get(sessions->store, &page->key, ABB_STORE_BOTH_PARTS, now, &stored, p, err);
    const entry_t *entries;

    page->count = 0;
    page->generation = 0;
    if (status != APR_SUCCESS) {
        return status == APR_NOTFOUND ? APR_SUCCESS : status;
    }
    page->generation = stored.generation;
    entries = stored.open;
    for (apr_size_t i = 0;
         i < stored.open_size / sizeof(*entries) && page->count < ABB_SESSION_PER_ACCOUNT_MAX;
         ++i) {
        if (entries[i].ends_at > now) {
            page->entries[page->count++] = entries[i];
        }
    }
    return APR_SUCCESS;
}

static apr_status_t write_page(const abb_sessions_t *sessions, const page_t *page, apr_time_t now,
                               abb_error_t *err)
{
    abb_store_record_t stored;
    apr_status_t status;

    memset(&stored, 0, sizeof(stored));
    stored.open = page->entries;
    stored.open_size = (apr_size_t)page->count * sizeof(*page->entries);
    for (int i = 0; i < page->count; ++i) {
        if (page->entries[i].ends_at > stored.expires_at) {
            stored.expires_at = page->entries[i].ends_at;
        }
    }
    if (!page->generation) {
        return abb_store_put(sessions->store, &page->key, &stored, now, err);
    }
    status = abb_store_replace(sessions->store, &page->key, page->generation, &stored, now, err);
    if (status == APR_SUCCESS) {
        /* Not among the first to go when the store is full. */
        abb_store_touch(sessions->store, &page->key, now, NULL);
    }
    return status;
}

/* ---- one more ------------------------------------------------------------ */

static void remove_entry(page_t *page, int place)
{
    memmove(&page->entries[place], &page->entries[place + 1],
            (apr_size_t)(page->count - place - 1) * sizeof(*page->entries));
    --page->count;
}

/* How many of the sessions that count there are, and which began first; -1: none. */
static int count_limited(const page_t *page, int is_limited, int *first)
{
    int count = 0;

    *first = -1;
    for (int i = 0; i < page->count; ++i) {
        if (is_limited && page->entries[i].kind != ABB_SESSION_KIND) {
            continue;
        }
        ++count;
        if (*first < 0 || page->entries[i].created_at < page->entries[*first].created_at) {
            *first = i;
        }
    }
    return count;
}

static int has_room(const page_t *page, int is_limited, int most)
{
    int first;

    return page->count < ABB_SESSION_PER_ACCOUNT_MAX &&
           count_limited(page, is_limited, &first) < most;
}

/* End those that began first until there is room for one more. */
static apr_status_t make_room(const abb_sessions_t *sessions, page_t *page, int is_limited,
                              int most, int *ended, abb_error_t *err)
{
    int first;

    while (count_limited(page, is_limited, &first) >= most) {
        apr_status_t status = abb_store_drop(sessions->store, &page->entries[first].key, err);

        if (status != APR_SUCCESS && status != APR_NOTFOUND) {
            return status;
        }
        /* One that was not there any more has made room all the same. */
        *ended += status == APR_SUCCESS;
        remove_entry(page, first);
    }
    return APR_SUCCESS;
}

/* Forget what has ended, so that nobody ends for the sake of it. */
static apr_status_t prune(const abb_sessions_t *sessions, page_t *page, apr_time_t now,
                          apr_pool_t *p, abb_error_t *err)
{
    for (int i = page->count - 1; i >= 0; --i) {
        abb_store_record_t stored;
        apr_status_t status = abb_store_get(sessions->store, &page->entries[i].key,
                                            ABB_STORE_BOTH_PARTS, now, &stored, p, err);

        if (status == APR_NOTFOUND) {
            remove_entry(page, i);
        }
        else if (status != APR_SUCCESS) {
            return status;
        }
    }
    return APR_SUCCESS;
}

static int is_noted(const page_t *page, const abb_store_key_t *key)
{
    for (int i = 0; i < page->count; ++i) {
        if (memcmp(&page->entries[i].key, key, sizeof(*key)) == 0) {
            return 1;
        }
    }
    return 0;
}

/* With ended NULL no session ends for it: where there is no room nothing is added. */
static apr_status_t add_entry(const abb_sessions_t *sessions, page_t *page, const entry_t *entry,
                              apr_time_t now, int *ended, apr_pool_t *p, abb_error_t *err)
{
    int is_limited = sessions->max_per_account > 0 && entry->kind == ABB_SESSION_KIND;
    int most = is_limited ? sessions->max_per_account : ABB_SESSION_PER_ACCOUNT_MAX;
    apr_status_t status = APR_SUCCESS;

    if (!has_room(page, is_limited, most)) {
        status = prune(sessions, page, now, p, err);
    }
    if (status == APR_SUCCESS && ended) {
        status = make_room(sessions, page, is_limited, most, ended, err);
    }
    if (status == APR_SUCCESS && ended) {
        status = make_room(sessions, page, 0, ABB_SESSION_PER_ACCOUNT_MAX, ended, err);
    }
    if (status == APR_SUCCESS && has_room(page, is_limited, most) && !is_noted(page, &entry->key)) {
        page->entries[page->count++] = *entry;
    }
    return status;
}

/* An empty list to take the lease on. */
static apr_status_t begin_page(const abb_sessions_t *sessions, const page_t *page, apr_time_t now,
                               abb_error_t *err)
{
    abb_store_record_t stored;
    apr_status_t status;

    memset(&stored, 0, sizeof(stored));
    stored.open = "";
    stored.expires_at = now + sessions->absolute_timeout;
    status = abb_store_put(sessions->store, &page->key, &stored, now, err);
    return status == APR_EEXIST ? APR_SUCCESS : status;
}

/*
 * One after the other: caches know no exchange of a value for another, so what two
 * write at once would be one's alone.
 */
static apr_status_t lease_page(const abb_sessions_t *sessions, const page_t *page, apr_time_t now,
                               turn_t *turn, apr_uint64_t *holder, abb_error_t *err)
{
    apr_status_t status = ABB_ECHANGED;

    while (status == ABB_ECHANGED) {
        if (abb_clock_monotonic() - turn->began >= PATIENCE) {
            return abb_error_set(err, ABB_ESTORE,
                                 "the list of an account's sessions is being changed all the time");
        }
        if (turn->pause) {
            apr_sleep(turn->pause);
        }
        turn->pause += PAUSE_STEP;
        status = abb_store_lease(sessions->store, &page->key, LEASE,
                                 now + abb_clock_monotonic() - turn->began, holder, err);
        if (status == APR_NOTFOUND &&
            (status = begin_page(sessions, page, now, err)) == APR_SUCCESS) {
            status = ABB_ECHANGED;
        }
    }
    return status;
}

/* ABB_ECHANGED: it took longer than the lease, and another has written the list. */
static apr_status_t add_leased(const abb_sessions_t *sessions, page_t *page, const entry_t *entry,
                               apr_time_t now, int *ended, apr_pool_t *p, abb_error_t *err)
{
    apr_status_t status;

    if ((status = read_page(sessions, page, now, p, err)) != APR_SUCCESS ||
        (status = add_entry(sessions, page, entry, now, ended, p, err)) != APR_SUCCESS) {
        return status;
    }
    status = write_page(sessions, page, now, err);
    return status == APR_NOTFOUND || status == APR_EEXIST ? ABB_ECHANGED : status;
}

static apr_status_t note(const abb_sessions_t *sessions, const char *uuid, const entry_t *entry,
                         apr_time_t now, int *ended, apr_pool_t *p, abb_error_t *err)
{
    page_t *page = apr_palloc(p, sizeof(*page));
    turn_t turn = {abb_clock_monotonic(), 0};
    apr_uint64_t holder;
    apr_status_t status =
        name_page(sessions, &sessions->keyring->keys[0], uuid, &page->key, p, err);

    if (status != APR_SUCCESS) {
        return status;
    }
    do {
        status = lease_page(sessions, page, now, &turn, &holder, err);
        if (status == APR_SUCCESS) {
            status = add_leased(sessions, page, entry, now, ended, p, err);
            abb_store_release(sessions->store, &page->key, holder, NULL);
        }
    } while (status == ABB_ECHANGED);
    return status;
}

static int must_note(const abb_sessions_t *sessions)
{
    return sessions->max_per_account || !abb_store_can_walk(sessions->store);
}

apr_status_t abb_index_add(const abb_sessions_t *sessions, const abb_session_t *session,
                           apr_time_t now, int *ended, apr_pool_t *p, abb_error_t *err)
{
    entry_t entry = {session->key, now, session->absolute_end, session->kind};
    apr_status_t status = APR_SUCCESS;

    *ended = 0;
    if (must_note(sessions)) {
        status = note(sessions, session->record.account.uuid, &entry, now, ended, p, err);
    }
    if (status != APR_SUCCESS) {
        abb_session_drop(sessions, session, NULL);
    }
    return status;
}

/* ---- one that is still there --------------------------------------------- */

/*
 * Look for it in the lists of all keys. That it is there is a use of the list, so
 * that the list is not among the first to go when the store is full.
 */
static apr_status_t find_entry(const abb_sessions_t *sessions, const abb_session_t *session,
                               apr_time_t now, int *is_found, apr_pool_t *p, abb_error_t *err)
{
    page_t *page = apr_palloc(p, sizeof(*page));
    apr_status_t status = APR_SUCCESS;

    *is_found = 0;
    for (int i = 0; i < sessions->keyring->count && !*is_found && status == APR_SUCCESS; ++i) {
        if ((status = name_page(sessions, &sessions->keyring->keys[i], session->record.account.uuid,
                                &page->key, p, err)) == APR_SUCCESS &&
            (status = read_page(sessions, page, now, p, err)) == APR_SUCCESS &&
            is_noted(page, &session->key)) {
            *is_found = 1;
            abb_store_touch(sessions->store, &page->key, now, NULL);
        }
    }
    return status;
}

apr_status_t abb_index_keep(const abb_sessions_t *sessions, const abb_session_t *session,
                            apr_time_t now, apr_pool_t *p, abb_error_t *err)
{
    entry_t entry = {session->key, session->record.created_at, session->absolute_end,
                     session->kind};
    apr_status_t status;
    int is_found;

    if (!must_note(sessions)) {
        return APR_SUCCESS;
    }
    status = find_entry(sessions, session, now, &is_found, p, err);
    return status == APR_SUCCESS && !is_found
               ? note(sessions, session->record.account.uuid, &entry, now, NULL, p, err)
               : status;
}

/* ---- finding ------------------------------------------------------------- */

static int is_listed(const apr_array_header_t *list, const abb_store_key_t *key)
{
    for (int i = 0; i < list->nelts; ++i) {
        if (memcmp(&APR_ARRAY_IDX(list, i, abb_index_session_t).key, key, sizeof(*key)) == 0) {
            return 1;
        }
    }
    return 0;
}

/* A record of the store if it is a session of this account; NULL: of any. */
static int is_session(const abb_store_record_t *stored, const char *uuid, abb_record_t *record,
                      apr_pool_t *p)
{
    return abb_record_decode(stored->open, stored->open_size, record, p) == APR_SUCCESS &&
           record->account.uuid && (!uuid || strcmp(record->account.uuid, uuid) == 0);
}

static void list_session(apr_array_header_t *list, const abb_store_key_t *key,
                         const abb_store_record_t *stored, const abb_record_t *record)
{
    abb_index_session_t *session = apr_array_push(list);

    session->key = *key;
    abb_session_tag_of(key, session->tag);
    session->created_at = record->created_at;
    session->last_seen = stored->last_seen;
    session->ends_at = stored->idle && stored->last_seen + stored->idle < stored->expires_at
                           ? stored->last_seen + stored->idle
                           : stored->expires_at;
}

/* What is looked for in a walk, and what was found. */
typedef struct {
    const abb_sessions_t *sessions;
    const char *uuid;
    apr_array_header_t *list;
    int ended;
    apr_status_t status;
    abb_error_t *err;
    apr_pool_t *pool;
} search_t;

static void note_if_ours(void *context, const abb_store_key_t *key,
                         const abb_store_record_t *stored)
{
    search_t *search = context;
    abb_record_t record;

    if (is_session(stored, search->uuid, &record, search->pool)) {
        list_session(search->list, key, stored, &record);
    }
    apr_pool_clear(search->pool);
}

static apr_status_t list_by_walk(const abb_sessions_t *sessions, const char *uuid, apr_time_t now,
                                 apr_array_header_t *list, abb_error_t *err)
{
    search_t search = {.uuid = uuid, .list = list};
    apr_status_t status = apr_pool_create(&search.pool, list->pool);

    if (status == APR_SUCCESS) {
        status = abb_store_walk(sessions->store, now, note_if_ours, &search, list->pool, err);
        apr_pool_destroy(search.pool);
    }
    return status;
}

static apr_status_t list_page(const abb_sessions_t *sessions, const page_t *page, const char *uuid,
                              apr_time_t now, apr_array_header_t *list, abb_error_t *err)
{
    for (int i = 0; i < page->count; ++i) {
        const abb_store_key_t *key = &page->entries[i].key;
        abb_store_record_t stored;
        abb_record_t record;
        apr_status_t status = abb_store_get(sessions->store, key, ABB_STORE_BOTH_PARTS, now,
                                            &stored, list->pool, err);

        if (status == APR_SUCCESS && is_session(&stored, uuid, &record, list->pool) &&
            !is_listed(list, key)) {
            list_session(list, key, &stored, &record);
        }
        else if (status != APR_SUCCESS && status != APR_NOTFOUND) {
            return status;
        }
    }
    return APR_SUCCESS;
}

/* A key that was the first when a session began may be an older one now. */
static apr_status_t list_by_pages(const abb_sessions_t *sessions, const char *uuid, apr_time_t now,
                                  apr_array_header_t *list, abb_error_t *err)
{
    page_t *page = apr_palloc(list->pool, sizeof(*page));
    apr_status_t status = APR_SUCCESS;

    for (int i = 0; i < sessions->keyring->count && status == APR_SUCCESS; ++i) {
        if ((status = name_page(sessions, &sessions->keyring->keys[i], uuid, &page->key, list->pool,
                                err)) == APR_SUCCESS &&
            (status = read_page(sessions, page, now, list->pool, err)) == APR_SUCCESS) {
            status = list_page(sessions, page, uuid, now, list, err);
        }
    }
    return status;
}

apr_status_t abb_index_list(const abb_sessions_t *sessions, const char *uuid, apr_time_t now,
                            apr_array_header_t *list, abb_error_t *err)
{
    return abb_store_can_walk(sessions->store) ? list_by_walk(sessions, uuid, now, list, err)
                                               : list_by_pages(sessions, uuid, now, list, err);
}

/* ---- ending -------------------------------------------------------------- */

apr_status_t abb_index_end(const abb_sessions_t *sessions, const apr_array_header_t *list,
                           int *ended, abb_error_t *err)
{
    *ended = 0;
    for (int i = 0; i < list->nelts; ++i) {
        const abb_index_session_t *session = &APR_ARRAY_IDX(list, i, abb_index_session_t);
        apr_status_t status = abb_store_drop(sessions->store, &session->key, err);

        if (status != APR_SUCCESS && status != APR_NOTFOUND) {
            return status;
        }
        *ended += status == APR_SUCCESS;
    }
    return APR_SUCCESS;
}

static void end_if_session(void *context, const abb_store_key_t *key,
                           const abb_store_record_t *stored)
{
    search_t *search = context;
    abb_record_t record;
    apr_status_t status = APR_NOTFOUND;

    if (is_session(stored, NULL, &record, search->pool)) {
        status = abb_store_drop(search->sessions->store, key, search->err);
    }
    apr_pool_clear(search->pool);
    search->ended += status == APR_SUCCESS;
    if (status != APR_SUCCESS && status != APR_NOTFOUND) {
        search->status = status;
    }
}

apr_status_t abb_index_end_all(const abb_sessions_t *sessions, apr_time_t now, int *ended,
                               apr_pool_t *p, abb_error_t *err)
{
    search_t search = {.sessions = sessions, .err = err};
    apr_status_t status = apr_pool_create(&search.pool, p);

    if (status == APR_SUCCESS) {
        status = abb_store_walk(sessions->store, now, end_if_session, &search, p, err);
        apr_pool_destroy(search.pool);
    }
    *ended = search.ended;
    return status == APR_SUCCESS ? search.status : status;
}
