/* SPDX-License-Identifier: Apache-2.0 */
/* The door to libcurl, over a server of the test's own that misbehaves as the path says. TLS is in
 * tests/services. */
#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "backend/rest/http.h"
#include "common/clock.h"
#include "common/secure.h"
#include "tests/unit/unit.h"

/* ---- the server --------------------------------------------------------------------------- */

static struct server {
    int fd;
    unsigned port;
    pthread_t thread;
    atomic_uint connections;
    atomic_uint requests;
    pthread_mutex_t lock; /* guards what follows */
    char seen[8192];      /* the last request */
} server = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void put(int fd, const char *text)
{
    size_t len = strlen(text);

    while (len > 0) {
        ssize_t sent = send(fd, text, len, MSG_NOSIGNAL);

        if (sent <= 0) {
            return;
        }
        text += sent;
        len -= (size_t)sent;
    }
}

static void put_many(int fd, const char *line, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        put(fd, line);
    }
}

/* Answers one request; false to close. */
static bool respond(int fd, const char *path)
{
    if (strncmp(path, "refused.example:443 ", 20) == 0) { /* as a proxy */
        put(fd, "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n");
        return true;
    }
    if (strncmp(path, "cut.example:443 ", 16) == 0) {
        put(fd, "HTTP/1.1 200 Go on\r\n\r\n");
        return false;
    }
    if (strncmp(path, "silent.example:443 ", 19) == 0) {
        (void)poll(NULL, 0, 700);
        return false;
    }
    if (strncmp(path, "/cut ", 5) == 0) {
        return false;
    }
    if (strncmp(path, "/half ", 6) == 0) {
        put(fd, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        return false;
    }
    if (strncmp(path, "/slow ", 6) == 0) {
        put(fd, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n");
        (void)poll(NULL, 0, 700);
        return false;
    }
    if (strncmp(path, "/big ", 5) == 0) {
        put(fd, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
        put_many(fd, "0123456789abcdef0123456789abcdef", 1000);
        return false;
    }
    if (strncmp(path, "/heads ", 7) == 0) {
        put(fd, "HTTP/1.1 200 OK\r\n");
        put_many(fd, "X-Filler: 0123456789abcdef0123456789abcdef\r\n", 2000);
        put(fd, "Content-Length: 0\r\n\r\n");
        return false;
    }
    if (strncmp(path, "/noise ", 7) == 0) {
        put(fd, "220 this is SMTP\r\n");
        return false;
    }
    if (strncmp(path, "/busy ", 6) == 0) {
        (void)poll(NULL, 0, 300);
        put(fd, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        return true;
    }
    if (strncmp(path, "/move ", 6) == 0) {
        put(fd, "HTTP/1.1 307 Moved\r\nLocation: /ok\r\nContent-Length: 0\r\n\r\n");
        return true;
    }
    if (strncmp(path, "/later ", 7) == 0) {
        put(fd, "HTTP/1.1 429 Slow down\r\nRetry-After: 2\r\nX-Request-Id: r-1\r\n"
                "x-request-id: r-2\r\nContent-Length: 2\r\n\r\n{}");
        return true;
    }
    if (strncmp(path, "/early ", 7) == 0) {
        put(fd, "HTTP/1.1 103 Early: Hints\r\nX-Request-Id: early\r\nRetry-After: 7\r\n\r\n"
                "HTTP/1.1 200 OK\r\nX-Request-Id: final\r\nContent-Length: 0\r\n\r\n");
        return true;
    }
    if (strncmp(path, "/early/alone ", 13) == 0) {
        put(fd, "HTTP/1.1 100 Continue\r\nX-Request-Id: early\r\n\r\n"
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        return true;
    }
    put(fd, "HTTP/1.1 200 OK\r\nX-Request-Id:  abc \r\nContent-Length: 5\r\n\r\nhello");
    return true;
}

static void *serve_one(void *ctx)
{
    int fd = (int)(intptr_t)ctx;
    bool open = true;

    while (open) {
        char text[8192] = "";
        size_t len = 0;
        const char *path = NULL;

        while (strstr(text, "\r\n\r\n") == NULL && len < sizeof(text) - 1) {
            ssize_t got = recv(fd, text + len, sizeof(text) - 1 - len, 0);

            if (got <= 0) {
                (void)close(fd);
                return NULL;
            }
            len += (size_t)got;
        }
        pthread_mutex_lock(&server.lock);
        memcpy(server.seen, text, sizeof(text));
        pthread_mutex_unlock(&server.lock);
        atomic_fetch_add(&server.requests, 1);
        path = strchr(text, ' ');
        open = path != NULL && respond(fd, path + 1);
    }
    (void)shutdown(fd, SHUT_RDWR);
    (void)close(fd);
    return NULL;
}

static void *serve(void *ctx)
{
    (void)ctx;
    for (;;) {
        int fd = accept(server.fd, NULL, NULL);
        pthread_t thread;

        if (fd < 0) {
            return NULL;
        }
        atomic_fetch_add(&server.connections, 1);
        if (pthread_create(&thread, NULL, serve_one, (void *)(intptr_t)fd) == 0) {
            (void)pthread_detach(thread);
        }
    }
}

static bool server_start(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);

    server.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(server.fd, (struct sockaddr *)&address, len) != 0 || listen(server.fd, 64) != 0 ||
        getsockname(server.fd, (struct sockaddr *)&address, &len) != 0) {
        return false;
    }
    server.port = ntohs(address.sin_port);
    return pthread_create(&server.thread, NULL, serve, NULL) == 0;
}

/* ---- asking ------------------------------------------------------------------------------- */

static struct kms_http_door *door;
static const char *const want[] = {"X-Request-Id"};

struct asked {
    struct kms_http_response response;
    struct kms_error error;
    enum kms_status status;
    uint64_t took_ms;
};

static struct asked ask_with(const char *path, const struct kms_http_request *like,
                             const struct kms_http_wait *wait)
{
    struct asked asked = {.status = KMS_OK};
    struct kms_http_request request = *like;
    uint64_t start = kms_now_ns();
    char url[256];

    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%u%s", server.port, path);
    request.url = url;
    request.want = want;
    request.want_count = 1;
    asked.status = kms_http_perform(door, &request, wait, &asked.response, &asked.error);
    asked.took_ms = (kms_now_ns() - start) / KMS_NS_PER_MS;
    return asked;
}

static struct asked ask(const char *path)
{
    const struct kms_http_request request = {.method = KMS_HTTP_GET};
    const struct kms_http_wait wait = {.deadline_ns = kms_deadline_in(5 * KMS_NS_PER_S)};

    return ask_with(path, &request, &wait);
}

static void answers_come(void)
{
    uint64_t before = kms_now_ns();
    struct asked asked = ask("/ok");

    CU_ASSERT_EQUAL(asked.status, KMS_OK);
    CU_ASSERT_EQUAL(asked.response.status, 200);
    CU_ASSERT(kms_span_equal(kms_blob_span(&asked.response.body), kms_span_str("hello")));
    CU_ASSERT_STRING_EQUAL(asked.response.want[0], "abc");
    CU_ASSERT_TRUE(asked.response.was_sent);
    CU_ASSERT(asked.response.began_ns >= before && asked.response.began_ns <= kms_now_ns());
    kms_http_response_done(&asked.response);
    asked = ask("/later");
    CU_ASSERT_EQUAL(asked.response.status, 429);
    CU_ASSERT_EQUAL(asked.response.retry_after_ns, 2 * KMS_NS_PER_S);
    CU_ASSERT_STRING_EQUAL(asked.response.want[0], "r-1");
    kms_http_response_done(&asked.response);
    asked = ask("/move"); /* not followed */
    CU_ASSERT_EQUAL(asked.response.status, 307);
    kms_http_response_done(&asked.response);
}

/* An interim reply's header fields are not the answer's. */
static void interim_replies_are_none(void)
{
    struct asked asked = ask("/early");

    CU_ASSERT_EQUAL(asked.status, KMS_OK);
    CU_ASSERT_EQUAL(asked.response.status, 200);
    CU_ASSERT_STRING_EQUAL(asked.response.want[0], "final");
    CU_ASSERT_EQUAL(asked.response.retry_after_ns, 0);
    kms_http_response_done(&asked.response);
    asked = ask("/early/alone");
    CU_ASSERT_EQUAL(asked.status, KMS_OK);
    CU_ASSERT_STRING_EQUAL(asked.response.want[0], "");
    kms_http_response_done(&asked.response);
}

static void each_failure_has_its_class(void)
{
    static const struct {
        const char *path;
        enum kms_status status;
        const char *word;
    } rows[] = {
        {"/cut", KMS_E_UNAVAILABLE, "cut off"},
        {"/half", KMS_E_UNAVAILABLE, "cut off"},
        {"/heads", KMS_E_PROTOCOL, "our bounds"},
        {"/noise", KMS_E_PROTOCOL, "not HTTP"},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct asked asked = ask(rows[i].path);

        UNIT_CHECK(rows[i].path, asked.status == rows[i].status);
        UNIT_CHECK(asked.error.text, strstr(asked.error.text, rows[i].word) != NULL);
        UNIT_CHECK(rows[i].path, asked.response.was_sent);
        kms_http_response_done(&asked.response);
    }
}

static void a_body_has_a_ceiling(void)
{
    const struct kms_http_wait wait = {.deadline_ns = kms_deadline_in(5 * KMS_NS_PER_S)};
    const struct kms_http_request small = {.method = KMS_HTTP_GET, .body_max = 31999};
    const struct kms_http_request exact = {.method = KMS_HTTP_GET, .body_max = 32000};
    struct asked asked = ask_with("/big", &small, &wait);

    CU_ASSERT_EQUAL(asked.status, KMS_E_PROTOCOL);
    CU_ASSERT_PTR_NOT_NULL(strstr(asked.error.text, "our bounds"));
    CU_ASSERT_TRUE(asked.response.is_over);
    kms_http_response_done(&asked.response);
    asked = ask_with("/big", &exact, &wait);
    CU_ASSERT_EQUAL(asked.status, KMS_OK);
    CU_ASSERT_FALSE(asked.response.is_over);
    CU_ASSERT_EQUAL(asked.response.body.len, 32000);
    kms_http_response_done(&asked.response);
}

static void deadlines_hold(void)
{
    const struct kms_http_request request = {.method = KMS_HTTP_GET};
    const struct kms_http_wait wait = {.deadline_ns = kms_deadline_in(150 * KMS_NS_PER_MS)};
    const struct kms_http_wait none = {.deadline_ns = KMS_DEADLINE_NONE};
    struct asked asked = ask_with("/slow", &request, &wait);

    CU_ASSERT_EQUAL(asked.status, KMS_E_TIMEOUT);
    CU_ASSERT(asked.took_ms >= 140 && asked.took_ms < 600);
    kms_http_response_done(&asked.response);
    asked = ask_with("/ok", &request, &none);
    CU_ASSERT_EQUAL(asked.status, KMS_OK);
    kms_http_response_done(&asked.response);
    asked = ask_with("/slow", &request, &wait); /* passed already: nothing is sent */
    CU_ASSERT_EQUAL(asked.status, KMS_E_TIMEOUT);
    CU_ASSERT_FALSE(asked.response.was_sent);
}

static void *cancel_soon(void *ctx)
{
    (void)poll(NULL, 0, 100);
    atomic_store((atomic_bool *)ctx, true);
    return NULL;
}

static void a_caller_may_give_up(void)
{
    atomic_bool cancelled = false;
    const struct kms_http_request request = {.method = KMS_HTTP_GET};
    const struct kms_http_wait wait = {.deadline_ns = kms_deadline_in(5 * KMS_NS_PER_S),
                                       .cancelled = &cancelled};
    struct asked asked;
    pthread_t thread;

    CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, cancel_soon, &cancelled), 0);
    asked = ask_with("/slow", &request, &wait);
    CU_ASSERT_EQUAL(asked.status, KMS_E_CANCELLED);
    CU_ASSERT(asked.took_ms < 500);
    (void)pthread_join(thread, NULL);
    asked = ask_with("/ok", &request, &wait);
    CU_ASSERT_EQUAL(asked.status, KMS_E_CANCELLED);
}

static void nobody_there_is_told(void)
{
    const struct kms_http_request request = {.method = KMS_HTTP_GET, .url = "http://127.0.0.1:1/"};
    const struct kms_http_wait wait = {.deadline_ns = kms_deadline_in(5 * KMS_NS_PER_S)};
    struct kms_http_response response = KMS_HTTP_RESPONSE_INIT;
    struct kms_error error = KMS_ERROR_INIT;

    CU_ASSERT_EQUAL(kms_http_perform(door, &request, &wait, &response, &error), KMS_E_UNAVAILABLE);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.text, "http://127.0.0.1:1: no connection"));
    CU_ASSERT_FALSE(response.was_sent);
    kms_http_response_done(&response);
}

