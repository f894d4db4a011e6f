/* t_text: encodings and grammars under hostile input. */
#include "abb_text.h"

#include "unit.h"

#define ORIGIN "https://site.example"

/* A string in memory that ends exactly behind its NUL. */
static char *exact(const char *text, apr_pool_t *p)
{
    return unit_bytes(text, strlen(text) + 1, p);
}

/* ---- base64url ---------------------------------------------------------- */

#define ALPHABET "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

/* RFC 4648 section 10, without padding, and the two characters of section 5. */
static const struct {
    const char *bytes;
    const char *text;
} base64url_vectors[] = {
    {"", ""},
    {"f", "Zg"},
    {"fo", "Zm8"},
    {"foo", "Zm9v"},
    {"foob", "Zm9vYg"},
    {"fooba", "Zm9vYmE"},
    {"foobar", "Zm9vYmFy"},
    {"\xfb\xff\xfe", "-__-"},
    {"\x14\xfb\x9c\x03\xd9\x7e", "FPucA9l-"},
};

static void base64url_knows_the_published_vectors(void **state)
{
    for (apr_size_t i = 0; i < UNIT_COUNT(base64url_vectors); ++i) {
        const char *bytes = base64url_vectors[i].bytes;
        const char *text = base64url_vectors[i].text;
        unsigned char *decoded;
        apr_size_t size;

        unit_equal(abb_text_base64url_encode(bytes, strlen(bytes), *state), text, "encoded");
        assert_int_equal(abb_text_base64url_decode(text, &decoded, &size, *state), APR_SUCCESS);
        assert_int_equal(size, strlen(bytes));
        assert_memory_equal(decoded, bytes, size);
    }
}

static void base64url_returns_what_it_took(void **state)
{
    unsigned char bytes[300];

    for (apr_size_t i = 0; i < sizeof(bytes); ++i) {
        bytes[i] = (unsigned char)(i * 37 + (i >> 3));
    }
    for (apr_size_t length = 0; length <= sizeof(bytes); ++length) {
        unsigned char *in = unit_bytes(bytes, length, *state);
        char *text = exact(abb_text_base64url_encode(in, length, *state), *state);
        unsigned char *out = unit_bytes(bytes, length, *state);
        unsigned char *decoded;
        apr_size_t size;

        memset(out, 0, length);
        assert_int_equal(abb_text_base64url_decode(text, &decoded, &size, *state), APR_SUCCESS);
        assert_int_equal(size, length);
        assert_memory_equal(decoded, bytes, length);
        assert_int_equal(abb_text_base64url_decode_exact(text, out, length), APR_SUCCESS);
        assert_memory_equal(out, bytes, length);
    }
}

static int decodes(const char *text, apr_pool_t *p)
{
    unsigned char *decoded;
    apr_size_t size;

    return abb_text_base64url_decode(text, &decoded, &size, p) == APR_SUCCESS;
}

static void base64url_refuses_other_forms(void **state)
{
    static const char *const texts[] = {
        "Z",
        "Zm9vY",
        "=",
        "====",
        "Zg==",
        "Zg=",
        "Zm8=",
        "Zm9v=",
        "Zm9v====",
        "Zg=a",
        "Zm+v",
        "Zm/v",
        " Zm9v",
        "Zm9v ",
        "Zm9v\n",
        "Zm9v\r\n",
        "Zm\n9v",
        "Zm 9v",
        "Zm.v",
        "Zm9v,Zg",
        "Zm%39v",
        "Zm9\xc3\xa9",
        "\xef\xbb\xbfZm9v",
        "Zm9\x01",
    };

    for (apr_size_t i = 0; i < UNIT_COUNT(texts); ++i) {
        unsigned char *decoded;
        apr_size_t size;

        if (abb_text_base64url_decode(texts[i], &decoded, &size, *state) != APR_EINVAL) {
            fail_msg("'%s' decodes", texts[i]);
        }
    }
}

static void base64url_checks_each_character(void **state)
{
    for (int at = 0; at < 4; ++at) {
        for (int byte = 1; byte < 256; ++byte) {
            char text[] = "AAAA";

            text[at] = (char)byte;
            if (decodes(text, *state) != (strchr(ALPHABET, byte) != NULL)) {
                fail_msg("byte %02x at %d", byte, at);
            }
        }
    }
}

/* Of all texts of two and three characters exactly one stands for each value. */
static void base64url_is_unambiguous(void **state)
{
    char seen[65536] = {0};
    int two = 0;
    int three = 0;

    for (int i = 0; i < 64 * 64 * 64; ++i) {
        char text[] = {ALPHABET[i & 63], ALPHABET[i >> 6 & 63], ALPHABET[i >> 12], '\0'};
        unsigned char out[2];

        if (abb_text_base64url_decode_exact(text, out, 2) == APR_SUCCESS) {
            assert_false(seen[out[0] << 8 | out[1]]);
            seen[out[0] << 8 | out[1]] = 1;
            ++three;
        }
        text[2] = '\0';
        two += i < 64 * 64 && abb_text_base64url_decode_exact(text, out, 1) == APR_SUCCESS;
    }
    assert_int_equal(three, 65536);
    assert_int_equal(two, 256);
}

