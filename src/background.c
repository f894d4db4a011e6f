/* background (floor 5): re-checks that nobody waits for. See abb_background.h. */
#include "abb_background.h"

#include <apr_strings.h>
#include <apr_thread_pool.h>
#include <http_log.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>

#include "abb_flow.h"
#include "abb_index.h"
#include "abb_log.h"
#include "abb_news.h"
#include "abb_offload.h"

APLOG_USE_MODULE(auth_bitbucket);

/* Threads of a child, and jobs that may wait for them. */
#define THREADS 8
#define QUEUE_MAX 256
/* How long a thread without work stays. */
#define IDLE_TIME apr_time_from_sec(60)
/* Sessions whose re-check has just begun, in bits. */
#define KNOWN_BITS 10
#define KNOWN (1 << KNOWN_BITS)
/* A session is re-checked here no more often, unless the last time failed. */
#define INTERVAL_SECONDS 1
/* After a failure: at least, and at most so much more. */
#define FAILURE_PAUSE apr_time_from_sec(10)
#define FAILURE_JITTER apr_time_from_sec(10)
/* How long jobs under way may go on when the child ends. */
#define END_PATIENCE apr_time_from_msec(300)
#define END_INTERVAL apr_time_from_msec(10)

struct abb_background_t {
    apr_thread_pool_t *threads;
    /* What the threads and their queue live in. */
    apr_pool_t *pool;
    abb_http_t *http;
    /* Jobs that wait or are worked at. */
    int pending;
    int has_ended;
    /* Beginning of a session's key, and in the last bits the second of its last job. */
    apr_uint64_t known[KNOWN];
};

typedef struct {
    abb_background_t *background;
    server_rec *server;
    abb_recheck_t recheck;
    abb_session_t session;
    const char *account;
    abb_recheck_question_t question;
    apr_pool_t *pool;
} job_t;

/* ---- life ---------------------------------------------------------------- */

static apr_status_t end(void *data)
{
    abb_background_t *background = data;
    apr_interval_time_t waited = 0;
    apr_status_t status;

    __atomic_store_n(&background->has_ended, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&background->pending, __ATOMIC_SEQ_CST) && waited < END_PATIENCE) {
        apr_sleep(END_INTERVAL);
        waited += END_INTERVAL;
    }
    abb_http_stop(background->http);
    status = apr_thread_pool_destroy(background->threads);
    apr_pool_destroy(background->pool);
    return status;
}

static apr_status_t create_threads(abb_background_t *background)
{
    apr_status_t status = abb_offload_create_shared_pool(&background->pool);

    if (status != APR_SUCCESS) {
        return status;
    }
    status = apr_thread_pool_create(&background->threads, 0, THREADS, background->pool);
    if (status != APR_SUCCESS) {
        apr_pool_destroy(background->pool);
        return status;
    }
    apr_thread_pool_idle_max_set(background->threads, THREADS);
    apr_thread_pool_idle_wait_set(background->threads, IDLE_TIME);
    return APR_SUCCESS;
}

apr_status_t abb_background_create(abb_background_t **background, abb_http_t *http,
                                   apr_pool_t *pchild)
{
    abb_background_t *created = apr_pcalloc(pchild, sizeof(*created));
    apr_status_t status = create_threads(created);

    if (status != APR_SUCCESS) {
        return status;
    }
    created->http = http;
    /* Before anything that hangs on the child's pool goes, connections among it. */
    apr_pool_pre_cleanup_register(pchild, created, end);
    *background = created;
    return APR_SUCCESS;
}

/* ---- whether it is worth it ---------------------------------------------- */

static apr_uint64_t word_of(const abb_session_t *session)
{
    apr_uint64_t word;

    memcpy(&word, session->key.bytes, sizeof(word));
    return word;
}

/*
 * Whether nobody here has begun with this session a moment ago. Two sessions
 * that meet in one place may be begun with twice; the lease settles that.
 */
