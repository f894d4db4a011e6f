/* selfcheck (floor 6): whether the file of sessions is whole. See selfcheck_internal.h. */
#include <httpd.h>

#include <http_config.h>

#include "abb_store_file.h"
#include "selfcheck_internal.h"

static void print_failure(abb_selfcheck_t *look, const char *path, const char *what,
                          const char *remedy)
{
    ++look->failures;
    apr_file_printf(look->out, "FAILED  %s: %s: %s\n", path, what, remedy);
}

static void print_records(abb_selfcheck_t *look, const char *path,
                          const abb_store_file_report_t *report)
{
    const abb_store_shm_import_t *records = &report->records;
    int is_whole = !records->damaged && !report->unreadable;

    look->failures += !is_whole;
    apr_file_printf(look->out,
                    "%s %s: %" APR_UINT64_T_FMT " records whole, %" APR_UINT64_T_FMT
                    " over, %" APR_UINT64_T_FMT " damaged",
                    is_whole ? "ok     " : "FAILED ", path, records->kept, records->expired,
                    records->damaged);
    if (report->unreadable) {
        apr_file_printf(look->out, ", %" APR_UINT64_T_FMT " bytes that the disk does not give",
                        report->unreadable);
    }
    apr_file_printf(look->out, "%s\n",
                    is_whole ? ""
                             : ": a start keeps those that are whole; while httpd runs, ask again");
}

void abb_selfcheck_verify(abb_selfcheck_t *look)
{
    const char *path = abb_config_cache(look->main_server).file;
    abb_store_file_report_t report;
    abb_error_t err;

    abb_error_clear(&err);
    if (!path) {
        apr_file_printf(look->out, "ok      sessions are kept in no file\n");
    }
    else if (abb_store_file_survey(path, apr_time_now(), &report, look->pool, &err) !=
             APR_SUCCESS) {
        print_failure(look, path, err.text, "run httpd -t as the user that starts httpd");
    }
    else if (!report.was_there) {
        apr_file_printf(look->out, "ok      %s: no sessions yet\n", path);
    }
    else if (report.refused) {
        print_failure(look, path, report.refused, report.remedy);
    }
    else {
        print_records(look, path, &report);
    }
}
