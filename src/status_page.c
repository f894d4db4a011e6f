/* status (floor 8): the page. See status_internal.h. */
#include <apr_base64.h>
#include <apr_strings.h>
#include <string.h>

#include "abb_crypto.h"
#include "abb_text.h"
#include "status_internal.h"

/* clang-format off */
static const char style[] =
    ":root{color-scheme:light dark;--ink:#1c2430;--soft:#5b6675;--paper:#f4f6f9;--card:#fff;"
    "--line:#d9dfe7;--accent:#1558bc;--bad:#b3261e}"
    "@media(prefers-color-scheme:dark){:root{--ink:#e6eaf0;--soft:#9aa6b5;--paper:#12161c;"
    "--card:#1b212a;--line:#303946;--accent:#7db1ff;--bad:#ff8a80}}"
    "*{box-sizing:border-box}"
    "body{margin:0 auto;max-width:76rem;padding:1.25rem;background:var(--paper);color:var(--ink);"
    "font:1rem/1.5 system-ui,-apple-system,\"Segoe UI\",Roboto,Ubuntu,sans-serif}"
    "h1{margin:0;font-size:1.5rem;line-height:1.25}"
    "h2{margin:0 0 .5rem;font-size:1rem;line-height:1.3}"
    "p{margin:.25rem 0 0;color:var(--soft);font-size:.875rem;overflow-wrap:anywhere}"
    ".state{color:var(--ink)}.bad{color:var(--bad);font-weight:600}"
    ".hours{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(16rem,100%),1fr));"
    "gap:1rem;margin:1rem 0 0;align-items:start}"
    ".columns{columns:3 20rem;column-gap:1rem;margin:1rem 0 0}"
    ".columns section{break-inside:avoid;margin:0 0 1rem}"
    "section{background:var(--card);border:1px solid var(--line);border-radius:12px;"
    "padding:1rem;min-width:0}"
    ".calls{overflow-x:auto}"
    "svg{display:block;width:100%;height:auto;max-width:30rem}"
    ".calls svg{margin:0 0 .25rem}.calls p{margin:.25rem 0 .75rem}"
    ".bar,.dot{fill:var(--accent)}.axis,.span{stroke:var(--line);stroke-width:1}"
    ".span{stroke:var(--accent);stroke-width:2}"
    ".half,.most{fill:none;stroke:var(--accent);stroke-width:2}.most{stroke-dasharray:4 3}"
    "text{fill:var(--soft);font-size:11px;font-family:inherit}.hours text{font-size:12px}"
    "table{width:100%;border-collapse:collapse;font-size:.875rem;"
    "font-variant-numeric:tabular-nums}"
    "th{font-weight:400;text-align:left;color:var(--soft)}"
    "td{text-align:right}.calls td{white-space:nowrap}.figures th{width:65%}"
    "th,td{padding:.25rem .5rem .25rem 0;border-top:1px solid var(--line);vertical-align:top}"
    "th:last-child,td:last-child{padding-right:0}"
    "thead th{border:0;text-align:right}thead th:first-child{text-align:left}"
    "@media(max-width:30rem){body{padding:.75rem}.calls table{font-size:.75rem}"
    ".calls th,.calls td{padding-right:.25rem}}";
/* clang-format on */

/* ---- numbers for people -------------------------------------------------- */

static const char *number(apr_int64_t value, apr_pool_t *p)
{
    char *plain = apr_psprintf(p, "%" APR_INT64_T_FMT, value);
    apr_size_t length = strlen(plain);
    char *spaced = apr_palloc(p, 2 * length + 1);
    char *out = spaced;

    for (apr_size_t i = 0; i < length; ++i) {
        if (i && (length - i) % 3 == 0) {
            *out++ = ',';
        }
        *out++ = plain[i];
    }
    *out = '\0';
    return spaced;
}

static int ends_in(const char *text, const char *end)
{
    apr_size_t length = strlen(text);
    apr_size_t size = strlen(end);

    return length >= size && strcmp(text + length - size, end) == 0;
}

static const char *moment(apr_time_t time, apr_pool_t *p)
{
    apr_time_exp_t parts;

    apr_time_exp_gmt(&parts, time);
    return apr_psprintf(p, "%d-%02d-%02d %02d:%02d:%02d UTC", parts.tm_year + 1900,
                        parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec);
}