static void unused_bits_must_be_zero(void **state)
{
    static const char *const texts[] = {"Zh", "Zi", "Zo", "Zx", "Zm9", "Zm-", "Zm_", "Zm9vYm9"};

    for (apr_size_t i = 0; i < UNIT_COUNT(texts); ++i) {
        assert_false(decodes(texts[i], *state));
    }
}

/* The place for the bytes ends exactly behind them, whatever the text holds. */
static void base64url_of_another_length_is_refused(void **state)
{
    for (apr_size_t size = 0; size < 40; ++size) {
        unsigned char *out = unit_bytes("0123456789012345678901234567890123456789", size, *state);

        for (apr_size_t length = 0; length < 120; ++length) {
            char *text = exact(unit_repeat('A', length, *state), *state);
            int fits = length == (size * 8 + 5) / 6;

            if ((abb_text_base64url_decode_exact(text, out, size) == APR_SUCCESS) != fits) {
                fail_msg("%d characters for %d bytes", (int)length, (int)size);
            }
        }
    }
}

static void hexadecimal_digits_are_lower_case(void **state)
{
    unsigned char bytes[256];
    char *text;

    for (int i = 0; i < 256; ++i) {
        bytes[i] = (unsigned char)i;
    }
    text = abb_text_hex(bytes, sizeof(bytes), *state);
    assert_int_equal(strlen(text), 512);
    for (int i = 0; i < 256; ++i) {
        assert_memory_equal(text + 2 * i, apr_psprintf(*state, "%02x", i), 2);
    }
    assert_string_equal(abb_text_hex(bytes, 0, *state), "");
}

/* ---- percent encoding and queries ----------------------------------------- */

#define UNRESERVED "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"

static void all_but_unreserved_characters_are_percent_encoded(void **state)
{
    assert_string_equal(abb_text_percent_encode("", *state), "");
    for (int byte = 1; byte < 256; ++byte) {
        char text[] = {(char)byte, '\0'};
        const char *expected =
            strchr(UNRESERVED, byte) ? text : apr_psprintf(*state, "%%%02X", byte);

        unit_equal(abb_text_percent_encode(text, *state), expected, "one byte");
    }
    assert_string_equal(abb_text_percent_encode("a b&c=d%00/\xc3\xbc+", *state),
                        "a%20b%26c%3Dd%2500%2F%C3%BC%2B");
}

static apr_table_t *parse_good(const char *query, apr_pool_t *p)
{
    apr_table_t *values = NULL;
    abb_error_t err;

    abb_error_clear(&err);
    if (abb_text_query_parse(query ? exact(query, p) : NULL, &values, p, &err) != APR_SUCCESS) {
        fail_msg("'%s' is refused: %s", query, err.text);
    }
    assert_int_equal(err.status, APR_SUCCESS);
    assert_non_null(values);
    return values;
}

static void queries_are_decoded(void **state)
{
    static const struct {
        const char *query;
        const char *name;
        const char *value;
        int count;
    } queries[] = {
        {NULL, "a", NULL, 0},
        {"", "a", NULL, 0},
        {"a=1", "a", "1", 1},
        {"a=1&b=2", "b", "2", 2},
        {"a", "a", "", 1},
        {"a=", "a", "", 1},
        {"a=b=c", "a", "b=c", 1},
        {"a=1&&b=2&", "b", "2", 2},
        {"&a=1", "a", "1", 1},
        {"a=x+y", "a", "x y", 1},
        {"a=x%2By", "a", "x+y", 1},
        {"a=x%20y", "a", "x y", 1},
        {"a=%26b%3D2", "a", "&b=2", 1},
        {"a=1&b%3D=2", "b=", "2", 2},
        {"a=%2500", "a", "%00", 1},
        {"a=%c3%BC", "a", "\xc3\xbc", 1},
        {"a=\xc3\xbc", "a", "\xc3\xbc", 1},
        {"a=%01%ff", "a", "\x01\xff", 1},
        {"%61%62=1", "ab", "1", 1},
        {"x+y=1", "x y", "1", 1},
        {"a=1;b=2", "a", "1;b=2", 1},
        {"a=1?b=2", "a", "1?b=2", 1},
        {"a=1&b=1", "c", NULL, 2},
        {"a[]=1&a[0]=2", "a[0]", "2", 2},
    };

    for (apr_size_t i = 0; i < UNIT_COUNT(queries); ++i) {
        apr_table_t *values = parse_good(queries[i].query, *state);

        unit_equal(apr_table_get(values, queries[i].name), queries[i].value, queries[i].query);
        assert_int_equal(apr_table_elts(values)->nelts, queries[i].count);
    }
}

static void each_byte_survives_a_query(void **state)
{
    char bytes[256];
    const char *query;

    for (int i = 0; i < 255; ++i) {
        bytes[i] = (char)(i + 1);
    }
    bytes[255] = '\0';
    query = apr_pstrcat(*state, "v=", abb_text_percent_encode(bytes, *state), NULL);
    unit_equal(apr_table_get(parse_good(query, *state), "v"), bytes, "all bytes");
}

static void check_refused_query(const char *query, apr_pool_t *p)
{
    apr_table_t *values;
    abb_error_t err;

    abb_error_clear(&err);
    if (abb_text_query_parse(exact(query, p), &values, p, &err) != ABB_EINPUT) {
        fail_msg("'%s' is accepted", query);
    }
    assert_int_equal(err.status, ABB_EINPUT);
    assert_true(err.text[0] != '\0');
    assert_int_equal(abb_text_query_parse(query, &values, p, NULL), ABB_EINPUT);
}

