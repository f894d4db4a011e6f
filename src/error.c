/* error (floor 0): a reason and a sentence. See abb_error.h. */
#include "abb_error.h"

#include <stdarg.h>
#include <stdio.h>

static const struct {
    apr_status_t status;
    const char *word;
} words[] = {
    {ABB_EINPUT, "input"},
    {ABB_ESEAL, "seal"},
    {ABB_ECRYPTO, "crypto"},
    {ABB_ESTORE, "store"},
    {ABB_EUPSTREAM, "upstream"},
    {ABB_ELIMIT, "rate-limit"},
    {ABB_ECLIENT, "client"},
    {ABB_ESCOPE, "scope"},
    {ABB_EGRANT, "grant"},
    {ABB_ETOKEN, "token"},
    {ABB_EGONE, "gone"},
    {ABB_ECANCELLED, "cancelled"},
    {ABB_EACCOUNT, "account"},
    {ABB_EATTEMPT, "attempt"},
    {ABB_ECHANGED, "changed"},
    {ABB_EBUSY, "busy"},
    {ABB_EIDENTITY, "identity"},
    {ABB_ELOOP, "loop"},
    {ABB_ECREDENTIAL, "credential"},
    {ABB_ETHROTTLED, "throttled"},
    {ABB_ECODES, "codes"},
    {ABB_EPRIVILEGE, "privilege"},
};

void abb_error_clear(abb_error_t *err)
{
    err->status = APR_SUCCESS;
    err->retry_after = 0;
    err->quotes_request = 0;
    err->text[0] = '\0';
}

static void keep_printable(char *text)
{
    for (; *text; ++text) {
        if (*text < 0x20 || *text > 0x7e) {
            *text = '?';
        }
    }
}

apr_status_t abb_error_set(abb_error_t *err, apr_status_t status, const char *format, ...)
{
    va_list arguments;

    if (!err || err->status != APR_SUCCESS) {
        return status;
    }
    err->status = status;
    va_start(arguments, format);
    vsnprintf(err->text, sizeof(err->text), format, arguments);
    va_end(arguments);
    keep_printable(err->text);
    return status;
}

const char *abb_error_word(apr_status_t status)
{
    for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); ++i) {
        if (words[i].status == status) {
            return words[i].word;
        }
    }
    return "error";
}
