/* config (floor 4): directives as they are read. See abb_config.h. */
#include <apr_lib.h>
#include <apr_strings.h>
#include <apr_uri.h>
#include <http_core.h>
#include <http_log.h>

#include "abb_http.h"
#include "abb_store_file.h"
#include "abb_text.h"
#include "config_internal.h"

APLOG_USE_MODULE(auth_bitbucket);

#define HTTP_TIMEOUT_MAX apr_time_from_sec(60)
#define MEMBERSHIP_AGE_MAX apr_time_from_sec(30 * 86400)
#define NEAR_AGE_MAX apr_time_from_sec(3600)

/* ---- helpers of the setters ---------------------------------------------- */

/* The server's settings; a directive of ours has been seen. */
static server_config_t *configure(cmd_parms *cmd)
{
    server_config_t *conf = abb_config_of(cmd->server);

    conf->is_configured = 1;
    return conf;
}

/* httpd shows the sentence as it is, so it names the directive. */
static const char *complain(cmd_parms *cmd, const char *sentence)
{
    return apr_pstrcat(cmd->pool, cmd->cmd->name, ": ", sentence, NULL);
}

static const char *fault(cmd_parms *cmd, const char *value, const char *why)
{
    return complain(cmd, apr_psprintf(cmd->temp_pool, "'%s' %s", value, why));
}

/* A password in a refused URL is not for terminals and journals. */
static const char *fault_of_url(cmd_parms *cmd, const char *url, const char *why)
{
    return fault(cmd, strchr(url, '@') ? abb_text_public_url(url, cmd->temp_pool) : url, why);
}

/* mod_info and dumps of the configuration print arguments as they stand in the tree. */
static void hide_arguments(cmd_parms *cmd)
{
    ((ap_directive_t *)cmd->directive)->args = "(not shown)";
}

static int names_source(const char *specification)
{
    return strncmp(specification, "file:", 5) == 0 || strncmp(specification, "env:", 4) == 0 ||
           strncmp(specification, "exec:", 5) == 0;
}

static const char *check_secret(cmd_parms *cmd, const char *specification)
{
    if (!names_source(specification)) {
        hide_arguments(cmd);
    }
    return *specification
               ? NULL
               : fault(cmd, "", "is empty: write the secret, file:PATH, env:NAME or exec:PATH");
}

static const char *set_duration(cmd_parms *cmd, const char *text, apr_interval_time_t smallest,
                                apr_interval_time_t largest, apr_interval_time_t *duration)
{
    if (abb_text_duration_parse(text, duration) != APR_SUCCESS) {
        return fault(cmd, text,
                     "is no duration: write a number with s, m, h or d, as in 90s or 12h");
    }
    if (*duration < smallest || *duration > largest) {
        return fault(cmd, text,
                     apr_psprintf(cmd->temp_pool, "is out of range: allowed are %lds to %lds",
                                  (long)apr_time_sec(smallest), (long)apr_time_sec(largest)));
    }
    return NULL;
}

/* ---- the OAuth client ---------------------------------------------------- */

static const char *set_client_id(cmd_parms *cmd, void *directory, const char *value)
{
    for (const char *c = value; *c; ++c) {
        if (*c <= 0x20 || *c > 0x7e || *c == ':') {
            return fault(cmd, value, "is no client id: copy the Key that Bitbucket shows");
        }
    }
    if (!*value) {
        return fault(cmd, value, "is empty: copy the Key that Bitbucket shows");
    }
    configure(cmd)->client_id = value;
    return NULL;
}

static const char *set_client_secret(cmd_parms *cmd, void *directory, int count,
                                     char *const values[])
{
    const char *specification = count > 0 ? values[0] : "";

    for (int i = 1; i < count; ++i) {
        specification = apr_pstrcat(cmd->pool, specification, " ", values[i], NULL);
    }
    if (count > 1 && strncmp(specification, "exec:", 5) != 0) {
        hide_arguments(cmd);
        return complain(cmd, "takes one value: the secret, file:PATH, env:NAME, or exec:PATH "
                             "with arguments");
    }
    configure(cmd)->client_secret = specification;
    return check_secret(cmd, specification);
}