static void a_name_that_comes_twice_is_refused(void **state)
{
    static const char *const queries[] = {
        "state=1&state=2",
        "state=1&state=1",
        "state=1&%73tate=2",
        "%73tate=1&state=2",
        "state=1&%73%74%61%74%65",
        "state&state",
        "state=&state=1",
        "state=1&code=2&state=3",
        "state=1&&state=2",
        "a+b=1&a%20b=2",
        "%2B=1&%2b=2",
        "\xc3\xbc=1&%C3%BC=2",
        "state=1&STATE=2",
        "State=1&%53tate=2",
        "=1&=2",
        "=1&=",
    };

    for (apr_size_t i = 0; i < UNIT_COUNT(queries); ++i) {
        check_refused_query(queries[i], *state);
    }
}

static void a_broken_encoding_is_refused(void **state)
{
    static const char *const queries[] = {
        "a=%",   "a=%4",  "a=%4&b=1", "a=%&41=1", "a=1&b=%",     "a=%zz",    "a=%4g", "a=%g4",
        "a=%-1", "a=%+1", "a=% 1",    "a=%0x",    "a=%%41",      "a=%u0041", "%=1",   "%4=1",
        "%zz=1", "a%",    "a%4",      "a=%4\xff", "a=%\xc1\x31", "a=%4@",    "a=%4`", "a=%:0",
        "a=%/0", "a=%0G", "a=x%",     "a=%41%",   "a=1&b%=2",
    };

    for (apr_size_t i = 0; i < UNIT_COUNT(queries); ++i) {
        check_refused_query(queries[i], *state);
    }
}

static void an_encoded_nul_is_refused(void **state)
{
    static const char *const queries[] = {
        "a=%00", "a=x%00y", "%00=1", "a%00=1", "a%00", "a=1&b=%00", "state=1&state%00=2",
    };

    for (apr_size_t i = 0; i < UNIT_COUNT(queries); ++i) {
        check_refused_query(queries[i], *state);
    }
}

static void a_query_has_at_most_32_pairs(void **state)
{
    const char *query = "n1=v1";

    for (int i = 2; i <= 32; ++i) {
        query = apr_psprintf(*state, "%s&n%d=v%d", query, i, i);
    }
    assert_string_equal(apr_table_get(parse_good(query, *state), "n32"), "v32");
    check_refused_query(apr_pstrcat(*state, query, "&n33=v33", NULL), *state);
    check_refused_query(apr_pstrcat(*state, query, "&n33", NULL), *state);
}

static void a_hostile_name_reaches_no_log(void **state)
{
    apr_table_t *values;
    abb_error_t err;

    abb_error_clear(&err);
    abb_text_query_parse("a%0aFAKE%1b[31m=1&a%0aFAKE%1b[31m=2", &values, *state, &err);
    assert_int_equal(err.status, ABB_EINPUT);
    for (const char *c = err.text; *c; ++c) {
        assert_true(*c >= 0x20 && *c <= 0x7e);
    }
}

/* ---- return addresses -------------------------------------------------------- */

static void addresses_on_this_site_are_accepted(void **state)
{
    static const char *const paths[] = {
        "/",
        "/a",
        "/a/",
        "/a/b/c.html",
        "/a?b=%0Ac&d=//x",
        "/?",
        "/?a=/../b",
        "/?a=%2f%2fevil&b=%5c&c=..",
        "/a?return=https://evil.example/",
        "/a?b=@:;,!$&'()*+=-._~?",
        "/%20",
        "/a%20b",
        "/%C3%BC",
        "/a:b@c",
        "/wiki/Page_(1),_2;v=1",
        "/.well-known/x",
        "/..a",
        "/a..b/c",
        "/a../b",
        "/.../b",
        "/a/.b",
        "/a/b.",
        "/a/%2ehidden",
    };

    for (apr_size_t i = 0; i < UNIT_COUNT(paths); ++i) {
        char *path = exact(paths[i], *state);
        char *address = exact(apr_pstrcat(*state, ORIGIN, path, NULL), *state);

        if (abb_text_local_path(path, ORIGIN) != path || abb_text_local_path(path, NULL) != path) {
            fail_msg("'%s' is refused", path);
        }
        if (abb_text_local_path(address, ORIGIN) != address + strlen(ORIGIN)) {
            fail_msg("'%s' is refused", address);
        }
    }
}

static void of_a_url_only_the_public_part_is_shown(void **state)
{
    static const struct {
        const char *url;
        const char *shown;
    } urls[] = {
        {"", ""},
        {"https://bitbucket.org/site/oauth2/authorize",
         "https://bitbucket.org/site/oauth2/authorize"},
        {"http://proxy.example.com:3128", "http://proxy.example.com:3128"},
        {"http://me:pw@proxy.example.com:3128", "http://(not shown)@proxy.example.com:3128"},
        {"http://me@proxy.example.com/", "http://(not shown)@proxy.example.com/"},
        {"http://me:p@w@[::1]:3128", "http://(not shown)@[::1]:3128"},
        {"http://me:p/w@proxy.example.com", "http://(not shown)@proxy.example.com"},
        {"http://me:p?w@proxy.example.com", "http://(not shown)@proxy.example.com"},
        {"http://me:p#w@proxy.example.com", "http://(not shown)@proxy.example.com"},
        {"http://me:p://w@proxy.example.com", "http://(not shown)@proxy.example.com"},
        {"http://@proxy.example.com", "http://(not shown)@proxy.example.com"},
        {"me:pw@proxy.example.com:3128", "(not shown)@proxy.example.com:3128"},
        {"http:/me:pw@proxy.example.com", "(not shown)@proxy.example.com"},
        {"https://x.example/y?key=secret", "https://x.example/y"},
        {"https://x.example/y#part", "https://x.example/y"},
        {"https://me:pw@x.example/y?key=secret", "https://(not shown)@x.example/y"},
        {"@", "(not shown)@"},
        {"://", "://"},
        {"me:pw@x://y", "(not shown)@x://y"},
        {"me:p://w@x", "(not shown)@x"},
    };

    for (apr_size_t i = 0; i < UNIT_COUNT(urls); ++i) {
        unit_equal(abb_text_public_url(urls[i].url, *state), urls[i].shown, urls[i].url);
    }
}

