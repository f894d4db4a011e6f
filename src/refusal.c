/* refusal (floor 4): a reason as a status, a log line and a page. */
#include "abb_refusal.h"

#include <apr_strings.h>
#include <http_config.h>
#include <http_core.h>
#include <http_log.h>

#include "abb_crypto.h"
#include "abb_log.h"
#include "abb_text.h"

APLOG_USE_MODULE(auth_bitbucket);

#define REFERENCE_BYTES 5
#define RETRY_AFTER_DEFAULT 10

#define VARIABLE_ERROR "BITBUCKET_ERROR"
#define VARIABLE_ERROR_ID "BITBUCKET_ERROR_ID"

/* What a reason means to a browser. */
typedef struct {
    apr_status_t reason;
    int status;
    int level;
    const char *heading;
    const char *text;
    const char *advice;
} meaning_t;

static const char could_not_ask[] =
    "This site asks Bitbucket who you are, and Bitbucket did not answer as it should.";
static const char operator_must_act[] = "Only the people who run this site can mend it. Please "
                                        "tell them, with the reference below.";

static const meaning_t meanings[] = {
    {ABB_EINPUT, HTTP_BAD_REQUEST, APLOG_INFO, "This address is not complete",
     "The address that led here is not one that Bitbucket sends.",
     "Start again from the page you wanted to see."},
    {ABB_EATTEMPT, HTTP_BAD_REQUEST, APLOG_INFO, "Sign-in could not be finished",
     "Your browser did not bring back what this site gave it when the sign-in began. That happens "
     "when cookies are blocked, when more than ten minutes went by, or when the sign-in began "
     "under another address of this site.",
     "Allow cookies for this site and try again."},
    {ABB_EGRANT, HTTP_BAD_REQUEST, APLOG_INFO, "Sign-in could not be finished",
     "Bitbucket no longer accepts the code it sent you back with.", "Please try again."},
    {ABB_ELOOP, HTTP_FORBIDDEN, APLOG_INFO, "Signing in goes round in circles",
     "Your browser has signed in several times within a minute and is about to do it again.",
     "Wait a minute and try again. If it comes again, allow cookies for this site, or tell the "
     "people who run it, with the reference below."},
    {ABB_ECANCELLED, HTTP_FORBIDDEN, APLOG_INFO, "You did not grant access",
     "At Bitbucket you chose not to let this site see your account, so it cannot tell whether you "
     "may come in.",
     "Sign in again and choose to grant access if you want to go on."},
    {ABB_EACCOUNT, HTTP_FORBIDDEN, APLOG_INFO, "This account cannot be used here",
     "Bitbucket signed you in, but this site needs an active account of a person with all the "
     "details it works with.",
     "Sign in with another account, or ask the people who run this site."},
    {ABB_ECREDENTIAL, HTTP_UNAUTHORIZED, APLOG_INFO, "These credentials are not accepted",
     "This site takes the e-mail address of an Atlassian account as user name and a Bitbucket API "
     "token as password.",
     "Make an API token with scopes at id.atlassian.com, for Bitbucket, or renew yours."},
    {ABB_ETHROTTLED, HTTP_TOO_MANY_REQUESTS, APLOG_INFO, "Too many wrong credentials",
     "So many credentials were wrong that this site looks at no others for a while.",
     "Wait as long as Retry-After says."},
    {ABB_ECODES, HTTP_TOO_MANY_REQUESTS, APLOG_INFO, "Too many sign-ins failed",
     "So many sign-ins from your network brought something that Bitbucket does not accept that "
     "this site takes no more from there for a moment. Whoever is signed in stays so.",
     "Wait a minute and load this page again."},
    {ABB_EPRIVILEGE, HTTP_FORBIDDEN, APLOG_INFO, "This token may do too little",
     "Bitbucket does not tell this site what it needs to know with your token.",
     "Make an API token with the scope that is missing."},
    {ABB_EUPSTREAM, HTTP_SERVICE_UNAVAILABLE, APLOG_WARNING, "Bitbucket cannot be asked right now",
     could_not_ask, "Please try again in a moment."},
    {ABB_ELIMIT, HTTP_SERVICE_UNAVAILABLE, APLOG_WARNING, "Bitbucket asks for a pause",
     "This site has asked Bitbucket too often and must wait.", "Please try again in a while."},
    {ABB_EBUSY, HTTP_SERVICE_UNAVAILABLE, APLOG_INFO, "Too many people are waiting",
     "So many others wait for Bitbucket's answer just now that this site does not ask for more.",
     "Please try again in a moment."},
    {ABB_ETOKEN, HTTP_SERVICE_UNAVAILABLE, APLOG_WARNING, "Bitbucket cannot be asked right now",
     could_not_ask, "Please try again in a moment."},
    {ABB_EGONE, HTTP_SERVICE_UNAVAILABLE, APLOG_ERR, "Bitbucket cannot be asked right now",
     could_not_ask, operator_must_act},
    {ABB_ESTORE, HTTP_SERVICE_UNAVAILABLE, APLOG_WARNING, "Sessions cannot be read right now",
     "This site cannot look up whether you are signed in.", "Please try again in a moment."},
    {ABB_ECRYPTO, HTTP_SERVICE_UNAVAILABLE, APLOG_ERR, "Sign-in does not work right now",
     "This site cannot keep your sign-in safe, so it does not begin one.", operator_must_act},
    {ABB_ECLIENT, HTTP_INTERNAL_SERVER_ERROR, APLOG_ERR, "This site is not set up correctly",
     "Bitbucket does not accept the key, the secret or the callback address that this site uses.",
     operator_must_act},
    {ABB_ESCOPE, HTTP_INTERNAL_SERVER_ERROR, APLOG_ERR, "This site is not set up correctly",
     "Bitbucket does not let this site ask what it needs to know.", operator_must_act},
};

