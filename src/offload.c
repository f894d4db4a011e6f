/* offload (floor 1): calls that may never return. See abb_offload.h. */
#include "abb_offload.h"

#include <apr_allocator.h>
#include <apr_strings.h>
#include <apr_thread_mutex.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

#include "abb_clock.h"

/* More jobs than these for each thread do not wait when nobody waits for them. */
#define QUEUE_PER_THREAD 64
/* With those that are stuck there may be so many times the threads that are wanted. */
#define STUCK_FACTOR 4
/* How long threads at work may go on when the process ends. */
#define END_PATIENCE apr_time_from_msec(300)
#define STACK_SIZE (512 * 1024)
#define THE_END "the server ends"

/* JOB_DROPPED: the end came before a thread did. */
typedef enum { JOB_WAITS, JOB_RUNS, JOB_DONE, JOB_DROPPED } job_state_t;

typedef struct job_t {
    /* In the queue, then among those that run. */
    struct job_t *next;
    abb_offload_work_t work;
    void *argument;
    apr_pool_t *pool;
    job_state_t state;
    /* Nobody waits for it (any more): who finishes it destroys its pool. */
    int is_abandoned;
    /* When a thread took it. */
    apr_time_t began;
    /* The thread is counted as stuck in it. */
    int is_overdue;
    pthread_cond_t done;
} job_t;

/* Neither this nor the queue is in a pool: a thread that is stuck may outlive all of them. */
typedef struct thread_t {
    abb_offload_t *offload;
    void (*body_locked)(abb_offload_t *offload);
    pthread_t id;
    /* Among those that have left. */
    struct thread_t *next;
} thread_t;

struct abb_offload_t {
    abb_offload_settings_t settings;
    pthread_mutex_t lock;
    pthread_condattr_t clock;
    /* There is a job, or the end has come. */
    pthread_cond_t work_waits;
    /* The end has come, or it is time to probe no more. */
    pthread_cond_t probe_waits;
    /* A thread has ended or come loose, or an asker waits no more. */
    pthread_cond_t thread_left;
    job_t *first;
    job_t **last;
    int queued;
    job_t *running;
    /* Who waits for a job. */
    int askers;
    int threads;
    int idle;
    /* Threads that have done all but return; somebody has to join them. */
    thread_t *left;
    /* Threads that have been in one job for too long. */
    int overdue;
    /* Jobs in a row without an answer. */
    int troubles;
    /* Jobs that any thread has come to the end of. */
    apr_uint64_t finished;
    /* Nobody is let through. */
    int is_open;
    /* Threads that probe, and when the youngest began its present try. */
    int probes;
    apr_time_t probe_began;
    int has_ended;
};

/* ---- time ---------------------------------------------------------------- */

/* Returns whether there was no signal until then. */
static int wait_until_locked(abb_offload_t *offload, pthread_cond_t *condition, apr_time_t deadline)
{
    struct timespec end = {(time_t)apr_time_sec(deadline), (long)apr_time_usec(deadline) * 1000};

    return pthread_cond_timedwait(condition, &offload->lock, &end) != 0;
}

/* ---- threads ------------------------------------------------------------- */

static void *thread_main(void *data)
{
    thread_t *thread = data;
    abb_offload_t *offload = thread->offload;

    pthread_mutex_lock(&offload->lock);
    thread->body_locked(offload);
    thread->next = offload->left;
    offload->left = thread;
    pthread_cond_broadcast(&offload->thread_left);
    pthread_mutex_unlock(&offload->lock);
    return NULL;
}

/*
 * Until a thread is joined it may still be on its way out through this code,
 * which the server unloads when its configuration ends. Who has left needs no
 * lock any more, so nobody waits long for it here.
 */
static void join_those_that_left_locked(abb_offload_t *offload)
{
    while (offload->left) {
        thread_t *thread = offload->left;

        offload->left = thread->next;
        pthread_join(thread->id, NULL);
        free(thread);
    }
}

