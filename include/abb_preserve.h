/*
 * preserve (floor 6): forms that survive the sign-in, at the level of httpd.
 *
 * A form posted after the session ended is kept (see abb_draft.h), the browser is
 * sent to a page of ours beside the callback, and that page offers, after the
 * sign-in, to send the form. Nothing is ever sent without the visitor's click.
 * Threads: all functions work on a request of the calling thread.
 */
#ifndef ABB_PRESERVE_H
#define ABB_PRESERVE_H

#include "abb_visit.h"

/*
 * Answer a form that nobody is signed in for, where AuthBitbucketPreservePost is On:
 * keep it, or say on the page of the 401 why it was not kept. Returns 0 and leaves
 * *status, and the body, alone when it is not so or the request is no form of a page.
 */
int abb_preserve_form(abb_visit_t *visit, request_rec *r, int *status);

/*
 * Note that a signed-in visitor was let in: gives the browser its badge where forms
 * are kept, and forgets the form that our page has just sent.
 */
void abb_preserve_admit(abb_visit_t *visit, request_rec *r);

/* The page of the form that is kept. Returns the status to return from the hook. */
int abb_preserve_handle(abb_visit_t *visit, request_rec *r);

#endif