static const char *check_callback_path(cmd_parms *cmd, const char *value, const char *path)
{
    const char *name = path ? strrchr(path, '/') : NULL;

    if (!name || name[1] == '\0' || abb_text_local_path(path, NULL) != path ||
        strpbrk(path, "?%")) {
        return fault(cmd, value,
                     "has no path that a callback can have: write for instance "
                     "https://wiki.example.com/bitbucket/callback or /bitbucket/callback");
    }
    if (!strcmp(name, "/login") || !strcmp(name, "/logout") || !strcmp(name, "/userinfo") ||
        !strcmp(name, "/kept-form")) {
        return fault(cmd, value, "ends in a name that another endpoint of the module has");
    }
    return NULL;
}

static int parse_http_url(cmd_parms *cmd, const char *value, apr_uri_t *uri)
{
    return apr_uri_parse(cmd->pool, value, uri) == APR_SUCCESS && uri->scheme && uri->hostname &&
           *uri->hostname && !uri->user && !uri->fragment &&
           (strcmp(uri->scheme, "https") == 0 || strcmp(uri->scheme, "http") == 0);
}

static const char *set_origin(cmd_parms *cmd, const char *value, const char **origin)
{
    apr_uri_t uri;
    const char *path;

    if (!parse_http_url(cmd, value, &uri) || uri.query ||
        (uri.path && strcmp(uri.path, "/") != 0)) {
        return fault(cmd, value,
                     "is no address of a site: write scheme and host, as in "
                     "https://wiki.example.com");
    }
    *origin = abb_config_origin_of_url(value, &path, cmd->pool);
    return NULL;
}

static const char *set_callback(cmd_parms *cmd, void *directory, const char *value,
                                const char *own_address)
{
    server_config_t *conf = configure(cmd);
    const char *message;
    apr_uri_t uri;

    if (*value == '/') {
        message = check_callback_path(cmd, value, value);
    }
    else if (!parse_http_url(cmd, value, &uri)) {
        message = fault(cmd, value, "is neither an absolute http(s) URL nor a path");
    }
    else {
        message = check_callback_path(cmd, value, uri.query ? NULL : uri.path);
    }
    conf->callback = value;
    conf->origin = NULL;
    if (message || !own_address) {
        return message;
    }
    return *value == '/'
               ? fault(cmd, own_address, "has no use: the callback is a path of this site")
               : set_origin(cmd, own_address, &conf->origin);
}

static const char *set_callback_for(cmd_parms *cmd, void *directory, const char *value)
{
    server_config_t *conf = configure(cmd);
    const char *origin;
    const char *message = set_origin(cmd, value, &origin);

    if (!conf->callback_for) {
        conf->callback_for = apr_array_make(cmd->pool, 4, sizeof(const char *));
    }
    if (!message) {
        APR_ARRAY_PUSH(conf->callback_for, const char *) = origin;
    }
    return message;
}

static const char *set_scope(cmd_parms *cmd, void *directory, const char *word)
{
    server_config_t *conf = configure(cmd);

    for (const char *c = word; *c; ++c) {
        if (!apr_isalnum(*c) && !strchr(":_-.", *c)) {
            return fault(cmd, word,
                         "is no scope: write names as Bitbucket does, as in account email");
        }
    }
    conf->scope = conf->scope ? apr_pstrcat(cmd->pool, conf->scope, " ", word, NULL) : word;
    return NULL;
}

/* ---- talking to Bitbucket ------------------------------------------------ */

static const char *check_url(cmd_parms *cmd, const char *value)
{
    const char *why = abb_http_check_url(value);

    return why ? fault_of_url(cmd, value, apr_pstrcat(cmd->temp_pool, "is refused: ", why, NULL))
               : NULL;
}

static const char *set_authorize_url(cmd_parms *cmd, void *directory, const char *value)
{
    configure(cmd)->authorize_url = value;
    return check_url(cmd, value);
}