static const char *bytes(apr_int64_t value, apr_pool_t *p)
{
    static const char *const units[] = {"B", "kB", "MB", "GB"};
    double size = (double)value;
    int unit = 0;

    for (; size >= 1024 && unit < 3; ++unit) {
        size /= 1024;
    }
    return apr_psprintf(p, unit ? "%.1f %s" : "%.0f %s", size, units[unit]);
}

static const char *value_of(const abb_status_figure_t *figure, apr_pool_t *p)
{
    return ends_in(figure->metric, "_bytes") ? bytes(figure->value, p)
           : ends_in(figure->metric, "time_seconds") || ends_in(figure->metric, "timestamp_seconds")
               ? moment(apr_time_from_sec(figure->value), p)
           : ends_in(figure->metric, "_seconds")
               ? apr_psprintf(p, "%" APR_INT64_T_FMT " s", figure->value)
               : number(figure->value, p);
}

static const char *duration(apr_interval_time_t time, apr_pool_t *p)
{
    return time < 0                        ? "-"
           : time < apr_time_from_msec(10) ? apr_psprintf(p, "%.1f ms", (double)time / 1000)
           : time < apr_time_from_sec(1)
               ? apr_psprintf(p, "%d ms", (int)apr_time_as_msec(time))
               : apr_psprintf(p, "%.1f s", (double)time / APR_USEC_PER_SEC);
}

/* ---- the last hour ------------------------------------------------------- */

/* In units of the drawing. */
#define STEP 5
#define WIDTH (ABB_COUNTERS_MINUTES * STEP)
#define TOP 18
#define HEIGHT 60
#define BASE (TOP + HEIGHT)

static apr_uint32_t largest(const apr_uint32_t *values)
{
    apr_uint32_t most = 0;

    for (int i = 0; i < ABB_COUNTERS_MINUTES; ++i) {
        most = values[i] > most ? values[i] : most;
    }
    return most;
}

static void put_bars(abb_status_text_t *text, const apr_uint32_t *values)
{
    apr_uint32_t most = largest(values);

    for (int i = 0; i < ABB_COUNTERS_MINUTES; ++i) {
        double height = values[i] ? HEIGHT * (double)values[i] / most : 0;

        if (values[i]) {
            height = height < 1 ? 1 : height;
            abb_status_put(text,
                           "<rect class=\"bar\" x=\"%d\" y=\"%.1f\" width=\"%d\" height=\"%.1f\"/>",
                           i * STEP, BASE - height, STEP - 1, height);
        }
    }
}

/* A card. most: the largest value, as it is said. */
static void put_hour(abb_status_text_t *text, const char *heading, const apr_uint32_t *values,
                     const char *most, const char *note)
{
    abb_status_put(text,
                   "<section><h2>%s</h2><svg viewBox=\"0 0 %d %d\" role=\"img\" "
                   "aria-label=\"%s, each minute of the last hour: at most %s\">"
                   "<text x=\"0\" y=\"11\">at most %s</text>"
                   "<line class=\"axis\" x1=\"0\" y1=\"%d\" x2=\"%d\" y2=\"%d\"/>",
                   heading, WIDTH, BASE + 16, heading, most, most, BASE, WIDTH, BASE);
    put_bars(text, values);
    abb_status_put(text,
                   "<text x=\"0\" y=\"%d\">60 minutes ago</text>"
                   "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">now</text></svg><p>%s</p>"
                   "</section>\n",
                   BASE + 12, WIDTH, BASE + 12, note);
}

static const char *sum_of(const apr_uint32_t *values, apr_pool_t *p)
{
    apr_int64_t sum = 0;

    for (int i = 0; i < ABB_COUNTERS_MINUTES; ++i) {
        sum += values[i];
    }
    return apr_pstrcat(p, number(sum, p), " in the last hour", NULL);
}

static void put_counts(abb_status_text_t *text, const char *heading, const apr_uint32_t *values)
{
    apr_pool_t *p = text->pool;

    put_hour(text, heading, values, apr_pstrcat(p, number(largest(values), p), " a minute", NULL),
             sum_of(values, p));
}

static void put_means(abb_status_text_t *text, const abb_counters_sum_t *sum)
{
    apr_uint32_t means[ABB_COUNTERS_MINUTES];
    apr_pool_t *p = text->pool;

    for (int i = 0; i < ABB_COUNTERS_MINUTES; ++i) {
        apr_uint32_t calls = sum->hour[ABB_SERIES_CALL][i];

        means[i] = calls ? sum->hour[ABB_SERIES_CALL_TIME][i] / calls : 0;
    }
    put_hour(text, "Mean time of a call", means,
             apr_pstrcat(p, number(largest(means), p), " ms", NULL),
             apr_pstrcat(p, "Calls: ", sum_of(sum->hour[ABB_SERIES_CALL], p), NULL));
}

