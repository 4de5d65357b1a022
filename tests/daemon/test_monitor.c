/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The monitor's pages: their HTTP, and Prometheus' text exposition format 0.0.4 taken strictly,
 * with counters that count what happened.
 */
#include "config.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/daemon/fixture.h"
#include "tests/unit/unit.h"

#define NAME       "test_monitor"
#define PAGE_MAX   (256 * 1024)
#define SERIES_MAX 2048

static struct fixture fx;
static char page[PAGE_MAX];

/* --- a strict reader of the exposition format ------------------------------------------------- */

struct family {
    char name[128];
    char type[16];
    bool has_help;
    unsigned samples;
    /* of a histogram's current series */
    double last_le;
    double last_count;
    double infinity;
};

static struct reader {
    struct family family;
    char *seen[SERIES_MAX];
    size_t seen_count;
    const char *wrong; /* NULL: nothing yet */
} reader;

static bool wrong(const char *what)
{
    reader.wrong = reader.wrong == NULL ? what : reader.wrong;
    return false;
}

static size_t name_len(const char *text)
{
    size_t n = 0;

    while (isalpha((unsigned char)text[n]) || text[n] == '_' || text[n] == ':' ||
           (n > 0 && isdigit((unsigned char)text[n]))) {
        n++;
    }
    return n;
}

/* {a="b",c="d"}; the length with both braces, 0 when it is wrong. */
static size_t labels_len(const char *text)
{
    size_t n = 1;

    while (text[n] != '}') {
        size_t len = name_len(text + n);

        if (len == 0 || text[n + len] != '=' || text[n + len + 1] != '"') {
            return 0;
        }
        for (n += len + 2; text[n] != '"'; n++) {
            if (text[n] == '\0' || text[n] == '\n') {
                return 0;
            }
            if (text[n] == '\\' && strchr("\\n\"", text[++n]) == NULL) {
                return 0;
            }
        }
        n++;
        if (text[n] == ',') {
            n++;
        } else if (text[n] != '}') {
            return 0;
        }
    }
    return n + 1;
}

static bool family_done(void)
{
    const struct family *f = &reader.family;

    return f->name[0] == '\0' || f->samples > 0 || strcmp(f->type, "counter") == 0 ||
           wrong("a family without samples");
}

static bool ends_in(const char *text, const char *end)
{
    size_t len = strlen(text);
    size_t end_len = strlen(end);

    return len >= end_len && strcmp(text + len - end_len, end) == 0;
}

static bool read_comment(char *line)
{
    struct family *f = &reader.family;
    char kind[8] = "";
    char name[128] = "";
    int rest = 0;

    if (sscanf(line, "# %7s %127s %n", kind, name, &rest) < 2 || line[rest] == '\0') {
        return wrong("a comment that is neither HELP nor TYPE");
    }
    if (strcmp(kind, "HELP") == 0) {
        bool done = family_done();

        memset(f, 0, sizeof(*f));
        (void)snprintf(f->name, sizeof(f->name), "%s", name);
        f->has_help = true;
        return done;
    }
    if (strcmp(kind, "TYPE") != 0 || !f->has_help || strcmp(f->name, name) != 0 ||
        f->type[0] != '\0') {
        return wrong("TYPE does not follow its HELP");
    }
    (void)snprintf(f->type, sizeof(f->type), "%s", line + rest);
    if (strcmp(f->type, "counter") == 0 && !ends_in(name, "_total")) {
        return wrong("a counter that does not end in _total");
    }
    return strcmp(f->type, "counter") == 0 || strcmp(f->type, "gauge") == 0 ||
           strcmp(f->type, "histogram") == 0 || wrong("an unknown TYPE");
}