static const char *set_token_url(cmd_parms *cmd, void *directory, const char *value)
{
    configure(cmd)->token_url = value;
    return check_url(cmd, value);
}

static const char *set_api_url(cmd_parms *cmd, void *directory, const char *value)
{
    apr_size_t length = strlen(value);

    while (length > 0 && value[length - 1] == '/') {
        --length;
    }
    configure(cmd)->api_url = apr_pstrmemdup(cmd->pool, value, length);
    if (strchr(value, '?')) {
        return fault_of_url(cmd, value, "holds a query: write the address up to /2.0");
    }
    return check_url(cmd, value);
}

static const char *set_http_timeout(cmd_parms *cmd, void *directory, const char *connect,
                                    const char *total)
{
    server_config_t *conf = configure(cmd);
    const char *message =
        set_duration(cmd, connect, apr_time_from_sec(1), HTTP_TIMEOUT_MAX, &conf->connect_timeout);

    if (!message && total) {
        message =
            set_duration(cmd, total, apr_time_from_sec(1), HTTP_TIMEOUT_MAX, &conf->total_timeout);
    }
    if (!message && total && conf->connect_timeout > conf->total_timeout) {
        message = fault(cmd, apr_pstrcat(cmd->temp_pool, connect, " ", total, NULL),
                        "is not possible: connecting may not take longer than the whole");
    }
    return message;
}

static const char *set_ca_file(cmd_parms *cmd, void *directory, const char *value)
{
    const char *path = ap_server_root_relative(cmd->pool, value);
    apr_file_t *file;

    if (!path || apr_file_open(&file, path, APR_FOPEN_READ, APR_FPROT_OS_DEFAULT, cmd->temp_pool) !=
                     APR_SUCCESS) {
        return fault(cmd, value, "cannot be read: name a PEM file with certificate authorities");
    }
    apr_file_close(file);
    configure(cmd)->ca_file = path;
    return NULL;
}

static const char *set_proxy(cmd_parms *cmd, void *directory, const char *value)
{
    apr_uri_t uri;

    if (strchr(value, '@')) {
        hide_arguments(cmd);
    }
    if (apr_uri_parse(cmd->pool, value, &uri) != APR_SUCCESS || !uri.scheme || !uri.hostname ||
        (strcmp(uri.scheme, "http") != 0 && strcmp(uri.scheme, "https") != 0)) {
        return fault_of_url(cmd, value,
                            "is no proxy: write for instance http://proxy.example.com:3128");
    }
    configure(cmd)->proxy = value;
    return NULL;
}

/* ---- cookies and sessions ------------------------------------------------ */

static const char *set_cookie_name(cmd_parms *cmd, void *directory, const char *value)
{
    apr_size_t length = strlen(value);
    int is_good = length >= 1 && length <= 64 && strncmp(value, "__", 2) != 0;

    for (const char *c = value; *c; ++c) {
        is_good &= apr_isalnum(*c) || *c == '_' || *c == '-';
    }
    configure(cmd)->cookie_name = value;
    return is_good ? NULL
                   : fault(cmd, value,
                           "is no cookie name: 1 to 64 letters, digits, '_' and '-', not starting "
                           "with '__' (the prefixes __Host- and __Secure- are put in front where "
                           "they apply)");
}

static const char *set_cookie_domain(cmd_parms *cmd, void *directory, const char *value)
{
    const char *domain = *value == '.' ? value + 1 : value;

    for (const char *c = domain; *c; ++c) {
        if (!apr_isalnum(*c) && !strchr(".-", *c)) {
            return fault(cmd, value, "is no domain: write for instance example.com");
        }
    }
    if (!strchr(domain, '.')) {
        return fault(cmd, value, "is no domain a browser accepts: write for instance example.com");
    }
    configure(cmd)->cookie_domain = domain;
    return NULL;
}

static const char *set_cookie_same_site(cmd_parms *cmd, void *directory, const char *value)
{
    server_config_t *conf = configure(cmd);

    if (ap_cstr_casecmp(value, "Lax") == 0) {
        conf->cookie_same_site = "Lax";
    }
    else if (ap_cstr_casecmp(value, "None") == 0) {
        conf->cookie_same_site = "None";
    }
    else {
        return fault(cmd, value,
                     "is not possible: allowed are Lax and None (with Strict the browser would "
                     "hide the session on the way back from Bitbucket)");
    }
    return NULL;
}

