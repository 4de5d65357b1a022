/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an exchange leaves behind in our memory: neither what it sent nor the body that it got. The
 * server is a process of its own, so that its memory is not ours.
 */
#include <arpa/inet.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backend/rest/http.h"
#include "common/clock.h"
#include "common/secure.h"
#include "tests/unit/marker.h"
#include "tests/unit/unit.h"

/* ---- the server ---------------------------------------------------------------------------- */

static struct {
    pid_t pid;
    unsigned port;
} server;

/* Reads a request, and answers with the marker; for "/half" with half of the body. */
static bool serve_one(int fd)
{
    char text[8192] = "";
    char answer[256] = "HTTP/1.1 200 OK\r\nContent-Length: 118\r\n\r\n";
    size_t len = 0;
    const char *body = NULL;

    while ((body = strstr(text, "\r\n\r\n")) == NULL || strstr(body, "END") == NULL) {
        ssize_t got = recv(fd, text + len, sizeof(text) - 1 - len, 0);

        if (got <= 0) {
            return false;
        }
        len += (size_t)got;
    }
    len = strlen(answer);
    memset(answer + len, '.', 118);
    marker_put(answer + len);
    answer[len + MARKER_LEN] = '.';
    len += strstr(text, "/half") != NULL ? 60 : 118;
    return send(fd, answer, len, MSG_NOSIGNAL) == (ssize_t)len;
}

static void serve(int listener)
{
    int fd = -1;

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    while ((fd = accept(listener, NULL, NULL)) >= 0) {
        while (serve_one(fd)) {
        }
        (void)close(fd);
    }
    _exit(EXIT_SUCCESS);
}

static bool server_start(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (bind(fd, (struct sockaddr *)&address, len) != 0 || listen(fd, 64) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &len) != 0) {
        return false;
    }
    server.port = ntohs(address.sin_port);
    server.pid = fork();
    if (server.pid == 0) {
        serve(fd);
    }
    (void)close(fd);
    return server.pid > 0;
}

/* ---- the cases ----------------------------------------------------------------------------- */

static char name[] = "kms.example";

enum where { IN_QUERY, IN_HEADER, IN_BODY, IN_REPLY, WHERE_COUNT };
static const char *const where_names[WHERE_COUNT] = {"query", "header", "body", "reply"};

/* How it goes: to its end, to nobody, or until its deadline with half of the reply there. */
static const struct way {
    const char *name;
    const char *path;
    bool is_named; /* with a server name of its own: the URL is another one */
    enum kms_status status;
    unsigned deadline_ms;
} ways[] = {
    {"whole", "/whole", false, KMS_OK, 5000},
    {"whole, named", "/whole", true, KMS_OK, 5000},
    {"half", "/half", false, KMS_E_TIMEOUT, 100},
    {"nobody", NULL, false, KMS_E_UNAVAILABLE, 5000},
    {"nobody, named", NULL, true, KMS_E_UNAVAILABLE, 5000},
};

/* What is sent, or nothing, with the marker at one place. */
struct sent {
    char url[128];
    char header[64];
    char body[64];
};

static void fill(struct sent *sent, const struct way *way, enum where where)
{
    unsigned port = way->path == NULL ? 1 : server.port;

    (void)snprintf(sent->url, sizeof(sent->url), "http://127.0.0.1:%u%s", port,
                   way->path == NULL ? "/" : way->path);
    (void)snprintf(sent->header, sizeof(sent->header), "none");
    (void)snprintf(sent->body, sizeof(sent->body), "%20sEND", "");
    if (where == IN_QUERY) {
        strcat(sent->url, "?Plaintext=");
        marker_put(sent->url + strlen(sent->url));
    } else if (where == IN_HEADER) {
        marker_put(sent->header);
    } else if (where == IN_BODY) {
        marker_put(sent->body);
        strcat(sent->body, "END");
    }
}

static void ask(struct kms_http_door *door, const struct way *way, enum where where)
{
    struct sent sent;
    const struct kms_http_header header = {"X-Token", sent.header};
    struct kms_http_request request = {
        .method = KMS_HTTP_POST, .url = sent.url, .headers = &header, .header_count = 1};
    struct kms_http_wait wait = {.deadline_ns = 0};
    struct kms_http_response response = KMS_HTTP_RESPONSE_INIT;
    struct kms_error error = KMS_ERROR_INIT;
    enum kms_status status = KMS_OK;

    fill(&sent, way, where);
    request.body = kms_span_str(sent.body);
    CU_ASSERT_TRUE(where == IN_REPLY || marker_is_left()); /* the search finds what is there */
    wait.deadline_ns = kms_deadline_in(way->deadline_ms * KMS_NS_PER_MS);
    status = kms_http_perform(door, &request, &wait, &response, &error);
    UNIT_CHECK(error.text, status == way->status);
    kms_http_response_done(&response);
    kms_wipe(&response, sizeof(response));
    kms_wipe(&sent, sizeof(sent));
}

static void nothing_is_left_behind(void)
{
    for (size_t w = 0; w < UNIT_COUNT(ways); w++) {
        const struct kms_http_conf conf = {.name = "test",
                                           .server_name = ways[w].is_named ? name : NULL};

        for (unsigned where = 0; where < WHERE_COUNT; where++) {
            struct kms_http_door *door = NULL;
            struct kms_error error = KMS_ERROR_INIT;
            char row[64];

            CU_ASSERT_EQUAL_FATAL(kms_http_open(&conf, &door, &error), KMS_OK);
            ask(door, &ways[w], (enum where)where);
            (void)snprintf(row, sizeof(row), "%s: %s", ways[w].name, where_names[where]);
            UNIT_CHECK(row, !marker_is_left()); /* though the connection is open still */
            kms_http_door_close(door);
        }
    }
}

static const struct unit_test tests[] = {
    {"nothing is left behind", nothing_is_left_behind},
};

int main(void)
{
    int code = EXIT_FAILURE;

    if (kms_secure_init() != KMS_OK || !server_start()) {
        return EXIT_FAILURE;
    }
    code = unit_main("test_rest_wiped", tests, UNIT_COUNT(tests));
    (void)kill(server.pid, SIGKILL);
    (void)waitpid(server.pid, NULL, 0);
    return code;
}
