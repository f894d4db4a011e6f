/* http (floor 2): bounded HTTPS exchanges, several at once. See abb_http.h. */
#include "abb_http.h"

#include <apr_strings.h>
#include <apr_thread_mutex.h>
#include <curl/curl.h>
#include <string.h>

#include "abb_authorities.h"

/*
 * How many idle sets of connections a child keeps: as many as are in use at once when all of its
 * threads wait, with the 25 that httpd has unless told otherwise and those in the background.
 */
#define CHANNELS_KEPT 40
/* And how long: libcurl takes no connection again that was idle for longer (CURLOPT_MAXAGE_CONN). */
#define CHANNEL_KEPT_FOR apr_time_from_sec(118)
#define FIRST_BODY_SIZE 4096
/* How long one wait for a socket may take, in milliseconds. */
#define POLL_MILLISECONDS 250

/* A channel that nobody has. */
typedef struct {
    CURLM *channel;
    apr_time_t since;
} idle_t;

/*
 * A channel is a libcurl multi handle with its connections; a thread has it for
 * itself during a round of exchanges.
 */
struct abb_http_t {
    apr_thread_mutex_t *mutex;
    /* The first has been there for longest. */
    idle_t idle[CHANNELS_KEPT];
    int idle_count;
    /* Whether the system's directory of certificate authorities does without their file. */
    int are_authorities_hashed;
    /* Rounds under way. */
    struct round_t *rounds;
    int is_stopped;
};

/* A round of exchanges; lives on its thread's stack. */
typedef struct round_t {
    CURLM *channel;
    struct round_t *next;
} round_t;

/* One exchange under way. */
typedef struct {
    const abb_http_request_t *request;
    abb_http_answer_t *answer;
    CURL *easy;
    struct curl_slist *headers;
    apr_pool_t *pool;
    char *body;
    apr_size_t body_size;
    apr_size_t body_capacity;
    apr_size_t header_size;
    const char *overflow;
    char error[CURL_ERROR_SIZE];
} exchange_t;

/* ---- channels ------------------------------------------------------------ */

static apr_status_t close_channels(void *data)
{
    abb_http_t *http = data;

    while (http->idle_count > 0) {
        curl_multi_cleanup(http->idle[--http->idle_count].channel);
    }
    curl_global_cleanup();
    return APR_SUCCESS;
}

/* Other libraries for TLS read a directory as a whole, too. */
static int opens_authorities_by_name(const curl_version_info_data *libcurl)
{
    return libcurl->age >= CURLVERSION_SEVENTH && libcurl->ssl_version &&
           strncmp(libcurl->ssl_version, "OpenSSL/", 8) == 0;
}

static int find_hashed_authorities(apr_pool_t *p)
{
    const curl_version_info_data *libcurl = curl_version_info(CURLVERSION_NOW);

    return opens_authorities_by_name(libcurl) &&
           abb_authorities_are_hashed(libcurl->capath, libcurl->cainfo, p);
}

apr_status_t abb_http_create(abb_http_t **http, apr_pool_t *p)
{
    apr_status_t status;

    *http = apr_pcalloc(p, sizeof(**http));
    (*http)->are_authorities_hashed = find_hashed_authorities(p);
    status = apr_thread_mutex_create(&(*http)->mutex, APR_THREAD_MUTEX_DEFAULT, p);
    if (status == APR_SUCCESS && curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        status = ABB_EUPSTREAM;
    }
    if (status == APR_SUCCESS) {
        apr_pool_cleanup_register(p, *http, close_channels, apr_pool_cleanup_null);
    }
    return status;
}

static CURLM *take_channel(abb_http_t *http)
{
    CURLM *channel = NULL;

    apr_thread_mutex_lock(http->mutex);
    if (http->idle_count > 0) {
        channel = http->idle[--http->idle_count].channel;
    }
    apr_thread_mutex_unlock(http->mutex);
    if (!channel && (channel = curl_multi_init())) {
        curl_multi_setopt(channel, CURLMOPT_PIPELINING, CURLPIPE_MULTIPLEX);
    }
    return channel;
}

/* From now on abb_http_stop reaches the round. Returns 0 when it came before. */
static int begin_round(abb_http_t *http, round_t *round)
{
    int is_stopped;

    apr_thread_mutex_lock(http->mutex);
    round->next = http->rounds;
    http->rounds = round;
    is_stopped = http->is_stopped;
    apr_thread_mutex_unlock(http->mutex);
    return !is_stopped;
}