static const char *set_session_timeout(cmd_parms *cmd, void *directory, const char *idle,
                                       const char *absolute)
{
    static const apr_interval_time_t year = apr_time_from_sec(366 * 86400LL);
    server_config_t *conf = configure(cmd);
    const char *message = set_duration(cmd, idle, apr_time_from_sec(1), year, &conf->idle_timeout);

    if (!message && absolute) {
        message = set_duration(cmd, absolute, apr_time_from_sec(1), year, &conf->absolute_timeout);
    }
    if (!message && absolute && conf->idle_timeout > conf->absolute_timeout) {
        message = fault(cmd, apr_pstrcat(cmd->temp_pool, idle, " ", absolute, NULL),
                        "is not possible: idle may not be longer than absolute");
    }
    return message;
}

static const char *set_membership_max_age(cmd_parms *cmd, void *directory, const char *soft,
                                          const char *hard)
{
    server_config_t *conf = configure(cmd);
    const char *message = set_duration(cmd, soft, 0, MEMBERSHIP_AGE_MAX, &conf->soft_age);

    if (!message && hard) {
        message = set_duration(cmd, hard, 0, MEMBERSHIP_AGE_MAX, &conf->hard_age);
    }
    if (!message && hard && conf->soft_age > conf->hard_age) {
        message = fault(cmd, apr_pstrcat(cmd->temp_pool, soft, " ", hard, NULL),
                        "is not possible: soft, the first, may not be longer than hard");
    }
    return message;
}

/* A number from 1 up. */
static const char *set_number(cmd_parms *cmd, const char *value, int most, int *number)
{
    apr_size_t length = strlen(value);
    apr_int64_t read = length < 6 && strspn(value, "0123456789") == length ? apr_atoi64(value) : 0;

    if (read < 1 || read > most) {
        return fault(cmd, value,
                     apr_psprintf(cmd->temp_pool, "is out of range: allowed are 1 to %d", most));
    }
    *number = (int)read;
    return NULL;
}

static const char *set_max_logins(cmd_parms *cmd, void *directory, const char *value)
{
    return set_number(cmd, value, ABB_GATE_PLACES_MAX, &configure(cmd)->max_logins);
}

static const char *set_max_sessions(cmd_parms *cmd, void *directory, const char *value)
{
    int *number = &configure(cmd)->max_sessions;

    if (strcasecmp(value, "none") == 0) {
        *number = 0;
        return NULL;
    }
    return set_number(cmd, value, ABB_SESSION_PER_ACCOUNT_MAX, number);
}

static const char *set_session_keys(cmd_parms *cmd, void *directory, int count,
                                    char *const values[])
{
    apr_array_header_t *keys = apr_array_make(cmd->pool, count, sizeof(const char *));

    if (count == 0 || count > ABB_CRYPTO_KEYS_MAX) {
        return complain(cmd, apr_psprintf(cmd->temp_pool, "takes 1 to %d keys, but %d are there",
                                          ABB_CRYPTO_KEYS_MAX, count));
    }
    for (int i = 0; i < count; ++i) {
        const char *message = check_secret(cmd, values[i]);

        if (message) {
            return message;
        }
        APR_ARRAY_PUSH(keys, const char *) = values[i];
    }
    configure(cmd)->session_keys = keys;
    return NULL;
}

/* How many bits a unit stands for, -1 when it is none. */
static int bits_of_unit(char unit)
{
    switch (apr_toupper(unit)) {
    case 'K':
        return 10;
    case 'M':
        return 20;
    case 'G':
        return 30;
    default:
        return -1;
    }
}