/* The kernel takes the connection, and nobody speaks TLS: that is no call that is late. */
static void no_connection_in_time(void)
{
    const struct kms_http_conf conf = {.name = "test", .connect_timeout_ns = 150 * KMS_NS_PER_MS};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const struct kms_http_wait wait = {.deadline_ns = kms_deadline_in(5 * KMS_NS_PER_S)};
    struct kms_http_request request = {.method = KMS_HTTP_POST};
    struct kms_http_response response = KMS_HTTP_RESPONSE_INIT;
    struct kms_http_door *hasty = NULL;
    struct kms_error error = KMS_ERROR_INIT;
    socklen_t len = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    uint64_t start = kms_now_ns();
    char url[64];

    CU_ASSERT_EQUAL_FATAL(bind(fd, (struct sockaddr *)&address, len) | listen(fd, 4) |
                              getsockname(fd, (struct sockaddr *)&address, &len),
                          0);
    (void)snprintf(url, sizeof(url), "https://127.0.0.1:%u/", ntohs(address.sin_port));
    request.url = url;
    CU_ASSERT_EQUAL_FATAL(kms_http_open(&conf, &hasty, &error), KMS_OK);
    CU_ASSERT_EQUAL(kms_http_perform(hasty, &request, &wait, &response, &error), KMS_E_UNAVAILABLE);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.text, "no connection in time"));
    CU_ASSERT(kms_now_ns() - start < 2 * KMS_NS_PER_S);
    CU_ASSERT_FALSE(response.was_sent);
    kms_http_response_done(&response);
    kms_http_door_close(hasty);
    (void)close(fd);
}