static bool read_histogram(const char *suffix, const char *labels, double value)
{
    struct family *f = &reader.family;
    const char *le = strstr(labels, "le=\"");

    if (strcmp(suffix, "_bucket") == 0) {
        double limit = le == NULL ? 0 : strtod(le + 4, NULL);

        if (le == NULL || value < f->last_count || limit <= f->last_le) {
            return wrong("buckets that do not rise");
        }
        f->last_le = limit;
        f->last_count = value;
        f->infinity = strncmp(le, "le=\"+Inf\"", 9) == 0 ? value : -1;
        return true;
    }
    if (strcmp(suffix, "_sum") == 0) {
        return value >= 0 || wrong("a negative sum");
    }
    if (strcmp(suffix, "_count") != 0) {
        return wrong("a histogram's sample of another name");
    }
    if (f->infinity != value) {
        return wrong("a count that is not the last bucket's");
    }
    f->last_le = f->last_count = 0;
    return true;
}

static bool note_series(const char *line, size_t len)
{
    for (size_t i = 0; i < reader.seen_count; i++) {
        if (strlen(reader.seen[i]) == len && strncmp(reader.seen[i], line, len) == 0) {
            return wrong("a series twice");
        }
    }
    if (reader.seen_count == SERIES_MAX) {
        return wrong("too many series");
    }
    reader.seen[reader.seen_count++] = strndup(line, len);
    return true;
}

static bool read_sample(const char *line)
{
    struct family *f = &reader.family;
    size_t name = name_len(line);
    size_t labels = line[name] == '{' ? labels_len(line + name) : 0;
    size_t family = strlen(f->name);
    char suffix[128];
    char text[1024];
    char *end = NULL;
    double value;

    if (name == 0 || (line[name] == '{' && labels == 0) || line[name + labels] != ' ') {
        return wrong("a sample that is none");
    }
    value = strtod(line + name + labels + 1, &end);
    if (end == line + name + labels + 1 || *end != '\0') {
        return wrong("a value that is no number");
    }
    if (f->type[0] == '\0' || name < family || strncmp(line, f->name, family) != 0) {
        return wrong("a sample of another family");
    }
    f->samples++;
    (void)snprintf(suffix, sizeof(suffix), "%.*s", (int)(name - family), line + family);
    (void)snprintf(text, sizeof(text), "%.*s", (int)labels, line + name);
    if (!note_series(line, name + labels)) {
        return false;
    }
    if (strcmp(f->type, "histogram") == 0) {
        return read_histogram(suffix, text, value);
    }
    if (strcmp(f->type, "counter") == 0 && value < 0) {
        return wrong("a counter below zero");
    }
    return suffix[0] == '\0' || wrong("a sample of another name");
}

/* NULL when all of @text is right, otherwise what is not; it changes @text. */
static const char *exposition_wrong(char *text)
{
    char *save = NULL;
    bool good = text[0] != '\0' && text[strlen(text) - 1] == '\n';

    memset(&reader, 0, sizeof(reader));
    if (!good) {
        return "the last line has no end";
    }
    for (char *line = strtok_r(text, "\n", &save); line != NULL && good;
         line = strtok_r(NULL, "\n", &save)) {
        good = line[0] == '#' ? read_comment(line) : read_sample(line);
        if (!good) {
            fprintf(stderr, "%s\n", line);
        }
    }
    (void)family_done();
    for (size_t i = 0; i < reader.seen_count; i++) {
        free(reader.seen[i]);
    }
    return reader.wrong;
}