static void end_round(abb_http_t *http, round_t *round)
{
    round_t **link = &http->rounds;

    apr_thread_mutex_lock(http->mutex);
    while (*link != round) {
        link = &(*link)->next;
    }
    *link = round->next;
    apr_thread_mutex_unlock(http->mutex);
}

void abb_http_stop(abb_http_t *http)
{
    apr_thread_mutex_lock(http->mutex);
    __atomic_store_n(&http->is_stopped, 1, __ATOMIC_SEQ_CST);
    for (const round_t *round = http->rounds; round; round = round->next) {
        curl_multi_wakeup(round->channel);
    }
    apr_thread_mutex_unlock(http->mutex);
}

int abb_http_is_stopped(const abb_http_t *http)
{
    return __atomic_load_n(&http->is_stopped, __ATOMIC_SEQ_CST);
}

static CURLM *take_oldest_locked(abb_http_t *http)
{
    CURLM *channel = http->idle[0].channel;

    --http->idle_count;
    memmove(http->idle, http->idle + 1, (apr_size_t)http->idle_count * sizeof(http->idle[0]));
    return channel;
}

/* One that has been there for too long goes for each that comes, so a crowd leaves nothing for good. */
static void give_channel_back(abb_http_t *http, CURLM *channel)
{
    idle_t returned = {channel, apr_time_now()};
    CURLM *surplus = NULL;

    apr_thread_mutex_lock(http->mutex);
    if (http->idle_count == CHANNELS_KEPT ||
        (http->idle_count > 0 && returned.since - http->idle[0].since > CHANNEL_KEPT_FOR)) {
        surplus = take_oldest_locked(http);
    }
    http->idle[http->idle_count++] = returned;
    apr_thread_mutex_unlock(http->mutex);
    if (surplus) {
        curl_multi_cleanup(surplus);
    }
}

/* ---- what libcurl hands over --------------------------------------------- */

static size_t on_body(char *bytes, size_t unit, size_t count, void *data)
{
    exchange_t *exchange = data;
    apr_size_t size = unit * count;
    apr_size_t needed = exchange->body_size + size;

    if (size > exchange->request->answer_max - exchange->body_size) {
        exchange->overflow = "the answer is too long";
        return 0;
    }
    if (needed + 1 > exchange->body_capacity) {
        apr_size_t capacity =
            exchange->body_capacity ? exchange->body_capacity * 2 : FIRST_BODY_SIZE;
        char *body;

        while (capacity < needed + 1) {
            capacity *= 2;
        }
        body = apr_palloc(exchange->pool, capacity);
        if (exchange->body_size) {
            memcpy(body, exchange->body, exchange->body_size);
        }
        exchange->body = body;
        exchange->body_capacity = capacity;
    }
    memcpy(exchange->body + exchange->body_size, bytes, size);
    exchange->body_size = needed;
    return size;
}

/* The value of a header line when it has this name, or NULL. */
static const char *header_value(const char *line, apr_size_t size, const char *name, apr_pool_t *p)
{
    apr_size_t length = strlen(name);

    if (size <= length || strncasecmp(line, name, length) != 0 || line[length] != ':') {
        return NULL;
    }
    line += length + 1;
    size -= length + 1;
    while (size > 0 && (*line == ' ' || *line == '\t')) {
        ++line;
        --size;
    }
    while (size > 0 && (unsigned char)line[size - 1] <= ' ') {
        --size;
    }
    return apr_pstrmemdup(p, line, size);
}

/* Before an answer there may be others that are none yet (100 to 199). */
static void forget_headers(abb_http_answer_t *answer)
{
    answer->content_type = NULL;
    answer->retry_after = NULL;
    answer->date = NULL;
    answer->rate_limit_remaining = NULL;
}

static void take_header(exchange_t *exchange, const char *line, apr_size_t size)
{
    const char *value;

    if (size >= 5 && strncasecmp(line, "HTTP/", 5) == 0) {
        forget_headers(exchange->answer);
    }
    else if ((value = header_value(line, size, "Content-Type", exchange->pool))) {
        exchange->answer->content_type = value;
    }
    else if ((value = header_value(line, size, "Retry-After", exchange->pool))) {
        exchange->answer->retry_after = value;
    }
    else if ((value = header_value(line, size, "Date", exchange->pool))) {
        exchange->answer->date = value;
    }
    else if ((value = header_value(line, size, "X-RateLimit-Remaining", exchange->pool))) {
        exchange->answer->rate_limit_remaining = value;
    }
}