static void what_is_sent(void)
{
    const struct kms_http_header headers[] = {{"X-Token", "s3cr3t"}, {"X-None", NULL}};
    static const char *const splits[] = {"a\r\nX-Evil: 1", "a\nX-Evil: 1", "a\rX-Evil: 1"};
    static const uint8_t big[KMS_HTTP_REQUEST_MAX + 1];
    struct kms_http_header split[] = {{"X-Token", NULL}};
    struct kms_http_request request = {.method = KMS_HTTP_LIST,
                                       .headers = headers,
                                       .header_count = 2,
                                       .body = {.data = (const uint8_t *)"{}", .len = 2}};
    const struct kms_http_wait wait = {.deadline_ns = kms_deadline_in(5 * KMS_NS_PER_S)};
    struct asked asked = ask_with("/ok", &request, &wait);

    CU_ASSERT_EQUAL(asked.status, KMS_OK);
    pthread_mutex_lock(&server.lock);
    CU_ASSERT_PTR_NOT_NULL(strstr(server.seen, "LIST /ok HTTP/1.1\r\n"));
    CU_ASSERT_PTR_NOT_NULL(strstr(server.seen, "X-Token: s3cr3t\r\n"));
    CU_ASSERT_PTR_NULL(strstr(server.seen, "X-None"));
    CU_ASSERT_PTR_NULL(strstr(server.seen, "Expect"));
    CU_ASSERT_PTR_NOT_NULL(strstr(server.seen, "Content-Length: 2\r\n"));
    pthread_mutex_unlock(&server.lock);
    kms_http_response_done(&asked.response);
    request.headers = split;
    request.header_count = 1;
    for (size_t i = 0; i < UNIT_COUNT(splits); i++) {
        split[0].value = splits[i];
        asked = ask_with("/ok", &request, &wait);
        UNIT_CHECK(splits[i], asked.status == KMS_E_INVALID);
        UNIT_CHECK(splits[i], strstr(asked.error.text, "Evil") == NULL);
    }
    split[0].value = "good";
    request.method = KMS_HTTP_POST;
    request.body = KMS_SPAN_NONE;
    asked = ask_with("/ok", &request, &wait);
    CU_ASSERT_EQUAL(asked.status, KMS_OK);
    pthread_mutex_lock(&server.lock);
    CU_ASSERT_PTR_NOT_NULL(strstr(server.seen, "POST /ok HTTP/1.1\r\n"));
    CU_ASSERT_PTR_NOT_NULL(strstr(server.seen, "Content-Length: 0\r\n")); /* RFC 9110 8.6 */
    pthread_mutex_unlock(&server.lock);
    kms_http_response_done(&asked.response);
    request.body = kms_span_of(big, sizeof(big));
    asked = ask_with("/ok", &request, &wait);
    CU_ASSERT_EQUAL(asked.status, KMS_E_TOO_LARGE);
    CU_ASSERT_FALSE(asked.response.was_sent);
}