static const struct {
    const char *text;
    bool good;
} expositions[] = {
    {"# HELP a_total x\n# TYPE a_total counter\na_total{b=\"c\"} 1\n", true},
    {"# HELP a x\n# TYPE a gauge\na 1", false},
    {"# HELP a x\n# TYPE a gauge\na one\n", false},
    {"# HELP a x\n# TYPE a gauge\na 1\na 1\n", false},
    {"# HELP a x\n# TYPE a counter\na 1\n", false},
    {"# HELP a x\n# TYPE a gauge\nb 1\n", false},
    {"# TYPE a gauge\na 1\n", false},
    {"# HELP a x\n# TYPE a gauge\na{b=c} 1\n", false},
    {"# HELP a x\n# TYPE a histogram\na_bucket{le=\"1\"} 2\na_bucket{le=\"+Inf\"} 1\n"
     "a_sum 1\na_count 1\n",
     false},
    {"# HELP a x\n# TYPE a histogram\na_bucket{le=\"1\"} 1\na_bucket{le=\"+Inf\"} 2\n"
     "a_sum 1\na_count 3\n",
     false},
    {"# HELP a x\n# TYPE a histogram\na_bucket{le=\"1\"} 1\na_bucket{le=\"+Inf\"} 2\n"
     "a_sum 1\na_count 2\n",
     true},
};

static void reader_is_strict(void)
{
    for (size_t i = 0; i < UNIT_COUNT(expositions); i++) {
        char text[512];

        (void)snprintf(text, sizeof(text), "%s", expositions[i].text);
        UNIT_CHECK(expositions[i].text, (exposition_wrong(text) == NULL) == expositions[i].good);
    }
}

/* --- the daemon's ----------------------------------------------------------------------------- */

/* What three round trips move; exactly, where no probe counts too. */
static const struct {
    const char *name;
    double by;
    bool exactly;
} moves[] = {
    {"kms_calls_total{method=\"Encrypt\",code=\"OK\"}", 3, true},
    {"kms_calls_total{method=\"Decrypt\",code=\"OK\"}", 3, true},
    {"kms_calls_total{method=\"Status\",code=\"OK\"}", 3, true},
    {"kms_call_duration_seconds_count{method=\"Encrypt\"}", 3, true},
    {"backend_call_duration_seconds_count{op=\"decrypt\"}", 3, false},
    {"connections_accepted_total", 3, true},
};

static void metrics_move(void)
{
    double before[UNIT_COUNT(moves)];

    UNIT_CHECK("", fixture_round_trip(&fx)); /* series are there once they have counted */
    for (size_t i = 0; i < UNIT_COUNT(moves); i++) {
        before[i] = fixture_metric(&fx, moves[i].name);
        UNIT_CHECK(moves[i].name, before[i] >= 1);
    }
    for (int i = 0; i < 3; i++) {
        UNIT_CHECK("", fixture_round_trip(&fx));
    }
    for (size_t i = 0; i < UNIT_COUNT(moves); i++) {
        double by = fixture_metric(&fx, moves[i].name) - before[i];

        UNIT_CHECK(moves[i].name, moves[i].exactly ? by == moves[i].by : by >= moves[i].by);
    }
    UNIT_CHECK("", fixture_metric(&fx, "kek_healthy") == 1);
    UNIT_CHECK("", fixture_metric(&fx, "backend_ready") == 1);
    UNIT_CHECK("", fixture_http(&fx, "/metrics", page, sizeof(page)) == 200);
    UNIT_CHECK("", strstr(page, "kmsbridge_active_key_info{key_id_hash=\"sha256:") != NULL);
    const char *bad = exposition_wrong(page);
    if (!UNIT_CHECK("/metrics", bad == NULL)) {
        fprintf(stderr, "/metrics: %s\n", bad);
    }
}

static bool is_unhealthy(void *ctx)
{
    (void)ctx;
    return fixture_metric(&fx, "kek_healthy") == 0;
}

static void failures_are_counted(void)
{
    const char *bad;

    fixture_shim(&fx, "fail=CKR_DEVICE_ERROR\n");
    UNIT_CHECK("", fixture_until(is_unhealthy, NULL, SEC(10)));
    UNIT_CHECK("", fixture_http(&fx, "/readyz", page, sizeof(page)) == 503);
    UNIT_CHECK("", strstr(page, "CKR_") == NULL && page[0] != '\0');
    UNIT_CHECK("", fixture_http(&fx, "/metrics", page, sizeof(page)) == 200);
    UNIT_CHECK("", strstr(page, "class=\"unavailable\"} ") != NULL);
    bad = exposition_wrong(page);
    if (!UNIT_CHECK("/metrics", bad == NULL)) {
        fprintf(stderr, "/metrics: %s\n", bad);
    }
    fixture_shim(&fx, "");
    UNIT_CHECK("", fixture_wait_healthy(&fx, true));
}