static void the_bare_origin_is_the_front_page(void **state)
{
    unit_equal(abb_text_local_path(ORIGIN, ORIGIN), "/", ORIGIN);
}

static void check_refused_address(const char *address, apr_pool_t *p)
{
    char *copy = exact(address, p);

    if (abb_text_local_path(copy, ORIGIN) || abb_text_local_path(copy, NULL)) {
        fail_msg("'%s' is accepted", address);
    }
}

/* A path that must neither pass alone nor behind the origin. */
static void check_refused_path(const char *path, apr_pool_t *p)
{
    check_refused_address(path, p);
    check_refused_address(apr_pstrcat(p, ORIGIN, path, NULL), p);
}

static void no_address_is_refused(void **state)
{
    assert_null(abb_text_local_path(NULL, ORIGIN));
    assert_null(abb_text_local_path(NULL, NULL));
    check_refused_address("", *state);
    assert_null(abb_text_local_path(ORIGIN, NULL));
}

static void other_sites_are_refused(void **state)
{
    static const char *const addresses[] = {
        "https://evil.example/",
        "http://site.example/",
        "HTTPS://site.example/",
        "https://SITE.example/",
        "https://Site.example",
        "https://site.exampl",
        "https://site.example.evil.com",
        "https://site.example.evil.com/",
        "https://site.example:8443/",
        "https://site.example:443/",
        "https://site.example:@evil.com/",
        "https://site.example@evil",
        "https://site.example@evil/",
        "https://site.example%40evil.com/",
        "https://site.example%2fevil.com/",
        "https://site.example-evil.com/",
        "https://site.example\\@evil.com/",
        "https://site.example?x",
        "https://site.example#x",
        "https://site.example;/",
        "https://site.example /",
        "https://site.example\t/",
        "https://user@site.example/",
        "https://user:pw@site.example/",
        "https:/site.example/",
        "https:site.example/",
        "https:///site.example/",
        "https:\\\\site.example/",
        "//site.example/",
        "https://site.examplehttps://site.example/",
        "javascript:alert(1)",
        "JavaScript://site.example/%0aalert(1)",
        "data:text/html,x",
        "file:///etc/passwd",
        "ftp://site.example/",
        "evil.com",
        "a/b",
        "a",
        "?a=b",
        "#a",
        ".",
        "..",
        "../x",
        "./x",
        "%2f",
        "%2fa",
        "%2f%2fevil",
        "@evil",
        ":80/",
    };

    for (apr_size_t i = 0; i < UNIT_COUNT(addresses); ++i) {
        check_refused_address(addresses[i], *state);
    }
}

static void a_second_slash_is_refused(void **state)
{
    static const char *const paths[] = {
        "//",        "//evil",       "///evil",     "////evil",   "/\\evil",
        "/\\/evil",  "\\/evil",      "\\\\evil",    "/%2fevil",   "/%2Fevil",
        "/%2f",      "/%2f/evil",    "/%5cevil",    "/%5Cevil",   "/%5c",
        "/%5c/evil", "//%2fevil",    "/%2f%2fevil", "//evil?a=b", "//evil@site.example/",
        "//@evil",   "/\t/evil",     "/\n/evil",    "/\r/evil",   "/%09/evil",
        "/%0a/evil", "/%0d%0a/evil", "/ /evil",     "/\x0b/evil", "/\x01/evil",
    };

    for (apr_size_t i = 0; i < UNIT_COUNT(paths); ++i) {
        check_refused_path(paths[i], *state);
    }
}

static void dot_segments_are_refused(void **state)
{
    static const char *const paths[] = {
        "/.",        "/..",       "/./",         "/../",        "/..//x",      "/.//x",
        "/./x",      "/../x",     "/a/.",        "/a/..",       "/a/./b",      "/a/../b",
        "/a/..//x",  "/a/..?b",   "/.?b",        "/..?b",       "/%2e",        "/%2e%2e",
        "/%2e%2e/",  "/%2E%2E/x", "/.%2e/x",     "/%2e./x",     "/%2e/x",      "/a/%2e",
        "/a/%2e%2E", "/a/.%2E/b", "/a/%2e%2e/b", "/a/%2e%2e?b", "/a/b/c/../d", "/a/%2e%2e//x",
    };

    for (apr_size_t i = 0; i < UNIT_COUNT(paths); ++i) {
        check_refused_path(paths[i], *state);
    }
}