/* The thread takes no signals: they are the server's. Returns whether there is one. */
static int create_thread(thread_t *thread)
{
    pthread_attr_t attributes;
    sigset_t all;
    sigset_t before;
    int failed;

    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_SIZE);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    failed = pthread_create(&thread->id, &attributes, thread_main, thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return !failed;
}

static int start_thread_locked(abb_offload_t *offload, void (*body_locked)(abb_offload_t *))
{
    thread_t *thread = calloc(1, sizeof(*thread));

    join_those_that_left_locked(offload);
    if (!thread) {
        return 0;
    }
    thread->offload = offload;
    thread->body_locked = body_locked;
    if (!create_thread(thread)) {
        free(thread);
        return 0;
    }
    return 1;
}

/* ---- the breaker --------------------------------------------------------- */

static void probe_body_locked(abb_offload_t *offload);

static void start_probe_locked(abb_offload_t *offload)
{
    ++offload->probes;
    offload->probe_began = abb_clock_monotonic();
    if (!start_thread_locked(offload, probe_body_locked)) {
        --offload->probes;
    }
}

/* Nobody is let through from now on. Returns whether that is news. */
static int open_locked(abb_offload_t *offload)
{
    if (offload->is_open || offload->has_ended) {
        return 0;
    }
    offload->is_open = 1;
    start_probe_locked(offload);
    return 1;
}

/* The other side answered. Returns whether that is news. */
static int close_locked(abb_offload_t *offload)
{
    int was_open = offload->is_open;

    offload->troubles = 0;
    offload->is_open = 0;
    if (was_open) {
        pthread_cond_broadcast(&offload->probe_waits);
    }
    return was_open;
}

static int note_trouble_locked(abb_offload_t *offload)
{
    return ++offload->troubles >= offload->settings.troubles_max ? open_locked(offload) : 0;
}

static void tell(const abb_offload_settings_t *settings, int is_news, int is_answering)
{
    if (is_news && settings->tell) {
        settings->tell(settings->owner, is_answering);
    }
}

/* An answer that comes too late is of no use to anybody who waits. */
static int probe_in_time(const abb_offload_t *offload)
{
    apr_time_t began = abb_clock_monotonic();

    return offload->settings.probe(offload->settings.owner) &&
           abb_clock_monotonic() - began <= offload->settings.patience;
}

/* Try until the other side answers, or another thread that tries found that it does. */
static void probe_body_locked(abb_offload_t *offload)
{
    while (offload->is_open && !offload->has_ended) {
        apr_time_t next = abb_clock_monotonic() + offload->settings.probe_interval;
        int answered;
        int is_news;

        while (offload->is_open && !offload->has_ended &&
               !wait_until_locked(offload, &offload->probe_waits, next)) {
        }
        if (!offload->is_open || offload->has_ended) {
            break;
        }
        offload->probe_began = abb_clock_monotonic();
        pthread_mutex_unlock(&offload->lock);
        answered = probe_in_time(offload);
        pthread_mutex_lock(&offload->lock);
        is_news = answered && !offload->has_ended && close_locked(offload);
        pthread_mutex_unlock(&offload->lock);
        tell(&offload->settings, is_news, 1);
        pthread_mutex_lock(&offload->lock);
    }
    --offload->probes;
}

/* Nobody is let through; but the thread that tries may be stuck itself. */
static void help_probe_locked(abb_offload_t *offload)
{
    apr_time_t overdue = offload->settings.probe_interval + offload->settings.probe_patience;

    if (offload->probes == 0 || (offload->probes < ABB_OFFLOAD_PROBES_MAX &&
                                 abb_clock_monotonic() - offload->probe_began > overdue)) {
        start_probe_locked(offload);
    }
}

/* ---- jobs ---------------------------------------------------------------- */

static job_t *create_job(abb_offload_t *offload, abb_offload_work_t work, void *argument,
                         apr_pool_t *pool)
{
    job_t *job = apr_pcalloc(pool, sizeof(*job));

    job->work = work;
    job->argument = argument;
    job->pool = pool;
    pthread_cond_init(&job->done, &offload->clock);
    return job;
}

