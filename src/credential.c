/* credential (floor 2): what a request says in Authorization. See abb_credential.h. */
#include "abb_credential.h"

#include <apr_base64.h>
#include <apr_lib.h>
#include <apr_strings.h>
#include <string.h>
#include <strings.h>

#include "abb_text.h"

#define KEY_PURPOSE "credential"
/* RFC 5321 section 4.5.3.1.3, without the angle brackets. */
#define EMAIL_MAX 254

/* ---- the scheme ---------------------------------------------------------- */

/* What stands behind a scheme and its spaces; NULL when it is another scheme. */
static const char *behind_scheme(const char *authorization, const char *scheme)
{
    apr_size_t length = strlen(scheme);

    if (!authorization || strncasecmp(authorization, scheme, length) != 0 ||
        (authorization[length] != ' ' && authorization[length] != '\0')) {
        return NULL;
    }
    return authorization + length + strspn(authorization + length, " ");
}

int abb_credential_is_ours(const char *authorization)
{
    return behind_scheme(authorization, "Basic") || behind_scheme(authorization, "Bearer");
}

/* ---- Basic --------------------------------------------------------------- */

/* Decode what has exactly one spelling; NULL for anything else. */
static const char *decode(const char *value, apr_pool_t *p)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    apr_size_t length = strlen(value);
    apr_size_t used = strspn(value, letters);
    char *text;
    char *again;
    int size;

    if (length == 0 || length % 4 != 0 || length > ABB_CREDENTIAL_MAX || length - used > 2 ||
        used + strspn(value + used, "=") != length) {
        return NULL;
    }
    text = (char *)abb_crypto_alloc_secret((apr_size_t)apr_base64_decode_len(value) + 1, p);
    again = (char *)abb_crypto_alloc_secret(length + 1, p);
    size = apr_base64_decode_binary((unsigned char *)text, value);
    text[size] = '\0';
    apr_base64_encode_binary(again, (const unsigned char *)text, size);
    return strcmp(again, value) == 0 && strlen(text) == (apr_size_t)size ? text : NULL;
}

/* With a user's name it would be an app password, which Bitbucket took until July 2026. */
static int is_email(const char *text, apr_size_t length)
{
    const char *at = memchr(text, '@', length);

    if (!at || at == text || at == text + length - 1 || length > EMAIL_MAX) {
        return 0;
    }
    for (apr_size_t i = 0; i < length; ++i) {
        if ((unsigned char)text[i] <= ' ' || text[i] == 0x7f) {
            return 0;
        }
    }
    return 1;
}

static apr_status_t read_basic(const char *value, abb_credential_t *credential, apr_pool_t *p,
                               abb_error_t *err)
{
    const char *text = decode(value, p);
    const char *colon = text ? strchr(text, ':') : NULL;

    if (!colon || colon[1] == '\0') {
        return abb_error_set(err, ABB_EINPUT,
                             "Authorization: Basic holds no e-mail address and API token");
    }
    if (!is_email(text, (apr_size_t)(colon - text))) {
        return abb_error_set(err, ABB_EINPUT,
                             "the user name must be the e-mail address of the Atlassian account; "
                             "Bitbucket no longer takes user names and app passwords");
    }
    credential->is_basic = 1;
    credential->value = value;
    credential->email = abb_text_lower(apr_pstrmemdup(p, text, (apr_size_t)(colon - text)), p);
    return APR_SUCCESS;
}

/* ---- Bearer -------------------------------------------------------------- */

static int is_token68(const char *value)
{
    const char *c = value;

    while (apr_isalnum(*c) || (*c && strchr("-._~+/", *c))) {
        ++c;
    }
    return c > value && c[strspn(c, "=")] == '\0' && strlen(value) <= ABB_CREDENTIAL_MAX;
}

apr_status_t abb_credential_read(const char *authorization, abb_credential_t *credential,
                                 apr_pool_t *p, abb_error_t *err)
{
    const char *basic = behind_scheme(authorization, "Basic");
    const char *bearer = behind_scheme(authorization, "Bearer");

    if (basic) {
        return read_basic(basic, credential, p, err);
    }
    if (!bearer || !is_token68(bearer)) {
        return abb_error_set(err, ABB_EINPUT, "Authorization: Bearer holds no access token");
    }
    credential->is_basic = 0;
    credential->value = bearer;
    credential->email = NULL;
    return APR_SUCCESS;
}

/* ---- names --------------------------------------------------------------- */

apr_status_t abb_credential_derive_key(const abb_crypto_keyring_t *ring, const char *audience,
                                       abb_crypto_key_t *key, abb_error_t *err)
{
    unsigned char text[sizeof(KEY_PURPOSE) + ABB_CRYPTO_KEY_SIZE] = KEY_PURPOSE;
    apr_status_t status =
        abb_crypto_hash(audience, strlen(audience), "", 0, text + sizeof(KEY_PURPOSE), err);

    return status == APR_SUCCESS
               ? abb_crypto_authenticate(&ring->keys[0], text, sizeof(text), key->bytes, err)
               : status;
}

apr_status_t abb_credential_name(const abb_credential_t *credential, const abb_crypto_key_t *key,
                                 unsigned char name[ABB_CRYPTO_KEY_SIZE], apr_pool_t *p,
                                 abb_error_t *err)
{
    apr_size_t length = strlen(credential->value);
    unsigned char *text = abb_crypto_alloc_secret(length + 1, p);

    text[0] = credential->is_basic ? 'B' : 'T';
    memcpy(text + 1, credential->value, length);
    return abb_crypto_authenticate(key, text, length + 1, name, err);
}