static void connections_are_kept(void)
{
    const struct kms_http_request once = {.method = KMS_HTTP_POST, .once = true};
    const struct kms_http_wait wait = {.deadline_ns = kms_deadline_in(5 * KMS_NS_PER_S)};
    struct asked asked = ask("/ok");
    unsigned before = atomic_load(&server.connections);

    kms_http_response_done(&asked.response);
    for (unsigned i = 0; i < 20; i++) {
        asked = ask("/ok");
        kms_http_response_done(&asked.response);
    }
    CU_ASSERT_EQUAL(atomic_load(&server.connections), before);
    asked = ask_with("/ok", &once, &wait); /* no kept one, which may turn out to be closed */
    kms_http_response_done(&asked.response);
    CU_ASSERT_EQUAL(atomic_load(&server.connections), before + 1);
}

/* Not for a moment: neither the environment's proxy nor its list of exceptions. */
static void the_environment_has_no_say(void)
{
    struct asked asked;

    (void)setenv("http_proxy", "http://127.0.0.1:1", 1);
    (void)setenv("all_proxy", "http://127.0.0.1:1", 1);
    asked = ask("/ok");
    CU_ASSERT_EQUAL(asked.status, KMS_OK);
    kms_http_response_done(&asked.response);
    (void)unsetenv("http_proxy");
    (void)unsetenv("all_proxy");
}

