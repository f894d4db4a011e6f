/*
 * preserve (floor 6): forms that survive the sign-in. See abb_preserve.h.
 *
 *      POST /wiki/save            no session: keep, 303 to our page
 *      GET  .../kept-form?n=1f..  "Sign in to send your form"
 *      GET  .../login             ... Bitbucket ... callback
 *      GET  .../kept-form?n=1f..  "Send it now": a form with the fields
 *      POST /wiki/save            Referer is our page: let in, and the copy forgotten
 *
 * The first answer is a redirect to this site and not to Bitbucket, because pages
 * with the policy form-action 'self' let Chromium follow no other after a form.
 */
#include "abb_preserve.h"

#include <apr_strings.h>
#include <http_config.h>
#include <http_core.h>
#include <http_log.h>
#include <http_request.h>

#include "abb_draft.h"
#include "abb_form.h"
#include "abb_log.h"
#include "abb_text.h"

APLOG_USE_MODULE(auth_bitbucket);

/* Largest form that discards, in bytes. */
#define DISCARD_FORM_MAX 1024

/* ---- forms that are not kept --------------------------------------------- */

typedef enum {
    LOST_STRANGER,
    LOST_FOREIGN,
    LOST_FRAME,
    LOST_ADDRESS,
    LOST_TYPE,
    LOST_SIZE,
    LOST_FILE,
    LOST_BROKEN,
    LOST_ODD,
    LOST_CUT,
    LOST_STORE
} lost_t;

static const char reload[] =
    "Your browser still has it. Sign in with the button, which opens a new tab. Then come back to "
    "this tab and reload this page: your browser asks whether to send the form again.";
static const char send_anew[] =
    "If you meant to send it, sign in first, and then send it once more from where you wrote it.";

/* What the log says, and what the page. */
static const struct {
    const char *reason;
    const char *text;
    const char *advice;
} losses[] = {
    [LOST_STRANGER] = {"nobody has signed in in this browser lately",
                       "You are not signed in. This site keeps forms only for browsers in which "
                       "somebody has signed in lately, so yours was not sent and not kept.",
                       reload},
    [LOST_FOREIGN] = {"it does not come from a page of this site",
                      "You are not signed in, and the form does not come from a page of this site. "
                      "So it was not sent and not kept.",
                      send_anew},
    [LOST_FRAME] = {"it comes from a frame",
                    "You are not signed in. The form stands in a frame of another page, where "
                    "nobody can sign in. So it was not sent and not kept.",
                    reload},
    [LOST_ADDRESS] = {"its address cannot be used again",
                      "You are not signed in. The address that the form goes to is one that this "
                      "site cannot send it to later. So it was not sent and not kept.",
                      reload},
    [LOST_TYPE] = {"its type is none that can be kept",
                   "You are not signed in. The form is of a kind that this site cannot keep. So it "
                   "was not sent.",
                   reload},
    [LOST_SIZE] = {"it is larger than 64 kB",
                   "You are not signed in. The form is larger than the 64 kB that this site keeps. "
                   "So it was not sent.",
                   reload},
    [LOST_FILE] = {"it holds a file",
                   "You are not signed in. The form holds a file, and this site keeps none. So it "
                   "was not sent.",
                   reload},
    [LOST_BROKEN] = {"it cannot be read",
                     "You are not signed in. This site cannot read the form, so it was not sent "
                     "and not kept.",
                     reload},
    [LOST_ODD] = {"it could not be sent again exactly as it is",
                  "You are not signed in. The form holds characters or parts that would not come "
                  "out exactly the same later. So it was not sent and not kept.",
                  reload},
    [LOST_CUT] = {"it did not arrive in full",
                  "You are not signed in. The form did not arrive in full, so it was not sent and "
                  "not kept.",
                  reload},
    [LOST_STORE] = {"there was no room for it",
                    "You are not signed in. This site has no room to keep the form just now, so it "
                    "was not sent.",
                    reload},
};