static void destroy_job(job_t *job)
{
    pthread_cond_destroy(&job->done);
    apr_pool_destroy(job->pool);
}

static void queue_locked(abb_offload_t *offload, job_t *job)
{
    *offload->last = job;
    offload->last = &job->next;
    ++offload->queued;
}

static job_t *take_locked(abb_offload_t *offload)
{
    job_t *job = offload->first;

    offload->first = job->next;
    if (!offload->first) {
        offload->last = &offload->first;
    }
    --offload->queued;
    return job;
}

static void remove_locked(abb_offload_t *offload, const job_t *job)
{
    job_t **place = &offload->first;

    while (*place != job) {
        place = &(*place)->next;
    }
    *place = job->next;
    if (!*place) {
        offload->last = place;
    }
    --offload->queued;
}

static void begin_locked(abb_offload_t *offload, job_t *job)
{
    job->state = JOB_RUNS;
    job->began = abb_clock_monotonic();
    job->next = offload->running;
    offload->running = job;
}

static void leave_running_locked(abb_offload_t *offload, const job_t *job)
{
    job_t **place = &offload->running;

    while (*place != job) {
        place = &(*place)->next;
    }
    *place = job->next;
}

static void mark_overdue_locked(abb_offload_t *offload, job_t *job)
{
    if (!job->is_overdue) {
        job->is_overdue = 1;
        ++offload->overdue;
    }
}

/* After the work. Returns what there is to tell: 1 answering again, 0 not any more, -1 nothing. */
static int finish_locked(abb_offload_t *offload, job_t *job, int answered)
{
    int is_abandoned = job->is_abandoned;
    int news = -1;

    leave_running_locked(offload, job);
    if (job->is_overdue) {
        --offload->overdue;
        pthread_cond_broadcast(&offload->thread_left);
    }
    /* One that came too late was counted as a trouble, and says nothing about the others. */
    if (!job->is_overdue && answered) {
        news = close_locked(offload) ? 1 : -1;
    }
    else if (!job->is_overdue) {
        news = note_trouble_locked(offload) ? 0 : -1;
    }
    ++offload->finished;
    job->state = JOB_DONE;
    if (is_abandoned) {
        destroy_job(job);
    }
    else {
        pthread_cond_signal(&job->done);
    }
    return news;
}

/* When stuck threads come loose there are more than are wanted. */
static int is_superfluous_locked(const abb_offload_t *offload)
{
    return offload->threads - offload->overdue > offload->settings.threads;
}

static void worker_body_locked(abb_offload_t *offload)
{
    while (!offload->has_ended && !is_superfluous_locked(offload)) {
        job_t *job;
        int answered;
        int news;

        if (!offload->first) {
            ++offload->idle;
            pthread_cond_wait(&offload->work_waits, &offload->lock);
            --offload->idle;
            continue;
        }
        job = take_locked(offload);
        begin_locked(offload, job);
        pthread_mutex_unlock(&offload->lock);
        answered = job->work(offload->settings.owner, job->argument);
        pthread_mutex_lock(&offload->lock);
        news = finish_locked(offload, job, answered);
        if (news >= 0) {
            pthread_mutex_unlock(&offload->lock);
            tell(&offload->settings, 1, news);
            pthread_mutex_lock(&offload->lock);
        }
    }
    --offload->threads;
}

/* Threads in jobs that take too long, also those that nobody waited for, are as good as lost. */
static void count_stuck_locked(abb_offload_t *offload)
{
    apr_time_t now = abb_clock_monotonic();

    for (job_t *job = offload->running; job; job = job->next) {
        if (now - job->began > offload->settings.patience) {
            mark_overdue_locked(offload, job);
        }
    }
}