/* A proxy is asked for the way alone: what fails there has not reached the service. Nor may what is
 * not encrypted leave the machine by it. */
static void a_proxy_is_not_the_service(void)
{
    static const struct {
        const char *url;
        enum kms_status status;
        const char *word;
        unsigned patience_ms;
    } rows[] = {
        {"https://refused.example/", KMS_E_UNAVAILABLE, "403", 20000},
        {"https://cut.example/", KMS_E_UNAVAILABLE, "no TLS connection", 20000},
        {"https://silent.example/", KMS_E_TIMEOUT, "no reply in time", 300},
    };
    struct kms_http_conf conf = {.name = "test"};
    struct kms_http_door *whole = door;
    struct kms_error error = KMS_ERROR_INIT;
    struct asked asked;
    char proxy[64];

    (void)snprintf(proxy, sizeof(proxy), "http://127.0.0.1:%u", server.port);
    conf.proxy = proxy;
    (void)setenv("no_proxy", "*", 1); /* nor has that list a say */
    CU_ASSERT_EQUAL_FATAL(kms_http_open(&conf, &door, &error), KMS_OK);
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        const struct kms_http_request request = {.method = KMS_HTTP_POST, .url = rows[i].url};
        const struct kms_http_wait wait = {
            .deadline_ns = kms_deadline_in(rows[i].patience_ms * KMS_NS_PER_MS)};
        struct kms_http_response response = KMS_HTTP_RESPONSE_INIT;

        kms_error_clear(&error);
        UNIT_CHECK(rows[i].url,
                   kms_http_perform(door, &request, &wait, &response, &error) == rows[i].status);
        UNIT_CHECK(error.text, strstr(error.text, rows[i].word) != NULL);
        UNIT_CHECK(rows[i].url, !response.was_sent);
        kms_http_response_done(&response);
    }
    asked = ask("/ok");
    CU_ASSERT_EQUAL(asked.status, KMS_OK);
    pthread_mutex_lock(&server.lock);
    CU_ASSERT_PTR_NOT_NULL(strstr(server.seen, "GET /ok HTTP/1.1\r\n")); /* no whole URL */
    pthread_mutex_unlock(&server.lock);
    kms_http_response_done(&asked.response);
    kms_http_door_close(door);
    door = whole;
    (void)unsetenv("no_proxy");
}

static void *many(void *ctx)
{
    unsigned *good = ctx;

    for (unsigned i = 0; i < 50; i++) {
        struct asked asked = ask(i % 10 == 9 ? "/cut" : "/ok");

        *good += asked.status == (i % 10 == 9 ? KMS_E_UNAVAILABLE : KMS_OK) ? 1u : 0u;
        kms_http_response_done(&asked.response);
    }
    return NULL;
}