/* The page that a form was on, if it is one of this site, else NULL. */
static const char *page_before(const abb_visit_t *visit, request_rec *r)
{
    return abb_text_local_path(apr_table_get(r->headers_in, "Referer"), visit->site->origin);
}

static int refuse_form(abb_visit_t *visit, request_rec *r, lost_t lost)
{
    abb_refusal_offers_t offers = abb_visit_offers(visit, r, page_before(visit, r));

    return abb_refusal_send_form(r, losses[lost].reason, losses[lost].text, losses[lost].advice,
                                 &offers);
}

/* The log also hears what the store says. */
static int refuse_for_lack_of_room(abb_visit_t *visit, request_rec *r, const abb_error_t *err)
{
    abb_refusal_offers_t offers = abb_visit_offers(visit, r, page_before(visit, r));
    const char *reason = apr_pstrcat(r->pool, losses[LOST_STORE].reason, ": ", err->text, NULL);

    return abb_refusal_send_form(r, reason, losses[LOST_STORE].text, losses[LOST_STORE].advice,
                                 &offers);
}

/* ---- forms that are kept ------------------------------------------------- */

static apr_status_t find_badge(const abb_visit_t *visit, request_rec *r, abb_draft_badge_t *badge)
{
    return abb_draft_read_badge(
        abb_cookie_find(visit->cookies.line, visit->site->cookies.badge_name, r->pool),
        visit->site->tickets, visit->now, badge, r->pool);
}

static lost_t lost_by(abb_form_verdict_t verdict)
{
    switch (verdict) {
    case ABB_FORM_OTHER_TYPE:
        return LOST_TYPE;
    case ABB_FORM_FILE:
        return LOST_FILE;
    case ABB_FORM_NOT_REPEATABLE:
        return LOST_ODD;
    default:
        return LOST_BROKEN;
    }
}

/* Where our page shows one form and no other. */
static const char *address_of(const abb_visit_t *visit, const char *number, apr_pool_t *p)
{
    return apr_pstrcat(p, visit->site->kept_form_path, "?n=", number, NULL);
}

static int keep(abb_visit_t *visit, request_rec *r, const abb_draft_badge_t *badge,
                abb_draft_t *draft)
{
    abb_error_t err;

    abb_error_clear(&err);
    if (abb_draft_put(&visit->site->sessions, badge, draft, apr_time_now(), r->pool, &err) !=
        APR_SUCCESS) {
        return refuse_for_lack_of_room(visit, r, &err);
    }
    ap_log_rerror(APLOG_MARK, APLOG_DEBUG, 0, r,
                  ABB_LOGNO(0402) "form kept until the visitor has signed in; form=%s account=%s",
                  draft->number, badge->account);
    return abb_request_redirect(r, HTTP_SEE_OTHER, address_of(visit, draft->number, r->pool));
}

static int read_and_keep(abb_visit_t *visit, request_rec *r, const abb_draft_badge_t *badge,
                         abb_draft_t *draft)
{
    abb_form_t form;
    abb_form_verdict_t verdict;
    int is_too_long;

    draft->body = abb_request_read_body(r, ABB_DRAFT_BODY_MAX, &draft->body_size, &is_too_long);
    if (!draft->body) {
        return refuse_form(visit, r, is_too_long ? LOST_SIZE : LOST_CUT);
    }
    verdict = abb_form_parse(draft->content_type, draft->body, draft->body_size, &form, r->pool);
    return verdict == ABB_FORM_GOOD ? keep(visit, r, badge, draft)
                                    : refuse_form(visit, r, lost_by(verdict));
}

/* The request that the browser made, before httpd made others of it. */
static request_rec *first_of(request_rec *r)
{
    while (r->prev) {
        r = r->prev;
    }
    return r;
}

/* Where to go on without the form; our own page will have nothing to show then. */
static const char *way_back(const abb_visit_t *visit, request_rec *r)
{
    const char *page = page_before(visit, r);
    const char *ours = visit->site->kept_form_path;

    return page && strncmp(page, ours, strlen(ours)) != 0 ? page : "";
}