/* A size with an optional K, M or G; -1 when it is none or too large. */
static apr_int64_t parse_size(const char *text, apr_size_t length)
{
    apr_int64_t size = 0;
    apr_size_t i = 0;
    int bits;

    while (i < length && apr_isdigit(text[i]) && size < (1LL << 40)) {
        size = size * 10 + (text[i++] - '0');
    }
    if (i == 0 || i + 1 < length) {
        return -1;
    }
    bits = i < length ? bits_of_unit(text[i]) : 0;
    return bits < 0 || (apr_uint64_t)size > ABB_STORE_SHM_MAX >> bits ? -1 : size << bits;
}

/* redis:..., memcache:... and whatever other provider of httpd's is loaded. */
static const char *set_shared_cache(cmd_parms *cmd, const char *value)
{
    const char *why =
        abb_config_set_cache_provider(configure(cmd), value, cmd->pool, cmd->temp_pool);

    return why ? fault(cmd, value, why) : NULL;
}

static const char *set_near_cache(cmd_parms *cmd, void *directory, const char *age,
                                  const char *outage_age)
{
    abb_cache_settings_t *cache = &configure(cmd)->cache;
    const char *message = ap_check_cmd_context(cmd, GLOBAL_ONLY);

    if (!message) {
        message = set_duration(cmd, age, 0, NEAR_AGE_MAX, &cache->near_age);
    }
    cache->outage_age =
        cache->near_age > ABB_CONFIG_OUTAGE_AGE ? cache->near_age : ABB_CONFIG_OUTAGE_AGE;
    if (!message && outage_age) {
        message = set_duration(cmd, outage_age, 0, NEAR_AGE_MAX, &cache->outage_age);
    }
    if (!message && outage_age && cache->near_age == 0) {
        message = fault(cmd, apr_pstrcat(cmd->temp_pool, age, " ", outage_age, NULL),
                        "is not possible: 0 keeps no copies, so none can be used in an outage");
    }
    if (!message && cache->outage_age < cache->near_age) {
        message = fault(cmd, apr_pstrcat(cmd->temp_pool, age, " ", outage_age, NULL),
                        "is not possible: the age in an outage, the second, may not be below the "
                        "first");
    }
    return message;
}

/* The path of shm:FILE; a sentence about what is wrong with it in *message. */
static const char *session_file(cmd_parms *cmd, const char *name, const char **message)
{
    const char *path = *name ? ap_server_root_relative(cmd->pool, name) : NULL;

    if (!path || path[strlen(path) - 1] == '/' || strpbrk(name, "()")) {
        *message = fault(cmd, name, "is no file: write for instance shm:/var/lib/httpd/sessions");
    }
    else if (strlen(path) > ABB_STORE_FILE_PATH_MAX) {
        *message = fault(cmd, name,
                         apr_psprintf(cmd->temp_pool, "has a path of more than %d characters",
                                      ABB_STORE_FILE_PATH_MAX));
    }
    return path;
}

static const char *no_session_cache(cmd_parms *cmd, const char *value)
{
    return fault(cmd, value,
                 "is no session cache: write shm, shm(SIZE), shm:FILE or shm:FILE(SIZE), SIZE a "
                 "number with K, M or G, from 256K to 128G");
}

/* `shm`, `shm(SIZE)`, `shm:FILE` or `shm:FILE(SIZE)`; rest is what comes after "shm". */
static const char *set_shm(cmd_parms *cmd, const char *value, const char *rest)
{
    abb_cache_settings_t *cache = &configure(cmd)->cache;
    apr_size_t length = strlen(rest);
    const char *open = strrchr(rest, '(');
    apr_int64_t size = ABB_CONFIG_STORE_SIZE;
    const char *message = NULL;

    if (open && rest[length - 1] == ')') {
        size = parse_size(open + 1, (apr_size_t)(rest + length - 1 - (open + 1)));
        length = (apr_size_t)(open - rest);
    }
    if (size < ABB_STORE_SHM_MIN || (length > 0 && *rest != ':')) {
        return no_session_cache(cmd, value);
    }
    cache->size = (apr_size_t)size;
    cache->file = NULL;
    if (length > 0) {
        cache->file = session_file(cmd, apr_pstrmemdup(cmd->pool, rest + 1, length - 1), &message);
    }
    return message;
}