static const meaning_t unknown_meaning = {APR_EGENERAL,
                                          HTTP_INTERNAL_SERVER_ERROR,
                                          APLOG_ERR,
                                          "Something went wrong",
                                          "This site could not decide whether you may come in.",
                                          operator_must_act};

static const meaning_t *find_meaning(apr_status_t reason)
{
    for (apr_size_t i = 0; i < sizeof(meanings) / sizeof(meanings[0]); ++i) {
        if (meanings[i].reason == reason) {
            return &meanings[i];
        }
    }
    return &unknown_meaning;
}

/* A short name for one refusal, the same on the page and in the log. */
static const char *new_reference(request_rec *r)
{
    unsigned char bytes[REFERENCE_BYTES];

    if (abb_crypto_random(bytes, sizeof(bytes), NULL) != APR_SUCCESS) {
        return apr_psprintf(r->pool, "%" APR_TIME_T_FMT, r->request_time);
    }
    return abb_text_hex(bytes, sizeof(bytes), r->pool);
}

static void set_variables(request_rec *r, const char *word, const char *reference)
{
    apr_table_setn(r->subprocess_env, VARIABLE_ERROR, word);
    apr_table_setn(r->subprocess_env, VARIABLE_ERROR_ID, reference);
}

void abb_refusal_restore_variables(request_rec *r)
{
    const char *word = r->prev ? apr_table_get(r->prev->subprocess_env, VARIABLE_ERROR) : NULL;

    if (word) {
        set_variables(r, word, apr_table_get(r->prev->subprocess_env, VARIABLE_ERROR_ID));
    }
}

static void set_retry_after(request_rec *r, int status, const abb_error_t *err)
{
    /* Rounded up: who comes back at that time must not be too early. */
    apr_int64_t seconds = apr_time_sec(err->retry_after + apr_time_from_sec(1) - 1);

    if (status == HTTP_SERVICE_UNAVAILABLE || status == HTTP_TOO_MANY_REQUESTS) {
        apr_table_setn(r->err_headers_out, "Retry-After",
                       apr_psprintf(r->pool, "%" APR_INT64_T_FMT,
                                    seconds > 0 ? seconds : RETRY_AFTER_DEFAULT));
    }
}