static int answer_form(abb_visit_t *visit, request_rec *r, abb_request_kind_t kind)
{
    abb_draft_t draft = {.back = way_back(visit, r)};
    abb_draft_badge_t badge;
    abb_form_verdict_t verdict;

    /* Another site's form is told so first: it brings no cookies of ours either. */
    if (!abb_request_is_same_origin(r, visit->site->origin)) {
        return refuse_form(visit, r, LOST_FOREIGN);
    }
    if (kind == ABB_REQUEST_FRAME) {
        return refuse_form(visit, r, LOST_FRAME);
    }
    if (find_badge(visit, r, &badge) != APR_SUCCESS) {
        return refuse_form(visit, r, LOST_STRANGER);
    }
    draft.path = abb_text_local_path(first_of(r)->unparsed_uri, visit->site->origin);
    if (!draft.path || first_of(r)->method_number != M_POST) {
        return refuse_form(visit, r, LOST_ADDRESS);
    }
    draft.content_type = apr_table_get(r->headers_in, "Content-Type");
    verdict = apr_table_get(r->headers_in, "Content-Encoding")
                  ? ABB_FORM_OTHER_TYPE
                  : abb_form_check_type(draft.content_type);
    return verdict == ABB_FORM_GOOD ? read_and_keep(visit, r, &badge, &draft)
                                    : refuse_form(visit, r, lost_by(verdict));
}

int abb_preserve_form(abb_visit_t *visit, request_rec *r, int *status)
{
    abb_request_kind_t kind = r->main ? ABB_REQUEST_OTHER : abb_request_form_kind(r);

    if (kind == ABB_REQUEST_OTHER || !abb_config_place(r).preserves_post) {
        return 0;
    }
    *status = answer_form(visit, r, kind);
    return 1;
}

/* ---- visitors who are let in --------------------------------------------- */

/* The number of the form that our page in the Referer shows, or NULL. */
static const char *number_sent(const abb_visit_t *visit, request_rec *r)
{
    const char *page = r->method_number == M_POST ? page_before(visit, r) : NULL;
    const char *start = page ? address_of(visit, "", r->pool) : NULL;

    return start && strncmp(page, start, strlen(start)) == 0 ? page + strlen(start) : NULL;
}

static void forget_sent(const abb_visit_t *visit, request_rec *r, const abb_draft_badge_t *badge)
{
    const char *number = number_sent(visit, r);

    if (number && abb_draft_drop(&visit->site->sessions, badge, number, apr_time_now(), r->pool,
                                 NULL) == APR_SUCCESS) {
        ap_log_rerror(APLOG_MARK, APLOG_DEBUG, 0, r,
                      ABB_LOGNO(0403) "form sent, the copy is forgotten; form=%s", number);
    }
}

/* Only where no cache keeps the answer: it would hand the badge to others. */
static void give_badge(abb_visit_t *visit, request_rec *r, const abb_draft_badge_t *present)
{
    const abb_site_t *site = visit->site;
    const char *value = NULL;

    if (!visit->has_given_badge &&
        abb_draft_renew_badge(&site->sessions, visit->session, present, site->tickets, visit->now,
                              &value, r->pool, NULL) == APR_SUCCESS &&
        value) {
        abb_request_set_cookie(r, &site->cookies, site->cookies.badge_name, value,
                               (int)apr_time_sec(abb_draft_badge_lifetime(&site->sessions)));
        visit->has_given_badge = 1;
    }
}

void abb_preserve_admit(abb_visit_t *visit, request_rec *r)
{
    abb_place_t place = abb_config_place(r);
    abb_draft_badge_t badge;
    int has_badge;

    /* What a page loads or asks for by itself has nothing to do with forms. */
    if (!place.preserves_post || r->main || visit->is_named ||
        (r->method_number != M_POST && abb_request_kind(r) != ABB_REQUEST_NAVIGATION)) {
        return;
    }
    has_badge = find_badge(visit, r, &badge) == APR_SUCCESS;
    if (has_badge) {
        forget_sent(visit, r, &badge);
    }
    if (place.is_private) {
        give_badge(visit, r, has_badge ? &badge : NULL);
    }
}