static const char *set_session_cache(cmd_parms *cmd, void *directory, const char *value)
{
    const char *message = ap_check_cmd_context(cmd, GLOBAL_ONLY);

    if (message) {
        return message;
    }
    if (strncmp(value, "shm", 3) != 0 || strncmp(value, "shmcb", 5) == 0) {
        return set_shared_cache(cmd, value);
    }
    configure(cmd)->cache.shared = NULL;
    return set_shm(cmd, value, value + 3);
}

/* ---- applications -------------------------------------------------------- */

static const char *set_header_prefix(cmd_parms *cmd, void *directory, const char *value)
{
    const char *why = abb_identity_check_prefix(value);

    configure(cmd)->header_prefix = value;
    return why ? fault(cmd, value, why) : NULL;
}

static const char *set_header_encoding(cmd_parms *cmd, void *directory, const char *value)
{
    server_config_t *conf = configure(cmd);

    if (ap_cstr_casecmp(value, "percent") == 0) {
        conf->header_encoding = ABB_HEADERS_PERCENT;
    }
    else if (ap_cstr_casecmp(value, "utf8") == 0) {
        conf->header_encoding = ABB_HEADERS_UTF8;
    }
    else {
        return fault(cmd, value, "is no encoding: allowed are percent and utf8");
    }
    return NULL;
}

static const char *set_pass(cmd_parms *cmd, void *directory, const char *value)
{
    static const struct {
        const char *word;
        abb_pass_t pass;
    } words[] = {{"env", ABB_PASS_VARIABLES},
                 {"headers", ABB_PASS_HEADERS},
                 {"both", ABB_PASS_BOTH},
                 {"none", ABB_PASS_NONE}};

    for (apr_size_t i = 0; i < sizeof(words) / sizeof(words[0]); ++i) {
        if (ap_cstr_casecmp(value, words[i].word) == 0) {
            ((directory_config_t *)directory)->pass = words[i].pass;
            return NULL;
        }
    }
    return fault(cmd, value, "is nothing to pass: allowed are env, headers, both and none");
}

static const char *set_pass_access_token(cmd_parms *cmd, void *directory, int flag)
{
    ((directory_config_t *)directory)->passes_access_token = flag;
    return NULL;
}

static const char *set_api_token(cmd_parms *cmd, void *directory, const char *value,
                                 const char *first, const char *second)
{
    const char *const words[] = {first, second};
    int api_token = ABB_API_TOKEN_BASIC;

    if (ap_cstr_casecmp(value, "Off") == 0 && !first) {
        ((directory_config_t *)directory)->api_token = ABB_API_TOKEN_OFF;
        return NULL;
    }
    if (ap_cstr_casecmp(value, "On") != 0) {
        return fault(cmd, value, "is neither On nor Off; and nothing comes behind Off");
    }
    for (int i = 0; i < 2 && words[i]; ++i) {
        if (ap_cstr_casecmp(words[i], "bearer") == 0) {
            api_token |= ABB_API_TOKEN_BEARER;
        }
        else if (ap_cstr_casecmp(words[i], "keep") == 0) {
            api_token |= ABB_API_TOKEN_KEEP;
        }
        else {
            return fault(cmd, words[i], "cannot stand behind On: allowed are bearer and keep");
        }
    }
    ((directory_config_t *)directory)->api_token = api_token;
    return NULL;
}

/* ---- directories --------------------------------------------------------- */

static const char *set_remote_user(cmd_parms *cmd, void *directory, const char *value)
{
    if (!abb_identity_is_attribute(value)) {
        return fault(cmd, value,
                     "is no attribute: allowed are username, email, uuid, account_id and nickname");
    }
    ((directory_config_t *)directory)->remote_user = value;
    if (strcmp(value, "email") == 0 && !ap_check_cmd_context(cmd, NOT_IN_HTACCESS)) {
        abb_config_need_scope(cmd, "email", "AuthBitbucketRemoteUser email");
    }
    return NULL;
}