/* ---- how long calls took ------------------------------------------------- */

#define MARKS 6

/* Durations that scales name. */
static const struct {
    apr_interval_time_t time;
    const char *word;
} marks[MARKS] = {{apr_time_from_msec(1), "1 ms"},     {apr_time_from_msec(10), "10 ms"},
                  {apr_time_from_msec(100), "100 ms"}, {apr_time_from_sec(1), "1 s"},
                  {apr_time_from_sec(10), "10 s"},     {apr_time_from_sec(60), "60 s"}};

/* How far a duration reaches up the buckets, each as long as any other; below the first: 0. */
static double reach_of(apr_interval_time_t time)
{
    int bucket = 0;
    apr_interval_time_t from;

    while (bucket < ABB_COUNTERS_BUCKETS - 2 && time > abb_counters_bound(bucket)) {
        ++bucket;
    }
    if (bucket == 0) {
        return 0;
    }
    from = abb_counters_bound(bucket - 1);
    return bucket - 1 + (double)(time - from) / (double)(abb_counters_bound(bucket) - from);
}

/* ---- how long, over the hour --------------------------------------------- */

/* Words stand on the left, then a step for each part of the hour. */
#define LINES_LEFT 48
#define LINES_STEP 22
#define LINES_RIGHT (LINES_LEFT + ABB_COUNTERS_PARTS * LINES_STEP)
#define LINES_TOP 22
#define LINES_HEIGHT 96
#define LINES_BASE (LINES_TOP + LINES_HEIGHT)

/* One share of the calls, part by part; -1: there were none. Marks between which all lie. */
typedef struct {
    apr_interval_time_t half[ABB_COUNTERS_PARTS];
    apr_interval_time_t most[ABB_COUNTERS_PARTS];
    int lowest;
    int highest;
} lines_t;

static void widen(lines_t *lines, apr_interval_time_t half, apr_interval_time_t most)
{
    while (lines->lowest > 0 && half < marks[lines->lowest].time) {
        --lines->lowest;
    }
    while (lines->highest < MARKS - 1 && most > marks[lines->highest].time) {
        ++lines->highest;
    }
}

/* The lowest mark below all, the highest above all. Returns 0 when nobody called. */
static int find_lines(lines_t *lines, const abb_counters_sum_t *sum)
{
    int is_any = 0;

    lines->lowest = MARKS - 2;
    lines->highest = 1;
    for (int i = 0; i < ABB_COUNTERS_PARTS; ++i) {
        lines->half[i] = abb_counters_quantile(&sum->part_times[i], 0.5);
        lines->most[i] = abb_counters_quantile(&sum->part_times[i], 0.99);
        if (lines->half[i] >= 0) {
            widen(lines, lines->half[i], lines->most[i]);
            is_any = 1;
        }
    }
    if (!is_any) {
        lines->lowest = 1;
        lines->highest = 3;
    }
    return is_any;
}

static double height_of(const lines_t *lines, apr_interval_time_t time)
{
    double from = reach_of(marks[lines->lowest].time);
    double to = reach_of(marks[lines->highest].time);

    return LINES_BASE - LINES_HEIGHT * (reach_of(time) - from) / (to - from);
}

static double middle_of(int part)
{
    return LINES_LEFT + (part + 0.5) * LINES_STEP;
}

static void put_levels(abb_status_text_t *text, const lines_t *lines)
{
    for (int i = lines->lowest; i <= lines->highest; ++i) {
        double y = height_of(lines, marks[i].time);

        abb_status_put(text,
                       "<line class=\"axis\" x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\"/>"
                       "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s</text>",
                       LINES_LEFT, y, LINES_RIGHT, y, LINES_LEFT - 4, y + 3, marks[i].word);
    }
}

/* Where nobody called there is a gap. */
static void put_line(abb_status_text_t *text, const lines_t *lines, const char *kind,
                     const apr_interval_time_t *times)
{
    int is_drawn = 0;

    abb_status_put(text, "<path class=\"%s\" d=\"", kind);
    for (int i = 0; i < ABB_COUNTERS_PARTS; ++i) {
        if (times[i] >= 0) {
            abb_status_put(text, "%s%.1f %.1f", is_drawn ? "L" : "M", middle_of(i),
                           height_of(lines, times[i]));
        }
        is_drawn = times[i] >= 0;
    }
    abb_status_put(text, "\"/>");
}