/* ---- the page ------------------------------------------------------------ */

static void begin_page(abb_page_t *page, request_rec *r)
{
    memset(page, 0, sizeof(*page));
    page->site = ap_auth_name(r);
}

static int show_nothing(request_rec *r, const char *heading, const char *text, const char *back)
{
    abb_page_t page;

    begin_page(&page, r);
    page.heading = heading;
    page.text = text;
    abb_page_add_link(&page, "Continue", *back ? back : "/");
    return abb_request_send_page(r, HTTP_OK, &page);
}

static int show_absence(request_rec *r)
{
    return show_nothing(r, "No form is kept here",
                        "Either it has been sent or discarded, or the ten minutes are over for "
                        "which this site keeps forms.",
                        "/");
}

static apr_status_t offer_discard(const abb_visit_t *visit, abb_page_t *page,
                                  const abb_draft_badge_t *badge, apr_pool_t *p, abb_error_t *err)
{
    page->form_action = visit->site->kept_form_path;
    page->form_label = "Discard it";
    page->form_is_second = 1;
    return abb_draft_form_token(badge, &page->form_token, p, err);
}

static const abb_page_field_t *page_fields(const abb_form_t *form, apr_pool_t *p)
{
    abb_page_field_t *fields = apr_palloc(p, (apr_size_t)(form->count + 1) * sizeof(*fields));

    for (int i = 0; i < form->count; ++i) {
        fields[i].name = form->fields[i].name;
        fields[i].value = form->fields[i].value;
        fields[i].is_empty_file = form->fields[i].is_empty_file;
    }
    return fields;
}

static const char *count_text(int count, apr_pool_t *p)
{
    return count == 1 ? "1 field" : apr_psprintf(p, "%d fields", count);
}

/* To whom it belongs, signed in again: the fields, and the button. */
static int offer(abb_visit_t *visit, request_rec *r, const abb_draft_badge_t *badge,
                 const abb_draft_t *draft, abb_page_t *page)
{
    abb_page_resend_t resend;
    abb_form_t form;

    if (abb_form_parse(draft->content_type, draft->body, draft->body_size, &form, r->pool) !=
        ABB_FORM_GOOD) {
        return show_absence(r);
    }
    resend.action = draft->path;
    resend.type = form.type == ABB_FORM_MULTIPART ? "multipart/form-data"
                                                  : "application/x-www-form-urlencoded";
    resend.charset = form.charset;
    resend.label = "Send it now";
    resend.fields = page_fields(&form, r->pool);
    resend.count = form.count;
    page->resend = &resend;
    page->heading = "Your form is still here";
    page->text =
        "You had been signed out, so it has not been sent yet. Now you are signed in again.";
    abb_page_add_fact(page, "Goes to", draft->path);
    abb_page_add_fact(page, "Holds", count_text(form.count, r->pool));
    return abb_request_send_page(r, HTTP_OK, page);
}

static int ask_to_sign_in(abb_visit_t *visit, request_rec *r, const abb_draft_t *draft,
                          abb_page_t *page)
{
    page->heading = "Sign in to send your form";
    page->text = "You have been signed out, so your form has not been sent yet. This site keeps it "
                 "for ten minutes, for you in this browser.";
    page->advice = "Once you have signed in, you can send it with one click.";
    abb_page_add_fact(page, "Goes to", draft->path);
    abb_page_add_link(page, "Sign in",
                      abb_visit_login_url(visit, r, address_of(visit, draft->number, r->pool)));
    return abb_request_send_page(r, HTTP_OK, page);
}