static void threads_share_the_door(void)
{
    pthread_t threads[16];
    unsigned good[16] = {0};

    for (size_t i = 0; i < 16; i++) {
        CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[i], NULL, many, &good[i]), 0);
    }
    for (size_t i = 0; i < 16; i++) {
        (void)pthread_join(threads[i], NULL);
        CU_ASSERT_EQUAL(good[i], 50);
    }
}

static void calls_have_a_bound(void)
{
    const struct kms_http_conf conf = {.name = "test", .calls = 1};
    struct kms_http_door *whole = door;
    atomic_bool cancelled = false;
    const struct kms_http_request request = {.method = KMS_HTTP_GET};
    const struct kms_http_wait wait = {.deadline_ns = kms_deadline_in(60 * KMS_NS_PER_MS),
                                       .cancelled = &cancelled};
    struct kms_error error = KMS_ERROR_INIT;
    struct asked asked;

    CU_ASSERT_EQUAL_FATAL(kms_http_open(&conf, &door, &error), KMS_OK);
    asked = ask_with("/slow", &request, &wait); /* left behind; the loop takes it down */
    CU_ASSERT_EQUAL(asked.status, KMS_E_TIMEOUT);
    kms_http_response_done(&asked.response);
    for (unsigned i = 0; i < 50; i++) {
        asked = ask("/ok");
        kms_http_response_done(&asked.response);
        if (asked.status == KMS_OK) {
            break;
        }
        CU_ASSERT_EQUAL(asked.status, KMS_E_BUSY);
        (void)poll(NULL, 0, 10);
    }
    CU_ASSERT_EQUAL(asked.status, KMS_OK);
    kms_http_door_close(door);
    door = whole;
}

struct busy_caller {
    pthread_t thread;
    enum kms_status status;
    char text[KMS_ERROR_TEXT_MAX];
};

static void *ask_busy(void *ctx)
{
    struct busy_caller *caller = ctx;
    struct asked asked = ask("/busy");

    caller->status = asked.status;
    (void)snprintf(caller->text, sizeof(caller->text), "%s", asked.error.text);
    kms_http_response_done(&asked.response);
    return NULL;
}

/* A server that is slow is there: the time to connect is not that of waiting for a connection. */
static void waiting_for_a_connection_is_no_failure(void)
{
    const struct kms_http_conf conf = {
        .name = "test", .connections = 1, .connect_timeout_ns = 100 * KMS_NS_PER_MS};
    struct kms_http_door *whole = door;
    struct kms_error error = KMS_ERROR_INIT;
    struct busy_caller callers[2];

    CU_ASSERT_EQUAL_FATAL(kms_http_open(&conf, &door, &error), KMS_OK);
    for (size_t i = 0; i < UNIT_COUNT(callers); i++) {
        CU_ASSERT_EQUAL_FATAL(pthread_create(&callers[i].thread, NULL, ask_busy, &callers[i]), 0);
    }
    for (size_t i = 0; i < UNIT_COUNT(callers); i++) {
        (void)pthread_join(callers[i].thread, NULL);
        UNIT_CHECK(callers[i].text, callers[i].status == KMS_OK);
    }
    kms_http_door_close(door);
    door = whole;
}

static void a_certificate_needs_its_key(void)
{
    const struct kms_http_conf confs[] = {{.name = "test", .client_certificate = "/c.pem"},
                                          {.name = "test", .client_key = "/k.pem"}};
    struct kms_http_door *none = NULL;

    for (size_t i = 0; i < UNIT_COUNT(confs); i++) {
        struct kms_error error = KMS_ERROR_INIT;

        CU_ASSERT_EQUAL(kms_http_open(&confs[i], &none, &error), KMS_E_INVALID);
        CU_ASSERT_PTR_NULL(none);
    }
}

/* ---- values ------------------------------------------------------------------------------- */