/* A thread for the job just queued: an idle one, or one more, also in place of a stuck one. */
static void wake_locked(abb_offload_t *offload)
{
    if (offload->idle < offload->queued) {
        count_stuck_locked(offload);
        if (offload->threads - offload->overdue < offload->settings.threads &&
            offload->threads < STUCK_FACTOR * offload->settings.threads &&
            start_thread_locked(offload, worker_body_locked)) {
            ++offload->threads;
        }
    }
    pthread_cond_signal(&offload->work_waits);
}

/* ---- asking -------------------------------------------------------------- */

/* Why a job cannot even wait; NULL when it can. */
static const char *refusal_locked(abb_offload_t *offload, int *is_news)
{
    if (offload->has_ended) {
        return THE_END;
    }
    if (!offload->is_open && offload->overdue >= STUCK_FACTOR * offload->settings.threads) {
        *is_news = open_locked(offload);
    }
    if (offload->is_open) {
        help_probe_locked(offload);
        return "it did not answer a moment ago";
    }
    return NULL;
}

/*
 * Leave a job to itself. Returns whether nobody is let through from now on. A
 * job that has only waited is a trouble when no thread got anything done since.
 */
static int abandon_locked(abb_offload_t *offload, job_t *job, apr_uint64_t finished)
{
    if (job->state == JOB_WAITS) {
        remove_locked(offload, job);
        destroy_job(job);
        return offload->finished == finished ? note_trouble_locked(offload) : 0;
    }
    job->is_abandoned = 1;
    mark_overdue_locked(offload, job);
    return note_trouble_locked(offload);
}

static int is_over(const job_t *job)
{
    return job->state == JOB_DONE || job->state == JOB_DROPPED;
}

/* How it went: JOB_DONE, or how far it came; then it is no longer the caller's. */
static job_state_t await_locked(abb_offload_t *offload, job_t *job, int *is_news)
{
    apr_time_t deadline = abb_clock_monotonic() + offload->settings.patience;
    apr_uint64_t finished = offload->finished;
    int is_late = 0;
    job_state_t state;

    ++offload->askers;
    while (!is_over(job) && !is_late) {
        is_late = wait_until_locked(offload, &job->done, deadline);
    }
    state = job->state;
    if (state == JOB_DROPPED) {
        destroy_job(job);
    }
    else if (state != JOB_DONE) {
        *is_news = abandon_locked(offload, job, finished);
    }
    --offload->askers;
    pthread_cond_broadcast(&offload->thread_left);
    return state;
}

apr_status_t abb_offload_run(abb_offload_t *offload, abb_offload_work_t work, void *argument,
                             apr_pool_t *pool, abb_error_t *err)
{
    const abb_offload_settings_t settings = offload->settings;
    job_t *job = create_job(offload, work, argument, pool);
    job_state_t state = JOB_WAITS;
    const char *why;
    int is_news = 0;

    pthread_mutex_lock(&offload->lock);
    why = refusal_locked(offload, &is_news);
    if (!why) {
        queue_locked(offload, job);
        wake_locked(offload);
        state = await_locked(offload, job, &is_news);
    }
    pthread_mutex_unlock(&offload->lock);
    /* From here on it may have ended. */
    tell(&settings, is_news, 0);
    if (why) {
        destroy_job(job);
    }
    if (why || state == JOB_DROPPED) {
        return abb_error_set(err, ABB_ESTORE, "%s is not asked: %s", settings.name,
                             why ? why : THE_END);
    }
    if (state != JOB_DONE) {
        return abb_error_set(err, ABB_ESTORE, "%s did not answer within %d ms", settings.name,
                             (int)apr_time_as_msec(settings.patience));
    }
    pthread_cond_destroy(&job->done);
    return APR_SUCCESS;
}

apr_status_t abb_offload_start(abb_offload_t *offload, abb_offload_work_t work, void *argument,
                               apr_pool_t *pool)
{
    const abb_offload_settings_t settings = offload->settings;
    job_t *job = create_job(offload, work, argument, pool);
    int is_taken = 0;
    int is_news = 0;

    job->is_abandoned = 1;
    pthread_mutex_lock(&offload->lock);
    if (!refusal_locked(offload, &is_news) &&
        offload->queued < QUEUE_PER_THREAD * offload->settings.threads) {
        queue_locked(offload, job);
        wake_locked(offload);
        is_taken = 1;
    }
    pthread_mutex_unlock(&offload->lock);
    tell(&settings, is_news, 0);
    if (!is_taken) {
        destroy_job(job);
    }
    return is_taken ? APR_SUCCESS : ABB_ESTORE;
}

