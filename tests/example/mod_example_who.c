/*
 * An example: a handler that says who it is, with the installed mod_auth_bitbucket.h.
 *
 *     apxs -c -i mod_example_who.c
 *
 *     LoadModule example_who_module modules/mod_example_who.so
 *     <Location "/who">
 *         AuthType Bitbucket
 *         Require valid-user
 *         SetHandler example-who
 *     </Location>
 */
#include <httpd.h>

#include <http_config.h>
#include <http_protocol.h>
#include <mod_auth_bitbucket.h>

static APR_OPTIONAL_FN_TYPE(bitbucket_account_of) * account_of;

static void find_functions(void)
{
    account_of = APR_RETRIEVE_OPTIONAL_FN(bitbucket_account_of);
}

static void say(request_rec *r, const char *name, const char *value)
{
    if (value) {
        ap_rprintf(r, "%s=%s\n", name, value);
    }
}

static void say_age(request_rec *r, const char *name, apr_time_t since)
{
    ap_rprintf(r, "%s=%ld\n", name, (long)apr_time_sec(r->request_time - since));
}

static void say_account(request_rec *r, const bitbucket_account_t *account)
{
    say(r, "uuid", account->uuid);
    say(r, "account_id", account->account_id);
    say(r, "username", account->username);
    say(r, "nickname", account->nickname);
    say(r, "display_name", account->display_name);
    say(r, "first_name", account->first_name);
    say(r, "last_name", account->last_name);
    say(r, "email", account->email);
    say(r, "email_confirmed", account->is_email_confirmed ? "yes" : "no");
    say(r, "avatar_url", account->avatar_url);
    say(r, "profile_url", account->profile_url);
    for (int i = 0; i < account->row_count; ++i) {
        const bitbucket_row_t *row = account->rows[i];

        ap_rprintf(r, "row=%s %s %s\n", row->name, row->uuid ? row->uuid : "-", row->role);
        say_age(r, "row_age", row->checked_at);
    }
    say_age(r, "signed_in", account->signed_in_at);
    say_age(r, "age", account->checked_at);
    say_age(r, "expires", account->expires_at);
    if (BITBUCKET_HAS(account, ends_at)) {
        say_age(r, "ends", account->ends_at);
    }
}

static int handle(request_rec *r)
{
    const bitbucket_account_t *account;

    if (!r->handler || strcmp(r->handler, "example-who") != 0) {
        return DECLINED;
    }
    account = account_of ? account_of(r) : NULL;
    ap_set_content_type(r, "text/plain; charset=utf-8");
    if (account) {
        say_account(r, account);
    }
    else {
        ap_rputs(account_of ? "nobody\n" : "no mod_auth_bitbucket\n", r);
    }
    return OK;
}

static void register_hooks(apr_pool_t *p)
{
    ap_hook_optional_fn_retrieve(find_functions, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_handler(handle, NULL, NULL, APR_HOOK_MIDDLE);
}

module AP_MODULE_DECLARE_DATA example_who_module = {
    STANDARD20_MODULE_STUFF, NULL, NULL, NULL, NULL, NULL, register_hooks,
#ifdef AP_MODULE_HAS_FLAGS
    AP_MODULE_FLAG_NONE,
#endif
};