static const struct {
    const char *word;
    abb_unauthenticated_t action;
} actions[] = {
    {"auto", ABB_UNAUTHENTICATED_AUTO}, {"login", ABB_UNAUTHENTICATED_LOGIN},
    {"401", ABB_UNAUTHENTICATED_401},   {"403", ABB_UNAUTHENTICATED_403},
    {"pass", ABB_UNAUTHENTICATED_PASS},
};

static const char *parse_condition(cmd_parms *cmd, const char *text,
                                   const ap_expr_info_t **condition)
{
    const char *why = NULL;

    if (strncmp(text, "expr=", 5) != 0) {
        return fault(cmd, text,
                     "is no condition: write for instance \"expr=%{REQUEST_URI} =~ m#^/api/#\"");
    }
    *condition = ap_expr_parse_cmd(cmd, text + 5, 0, &why, NULL);
    return why ? fault(cmd, text, apr_pstrcat(cmd->temp_pool, "is no expression: ", why, NULL))
               : NULL;
}

static const char *set_unauthenticated(cmd_parms *cmd, void *directory, const char *action,
                                       const char *condition)
{
    directory_config_t *conf = directory;
    unauthenticated_line_t line = {ABB_UNAUTHENTICATED_AUTO, NULL};
    const char *message =
        fault(cmd, action, "is no action: allowed are auto, login, 401, 403 and pass");

    for (apr_size_t i = 0; i < sizeof(actions) / sizeof(actions[0]); ++i) {
        if (ap_cstr_casecmp(action, actions[i].word) == 0) {
            line.action = actions[i].action;
            message = condition ? parse_condition(cmd, condition, &line.condition) : NULL;
        }
    }
    if (!conf->unauthenticated) {
        conf->unauthenticated = apr_array_make(cmd->pool, 2, sizeof(line));
    }
    APR_ARRAY_PUSH(conf->unauthenticated, unauthenticated_line_t) = line;
    return message;
}

static const char *set_private(cmd_parms *cmd, void *directory, int flag)
{
    ((directory_config_t *)directory)->is_private = flag;
    return NULL;
}

static const char *set_preserve_post(cmd_parms *cmd, void *directory, int flag)
{
    ((directory_config_t *)directory)->preserves_post = flag;
    return NULL;
}