static size_t on_header(char *line, size_t unit, size_t count, void *data)
{
    exchange_t *exchange = data;
    apr_size_t size = unit * count;

    exchange->header_size += size;
    if (exchange->header_size > ABB_HTTP_HEADERS_MAX) {
        exchange->overflow = "the answer's header lines are too long";
        return 0;
    }
    take_header(exchange, line, size);
    return size;
}

/* ---- one exchange -------------------------------------------------------- */

static void set_limits(CURL *easy, const abb_http_settings_t *settings)
{
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
                     (long)apr_time_as_msec(settings->connect_timeout));
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)apr_time_as_msec(settings->total_timeout));
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
#if LIBCURL_VERSION_NUM >= 0x075700
    /*
     * Else the end of an exchange waits for the name server, whatever the time-outs. The
     * thread that asks is left behind; a child of httpd ends without unloading libcurl.
     */
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
#endif
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
    curl_easy_setopt(easy, CURLOPT_PROXY, settings->proxy ? settings->proxy : "");
}

static void set_authorities(CURL *easy, const abb_http_t *http, const abb_http_settings_t *settings)
{
    if (settings->ca_file) {
        curl_easy_setopt(easy, CURLOPT_CAINFO, settings->ca_file);
        curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
    }
    else if (http->are_authorities_hashed) {
        curl_easy_setopt(easy, CURLOPT_CAINFO, NULL);
    }
}

static void set_request(exchange_t *exchange, const abb_http_settings_t *settings)
{
    const abb_http_request_t *request = exchange->request;
    CURL *easy = exchange->easy;

    curl_easy_setopt(easy, CURLOPT_URL, request->url);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, settings->user_agent);
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
    /* Over TLS libcurl knows early whether it can share; over plain http it would wait in vain. */
    curl_easy_setopt(easy, CURLOPT_PIPEWAIT, strncmp(request->url, "https:", 6) == 0 ? 1L : 0L);
    exchange->headers = curl_slist_append(exchange->headers, "Accept: application/json");
    if (request->authorization) {
        exchange->headers = curl_slist_append(
            exchange->headers,
            apr_pstrcat(exchange->pool, "Authorization: ", request->authorization, NULL));
    }
    if (request->form) {
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, request->form);
    }
    if (request->form || request->is_fresh) {
        curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
    }
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, exchange->headers);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, exchange);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, exchange);
    /* What a proxy says of its tunnel is not Bitbucket's word. */
    curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, exchange->error);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, exchange);
}

static void begin_exchange(exchange_t *exchange, const abb_http_t *http,
                           const abb_http_settings_t *settings, CURLM *channel)
{
    exchange->easy = curl_easy_init();
    if (!exchange->easy) {
        abb_error_set(&exchange->answer->error, ABB_EUPSTREAM, "libcurl has no memory");
        return;
    }
    set_limits(exchange->easy, settings);
    set_authorities(exchange->easy, http, settings);
    set_request(exchange, settings);
    if (curl_multi_add_handle(channel, exchange->easy) != CURLM_OK) {
        abb_error_set(&exchange->answer->error, ABB_EUPSTREAM, "libcurl refuses the exchange");
    }
}

/* Scheme, host and port of a URL: what may stand in a log line. */
static const char *origin_of(const char *url, apr_pool_t *p)
{
    const char *host = strstr(url, "://");

    return host ? apr_pstrmemdup(p, url, (apr_size_t)(host - url) + 3 + strcspn(host + 3, "/?#"))
                : "?";
}

static void note_failure(exchange_t *exchange, CURLcode code)
{
    const char *reason = exchange->overflow           ? exchange->overflow
                         : exchange->error[0] != '\0' ? exchange->error
                                                      : curl_easy_strerror(code);

    abb_error_set(&exchange->answer->error, ABB_EUPSTREAM, "%s: %s",
                  origin_of(exchange->request->url, exchange->pool), reason);
}

static void finish_exchange(exchange_t *exchange, CURLcode code)
{
    abb_http_answer_t *answer = exchange->answer;
    curl_off_t duration = 0;
    long status = 0;

    curl_easy_getinfo(exchange->easy, CURLINFO_TOTAL_TIME_T, &duration);
    answer->duration = (apr_interval_time_t)duration;
    if (code != CURLE_OK) {
        note_failure(exchange, code);
        return;
    }
    curl_easy_getinfo(exchange->easy, CURLINFO_RESPONSE_CODE, &status);
    answer->status = (int)status;
    if (exchange->body_size) {
        exchange->body[exchange->body_size] = '\0';
        answer->body = exchange->body;
        answer->body_size = exchange->body_size;
    }
}

