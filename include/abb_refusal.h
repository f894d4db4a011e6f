/*
 * refusal (floor 4): a reason as a status, a log line and a page.
 *
 * The one table of what each reason means to a browser. Page and log line carry
 * the same reference. Knows no site, no session, no rule.
 */
#ifndef ABB_REFUSAL_H
#define ABB_REFUSAL_H

#include "abb_account.h"
#include "abb_error.h"
#include "abb_request.h"

/* What a refused visitor may try. NULL members are left out of the page. */
typedef struct abb_refusal_offers_t {
    /* Address to try again at. */
    const char *retry;
    /* Address to sign in at, also as somebody else. */
    const char *sign_in;
    /* Name of the site for the page. */
    const char *site;
    /* A 401 may offer Basic, too: the place takes API tokens, and no browser asks. */
    int takes_basic;
} abb_refusal_offers_t;

/*
 * Answer with the page for a reason: logs one line with a new reference, sets
 * BITBUCKET_ERROR and BITBUCKET_ERROR_ID for ErrorDocument, sets Retry-After
 * where the status is 503 or 429, and a challenge where it is 401. What is said of a
 * credential is plain text to who does not ask for a page. Returns the status to return from the hook.
 */
int abb_refusal_send(request_rec *r, const abb_error_t *err, const abb_refusal_offers_t *offers);

/*
 * Answer 403 to a signed-in visitor whom the rules refuse. The page shows the
 * account's names; rule: in plain words, or NULL.
 */
int abb_refusal_send_forbidden(request_rec *r, const abb_account_t *account, const char *rule,
                               const abb_refusal_offers_t *offers);

/*
 * Answer 401 to a visitor without a session who cannot be sent to sign in:
 * JSON where it is asked for, a page for frames, a line of text for what may come by
 * Basic, a plain page else.
 */
int abb_refusal_send_unauthenticated(request_rec *r, abb_request_kind_t kind,
                                     const abb_refusal_offers_t *offers);

/*
 * Answer 401 to a visitor without a session whose form could not be kept. The reason
 * is for the log, text and advice for the page. The sign-in opens in a new tab, since
 * this one still has the form.
 */
int abb_refusal_send_form(request_rec *r, const char *reason, const char *text, const char *advice,
                          const abb_refusal_offers_t *offers);

/* Answer 403 to a visitor without a session where nobody is asked to sign in. */
int abb_refusal_send_stranger(request_rec *r, const abb_refusal_offers_t *offers);

/* Hand the variables of a refusal on to the request that ErrorDocument makes. */
void abb_refusal_restore_variables(request_rec *r);

#endif
