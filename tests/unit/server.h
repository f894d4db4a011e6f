/*
 * server: a scripted HTTP server for the unit tests.
 *
 * It listens on a free loopback port, in threads of its own, answers each
 * request by the first rule that fits, and remembers what it was asked. Rules
 * may cut, stall and drip their answers. It ends with the pool it was started in.
 */
#ifndef SERVER_H
#define SERVER_H

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "unit.h"

#define SERVER_RULES_MAX 64
#define SERVER_REQUESTS_MAX 4096
#define SERVER_CONNECTIONS_MAX 512

/* What follows the bytes of a rule's answer. */
typedef enum { SERVER_KEEP, SERVER_CLOSE, SERVER_HANG, SERVER_DRIP } server_end_t;

/* How to answer. */
typedef struct {
    /* Method and target, "GET /x?y"; with a '*' at the end the beginning of them. */
    const char *wanted;
    /* The bytes to send; NULL for none. */
    const char *answer;
    apr_size_t size;
    /* How many requests it is for; 0 for all. */
    int times;
    int used;
    /* Milliseconds before the first byte, and between two bytes that drip. */
    int delay;
    int interval;
    /* How many bytes go at once before the end named comes. */
    apr_size_t cut;
    server_end_t end;
} server_rule_t;

/* What the server was asked. Lifetime: the server's. */
typedef struct {
    /* Method and target. */
    char *line;
    /* All header lines. */
    char *head;
    char *body;
    /* Which connection it came over, counted from 1. */
    int connection;
} server_request_t;

typedef struct server_t server_t;

typedef struct {
    server_t *server;
    pthread_t thread;
    int number;
    int socket;
} server_connection_t;

struct server_t {
    pthread_mutex_t mutex;
    pthread_cond_t stopped;
    pthread_t thread;
    int listener;
    int port;
    /* "http://127.0.0.1:PORT" */
    char origin[40];
    int stopping;
    server_rule_t rules[SERVER_RULES_MAX];
    int rule_count;
    server_request_t requests[SERVER_REQUESTS_MAX];
    int request_count;
    server_connection_t connections[SERVER_CONNECTIONS_MAX];
    int connection_count;
    int in_flight;
    int in_flight_max;
    apr_pool_t *pool;
};

/* ---- sockets and time ---------------------------------------------------- */

/* Wait; returns 0 when the server stops meanwhile. */
static inline int server_sleep(server_t *server, int milliseconds)
{
    struct timespec until;
    int stopping;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += milliseconds / 1000;
    until.tv_nsec += milliseconds % 1000 * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_nsec -= 1000000000L;
        ++until.tv_sec;
    }
    pthread_mutex_lock(&server->mutex);
    while (!server->stopping &&
           pthread_cond_timedwait(&server->stopped, &server->mutex, &until) == 0) {
    }
    stopping = server->stopping;
    pthread_mutex_unlock(&server->mutex);
    return !stopping;
}

static inline int server_send(int socket, const char *bytes, apr_size_t size)
{
    while (size > 0) {
        ssize_t sent = send(socket, bytes, size, MSG_NOSIGNAL);

        if (sent <= 0) {
            return 0;
        }
        bytes += sent;
        size -= (apr_size_t)sent;
    }
    return 1;
}

/* Wait until the other side closes or the server stops. */
static inline void server_hang(int socket)
{
    char bytes[512];

    while (recv(socket, bytes, sizeof(bytes), 0) > 0) {
    }
}

/* ---- one request --------------------------------------------------------- */

/* Read one request; returns 0 when there is none. The caller frees the members. */
static inline int server_read(int socket, server_request_t *request)
{
    apr_size_t capacity = 256 * 1024;
    char *text = malloc(capacity + 1);
    apr_size_t size = 0;
    apr_size_t length = 0;
    char *end = NULL;
    const char *field;

    while (!end && size < capacity) {
        ssize_t got = recv(socket, text + size, capacity - size, 0);

        if (got <= 0) {
            break;
        }
        size += (apr_size_t)got;
        text[size] = '\0';
        end = strstr(text, "\r\n\r\n");
    }
    if (!end) {
        free(text);
        return 0;
    }
    end += 4;
    field = strcasestr(text, "\r\nContent-Length:");
    if (field && field < end) {
        length = strtoul(field + 17, NULL, 10);
    }
    while (size < (apr_size_t)(end - text) + length && size < capacity) {
        ssize_t got = recv(socket, text + size, capacity - size, 0);

        if (got <= 0) {
            break;
        }
        size += (apr_size_t)got;
    }
    text[size] = '\0';
    request->body = strdup(end);
    *end = '\0';
    request->head = strdup(strstr(text, "\r\n") + 2);
    *strstr(text, " HTTP/") = '\0';
    request->line = strdup(text);
    free(text);
    return 1;
}