const command_rec abb_config_commands[] = {
    AP_INIT_TAKE1("AuthBitbucketClientID", set_client_id, NULL, RSRC_CONF,
                  "the Key of the OAuth client at Bitbucket"),
    AP_INIT_TAKE_ARGV("AuthBitbucketClientSecret", set_client_secret, NULL, RSRC_CONF,
                      "the Secret of the OAuth client: a value, file:PATH, env:NAME or exec:PATH"),
    AP_INIT_TAKE12("AuthBitbucketCallbackURL", set_callback, NULL, RSRC_CONF,
                   "the Callback URL registered at Bitbucket, or its path; then this site's own "
                   "address if the callback is another's"),
    AP_INIT_ITERATE("AuthBitbucketCallbackFor", set_callback_for, NULL, RSRC_CONF,
                    "addresses of the sites whose sign-ins return to this one's callback"),
    AP_INIT_ITERATE("AuthBitbucketScope", set_scope, NULL, RSRC_CONF,
                    "scopes to narrow the OAuth client's to"),
    AP_INIT_TAKE1("AuthBitbucketAuthorizeURL", set_authorize_url, NULL, RSRC_CONF,
                  "Bitbucket's authorization endpoint"),
    AP_INIT_TAKE1("AuthBitbucketTokenURL", set_token_url, NULL, RSRC_CONF,
                  "Bitbucket's token endpoint"),
    AP_INIT_TAKE1("AuthBitbucketAPIURL", set_api_url, NULL, RSRC_CONF,
                  "Bitbucket's API, up to /2.0"),
    AP_INIT_TAKE12("AuthBitbucketHTTPTimeout", set_http_timeout, NULL, RSRC_CONF,
                   "how long connecting to Bitbucket and a whole exchange may take"),
    AP_INIT_TAKE1("AuthBitbucketCAFile", set_ca_file, NULL, RSRC_CONF,
                  "PEM file of the certificate authorities to trust for Bitbucket"),
    AP_INIT_TAKE1("AuthBitbucketProxy", set_proxy, NULL, RSRC_CONF,
                  "URL of the proxy through which Bitbucket is reached"),
    AP_INIT_TAKE1("AuthBitbucketCookieName", set_cookie_name, NULL, RSRC_CONF,
                  "name of the session cookie"),
    AP_INIT_TAKE1("AuthBitbucketCookieDomain", set_cookie_domain, NULL, RSRC_CONF,
                  "domain of the session cookie"),
    AP_INIT_TAKE1("AuthBitbucketCookieSameSite", set_cookie_same_site, NULL, RSRC_CONF,
                  "SameSite attribute of the cookies: Lax or None"),
    AP_INIT_TAKE12("AuthBitbucketSessionTimeout", set_session_timeout, NULL, RSRC_CONF,
                   "how long a session lives unused, and in all"),
    AP_INIT_TAKE12("AuthBitbucketMembershipMaxAge", set_membership_max_age, NULL, RSRC_CONF,
                   "how old what Bitbucket said may be before it is asked again, and at most"),
    AP_INIT_TAKE1("AuthBitbucketMaxSessionsPerUser", set_max_sessions, NULL, RSRC_CONF,
                  "how many sessions one account may have; the oldest ends, or 'none'"),
    AP_INIT_TAKE1("AuthBitbucketMaxLogins", set_max_logins, NULL, RSRC_CONF,
                  "how many sign-ins and other requests may wait for Bitbucket at once"),
    AP_INIT_TAKE_ARGV("AuthBitbucketSessionKey", set_session_keys, NULL, RSRC_CONF,
                      "keys that seal sessions: the first seals, all open"),
    AP_INIT_TAKE1("AuthBitbucketSessionCache", set_session_cache, NULL, RSRC_CONF,
                  "where sessions are kept: shm, shm(SIZE), shm:FILE(SIZE) or a socache provider"),
    AP_INIT_TAKE12("AuthBitbucketSessionNearCache", set_near_cache, NULL, RSRC_CONF,
                   "how old copies of a shared cache's sessions may be, and in an outage of it"),
    AP_INIT_TAKE1("AuthBitbucketHeaderPrefix", set_header_prefix, NULL, RSRC_CONF,
                  "how names of request headers with the visitor's identity begin"),
    AP_INIT_TAKE1("AuthBitbucketHeaderEncoding", set_header_encoding, NULL, RSRC_CONF,
                  "how those headers say what is not ASCII: percent or utf8"),
    AP_INIT_TAKE1("AuthBitbucketPass", set_pass, NULL, OR_AUTHCFG,
                  "how applications learn who it is: env, headers, both or none"),
    AP_INIT_FLAG("AuthBitbucketPassAccessToken", set_pass_access_token, NULL, OR_AUTHCFG,
                 "whether applications get the visitor's access token for Bitbucket's API"),
    AP_INIT_TAKE123("AuthBitbucketAPIToken", set_api_token, NULL, OR_AUTHCFG,
                    "whether command-line clients may bring an API token: On or Off; and bearer, "
                    "keep"),
    AP_INIT_TAKE1("AuthBitbucketRemoteUser", set_remote_user, NULL, OR_AUTHCFG,
                  "the attribute that becomes REMOTE_USER"),
    AP_INIT_TAKE12("AuthBitbucketUnauthenticated", set_unauthenticated, NULL, OR_AUTHCFG,
                   "what becomes of requests without a session: auto, login, 401, 403 or pass"),
    AP_INIT_FLAG("AuthBitbucketPrivate", set_private, NULL, OR_AUTHCFG,
                 "whether answers to signed-in visitors are kept out of shared caches"),
    AP_INIT_FLAG("AuthBitbucketPreservePost", set_preserve_post, NULL, OR_AUTHCFG,
                 "whether a form posted after the session ended is kept until the sign-in"),
    {NULL, {NULL}, NULL, 0, RAW_ARGS, NULL},
};