/* What ends a segment may be encoded as well as the dots. */
static void dot_segments_between_encoded_slashes_are_refused(void **state)
{
    static const char *const paths[] = {
        "/..%2fx",       "/..%2Fx",     "/.%2fx",    "/%2e%2e%2fx",        "/a%2f..",
        "/a%2f../b",     "/a%2f..%2fb", "/a/..%2fb", "/a%2f%2e%2e%2f%2fx", "/a%2F.%2Fb",
        "/a%2f%2e%2e?b", "/a%2f.",
    };

    for (apr_size_t i = 0; i < UNIT_COUNT(paths); ++i) {
        check_refused_path(paths[i], *state);
    }
}

static void unfit_characters_are_refused_in_path_and_query(void **state)
{
    for (int byte = 1; byte < 256; ++byte) {
        if (byte <= 0x20 || byte >= 0x7f || strchr("\\\"<>#", byte)) {
            check_refused_path(apr_psprintf(*state, "/a%cb", byte), *state);
            check_refused_path(apr_psprintf(*state, "/%c", byte), *state);
            check_refused_path(apr_psprintf(*state, "/a?%cb", byte), *state);
            check_refused_path(apr_psprintf(*state, "%c/a", byte), *state);
        }
    }
    for (const char *c = UNRESERVED "!$&()*+,;=:@"; *c; ++c) {
        const char *path = apr_psprintf(*state, "/x%cb?%c", *c, *c);

        if (abb_text_local_path(path, NULL) != path) {
            fail_msg("'%s' is refused", path);
        }
    }
}

static void unfit_bytes_are_refused_when_encoded(void **state)
{
    for (int byte = 0; byte < 256; ++byte) {
        const char *path = apr_psprintf(*state, "/a%%%02xb", byte);

        if (byte < 0x20 || byte == 0x7f || byte == '\\') {
            check_refused_path(path, *state);
            check_refused_path(apr_psprintf(*state, "/%%%02X", byte), *state);
        }
        else if (byte != '/' && abb_text_local_path(path, NULL) != path) {
            fail_msg("'%s' is refused", path);
        }
    }
}

static void a_broken_encoding_in_the_path_is_refused(void **state)
{
    static const char *const paths[] = {
        "/%",     "/%2",   "/a%",      "/a%4", "/a%zz", "/a%4g/b", "/a%%41",  "/a%?b",
        "/a%4?b", "/a%/b", "/a%u002f", "/.%",  "/.%2",  "/a/.%",   "/a/..%2",
    };

    for (apr_size_t i = 0; i < UNIT_COUNT(paths); ++i) {
        check_refused_path(paths[i], *state);
    }
}

static void unicode_is_refused(void **state)
{
    static const char *const paths[] = {
        "/\xc3\xbc",
        "/\xe2\x80\xaexyz",    /* right-to-left override */
        "/\xef\xbc\x8fx.evil", /* full-width solidus */
        "/\xe2\x88\x95x.evil", /* division slash */
        "/\xe2\x80\xa8/evil",  /* line separator */
        "/\xc0\xafx.evil",     /* overlong slash */
        "\xef\xbb\xbf/a",      /* byte order mark */
        "/\xff",
    };

    for (apr_size_t i = 0; i < UNIT_COUNT(paths); ++i) {
        check_refused_path(paths[i], *state);
    }
}

static void an_address_has_at_most_2000_bytes(void **state)
{
    char *path = unit_repeat('a', ABB_TEXT_LOCAL_PATH_MAX, *state);
    char *longer = unit_repeat('a', ABB_TEXT_LOCAL_PATH_MAX + 1, *state);
    char *query = unit_repeat('b', 100000, *state);

    assert_int_equal(ABB_TEXT_LOCAL_PATH_MAX, 2000);
    path[0] = longer[0] = query[0] = '/';
    query[1] = '?';
    assert_ptr_equal(abb_text_local_path(path, ORIGIN), path);
    check_refused_path(longer, *state);
    check_refused_path(query, *state);
    longer[2000] = '\0';
    assert_ptr_equal(abb_text_local_path(longer, NULL), longer);
}

/* ---- UTF-8 --------------------------------------------------------------------- */