static inline int server_fits(const server_rule_t *rule, const char *line)
{
    apr_size_t length = strlen(rule->wanted);

    if (rule->times && rule->used >= rule->times) {
        return 0;
    }
    return length && rule->wanted[length - 1] == '*' ? strncmp(rule->wanted, line, length - 1) == 0
                                                     : strcmp(rule->wanted, line) == 0;
}

/* Remember a request and find its rule. Returns 0 when no rule fits. */
static inline int server_note(server_t *server, const server_request_t *request,
                              server_rule_t *rule)
{
    int found = 0;

    pthread_mutex_lock(&server->mutex);
    if (server->request_count < SERVER_REQUESTS_MAX) {
        server->requests[server->request_count++] = *request;
    }
    if (++server->in_flight > server->in_flight_max) {
        server->in_flight_max = server->in_flight;
    }
    for (int i = 0; i < server->rule_count && !found; ++i) {
        if (server_fits(&server->rules[i], request->line)) {
            ++server->rules[i].used;
            *rule = server->rules[i];
            found = 1;
        }
    }
    pthread_mutex_unlock(&server->mutex);
    return found;
}

static inline void server_done(server_t *server)
{
    pthread_mutex_lock(&server->mutex);
    --server->in_flight;
    pthread_mutex_unlock(&server->mutex);
}

static inline void server_drip(server_t *server, int socket, const server_rule_t *rule)
{
    for (apr_size_t i = rule->cut; i < rule->size; ++i) {
        if (!server_sleep(server, rule->interval) || !server_send(socket, rule->answer + i, 1)) {
            return;
        }
    }
}

/* Answer by a rule; returns whether the connection goes on. */
static inline int server_reply(server_t *server, int socket, const server_rule_t *rule)
{
    if (rule->delay && !server_sleep(server, rule->delay)) {
        return 0;
    }
    if (rule->answer &&
        !server_send(socket, rule->answer, rule->cut < rule->size ? rule->cut : rule->size)) {
        return 0;
    }
    if (rule->end == SERVER_HANG) {
        server_hang(socket);
    }
    if (rule->end == SERVER_DRIP) {
        server_drip(server, socket, rule);
    }
    return rule->end == SERVER_KEEP;
}

static inline void *server_serve(void *data)
{
    static const char none[] = "HTTP/1.1 599 No Rule\r\nContent-Length: 0\r\n\r\n";
    server_connection_t *connection = data;
    server_t *server = connection->server;
    server_request_t request;
    int goes_on = 1;

    while (goes_on && server_read(connection->socket, &request)) {
        server_rule_t rule;

        request.connection = connection->number;
        if (server_note(server, &request, &rule)) {
            goes_on = server_reply(server, connection->socket, &rule);
        }
        else {
            goes_on = server_send(connection->socket, none, sizeof(none) - 1);
        }
        server_done(server);
    }
    shutdown(connection->socket, SHUT_RDWR);
    return NULL;
}

/* ---- the server ---------------------------------------------------------- */

static inline void server_take(server_t *server, int socket)
{
    server_connection_t *connection;

    pthread_mutex_lock(&server->mutex);
    if (server->stopping || server->connection_count == SERVER_CONNECTIONS_MAX) {
        close(socket);
    }
    else {
        connection = &server->connections[server->connection_count];
        connection->server = server;
        connection->socket = socket;
        connection->number = server->connection_count + 1;
        if (pthread_create(&connection->thread, NULL, server_serve, connection) == 0) {
            ++server->connection_count;
        }
        else {
            close(socket);
        }
    }
    pthread_mutex_unlock(&server->mutex);
}

static inline void *server_listen(void *data)
{
    server_t *server = data;
    int socket;

    while ((socket = accept(server->listener, NULL, NULL)) >= 0) {
        server_take(server, socket);
    }
    return NULL;
}

static inline apr_status_t server_stop(void *data)
{
    server_t *server = data;

    pthread_mutex_lock(&server->mutex);
    server->stopping = 1;
    pthread_cond_broadcast(&server->stopped);
    pthread_mutex_unlock(&server->mutex);
    shutdown(server->listener, SHUT_RDWR);
    pthread_join(server->thread, NULL);
    for (int i = 0; i < server->connection_count; ++i) {
        shutdown(server->connections[i].socket, SHUT_RDWR);
        pthread_join(server->connections[i].thread, NULL);
        close(server->connections[i].socket);
    }
    close(server->listener);
    for (int i = 0; i < server->request_count; ++i) {
        free(server->requests[i].line);
        free(server->requests[i].head);
        free(server->requests[i].body);
    }
    pthread_cond_destroy(&server->stopped);
    pthread_mutex_destroy(&server->mutex);
    free(server);
    return APR_SUCCESS;
}

