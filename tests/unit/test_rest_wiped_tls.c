/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an exchange over TLS leaves behind in our memory, in libcurl, OpenSSL and nghttp2 as much as
 * in the door: while its connection is open and idle, and when the door is closed. As in the
 * daemon, what is freed is wiped, and what has passed through HTTP/2 (kmsbridge/wipe_free.c and
 * backend/rest/http_wipe.c are in this program). The server is a process of its own, so that its
 * memory is not ours.
 */
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backend/rest/http.h"
#include "common/clock.h"
#include "common/secure.h"
#include "tests/unit/http_callers.h"
#include "tests/unit/marker.h"
#include "tests/unit/unit.h"

/* ---- the servers --------------------------------------------------------------------------- */

enum protocol { HTTP1, HTTP2, PROTOCOL_COUNT };

static struct {
    pid_t pid;
    unsigned ports[PROTOCOL_COUNT];
} server;

static void serve(int to_us)
{
    unsigned ports[PROTOCOL_COUNT];
    char saying[64];

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)memset(saying, '.', sizeof(saying));
    marker_put(saying + 8);
    saying[8 + MARKER_LEN] = '.';
    saying[sizeof(saying) - 1] = '\0';
    for (unsigned i = 0; i < PROTOCOL_COUNT; i++) {
        struct https_server *one = https_server_start(i == HTTP2);

        if (one == NULL) {
            _exit(EXIT_FAILURE);
        }
        https_server_say(one, saying);
        ports[i] = https_server_port(one);
    }
    if (write(to_us, ports, sizeof(ports)) != (ssize_t)sizeof(ports)) {
        _exit(EXIT_FAILURE);
    }
    for (;;) {
        (void)pause();
    }
}

static bool server_start(void)
{
    int ends[2];
    bool good = false;

    if (pipe(ends) != 0) {
        return false;
    }
    server.pid = fork();
    if (server.pid == 0) {
        serve(ends[1]);
    }
    (void)close(ends[1]);
    good = server.pid > 0 &&
           read(ends[0], server.ports, sizeof(server.ports)) == (ssize_t)sizeof(server.ports);
    (void)close(ends[0]);
    return good;
}

static void server_stop(void)
{
    (void)kill(server.pid, SIGKILL);
    (void)waitpid(server.pid, NULL, 0);
}

/* ---- the cases ----------------------------------------------------------------------------- */

/* Of header fields, nghttp2 keeps Authorization alone out of the connection's compression table
 * (RFC 7541 2.3.2) by itself. */
enum where { IN_QUERY, IN_HEADER, IN_TOKEN, IN_BODY, IN_REPLY, WHERE_COUNT };
static const char *const where_names[WHERE_COUNT] = {"query", "header", "token", "body", "reply"};

/* How it goes: to its end, or until its deadline, with nothing of the reply or most of it there. */
static const struct way {
    const char *name;
    enum protocol protocol;
    const char *path;
    enum kms_status status;
    unsigned deadline_ms;
} ways[] = {
    {"HTTP/1, whole", HTTP1, "/whole", KMS_OK, 10000},
    {"HTTP/1, large", HTTP1, "/large", KMS_OK, 10000},
    {"HTTP/1, unanswered", HTTP1, "/held", KMS_E_TIMEOUT, 300},
    {"HTTP/2, whole", HTTP2, "/whole", KMS_OK, 10000},
    {"HTTP/2, large", HTTP2, "/large", KMS_OK, 10000},
    {"HTTP/2, unanswered", HTTP2, "/held", KMS_E_TIMEOUT, 300},
    {"HTTP/2, half", HTTP2, "/half", KMS_E_TIMEOUT, 300},
};

struct sent {
    char url[128];
    char header[64];
    char body[64];
};

/* What is sent, with the marker at one place. */
static void fill(struct sent *sent, const struct way *way, enum where where)
{
    (void)snprintf(sent->url, sizeof(sent->url), "https://127.0.0.1:%u%s%s",
                   server.ports[way->protocol], way->path, where == IN_REPLY ? "/said" : "");
    (void)snprintf(sent->header, sizeof(sent->header), "none");
    (void)snprintf(sent->body, sizeof(sent->body), "%20s", "");
    if (where == IN_QUERY) {
        strcat(sent->url, "?Plaintext=");
        marker_put(sent->url + strlen(sent->url));
    } else if (where == IN_HEADER || where == IN_TOKEN) {
        strcpy(sent->header, "Bearer ");
        marker_put(sent->header + strlen(sent->header));
    } else if (where == IN_BODY) {
        marker_put(sent->body + strlen(sent->body));
    }
}

static void ask(struct kms_http_door *door, const struct way *way, enum where where)
{
    struct sent sent;
    const struct kms_http_header header = {where == IN_TOKEN ? "X-Token" : "Authorization",
                                           sent.header};
    struct kms_http_request request = {
        .method = KMS_HTTP_POST, .url = sent.url, .headers = &header, .header_count = 1};
    struct kms_http_wait wait = {.deadline_ns = kms_deadline_in(way->deadline_ms * KMS_NS_PER_MS)};
    struct kms_http_response response = KMS_HTTP_RESPONSE_INIT;
    struct kms_error error = KMS_ERROR_INIT;
    enum kms_status status = KMS_OK;

    fill(&sent, way, where);
    request.body = kms_span_str(sent.body);
    CU_ASSERT_TRUE(where == IN_REPLY || marker_is_left()); /* the search finds what is there */
    status = kms_http_perform(door, &request, &wait, &response, &error);
    UNIT_CHECK(error.text, status == way->status);
    /* in secure memory, until it is freed */
    UNIT_CHECK(way->name, status != KMS_OK || where != IN_REPLY || marker_is_left());
    kms_http_response_done(&response);
    kms_wipe(&response, sizeof(response));
    kms_wipe(&sent, sizeof(sent));
}

static unsigned open_of(struct kms_http_door *door)
{
    unsigned open = 0;
    unsigned busy = 0;
    unsigned max = 0;
    uint64_t oldest = 0;

    door->count(door, &open, &busy, &max, &oldest);
    return open;
}

static void nothing_is_left_behind(void)
{
    const struct kms_http_conf conf = {.name = "test", .ca_file = callers_ca_file};

    CU_ASSERT_FATAL(server_start());
    for (size_t w = 0; w < UNIT_COUNT(ways); w++) {
        bool stays_open = ways[w].protocol == HTTP2 || ways[w].status == KMS_OK;

        for (unsigned where = 0; where < WHERE_COUNT; where++) {
            struct kms_http_door *door = NULL;
            struct kms_error error = KMS_ERROR_INIT;
            char row[64];

            CU_ASSERT_EQUAL_FATAL(kms_http_open(&conf, &door, &error), KMS_OK);
            ask(door, &ways[w], (enum where)where);
            (void)snprintf(row, sizeof(row), "%s: %s", ways[w].name, where_names[where]);
            UNIT_CHECK(row, !stays_open || open_of(door) == 1);
            UNIT_CHECK(row, !marker_is_left());
            kms_http_door_close(door);
            (void)strcat(row, ", closed");
            UNIT_CHECK(row, !marker_is_left());
        }
    }
    server_stop();
}

static const struct unit_test tests[] = {
    {"nothing is left behind", nothing_is_left_behind},
};

int main(void)
{
    return callers_main("test_rest_wiped_tls", tests, UNIT_COUNT(tests));
}