static int claim(abb_background_t *background, const abb_session_t *session, apr_time_t now)
{
    static const apr_uint64_t second_bits = 0xfffff;
    apr_uint64_t second = (apr_uint64_t)apr_time_sec(now) & second_bits;
    apr_uint64_t name = word_of(session);
    apr_uint64_t *place = &background->known[name >> (64 - KNOWN_BITS)];
    apr_uint64_t seen = __atomic_load_n(place, __ATOMIC_RELAXED);

    if ((seen | second_bits) == (name | second_bits) &&
        ((second - (seen & second_bits)) & second_bits) < INTERVAL_SECONDS + 1) {
        return 0;
    }
    return __atomic_compare_exchange_n(place, &seen, (name & ~second_bits) | second, 0,
                                       __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

/* Not all sessions that failed together try again together. */
static int has_failed_lately(const abb_session_t *session, apr_time_t now)
{
    apr_interval_time_t pause =
        FAILURE_PAUSE + (apr_interval_time_t)(word_of(session) % FAILURE_JITTER);

    return session->failed_at && now >= session->failed_at && now - session->failed_at < pause;
}

/* ---- what the log hears -------------------------------------------------- */

static void tell_end(const abb_flow_t *flow, const abb_session_t *session, const char *account,
                     const abb_recheck_notes_t *notes, const abb_error_t *err)
{
    if (notes->is_alarming) {
        ap_log_error(APLOG_MARK, APLOG_ERR, 0, flow->s,
                     ABB_LOGNO(0307) "session ended; account=%s session=%s: %s; if it comes again, "
                                     "ask Atlassian",
                     account, session->tag, err->text);
    }
    else {
        abb_flow_end(flow, session, account, err->text);
    }
}

/* Only who has asked has something to count: others waited, or found it answered. */
static void count(abb_counters_t *counters, const abb_recheck_notes_t *notes,
                  const abb_error_t *err)
{
    apr_time_t now = apr_time_now();
    int has_ended = err->status == APR_NOTFOUND;

    abb_counters_change(counters, notes->change, now);
    if (notes->has_asked) {
        abb_counters_add(counters,
                         err->status == APR_SUCCESS || has_ended ? ABB_COUNT_RECHECK_DONE
                                                                 : ABB_COUNT_RECHECK_FAILED,
                         now);
    }
    if (notes->has_asked && has_ended) {
        abb_counters_add(counters, ABB_COUNT_ENDED, now);
    }
}

void abb_background_tell(const abb_flow_t *flow, const abb_recheck_t *recheck,
                         const abb_session_t *session, const char *account,
                         const abb_recheck_notes_t *notes, const abb_error_t *err)
{
    server_rec *s = flow->s;

    abb_flow_recheck(flow, session, notes->has_asked,
                     err->status == APR_SUCCESS ? "answered" : err->text);
    count(recheck->bitbucket->counters, notes, err);
    if (err->status == APR_NOTFOUND) {
        tell_end(flow, session, account, notes, err);
    }
    abb_news_odd(s, recheck->bitbucket->traffic, account, notes->doubt);
    abb_news_change(s, recheck->bitbucket->traffic, notes->change);
    abb_news_alarm(s, recheck->bitbucket->traffic, notes->alarm);
}

/* ---- jobs ---------------------------------------------------------------- */

static int is_failure(apr_status_t status)
{
    /* Ended sessions are told otherwise; where another asks there is nothing to tell. */
    return status != APR_SUCCESS && status != APR_NOTFOUND && status != ABB_ECHANGED;
}

static void work(job_t *job)
{
    abb_traffic_t *traffic = job->recheck.bitbucket->traffic;
    abb_flow_t flow = {NULL, job->server};
    abb_recheck_notes_t notes;
    abb_error_t err;
    apr_status_t status;

    abb_error_clear(&err);
    job->recheck.bitbucket = abb_flow_watch(&flow, job->recheck.bitbucket, job->pool);
    status = abb_recheck_session(&job->recheck, &job->session, &job->question, ABB_RECHECK_ASIDE,
                                 &notes, job->pool, &err);
    if (status == ABB_ECHANGED || abb_http_is_stopped(job->background->http)) {
        return;
    }
    abb_background_tell(&flow, &job->recheck, &job->session, job->account, &notes, &err);
    if (is_failure(status)) {
        abb_news_failure(job->server, traffic, &err);
    }
    if (status == APR_SUCCESS && notes.has_asked) {
        /* If not now, the next time. */
        abb_index_keep(job->recheck.sessions, &job->session, apr_time_now(), job->pool, NULL);
    }
}

static void *APR_THREAD_FUNC run(apr_thread_t *thread, void *data)
{
    job_t *job = data;
    abb_background_t *background = job->background;

    /* Those that waited when the child ended get their turn as long as it lasts. */
    if (!abb_http_is_stopped(background->http)) {
        work(job);
    }
    apr_pool_destroy(job->pool);
    __atomic_sub_fetch(&background->pending, 1, __ATOMIC_SEQ_CST);
    return NULL;
}

static const char *const *copy_names(const char *const *names, int count, apr_pool_t *p)
{
    const char **copies = apr_palloc(p, (apr_size_t)(count + 1) * sizeof(*copies));

    for (int i = 0; i < count; ++i) {
        copies[i] = apr_pstrdup(p, names[i]);
    }
    return copies;
}

static job_t *make_job(abb_background_t *background, server_rec *s, const abb_recheck_t *recheck,
                       const abb_session_t *session, const abb_recheck_question_t *question)
{
    apr_pool_t *pool;
    job_t *job;

    if (abb_offload_create_pool(&pool) != APR_SUCCESS) {
        return NULL;
    }
    job = apr_pcalloc(pool, sizeof(*job));
    job->background = background;
    job->server = s;
    job->recheck = *recheck;
    job->session = *session;
    /* What the record holds belongs to the request; the job reads it anew. */
    memset(&job->session.record, 0, sizeof(job->session.record));
    job->account = apr_pstrdup(pool, session->record.account.uuid);
    job->question = *question;
    job->question.workspaces = copy_names(question->workspaces, question->workspace_count, pool);
    job->pool = pool;
    return job;
}

/*
 * Threads start here and take the signal mask along: signals are for the
 * threads of the MPM, which end the child from their handlers; one that did so
 * in the middle of this would find the queue's lock taken.
 */
static apr_status_t push(abb_background_t *background, job_t *job)
{
    sigset_t all;
    sigset_t before;
    apr_status_t status;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    status = apr_thread_pool_push(background->threads, run, job, APR_THREAD_TASK_PRIORITY_NORMAL,
                                  background);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return status;
}

void abb_background_recheck(abb_background_t *background, server_rec *s,
                            const abb_recheck_t *recheck, const abb_session_t *session,
                            const abb_recheck_question_t *question)
{
    apr_time_t now = apr_time_now();
    job_t *job;

    if (__atomic_load_n(&background->has_ended, __ATOMIC_SEQ_CST) ||
        has_failed_lately(session, now) ||
        apr_thread_pool_tasks_count(background->threads) >= QUEUE_MAX ||
        !claim(background, session, now) ||
        !(job = make_job(background, s, recheck, session, question))) {
        return;
    }
    /* Before the push: who ends the child must not overlook a job that no thread has yet. */
    __atomic_add_fetch(&background->pending, 1, __ATOMIC_SEQ_CST);
    if (push(background, job) != APR_SUCCESS) {
        apr_pool_destroy(job->pool);
        __atomic_sub_fetch(&background->pending, 1, __ATOMIC_SEQ_CST);
    }
}