int abb_offload_is_answering(abb_offload_t *offload)
{
    int is_answering;

    pthread_mutex_lock(&offload->lock);
    is_answering = !offload->is_open;
    pthread_mutex_unlock(&offload->lock);
    return is_answering;
}

/* ---- life ---------------------------------------------------------------- */

apr_status_t abb_offload_create_pool(apr_pool_t **pool)
{
    return apr_pool_create_unmanaged_ex(pool, NULL, NULL);
}

apr_status_t abb_offload_create_shared_pool(apr_pool_t **pool)
{
    apr_thread_mutex_t *mutex;
    apr_status_t status = abb_offload_create_pool(pool);

    if (status != APR_SUCCESS) {
        return status;
    }
    status = apr_thread_mutex_create(&mutex, APR_THREAD_MUTEX_DEFAULT, *pool);
    if (status != APR_SUCCESS) {
        apr_pool_destroy(*pool);
        return status;
    }
    apr_allocator_mutex_set(apr_pool_allocator_get(*pool), mutex);
    return APR_SUCCESS;
}

/* A job that somebody waits for is his to destroy, once he knows. */
static void drop_waiting_locked(abb_offload_t *offload)
{
    while (offload->first) {
        job_t *job = take_locked(offload);

        if (job->is_abandoned) {
            destroy_job(job);
        }
        else {
            job->state = JOB_DROPPED;
            pthread_cond_signal(&job->done);
        }
    }
}

/* Who still waits for a thread that is stuck does so until his patience is over. */
static int is_in_use_locked(const abb_offload_t *offload)
{
    return offload->threads > offload->overdue || offload->probes > 0 || offload->askers > 0;
}

static apr_status_t end(void *data)
{
    abb_offload_t *offload = data;
    apr_time_t deadline = abb_clock_monotonic() + END_PATIENCE;
    int is_late = 0;

    pthread_mutex_lock(&offload->lock);
    offload->has_ended = 1;
    count_stuck_locked(offload);
    drop_waiting_locked(offload);
    pthread_cond_broadcast(&offload->work_waits);
    pthread_cond_broadcast(&offload->probe_waits);
    while (is_in_use_locked(offload) && !is_late) {
        is_late = wait_until_locked(offload, &offload->thread_left, deadline);
    }
    is_late = is_in_use_locked(offload) || offload->threads > 0;
    join_those_that_left_locked(offload);
    pthread_mutex_unlock(&offload->lock);
    if (!is_late) {
        pthread_cond_destroy(&offload->work_waits);
        pthread_cond_destroy(&offload->probe_waits);
        pthread_cond_destroy(&offload->thread_left);
        pthread_condattr_destroy(&offload->clock);
        pthread_mutex_destroy(&offload->lock);
        free(offload);
    }
    return APR_SUCCESS;
}

apr_status_t abb_offload_create(abb_offload_t **offload, const abb_offload_settings_t *settings,
                                apr_pool_t *p)
{
    abb_offload_t *created = calloc(1, sizeof(*created));

    if (!created) {
        return APR_ENOMEM;
    }
    created->settings = *settings;
    created->last = &created->first;
    pthread_mutex_init(&created->lock, NULL);
    pthread_condattr_init(&created->clock);
    pthread_condattr_setclock(&created->clock, CLOCK_MONOTONIC);
    pthread_cond_init(&created->work_waits, &created->clock);
    pthread_cond_init(&created->probe_waits, &created->clock);
    pthread_cond_init(&created->thread_left, &created->clock);
    apr_pool_cleanup_register(p, created, end, apr_pool_cleanup_null);
    *offload = created;
    return APR_SUCCESS;
}