static void put_dots(abb_status_text_t *text, const lines_t *lines)
{
    for (int i = 0; i < ABB_COUNTERS_PARTS; ++i) {
        if (lines->half[i] >= 0) {
            abb_status_put(text,
                           "<circle class=\"dot\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"/>"
                           "<rect class=\"dot\" x=\"%.1f\" y=\"%.1f\" width=\"8\" height=\"2\"/>",
                           middle_of(i), height_of(lines, lines->half[i]), middle_of(i) - 4,
                           height_of(lines, lines->most[i]) - 1);
        }
    }
}

static const char *times_of(const abb_call_times_t *parts, apr_pool_t *p)
{
    abb_call_times_t all = {{0}};

    for (int i = 0; i < ABB_COUNTERS_PARTS; ++i) {
        for (int bucket = 0; bucket < ABB_COUNTERS_BUCKETS; ++bucket) {
            all.buckets[bucket] += parts[i].buckets[bucket];
        }
    }
    return apr_pstrcat(p, "half of the calls took at most ",
                       duration(abb_counters_quantile(&all, 0.5), p), ", 99 of 100 at most ",
                       duration(abb_counters_quantile(&all, 0.99), p), NULL);
}

static void put_lines(abb_status_text_t *text, const abb_counters_sum_t *sum)
{
    lines_t lines;
    int is_any = find_lines(&lines, sum);
    const char *said = is_any ? times_of(sum->part_times, text->pool) : "there were no calls";

    abb_status_put(text,
                   "<section><h2>How long calls took</h2><svg viewBox=\"0 0 %d %d\" role=\"img\" "
                   "aria-label=\"All calls to Bitbucket in the last hour, each five minutes: %s\">"
                   "<text x=\"0\" y=\"10\">time of a call, all kinds together</text>",
                   LINES_RIGHT, LINES_BASE + 16, said);
    put_levels(text, &lines);
    put_line(text, &lines, "most", lines.most);
    put_line(text, &lines, "half", lines.half);
    put_dots(text, &lines);
    abb_status_put(text,
                   "<text x=\"%d\" y=\"%d\">60 minutes ago</text>"
                   "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">now</text></svg>"
                   "<p>%s</p></section>\n",
                   LINES_LEFT, LINES_BASE + 13, LINES_RIGHT, LINES_BASE + 13,
                   is_any ? "In each five minutes half of the calls took no longer than the line "
                            "with dots says, 99 of 100 no longer than the dashed one."
                          : "Nobody called in the last hour.");
}

/* ---- how long, by call --------------------------------------------------- */

/* Names stand on the left, then as much room for each bucket of durations. */
#define LEFT 72
#define PLOT 228
#define ROW 18

static double place_of(apr_interval_time_t time)
{
    return LEFT + PLOT * reach_of(time) / (ABB_COUNTERS_BUCKETS - 2);
}

static void put_scale(abb_status_text_t *text, int height)
{
    for (int i = 0; i < MARKS; ++i) {
        double x = place_of(marks[i].time);

        abb_status_put(text,
                       "<line class=\"axis\" x1=\"%.1f\" y1=\"0\" x2=\"%.1f\" y2=\"%d\"/>"
                       "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%s</text>",
                       x, x, height, x, height + 11, marks[i].word);
    }
}

static void put_range(abb_status_text_t *text, abb_call_t call, const abb_call_times_t *times)
{
    int y = (int)call * ROW + ROW / 2;
    double half;
    double most;

    abb_status_put(text, "<text x=\"0\" y=\"%d\">%s</text>", y + 3, abb_counters_call_word(call));
    if (!abb_counters_total(times)) {
        return;
    }
    half = place_of(abb_counters_quantile(times, 0.5));
    most = place_of(abb_counters_quantile(times, 0.99));
    abb_status_put(text,
                   "<line class=\"span\" x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\"/>"
                   "<circle class=\"dot\" cx=\"%.1f\" cy=\"%d\" r=\"4\"/>"
                   "<rect class=\"dot\" x=\"%.1f\" y=\"%d\" width=\"2\" height=\"8\"/>"
                   "<rect class=\"dot\" x=\"%.1f\" y=\"%d\" width=\"2\" height=\"12\"/>",
                   half, y, most, y, half, y, place_of(abb_counters_quantile(times, 0.9)) - 1,
                   y - 4, most - 1, y - 6);
}