static void urls_are_judged(void)
{
    static const struct {
        const char *url;
        bool good;
    } rows[] = {
        {"https://kms.example:8200/v1", true},
        {"https://[2001:db8::1]:443", true},
        {"http://127.0.0.1:80", true},
        {"http://[::1]/", true},
        {"http://localhost:8200", true},
        {"http://127.255.0.9", true},
        {"http://example.com", false},
        {"http://127.0.0.1.example.com", false},
        {"http://127.1", false},
        {"http://localhost.example.com", false},
        {"https://user@host", false},
        {"https://a:b@host", false},
        {"http://127.0.0.1@evil.example", false},
        {"https://", false},
        {"https://:80", false},
        {"https://host:0", false},
        {"https://host:99999", false},
        {"https://host:1x", false},
        {"https://host:000000000000000000000000000000000000000000000000443", false},
        {"ftp://host", false},
        {"https://ho st", false},
        {"https://host/#x", false},
        {"https://host/\r\nX: y", false},
        {"http://256.0.0.1", false},
        {"http://0127.0.0.1", false},
        {"http://127.+0.0.1", false},
        {"http://127.0.0.08", false},
        {"https://[::1", false},
        {"https://[::1]8200", false},
        {"", false},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct kms_error error = KMS_ERROR_INIT;

        UNIT_CHECK(rows[i].url,
                   (kms_http_check_url(rows[i].url, false, &error) == KMS_OK) == rows[i].good);
    }
    CU_ASSERT_EQUAL(kms_http_check_url("http://100.100.100.200/latest", true, NULL), KMS_OK);
}

static void retry_after_is_bounded(void)
{
    static const struct {
        const char *line;
        uint64_t ns;
    } rows[] = {
        {"Retry-After: 1", KMS_NS_PER_S},
        {"retry-after:0", 0},
        {"Retry-After: 86400", KMS_HTTP_RETRY_MAX_NS},
        {"Retry-After: -1", 0},
        {"Retry-After: Fri, 31 Dec 1999 23:59:59 GMT", 0},
        {"Retry-After: Fri, 31 Dec 9999 23:59:59 GMT", KMS_HTTP_RETRY_MAX_NS},
        {"Retry-After: 4294967296", KMS_HTTP_RETRY_MAX_NS},
        {"Retry-After: 99999999999999999999", KMS_HTTP_RETRY_MAX_NS},
        {"Retry-After: +5", 0},
        {"Retry-After: 5 minutes", 0},
        {"Retry-After: ", 0},
        {"Retry-Afters: 5", 0},
        {"Retry-After", 0},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        const struct kms_http_request request = {.method = KMS_HTTP_GET};
        struct kms_http_response response = KMS_HTTP_RESPONSE_INIT;

        kms_http_response_take_header(&request, &response, kms_span_str(rows[i].line));
        UNIT_CHECK(rows[i].line, response.retry_after_ns == rows[i].ns);
    }
}

static void long_values_are_not_kept(void)
{
    const struct kms_http_request request = {.want = want, .want_count = 1};
    char line[KMS_HTTP_VALUE_MAX + 32];

    for (int len = KMS_HTTP_VALUE_MAX - 2; len < KMS_HTTP_VALUE_MAX + 2; len++) {
        struct kms_http_response response = KMS_HTTP_RESPONSE_INIT;

        (void)snprintf(line, sizeof(line), "X-Request-Id: %0*u", len, 1);
        kms_http_response_take_header(&request, &response, kms_span_str(line));
        CU_ASSERT_EQUAL(strlen(response.want[0]), len < KMS_HTTP_VALUE_MAX ? (size_t)len : 0);
    }
}

/* RFC 9110 5.6.7's own three examples, and what is none. */
static void dates_are_read(void)
{
    static const struct {
        const char *text;
        int64_t seconds;
    } rows[] = {
        {"Sun, 06 Nov 1994 08:49:37 GMT", 784111777},
        {"Sunday, 06-Nov-94 08:49:37 GMT", 784111777},
        {"Sun Nov  6 08:49:37 1994", 784111777},
        {"Tue, 29 Feb 2028 00:00:00 GMT", 1835395200},
        {"Sun, 06 Nov 1994 08:49:37", 0},
        {"Sun, 06 Nov 1994 08:49:37 CET", 0},
        {"Sun, 06 Nov 1994 08:49:37 GMT ", 0},
        {"Sun, 06 Nov 1994 24:00:00 GMT", 0},
        {"Sun, 32 Nov 1994 08:49:37 GMT", 0},
        {"Sun, -1 Nov 1994 08:49:37 GMT", 0},
        {"Sun, 06 Nix 1994 08:49:37 GMT", 0},
        {"Sun, 06 Nov 1969 08:49:37 GMT", 0},
        {"1994-11-06T08:49:37Z", 0},
        {"", 0},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        UNIT_CHECK(rows[i].text, kms_http_date(rows[i].text) == rows[i].seconds);
    }
}