static void begin_page(abb_page_t *page, const abb_refusal_offers_t *offers, const char *reference)
{
    memset(page, 0, sizeof(*page));
    page->site = offers->site;
    page->reference = reference;
}

static const char *site_of(const abb_refusal_offers_t *offers)
{
    return offers->site ? offers->site : "Bitbucket";
}

/* Basic first: some clients look at one challenge only. */
static void challenge(request_rec *r, const abb_refusal_offers_t *offers)
{
    const char *realm =
        apr_pstrcat(r->pool, "realm=\"", ap_escape_quotes(r->pool, site_of(offers)), "\"", NULL);

    apr_table_unset(r->err_headers_out, "WWW-Authenticate");
    if (offers->takes_basic) {
        apr_table_addn(r->err_headers_out, "WWW-Authenticate",
                       apr_pstrcat(r->pool, "Basic ", realm, ", charset=\"UTF-8\"", NULL));
    }
    apr_table_addn(r->err_headers_out, "WWW-Authenticate",
                   apr_pstrcat(r->pool, "Bitbucket ", realm, NULL));
}

static int is_of_a_credential(apr_status_t reason)
{
    return reason == ABB_ECREDENTIAL || reason == ABB_ETHROTTLED || reason == ABB_EPRIVILEGE;
}

/* What the visitor's own browser brought as Bitbucket's words, anybody can make up. */
static int level_of(const meaning_t *meaning, const abb_error_t *err)
{
    return err->quotes_request ? APLOG_INFO : meaning->level;
}

int abb_refusal_send(request_rec *r, const abb_error_t *err, const abb_refusal_offers_t *offers)
{
    const meaning_t *meaning = find_meaning(err->status);
    const char *reference = new_reference(r);
    const char *word = abb_error_word(err->status);
    abb_page_t page;

    ap_log_rerror(APLOG_MARK, level_of(meaning, err), 0, r,
                  ABB_LOGNO(0102) "answered %d: %s; reason=%s reference=%s", meaning->status,
                  err->text, word, reference);
    set_variables(r, word, reference);
    set_retry_after(r, meaning->status, err);
    if (meaning->status == HTTP_UNAUTHORIZED) {
        challenge(r, offers);
    }
    if (is_of_a_credential(err->status) && !abb_request_wants_page(r)) {
        return abb_request_send_text(r, meaning->status,
                                     apr_pstrcat(r->pool, meaning->heading, ": ", err->text, ". ",
                                                 meaning->advice, " Reference: ", reference, "\n",
                                                 NULL));
    }
    begin_page(&page, offers, reference);
    page.heading = meaning->heading;
    page.text = meaning->text;
    page.advice = meaning->advice;
    if (err->status == ABB_EATTEMPT || err->status == ABB_ELOOP ||
        is_of_a_credential(err->status)) {
        /* These sentences are all the module's own. */
        abb_page_add_fact(&page, "What happened", err->text);
    }
    if (err->status == ABB_ESCOPE && !err->quotes_request) {
        /* For the operator; whoever else reads it learns the name of a permission. */
        abb_page_add_fact(&page, "What is missing", err->text);
    }
    if (offers->retry) {
        abb_page_add_link(&page, "Try again", offers->retry);
    }
    if (offers->sign_in && meaning->status == HTTP_FORBIDDEN) {
        abb_page_add_link(&page, "Sign in", offers->sign_in);
    }
    return abb_request_send_page(r, meaning->status, &page);
}