static void pages(void)
{
    struct stat st;

    UNIT_CHECK("", fixture_http(&fx, "/livez", page, sizeof(page)) == 200);
    UNIT_CHECK("", strcmp(page, "ok\n") == 0);
    UNIT_CHECK("", fixture_http(&fx, "/readyz", page, sizeof(page)) == 200);
    UNIT_CHECK("", strcmp(page, "ok\n") == 0);
    UNIT_CHECK("", fixture_http(&fx, "/", page, sizeof(page)) == 404);
    UNIT_CHECK("", fixture_http(&fx, "/metrics/../livez", page, sizeof(page)) == 404);
    UNIT_CHECK("", stat(fx.monitor, &st) == 0 && (st.st_mode & 07777) == 0660);
}

/* --- over TCP --------------------------------------------------------------------------------- */

static int free_port(void)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(addr);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int port = 0;

    if (fd >= 0 && bind(fd, (const struct sockaddr *)&addr, len) == 0 &&
        getsockname(fd, (struct sockaddr *)&addr, &len) == 0) {
        port = ntohs(addr.sin_port);
    }
    (void)close(fd);
    return port;
}

/* Sends @request and reads the first line's status; 0 when there is none. */
static int tcp_status(int port, const char *request)
{
    struct sockaddr_in addr = {.sin_family = AF_INET,
                               .sin_port = htons((uint16_t)port),
                               .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char answer[256] = "";
    int code = 0;

    if (fd >= 0 && connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) == 0 &&
        write(fd, request, strlen(request)) == (ssize_t)strlen(request) &&
        read(fd, answer, sizeof(answer) - 1) > 0) {
        (void)sscanf(answer, "HTTP/1.%*d %d", &code);
    }
    (void)close(fd);
    return code;
}

static void over_tcp(void)
{
    static const struct {
        const char *request;
        int code;
    } rows[] = {
        {"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", 200},
        {"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 200},
        {"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", 405},
        {"DELETE /livez HTTP/1.0\r\n\r\n", 405},
    };
    char config[4096];
    char line[64];
    FILE *file;
    size_t n;
    char *at;
    int port = free_port();

    UNIT_CHECK("", fixture_stop(&fx));
    file = fopen(fx.config, "re");
    n = file == NULL ? 0 : fread(config, 1, sizeof(config) - 1, file);
    config[n] = '\0';
    if (file != NULL) {
        (void)fclose(file);
    }
    at = strstr(config, "  listen: ");
    if (!UNIT_CHECK("", at != NULL) || !UNIT_CHECK("", port != 0)) {
        return;
    }
    (void)snprintf(line, sizeof(line), "  listen: 127.0.0.1:%d\n", port);
    memcpy(at, line, strlen(line) + 1);
    fixture_write(fx.config, config);
    UNIT_CHECK("", fixture_start(&fx));
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        UNIT_CHECK(rows[i].request, tcp_status(port, rows[i].request) == rows[i].code);
    }
    UNIT_CHECK("", fixture_stop(&fx));
}

static const struct unit_test tests[] = {
    {"the reader is strict", reader_is_strict},
    {"pages", pages},
    {"metrics move", metrics_move},
    {"failures are counted", failures_are_counted},
    {"over TCP", over_tcp},
};

int main(void)
{
    fixture_init(&fx, NAME);
    fixture_configure(&fx, "  probe_interval: 1s\n", NULL);
    if (!fixture_start(&fx)) {
        fixture_log_show(&fx);
        return EXIT_FAILURE;
    }
    return fixture_main(&fx, NAME, tests, UNIT_COUNT(tests));
}