static apr_size_t utf8_put(char *out, apr_uint32_t c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

static const char *const invalid_utf8[] = {
    "\x80", /* continuation without a start */
    "\xbf",
    "\xc0\x80", /* overlong: NUL */
    "\xc0\xaf", /* overlong: slash */
    "\xc1\xbf",
    "\xe0\x80\x80",
    "\xe0\x80\xbc", /* overlong: less-than */
    "\xe0\x9f\xbf",
    "\xf0\x80\x80\xbc",
    "\xf0\x8f\xbf\xbf",
    "\xed\xa0\x80", /* surrogates */
    "\xed\xaf\xbf",
    "\xed\xb0\x80",
    "\xed\xbf\xbf",
    "\xed\xa0\xbd\xed\xb8\x80",
    "\xf4\x90\x80\x80", /* beyond U+10FFFF */
    "\xf5\x80\x80\x80",
    "\xf7\xbf\xbf\xbf",
    "\xf8\x88\x80\x80\x80",
    "\xfc\x84\x80\x80\x80\x80",
    "\xfe",
    "\xff",
    "\xff\xfe",
    "\xc3", /* cut */
    "\xe2",
    "\xe2\x82",
    "\xf0",
    "\xf0\x9f",
    "\xf0\x9f\x98",
    "\xc3\xc3", /* start where a continuation must be */
    "\xe2\xe2\x82",
    "\xe2\x82\xc3",
    "\xf0\x9f\x98\xf0",
};

static void all_characters_are_well_formed(void **state)
{
    for (apr_uint32_t c = 1; c <= 0x10ffff; ++c) {
        char bytes[4];

        if ((c < 0xd800 || c > 0xdfff) && !abb_text_is_utf8(bytes, utf8_put(bytes, c))) {
            fail_msg("U+%04X is refused", c);
        }
    }
    assert_true(abb_text_is_utf8("", 0));
    assert_true(abb_text_is_utf8("a\xc3\xbc\xe2\x82\xac\xf0\x9f\x98\x80z", 11));
}

/* Bytes end where they end: what looks like a continuation behind them is not read. */
static void malformed_bytes_are_no_utf8(void **state)
{
    assert_false(abb_text_is_utf8("\0", 1));
    assert_false(abb_text_is_utf8("a\0b", 3));
    assert_false(abb_text_is_utf8("\xc3\xbc", 1));
    for (apr_size_t i = 0; i < UNIT_COUNT(invalid_utf8); ++i) {
        apr_size_t size = strlen(invalid_utf8[i]);
        const char *embedded = apr_pstrcat(*state, "a", invalid_utf8[i], "b", NULL);

        if (abb_text_is_utf8(unit_bytes(invalid_utf8[i], size, *state), size) ||
            abb_text_is_utf8(embedded, size + 2)) {
            fail_msg("case %d is accepted", (int)i);
        }
    }
}

static void two_bytes_are_a_character_or_two_or_none(void **state)
{
    for (int first = 1; first < 256; ++first) {
        for (int second = 1; second < 256; ++second) {
            char bytes[] = {(char)first, (char)second};
            int ascii = first < 0x80 && second < 0x80;
            int pair = first >= 0xc2 && first <= 0xdf && second >= 0x80 && second <= 0xbf;

            if (abb_text_is_utf8(bytes, 2) != (ascii || pair)) {
                fail_msg("%02x %02x", first, second);
            }
        }
    }
}

/* ---- HTML, JSON, logs ------------------------------------------------------------- */

static void html_is_escaped(void **state)
{
    static const struct {
        const char *text;
        const char *html;
    } texts[] = {
        {"", ""},
        {"plain text-1.2_3~", "plain text-1.2_3~"},
        {"<script>alert(1)</script>", "&#60;script&#62;alert(1)&#60;/script&#62;"},
        {"\" onload='x'", "&#34; onload=&#39;x&#39;"},
        {"a&b &amp; &#60;", "a&#38;b &#38;amp; &#38;#60;"},
        {"J\xc3\xb6rg", "J&#246;rg"},
        {"a\xc2\xa0z", "a&#160;z"},
        {"\xe2\x82\xac", "&#8364;"},
        {"\xf0\x9f\x98\x80", "&#128512;"},
        {"\xf4\x8f\xbf\xbf", "&#1114111;"},
        {"\xe2\x80\xae", "&#8238;"},
        {"a\r\nb\tc", "a  b c"},
    };

    for (apr_size_t i = 0; i < UNIT_COUNT(texts); ++i) {
        unit_equal(abb_text_html(exact(texts[i].text, *state), *state), texts[i].html,
                   texts[i].text);
    }
}

static void each_ascii_character_is_fit_for_html(void **state)
{
    for (int byte = 1; byte < 0x80; ++byte) {
        char text[] = {(char)byte, '\0'};
        const char *expected = text;

        if (byte < 0x20 || byte == 0x7f) {
            expected = " ";
        }
        else if (strchr("&<>\"'", byte)) {
            expected = apr_psprintf(*state, "&#%d;", byte);
        }
        unit_equal(abb_text_html(text, *state), expected, apr_psprintf(*state, "byte %02x", byte));
    }
}

/* U+0080 to U+009F: browsers read a reference to them as another character. */
static void c1_control_characters_become_spaces_in_html(void **state)
{
    for (apr_uint32_t c = 0x80; c < 0xa0; ++c) {
        char text[3] = {0};

        utf8_put(text, c);
        unit_equal(abb_text_html(text, *state), " ", apr_psprintf(*state, "U+%04X", c));
    }
}

/* "a", one or more replacements, "b" and nothing else. */
static void check_replaced(const char *got, const char *before, const char *replacement,
                           const char *after, int number)
{
    apr_size_t step = strlen(replacement);
    const char *at = got + strlen(before);

    if (strncmp(got, before, strlen(before)) != 0 || strncmp(at, replacement, step) != 0) {
        fail_msg("case %d: '%s'", number, got);
    }
    while (strncmp(at, replacement, step) == 0) {
        at += step;
    }
    if (strcmp(at, after) != 0) {
        fail_msg("case %d: '%s'", number, got);
    }
}

static void invalid_utf8_is_replaced_and_swallows_nothing(void **state)
{
    for (apr_size_t i = 0; i < UNIT_COUNT(invalid_utf8); ++i) {
        char *embedded = exact(apr_pstrcat(*state, "a", invalid_utf8[i], "<b", NULL), *state);
        char *last = exact(apr_pstrcat(*state, "a", invalid_utf8[i], NULL), *state);

        check_replaced(abb_text_html(embedded, *state), "a", "&#65533;", "&#60;b", (int)i);
        check_replaced(abb_text_html(last, *state), "a", "&#65533;", "", (int)i);
        check_replaced(abb_text_json(embedded, *state), "\"a", "\\ufffd", "\\u003cb\"", (int)i);
        check_replaced(abb_text_json(last, *state), "\"a", "\\ufffd", "\"", (int)i);
    }
}

static void json_is_escaped(void **state)
{
    static const struct {
        const char *text;
        const char *json;
    } texts[] = {
        {NULL, "null"},
        {"", "\"\""},
        {"null", "\"null\""},
        {"plain text/1.2", "\"plain text/1.2\""},
        {"\"quoted\"", "\"\\u0022quoted\\u0022\""},
        {"back\\slash", "\"back\\u005cslash\""},
        {"\\u0041\\", "\"\\u005cu0041\\u005c\""},
        {"</script><!--", "\"\\u003c/script\\u003e\\u003c!--\""},
        {"a&b", "\"a\\u0026b\""},
        {"J\xc3\xb6rg", "\"J\\u00f6rg\""},
        {"\xe2\x80\xa8\xe2\x80\xa9", "\"\\u2028\\u2029\""},
        {"\xef\xbf\xbf", "\"\\uffff\""},
        {"\xf0\x90\x80\x80", "\"\\ud800\\udc00\""},
        {"\xf0\x9f\x98\x80", "\"\\ud83d\\ude00\""},
        {"\xf4\x8f\xbf\xbf", "\"\\udbff\\udfff\""},
    };

    for (apr_size_t i = 0; i < UNIT_COUNT(texts); ++i) {
        const char *text = texts[i].text ? exact(texts[i].text, *state) : NULL;

        unit_equal(abb_text_json(text, *state), texts[i].json, "text");
    }
}

static void each_ascii_character_is_fit_for_json(void **state)
{
    for (int byte = 1; byte < 0x80; ++byte) {
        char text[] = {(char)byte, '\0'};
        int escaped = byte < 0x20 || byte == 0x7f || strchr("\"\\<>&", byte);
        const char *expected =
            apr_psprintf(*state, escaped ? "\"\\u%04x\"" : "\"%c\"", (unsigned)byte);

        unit_equal(abb_text_json(text, *state), expected, apr_psprintf(*state, "byte %02x", byte));
    }
}

static void long_texts_are_escaped_to_their_end(void **state)
{
    static const char *const characters[] = {
        "\x01", "\x7f", "<", "\"", "\xff", "\xdf\xbf", "\xef\xbf\xbf", "\xf4\x8f\xbf\xbf",
    };

    for (apr_size_t i = 0; i < UNIT_COUNT(characters); ++i) {
        const char *html = abb_text_html(characters[i], *state);
        const char *json = abb_text_json(characters[i], *state);
        const char *text = "";
        const char *long_html = "";
        const char *long_json = "";

        json = apr_pstrmemdup(*state, json + 1, strlen(json) - 2);
        for (int count = 0; count < 300; ++count) {
            text = apr_pstrcat(*state, text, characters[i], NULL);
            long_html = apr_pstrcat(*state, long_html, html, NULL);
            long_json = apr_pstrcat(*state, long_json, json, NULL);
        }
        unit_equal(abb_text_html(text, *state), long_html, "HTML");
        unit_equal(abb_text_json(text, *state), apr_pstrcat(*state, "\"", long_json, "\"", NULL),
                   "JSON");
    }
}

static void text_is_made_fit_for_a_log(void **state)
{
    assert_string_equal(abb_text_loggable("", 10, *state), "");
    assert_string_equal(abb_text_loggable("abc", 0, *state), "");
    assert_string_equal(abb_text_loggable("abc", 2, *state), "ab");
    assert_string_equal(abb_text_loggable("abc", 3, *state), "abc");
    assert_string_equal(abb_text_loggable("abc", 1000, *state), "abc");
    assert_string_equal(abb_text_loggable("a\nb\x1b[0m\xc3\xbc%s", 100, *state), "a?b?[0m??%s");
    assert_string_equal(abb_text_loggable("ab\xc3\xbc", 3, *state), "ab?");
    for (int byte = 1; byte < 256; ++byte) {
        char text[] = {(char)byte, '\0'};

        assert_int_equal(abb_text_loggable(text, 5, *state)[0],
                         byte >= 0x20 && byte <= 0x7e ? byte : '?');
    }
}

/* ---- durations ----------------------------------------------------------------------- */

static void durations_are_read(void **state)
{
    static const struct {
        const char *text;
        apr_int64_t seconds;
    } durations[] = {
        {"0", 0},
        {"0s", 0},
        {"1", 1},
        {"30", 30},
        {"30s", 30},
        {"5m", 300},
        {"12h", 43200},
        {"7d", 604800},
        {"007", 7},
        {"3650d", 315360000},
        {"87600h", 315360000},
        {"315360000", 315360000},
    };

    for (apr_size_t i = 0; i < UNIT_COUNT(durations); ++i) {
        apr_interval_time_t duration = -1;

        assert_int_equal(abb_text_duration_parse(durations[i].text, &duration), APR_SUCCESS);
        assert_int_equal(duration, apr_time_from_sec(durations[i].seconds));
    }
}

static void durations_are_written(void **state)
{
    static const struct {
        const char *text;
        int seconds;
    } durations[] = {
        {"0s", 0},      {"1s", 1},     {"90s", 90},    {"5m", 300},    {"61m", 3660},
        {"12h", 43200}, {"1d", 86400}, {"25h", 90000}, {"7d", 604800},
    };

    for (apr_size_t i = 0; i < UNIT_COUNT(durations); ++i) {
        assert_string_equal(abb_text_duration(apr_time_from_sec(durations[i].seconds), *state),
                            durations[i].text);
    }
}

static void other_texts_are_no_duration(void **state)
{
    static const char *const texts[] = {
        "",
        " ",
        "s",
        "m",
        "-1",
        "-1s",
        "+1",
        " 1",
        "1 ",
        "1 s",
        "1s ",
        "1S",
        "1M",
        "1w",
        "1y",
        "1ms",
        "1sm",
        "1h30m",
        "1.5h",
        "1,5h",
        "0x10",
        "1e3",
        "five",
        "1s\n",
        "\xd9\xa1",
        "1\xc2\xa0s",
        "4000d",
        "96000h",
        "5800000m",
        "400000000",
        "9223372036854775807",
        "9223372036854775808d",
        "18446744073709551617",
        "99999999999999999999999999s",
        "106751991167d",
        "153722867280912931m",
    };

    for (apr_size_t i = 0; i < UNIT_COUNT(texts); ++i) {
        apr_interval_time_t duration;

        if (abb_text_duration_parse(texts[i], &duration) != APR_EINVAL) {
            fail_msg("'%s' is accepted", texts[i]);
        }
    }
}

static void lower_case_touches_ascii_letters_only(void **state)
{
    assert_string_equal(abb_text_lower("AcMe-42_Z.[`{", *state), "acme-42_z.[`{");
    assert_string_equal(abb_text_lower("\xc3\x84\xc3\xa4", *state), "\xc3\x84\xc3\xa4");
    assert_string_equal(abb_text_lower("", *state), "");
}

static void a_quoted_value_ends_where_it_ends(void **state)
{
    unit_equal(abb_text_quotable("a\" rule=\"x", 200, *state), "a' rule='x", "quotes");
    unit_equal(abb_text_quotable("\"\"", 200, *state), "''", "nothing else");
    unit_equal(abb_text_quotable(NULL, 200, *state), "", "nobody");
    unit_equal(abb_text_quotable("plain", 200, *state), "plain", "plain");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        UNIT_TEST(base64url_knows_the_published_vectors),
        UNIT_TEST(base64url_returns_what_it_took),
        UNIT_TEST(base64url_refuses_other_forms),
        UNIT_TEST(base64url_checks_each_character),
        UNIT_TEST(base64url_is_unambiguous),
        UNIT_TEST(unused_bits_must_be_zero),
        UNIT_TEST(base64url_of_another_length_is_refused),
        UNIT_TEST(hexadecimal_digits_are_lower_case),
        UNIT_TEST(all_but_unreserved_characters_are_percent_encoded),
        UNIT_TEST(queries_are_decoded),
        UNIT_TEST(each_byte_survives_a_query),
        UNIT_TEST(a_name_that_comes_twice_is_refused),
        UNIT_TEST(a_broken_encoding_is_refused),
        UNIT_TEST(an_encoded_nul_is_refused),
        UNIT_TEST(a_query_has_at_most_32_pairs),
        UNIT_TEST(a_hostile_name_reaches_no_log),
        UNIT_TEST(addresses_on_this_site_are_accepted),
        UNIT_TEST(of_a_url_only_the_public_part_is_shown),
        UNIT_TEST(the_bare_origin_is_the_front_page),
        UNIT_TEST(no_address_is_refused),
        UNIT_TEST(other_sites_are_refused),
        UNIT_TEST(a_second_slash_is_refused),
        UNIT_TEST(dot_segments_are_refused),
        UNIT_TEST(dot_segments_between_encoded_slashes_are_refused),
        UNIT_TEST(unfit_characters_are_refused_in_path_and_query),
        UNIT_TEST(unfit_bytes_are_refused_when_encoded),
        UNIT_TEST(a_broken_encoding_in_the_path_is_refused),
        UNIT_TEST(unicode_is_refused),
        UNIT_TEST(an_address_has_at_most_2000_bytes),
        UNIT_TEST(all_characters_are_well_formed),
        UNIT_TEST(malformed_bytes_are_no_utf8),
        UNIT_TEST(two_bytes_are_a_character_or_two_or_none),
        UNIT_TEST(html_is_escaped),
        UNIT_TEST(each_ascii_character_is_fit_for_html),
        UNIT_TEST(c1_control_characters_become_spaces_in_html),
        UNIT_TEST(invalid_utf8_is_replaced_and_swallows_nothing),
        UNIT_TEST(json_is_escaped),
        UNIT_TEST(each_ascii_character_is_fit_for_json),
        UNIT_TEST(long_texts_are_escaped_to_their_end),
        UNIT_TEST(text_is_made_fit_for_a_log),
        UNIT_TEST(lower_case_touches_ascii_letters_only),
        UNIT_TEST(durations_are_read),
        UNIT_TEST(durations_are_written),
        UNIT_TEST(other_texts_are_no_duration),
        UNIT_TEST(a_quoted_value_ends_where_it_ends),
    };

    return cmocka_run_group_tests(tests, unit_begin, unit_end);
}