/* By the server's clock, before or behind; without one by ours. */
static void retry_after_may_be_a_date(void)
{
    static const char at[] = "Retry-After: Sun, 06 Nov 1994 08:49:40 GMT";
    static const char now[] = "Date: Sun, 06 Nov 1994 08:49:37 GMT";
    static const struct {
        const char *name, *first, *second;
        uint64_t ns;
    } rows[] = {
        {"Date first", now, at, 3 * KMS_NS_PER_S},
        {"Date last", at, now, 3 * KMS_NS_PER_S},
        {"passed", now, "Retry-After: Sun, 06 Nov 1994 08:49:30 GMT", 0},
        {"no Date", at, "Date: soon", 0},
        {"seconds do not look at it", "Retry-After: 7", now, 7 * KMS_NS_PER_S},
        {"far", "Retry-After: Sun, 06 Nov 1994 09:49:40 GMT", now, KMS_HTTP_RETRY_MAX_NS},
    };
    const struct kms_http_request request = {.method = KMS_HTTP_GET};
    struct kms_http_response response = KMS_HTTP_RESPONSE_INIT;
    char line[64];
    struct tm tm;
    time_t soon = time(NULL) + 20;

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        response = (struct kms_http_response)KMS_HTTP_RESPONSE_INIT;
        kms_http_response_take_header(&request, &response, kms_span_str(rows[i].first));
        kms_http_response_take_header(&request, &response, kms_span_str(rows[i].second));
        UNIT_CHECK(rows[i].name, response.retry_after_ns == rows[i].ns);
    }
    kms_http_response_take_header(&request, &response, kms_span_str("HTTP/1.1 503 x"));
    CU_ASSERT_EQUAL(response.retry_after_ns, 0);
    CU_ASSERT_PTR_NOT_NULL_FATAL(gmtime_r(&soon, &tm));
    CU_ASSERT_FATAL(strftime(line, sizeof(line), "Retry-After: %a, %d %b %Y %T GMT", &tm) > 0);
    kms_http_response_take_header(&request, &response, kms_span_str(line));
    CU_ASSERT(response.retry_after_ns > 10 * KMS_NS_PER_S &&
              response.retry_after_ns <= 20 * KMS_NS_PER_S);
}

static const struct unit_test tests[] = {
    {"dates are read", dates_are_read},
    {"Retry-After may be a date", retry_after_may_be_a_date},
    {"answers come", answers_come},
    {"interim replies are none", interim_replies_are_none},
    {"each failure has its class", each_failure_has_its_class},
    {"a body has a ceiling", a_body_has_a_ceiling},
    {"deadlines hold", deadlines_hold},
    {"a caller may give up", a_caller_may_give_up},
    {"nobody there is told", nobody_there_is_told},
    {"no connection in time", no_connection_in_time},
    {"long values are not kept", long_values_are_not_kept},
    {"what is sent", what_is_sent},
    {"connections are kept", connections_are_kept},
    {"the environment has no say", the_environment_has_no_say},
    {"a proxy is not the service", a_proxy_is_not_the_service},
    {"threads share the door", threads_share_the_door},
    {"calls have a bound", calls_have_a_bound},
    {"waiting for a connection is no failure", waiting_for_a_connection_is_no_failure},
    {"a certificate needs its key", a_certificate_needs_its_key},
    {"URLs are judged", urls_are_judged},
    {"Retry-After is bounded", retry_after_is_bounded},
};

int main(void)
{
    const struct kms_http_conf conf = {.name = "test"};
    struct kms_error error = KMS_ERROR_INIT;
    int code = EXIT_FAILURE;

    if (kms_secure_init() != KMS_OK || !server_start() ||
        kms_http_open(&conf, &door, &error) != KMS_OK) {
        fprintf(stderr, "test_rest_http: %s\n", error.text);
        return EXIT_FAILURE;
    }
    code = unit_main("test_rest_http", tests, UNIT_COUNT(tests));
    kms_http_door_close(door);
    (void)shutdown(server.fd, SHUT_RDWR);
    (void)pthread_join(server.thread, NULL);
    (void)close(server.fd);
    return code;
}
