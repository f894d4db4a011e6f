/*
 * memory (floor 5): what all processes know of Bitbucket's condition, who waits
 * for it, and what was counted. See memory_condition.h.
 */
#include "memory_condition.h"

#include <apr_shm.h>
#include <apr_strings.h>
#include <http_config.h>

#include "abb_config.h"
#include "abb_news.h"

/*
 * Raise the number when the layout of abb_traffic, abb_gate, abb_throttle or abb_counters
 * changes.
 */
#define RETAINED_KEY "mod_auth_bitbucket:condition 7"

typedef struct {
    apr_shm_t *block;
} retained_t;

static void *find_block(server_rec *s)
{
    retained_t *retained = ap_retained_data_get(RETAINED_KEY);

    if (!retained) {
        retained = ap_retained_data_create(RETAINED_KEY, sizeof(*retained));
    }
    if (!retained->block && apr_shm_create(&retained->block,
                                           abb_traffic_size() + abb_gate_size() +
                                               abb_throttle_size() + abb_counters_size(),
                                           NULL, s->process->pool) != APR_SUCCESS) {
        retained->block = NULL;
        return NULL;
    }
    return apr_shm_baseaddr_get(retained->block);
}

/* Sites with one consumer at one Bitbucket share what is known of it. */
static void give_traffic(server_rec *s, abb_site_t *site, void *block, apr_pool_t *p)
{
    const abb_bitbucket_t *bitbucket = &site->bitbucket;
    const char *consumer = apr_pstrcat(p, bitbucket->client_id, " ", bitbucket->token_url, " ",
                                       bitbucket->api_url, NULL);

    site->bitbucket.traffic = abb_traffic_create(block, consumer, abb_news_traffic, s, p);
}

int abb_memory_condition_open(server_rec *s, apr_pool_t *pconf)
{
    char *block = find_block(s);
    char *rest;
    abb_throttle_t *throttle;
    abb_counters_t *counters;
    abb_gate_t *gate;

    if (!block) {
        return 0;
    }
    rest = block + abb_traffic_size();
    gate = abb_gate_create(rest, pconf);
    rest += abb_gate_size();
    throttle = abb_throttle_create(rest, pconf);
    counters = abb_counters_begin(rest + abb_throttle_size(), apr_time_now());
    for (; s; s = s->next) {
        abb_site_t *site = abb_config_site(s);

        if (site) {
            give_traffic(s, site, block, pconf);
            site->bitbucket.counters = counters;
            site->gate = gate;
            site->throttle = throttle;
        }
    }
    return 1;
}