static void put_ranges(abb_status_text_t *text, const abb_call_times_t *times)
{
    abb_status_put(text,
                   "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"How long calls of the "
                   "last hour took; the table below has the numbers\">",
                   LEFT + PLOT + 12, ABB_CALL_KINDS * ROW + 14);
    put_scale(text, ABB_CALL_KINDS * ROW);
    for (int i = 0; i < ABB_CALL_KINDS; ++i) {
        put_range(text, (abb_call_t)i, &times[i]);
    }
    abb_status_put(text, "</svg><p>Dot: half of the calls took no longer. First bar: nine of ten. "
                         "Last bar: 99 of 100.</p>");
}

static void put_times_row(abb_status_text_t *text, abb_call_t call, const abb_call_times_t *times)
{
    static const double shares[] = {0.5, 0.9, 0.99};

    abb_status_put(text, "<tr><th scope=\"row\">%s</th><td>%s</td>", abb_counters_call_word(call),
                   number((apr_int64_t)abb_counters_total(times), text->pool));
    for (int i = 0; i < 3; ++i) {
        abb_status_put(text, "<td>%s</td>",
                       duration(abb_counters_quantile(times, shares[i]), text->pool));
    }
    abb_status_put(text, "</tr>\n");
}

static void put_hour_calls(abb_status_text_t *text, const abb_call_times_t *times)
{
    abb_status_put(text, "<section class=\"calls\"><h2>Calls of the last hour</h2>");
    put_ranges(text, times);
    abb_status_put(text, "<table><thead><tr><th scope=\"col\">Call</th><th scope=\"col\">Count</th>"
                         "<th scope=\"col\">50 %%</th><th scope=\"col\">90 %%</th>"
                         "<th scope=\"col\">99 %%</th></tr></thead><tbody>\n");
    for (int i = 0; i < ABB_CALL_KINDS; ++i) {
        put_times_row(text, (abb_call_t)i, &times[i]);
    }
    abb_status_put(text, "</tbody></table></section>\n");
}

/* ---- calls since the start ----------------------------------------------- */

static void put_outcomes_row(abb_status_text_t *text, abb_call_t call,
                             const abb_call_counts_t *counts)
{
    abb_status_put(text, "<tr><th scope=\"row\">%s</th>", abb_counters_call_word(call));
    for (int i = 0; i < ABB_CALL_OUTCOMES; ++i) {
        abb_status_put(text, "<td>%s</td>", number((apr_int64_t)counts->outcomes[i], text->pool));
    }
    abb_status_put(text, "</tr>\n");
}

static void put_outcomes(abb_status_text_t *text, const abb_call_counts_t *calls)
{
    abb_status_put(text, "<section class=\"calls\"><h2>Answers to calls since the start</h2>"
                         "<table><thead><tr><th scope=\"col\">Call</th>");
    for (int i = 0; i < ABB_CALL_OUTCOMES; ++i) {
        abb_status_put(text, "<th scope=\"col\">%s</th>",
                       abb_counters_outcome_word((abb_call_outcome_t)i));
    }
    abb_status_put(text, "</tr></thead><tbody>\n");
    for (int i = 0; i < ABB_CALL_KINDS; ++i) {
        put_outcomes_row(text, (abb_call_t)i, &calls[i]);
    }
    abb_status_put(text, "</tbody></table></section>\n");
}

/* ---- figures ------------------------------------------------------------- */

static const abb_status_figure_t *figure_at(const abb_status_t *status, int i)
{
    return &APR_ARRAY_IDX(status->figures, i, abb_status_figure_t);
}

static int is_in_group(const abb_status_t *status, int i, const char *group)
{
    return i >= 0 && i < status->figures->nelts && strcmp(figure_at(status, i)->group, group) == 0;
}

static int is_of_reason(const abb_status_figure_t *figure)
{
    return figure->label && strcmp(figure->label, "reason") == 0;
}

/* A group that is of reasons alone names them; elsewhere the reason stands behind. */
static const char *row_name(const abb_status_figure_t *figure, apr_pool_t *p)
{
    return !figure->label         ? figure->help
           : is_of_reason(figure) ? figure->label_value
                                  : apr_pstrcat(p, figure->help, ": ", figure->label_value, NULL);
}

static void put_row(abb_status_text_t *text, const char *name, const char *value)
{
    abb_status_put(text, "<tr><th scope=\"row\">%s</th><td>%s</td></tr>\n", name, value);
}