static int refuse_other_account(abb_visit_t *visit, request_rec *r, const abb_draft_t *draft,
                                abb_page_t *page)
{
    page->heading = "This form is somebody else's";
    page->text = "A form is kept in this browser, but by another account than the one you are "
                 "signed in with. Only that account can send it.";
    page->advice = "Bitbucket remembers who you are, so to come as somebody else sign out there "
                   "first.";
    abb_page_add_link(page, "Sign in as somebody else",
                      abb_visit_login_url(visit, r, address_of(visit, draft->number, r->pool)));
    return abb_request_send_page(r, HTTP_OK, page);
}

static int is_asked_for(request_rec *r, const char *number)
{
    return r->args && strncmp(r->args, "n=", 2) == 0 && strcmp(r->args + 2, number) == 0;
}

static int show(abb_visit_t *visit, request_rec *r, const abb_draft_badge_t *badge,
                const abb_draft_t *draft)
{
    abb_error_t err;
    abb_page_t page;
    apr_status_t found;

    /* The address of a form's page names it, so that it can be told which one was sent. */
    if (!is_asked_for(r, draft->number)) {
        return abb_request_redirect(r, HTTP_SEE_OTHER, address_of(visit, draft->number, r->pool));
    }
    abb_error_clear(&err);
    begin_page(&page, r);
    found = abb_visit_find_session(visit, &err);
    if ((found != APR_SUCCESS && found != APR_NOTFOUND) ||
        offer_discard(visit, &page, badge, r->pool, &err) != APR_SUCCESS) {
        return abb_visit_refuse(visit, r, &err, NULL);
    }
    if (found == APR_NOTFOUND) {
        return ask_to_sign_in(visit, r, draft, &page);
    }
    return strcmp(visit->session->record.account.uuid, badge->account) == 0
               ? offer(visit, r, badge, draft, &page)
               : refuse_other_account(visit, r, draft, &page);
}

static int discard(abb_visit_t *visit, request_rec *r, const abb_draft_badge_t *badge,
                   const abb_draft_t *draft)
{
    abb_error_t err;
    apr_status_t status;

    abb_error_clear(&err);
    status = abb_draft_drop(&visit->site->sessions, badge, NULL, apr_time_now(), r->pool, &err);
    if (status != APR_SUCCESS && status != APR_NOTFOUND) {
        return abb_visit_refuse(visit, r, &err, NULL);
    }
    ap_log_rerror(APLOG_MARK, APLOG_DEBUG, 0, r, ABB_LOGNO(0404) "form discarded; form=%s",
                  draft->number);
    return show_nothing(r, "The form is discarded",
                        "It was not sent, and this site has "
                        "forgotten it.",
                        draft->back);
}

/* Without the page's token another site may have sent it: show the form instead. */
static int wants_to_discard(request_rec *r, const abb_draft_badge_t *badge)
{
    const char *body = abb_request_read_form(r, DISCARD_FORM_MAX);
    apr_table_t *values;

    return body && abb_text_query_parse(body, &values, r->pool, NULL) == APR_SUCCESS &&
           abb_draft_is_form_token(badge, apr_table_get(values, "token"), r->pool);
}

int abb_preserve_handle(abb_visit_t *visit, request_rec *r)
{
    abb_draft_badge_t badge;
    abb_draft_t draft;
    abb_error_t err;
    apr_status_t status;

    if (r->method_number != M_GET && r->method_number != M_POST) {
        return abb_request_only_get(r, "POST");
    }
    abb_error_clear(&err);
    if (find_badge(visit, r, &badge) != APR_SUCCESS) {
        return show_absence(r);
    }
    status = abb_draft_find(&visit->site->sessions, &badge, apr_time_now(), &draft, r->pool, &err);
    if (status == APR_NOTFOUND) {
        return show_absence(r);
    }
    if (status != APR_SUCCESS) {
        return abb_visit_refuse(visit, r, &err, NULL);
    }
    return r->method_number == M_POST && wants_to_discard(r, &badge)
               ? discard(visit, r, &badge, &draft)
               : show(visit, r, &badge, &draft);
}