/* A socket that listens on a free loopback port. */
static inline int server_listener(int backlog, int *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_true(listener >= 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(listener, backlog), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &size), 0);
    *port = ntohs(address.sin_port);
    return listener;
}

/* Start a server. Lifetime: p. */
static inline server_t *server_start(apr_pool_t *p)
{
    server_t *server = calloc(1, sizeof(*server));

    assert_non_null(server);
    server->pool = p;
    server->listener = server_listener(256, &server->port);
    snprintf(server->origin, sizeof(server->origin), "http://127.0.0.1:%d", server->port);
    pthread_mutex_init(&server->mutex, NULL);
    pthread_cond_init(&server->stopped, NULL);
    assert_int_equal(pthread_create(&server->thread, NULL, server_listen, server), 0);
    apr_pool_pre_cleanup_register(p, server, server_stop);
    return server;
}

/* An address at the server. Lifetime: p. */
static inline const char *server_url(server_t *server, const char *path, apr_pool_t *p)
{
    return apr_pstrcat(p, server->origin, path, NULL);
}

/* ---- rules --------------------------------------------------------------- */

/* A rule that answers with these bytes, which must outlive the server. */
static inline server_rule_t server_bytes(const char *wanted, const char *answer, apr_size_t size)
{
    server_rule_t rule = {.wanted = wanted, .answer = answer, .size = size, .cut = size};

    return rule;
}

/* A rule with a status, header lines ("A: b\r\n...", may be "") and a body. Lifetime: p. */
static inline server_rule_t server_answer(const char *wanted, int status, const char *headers,
                                          const char *body, apr_pool_t *p)
{
    const char *answer = apr_psprintf(p, "HTTP/1.1 %d Said\r\nContent-Length: %lu\r\n%s\r\n%s",
                                      status, (unsigned long)strlen(body), headers, body);

    return server_bytes(wanted, answer, strlen(answer));
}

/* A rule that answers with JSON. Lifetime: p. */
static inline server_rule_t server_json(const char *wanted, int status, const char *body,
                                        apr_pool_t *p)
{
    return server_answer(wanted, status, "Content-Type: application/json\r\n", body, p);
}

/* A rule that sends nothing and then ends in this way. */
static inline server_rule_t server_ending(const char *wanted, server_end_t end)
{
    server_rule_t rule = {.wanted = wanted, .end = end};

    return rule;
}

/* Add a rule behind the others. */
static inline void server_add(server_t *server, server_rule_t rule)
{
    pthread_mutex_lock(&server->mutex);
    assert_true(server->rule_count < SERVER_RULES_MAX);
    server->rules[server->rule_count++] = rule;
    pthread_mutex_unlock(&server->mutex);
}

static inline void server_add_json(server_t *server, const char *wanted, int status,
                                   const char *body)
{
    server_add(server, server_json(wanted, status, body, server->pool));
}

/* Forget all rules, not what was asked. */
static inline void server_forget_rules(server_t *server)
{
    pthread_mutex_lock(&server->mutex);
    server->rule_count = 0;
    pthread_mutex_unlock(&server->mutex);
}

/* ---- what was asked ------------------------------------------------------ */

/* How many requests began with this ("" for all). */
static inline int server_count(server_t *server, const char *beginning)
{
    int count = 0;

    pthread_mutex_lock(&server->mutex);
    for (int i = 0; i < server->request_count; ++i) {
        count += strncmp(server->requests[i].line, beginning, strlen(beginning)) == 0;
    }
    pthread_mutex_unlock(&server->mutex);
    return count;
}

/* The index-th request, from 0, that began with this. Fails when there is none. */
static inline const server_request_t *server_request(server_t *server, const char *beginning,
                                                     int index)
{
    const server_request_t *request = NULL;

    pthread_mutex_lock(&server->mutex);
    for (int i = 0; i < server->request_count && !request; ++i) {
        if (strncmp(server->requests[i].line, beginning, strlen(beginning)) == 0 && index-- == 0) {
            request = &server->requests[i];
        }
    }
    pthread_mutex_unlock(&server->mutex);
    assert_non_null(request);
    return request;
}

/* The value of a request's header field, or NULL. Lifetime: p. */
static inline const char *server_header(const server_request_t *request, const char *name,
                                        apr_pool_t *p)
{
    const char *line = request->head;

    while (line && *line) {
        apr_size_t length = strlen(name);

        if (strncasecmp(line, name, length) == 0 && line[length] == ':') {
            line += length + 1;
            line += strspn(line, " ");
            return apr_pstrmemdup(p, line, strcspn(line, "\r\n"));
        }
        line = strstr(line, "\r\n");
        line = line ? line + 2 : NULL;
    }
    return NULL;
}

#endif
