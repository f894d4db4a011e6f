/* interface (floor 6): the account of a request, for other modules. See mod_auth_bitbucket.h. */
#include "abb_interface.h"

#include "abb_visit.h"
#include "mod_auth_bitbucket.h"

static const bitbucket_row_t *row_of(const abb_grant_t *grant, apr_pool_t *p)
{
    bitbucket_row_t *row = apr_pcalloc(p, sizeof(*row));

    row->size = sizeof(*row);
    row->name = grant->slug ? grant->slug : grant->asked;
    row->uuid = grant->uuid;
    row->role = abb_account_role_word(grant->role);
    row->checked_at = grant->checked_at;
    return row;
}

static const bitbucket_row_t *const *rows_of(const abb_record_t *record, apr_pool_t *p)
{
    const bitbucket_row_t **rows =
        apr_palloc(p, ((apr_size_t)record->grant_count + 1) * sizeof(*rows));

    for (int i = 0; i < record->grant_count; ++i) {
        rows[i] = row_of(&record->grants[i], p);
    }
    rows[record->grant_count] = NULL;
    return rows;
}

static const bitbucket_account_t *account_of(const abb_session_t *session, apr_pool_t *p)
{
    const abb_account_t *known = &session->record.account;
    bitbucket_account_t *account = apr_pcalloc(p, sizeof(*account));

    account->size = sizeof(*account);
    account->uuid = known->uuid;
    account->account_id = known->account_id;
    account->username = known->username;
    account->nickname = known->nickname;
    account->display_name = known->display_name;
    abb_account_split_name(known->display_name, &account->first_name, &account->last_name, p);
    account->email = known->email;
    account->is_email_confirmed = known->email != NULL;
    account->avatar_url = known->avatar_url;
    account->profile_url = known->profile_url;
    account->rows = rows_of(&session->record, p);
    account->row_count = session->record.grant_count;
    account->signed_in_at = session->record.created_at;
    account->checked_at = session->record.account_checked_at;
    account->expires_at = session->expires_at;
    account->ends_at = session->absolute_end;
    return account;
}

static const bitbucket_account_t *bitbucket_account_of(request_rec *r)
{
    const abb_visit_t *visit = abb_visit_find_identified(r);

    return visit ? account_of(visit->session, r->pool) : NULL;
}

void abb_interface_register(void)
{
    APR_REGISTER_OPTIONAL_FN(bitbucket_account_of);
}