/* Of a group of reasons, whose first figure this is, the sum: what never occurred has no row. */
static void put_all(abb_status_text_t *text, const abb_status_t *status, int first)
{
    const abb_status_figure_t *figure = figure_at(status, first);
    apr_int64_t sum = 0;

    if (is_of_reason(figure)) {
        for (int i = first; is_in_group(status, i, figure->group); ++i) {
            sum += figure_at(status, i)->value;
        }
        put_row(text, "all", number(sum, text->pool));
    }
}

static void put_figures(abb_status_text_t *text, const abb_status_t *status)
{
    for (int i = 0; i < status->figures->nelts; ++i) {
        const abb_status_figure_t *figure = figure_at(status, i);

        if (!is_in_group(status, i - 1, figure->group)) {
            abb_status_put(text, "<section><h2>%s</h2><table class=\"figures\"><tbody>\n",
                           figure->group);
            put_all(text, status, i);
        }
        if (figure->value || !is_of_reason(figure)) {
            put_row(text, row_name(figure, text->pool), value_of(figure, text->pool));
        }
        if (!is_in_group(status, i + 1, figure->group)) {
            abb_status_put(text, "</tbody></table></section>\n");
        }
    }
}

static apr_int64_t find_value(const abb_status_t *status, const char *metric)
{
    for (int i = 0; i < status->figures->nelts; ++i) {
        if (strcmp(figure_at(status, i)->metric, metric) == 0) {
            return figure_at(status, i)->value;
        }
    }
    return -1;
}

/* What an administrator in a hurry wants to know. */
static void put_state(abb_status_text_t *text, const abb_status_t *status)
{
    int is_open = find_value(status, "circuit_open") == 1;
    apr_int64_t since = find_value(status, "circuit_changed_timestamp_seconds");

    abb_status_put(text, "<p class=\"%s\">%s since %s.</p>\n", is_open ? "bad" : "state",
                   is_open ? "Bitbucket does not answer" : "Bitbucket can be asked",
                   moment(apr_time_from_sec(since), text->pool));
    if (find_value(status, "pause_seconds") > 0) {
        abb_status_put(text, "<p class=\"bad\">Bitbucket asked for a pause.</p>\n");
    }
    if (status->sum.change_at) {
        abb_status_put(text, "<p class=\"bad\">Withdrawn by Bitbucket, told %s: %s</p>\n",
                       moment(status->sum.change_at, text->pool),
                       abb_text_html(status->sum.change, text->pool));
    }
}

/* ---- the whole ----------------------------------------------------------- */

static void put_hours(abb_status_text_t *text, const abb_counters_sum_t *sum)
{
    put_counts(text, "Sign-ins", sum->hour[ABB_SERIES_SIGN_IN]);
    put_counts(text, "Requests with a session", sum->hour[ABB_SERIES_REQUEST]);
    put_counts(text, "Re-checks", sum->hour[ABB_SERIES_RECHECK]);
    put_means(text, sum);
}

const char *abb_status_page(const abb_status_t *status, apr_pool_t *p)
{
    abb_status_text_t text = {NULL, 0, 0, p};

    abb_status_put(&text,
                   "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                   "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
                   "<meta name=\"robots\" content=\"noindex\">\n"
                   "<title>Sign-in with Bitbucket: status</title>\n<style>%s</style>\n</head>\n"
                   "<body>\n<h1>Sign-in with Bitbucket</h1>\n",
                   style);
    put_state(&text, status);
    abb_status_put(&text, "<p>As of %s; counted since %s.</p>\n", moment(status->now, p),
                   moment(status->sum.started_at, p));
    abb_status_put(&text, "<div class=\"hours\">\n");
    put_hours(&text, &status->sum);
    abb_status_put(&text, "</div>\n<div class=\"columns\">\n");
    put_lines(&text, &status->sum);
    put_hour_calls(&text, status->sum.hour_times);
    put_outcomes(&text, status->sum.calls);
    put_figures(&text, status);
    abb_status_put(&text, "</div>\n</body>\n</html>\n");
    return text.bytes;
}

const char *abb_status_policy(apr_pool_t *p)
{
    unsigned char hash[ABB_CRYPTO_KEY_SIZE];
    char encoded[ABB_CRYPTO_KEY_SIZE * 2];

    if (abb_crypto_hash(style, sizeof(style) - 1, "", 0, hash, NULL) != APR_SUCCESS) {
        return "default-src 'none'; frame-ancestors 'none'";
    }
    apr_base64_encode_binary(encoded, hash, sizeof(hash));
    return apr_pstrcat(p, "default-src 'none'; style-src 'sha256-", encoded,
                       "'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'", NULL);
}