int abb_refusal_send_forbidden(request_rec *r, const abb_account_t *account, const char *rule,
                               const abb_refusal_offers_t *offers)
{
    const char *reference = new_reference(r);
    abb_page_t page;

    ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, r,
                  ABB_LOGNO(0103) "refused; user=\"%s\" account=%s rule=\"%s\" reference=%s",
                  abb_text_quotable(r->user, 200, r->pool), account->uuid,
                  rule ? rule : "(not one of this module's)", reference);
    set_variables(r, "forbidden", reference);
    begin_page(&page, offers, reference);
    page.heading = "You may not see this page";
    page.text = "You are signed in, but this page is for others.";
    abb_page_add_fact(&page, "Signed in as",
                      account->display_name ? account->display_name : r->user);
    abb_page_add_fact(&page, "Account", account->username);
    abb_page_add_fact(&page, "Needed", rule);
    page.advice =
        "If you have just been given access, check again. Bitbucket remembers who you are, "
        "so to come as somebody else sign out there first. Otherwise ask the people who "
        "run this site.";
    abb_page_add_link(&page, "Check again", offers->retry);
    abb_page_add_link(&page, "Sign in as somebody else", offers->sign_in);
    return abb_request_send_page(r, HTTP_FORBIDDEN, &page);
}

int abb_refusal_send_unauthenticated(request_rec *r, abb_request_kind_t kind,
                                     const abb_refusal_offers_t *offers)
{
    const char *reference = new_reference(r);
    abb_page_t page;

    /* Subrequests ask by the hundred whether something is to be listed. */
    if (!r->main) {
        ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, r,
                      ABB_LOGNO(0114) "answered 401: nobody is signed in; reason=unauthenticated "
                                      "reference=%s",
                      reference);
    }
    challenge(r, offers);
    set_variables(r, "unauthenticated", reference);
    if (kind == ABB_REQUEST_JSON && !r->main) {
        return abb_request_send_json(
            r, HTTP_UNAUTHORIZED,
            apr_pstrcat(r->pool, "{\"error\":\"unauthenticated\",\"login_url\":",
                        abb_text_json(offers->sign_in, r->pool), "}\n", NULL));
    }
    if (offers->takes_basic && kind == ABB_REQUEST_OTHER) {
        return abb_request_send_text(
            r, HTTP_UNAUTHORIZED,
            "Please sign in: send the e-mail address of your Atlassian account as user name and a "
            "Bitbucket API token as password.\n");
    }
    begin_page(&page, offers, reference);
    page.heading = "Please sign in";
    page.text = "This page is for people who are signed in with Bitbucket.";
    page.opens_new_tab = kind == ABB_REQUEST_FRAME;
    abb_page_add_link(&page, "Sign in", offers->sign_in);
    return abb_request_send_page(r, HTTP_UNAUTHORIZED, &page);
}

int abb_refusal_send_form(request_rec *r, const char *reason, const char *text, const char *advice,
                          const abb_refusal_offers_t *offers)
{
    const char *reference = new_reference(r);
    abb_page_t page;

    ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, r, ABB_LOGNO(0401) "form not kept: %s; reference=%s",
                  reason, reference);
    challenge(r, offers);
    set_variables(r, "unauthenticated", reference);
    begin_page(&page, offers, reference);
    page.heading = "Your form was not sent";
    page.text = text;
    page.advice = advice;
    page.opens_new_tab = 1;
    abb_page_add_link(&page, "Sign in", offers->sign_in);
    return abb_request_send_page(r, HTTP_UNAUTHORIZED, &page);
}

int abb_refusal_send_stranger(request_rec *r, const abb_refusal_offers_t *offers)
{
    const char *reference = new_reference(r);
    abb_page_t page;

    ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, r,
                  ABB_LOGNO(0110) "refused; nobody is signed in; reference=%s", reference);
    set_variables(r, "unauthenticated", reference);
    begin_page(&page, offers, reference);
    page.heading = "You may not see this page";
    page.text = "This page is for people who are signed in with Bitbucket, and you are not.";
    abb_page_add_link(&page, "Sign in", offers->sign_in);
    return abb_request_send_page(r, HTTP_FORBIDDEN, &page);
}