static void end_exchange(exchange_t *exchange, CURLM *channel)
{
    if (exchange->easy) {
        curl_multi_remove_handle(channel, exchange->easy);
        curl_easy_cleanup(exchange->easy);
    }
    curl_slist_free_all(exchange->headers);
    if (exchange->answer->status == 0) {
        abb_error_set(&exchange->answer->error, ABB_EUPSTREAM, "%s gave no answer",
                      origin_of(exchange->request->url, exchange->pool));
    }
}

/* ---- a round ------------------------------------------------------------- */

static void collect_finished(CURLM *channel)
{
    CURLMsg *message;
    int left;

    while ((message = curl_multi_info_read(channel, &left))) {
        if (message->msg == CURLMSG_DONE) {
            exchange_t *exchange = NULL;

            curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&exchange);
            finish_exchange(exchange, message->data.result);
        }
    }
}

/* Each exchange has its own time-out, so this ends. */
static void run_channel(const abb_http_t *http, CURLM *channel)
{
    int running = 1;

    while (running && !abb_http_is_stopped(http) &&
           curl_multi_perform(channel, &running) == CURLM_OK) {
        if (running && curl_multi_poll(channel, NULL, 0, POLL_MILLISECONDS, NULL) != CURLM_OK) {
            break;
        }
    }
    collect_finished(channel);
}

static void run_round(abb_http_t *http, CURLM *channel)
{
    round_t round = {channel, NULL};

    if (begin_round(http, &round)) {
        run_channel(http, channel);
    }
    end_round(http, &round);
}

static void begin_answer(abb_http_answer_t *answer)
{
    memset(answer, 0, sizeof(*answer));
    answer->body = "";
    abb_error_clear(&answer->error);
}

void abb_http_perform(abb_http_t *http, const abb_http_settings_t *settings,
                      const abb_http_request_t *requests, abb_http_answer_t *answers, int count,
                      apr_pool_t *p)
{
    exchange_t *exchanges = apr_pcalloc(p, (apr_size_t)count * sizeof(*exchanges));
    CURLM *channel = take_channel(http);

    for (int i = 0; i < count; ++i) {
        begin_answer(&answers[i]);
        exchanges[i].request = &requests[i];
        exchanges[i].answer = &answers[i];
        exchanges[i].pool = p;
        if (channel) {
            begin_exchange(&exchanges[i], http, settings, channel);
        }
    }
    if (channel) {
        run_round(http, channel);
    }
    for (int i = 0; i < count; ++i) {
        end_exchange(&exchanges[i], channel);
    }
    if (channel) {
        give_channel_back(http, channel);
    }
}

/* ---- URLs ---------------------------------------------------------------- */

static int is_loopback(const char *host)
{
    return strcmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0 ||
           (strncmp(host, "127.", 4) == 0 && host[strspn(host, "0123456789.")] == '\0');
}

const char *abb_http_check_url(const char *url)
{
    const char *fault = NULL;
    CURLU *parsed;
    char *scheme = NULL;
    char *host = NULL;
    char *user = NULL;

    for (const char *c = url; *c; ++c) {
        if (*c <= 0x20 || *c > 0x7e || *c == '#') {
            return "it holds a space, a control character or a fragment";
        }
    }
    parsed = curl_url();
    if (!parsed || curl_url_set(parsed, CURLUPART_URL, url, 0) != CURLUE_OK ||
        curl_url_get(parsed, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK ||
        curl_url_get(parsed, CURLUPART_HOST, &host, 0) != CURLUE_OK) {
        fault = "it is no absolute URL";
    }
    else if (curl_url_get(parsed, CURLUPART_USER, &user, 0) == CURLUE_OK) {
        fault = "it holds a user name";
    }
    else if (strcmp(scheme, "https") != 0 && !(strcmp(scheme, "http") == 0 && is_loopback(host))) {
        fault = "it must begin with https:// (http:// only for a loopback host)";
    }
    curl_free(scheme);
    curl_free(host);
    curl_free(user);
    curl_url_cleanup(parsed);
    return fault;
}
