/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What backend/rest/http keeps between exchanges, over TLS: connections, of which no more are made
 * than the first calls need, and libcurl's handles, of which no exchange may see what another one
 * left in them.
 */
#include <poll.h>
#include <string.h>

#include "tests/unit/http_callers.h"
#include "tests/unit/unit.h"

#define CONNECTIONS 4
#define CALLERS     8
#define CALLS       10

static const struct protocol {
    const char *name;
    bool is_h2;
} protocols[] = {{"HTTP/1.1", false}, {"HTTP/2", true}};

struct both {
    struct https_server *server;
    struct kms_http_door *door;
};

static struct both begin(const struct protocol *protocol)
{
    const struct kms_http_conf conf = {
        .name = "test", .ca_file = callers_ca_file, .connections = CONNECTIONS};
    struct kms_error error = KMS_ERROR_INIT;
    struct both both = {.server = https_server_start(protocol->is_h2)};

    CU_ASSERT_PTR_NOT_NULL_FATAL(both.server);
    CU_ASSERT_EQUAL_FATAL(kms_http_open(&conf, &both.door, &error), KMS_OK);
    return both;
}

static void end(struct both *both)
{
    kms_http_door_close(both->door);
    https_server_stop(both->server);
}

static struct caller a_caller(const struct both *both, enum kms_http_method method,
                              const char *path)
{
    return (struct caller){
        .door = both->door, .server = both->server, .method = method, .path = path};
}

/* ---- whom it trusts ------------------------------------------------------------------------- */

static void others_are_not_asked(void)
{
    const struct {
        const char *name;
        const char *ca_file, *server_name;
        const char *word;
    } rows[] = {
        {"another CA", NULL, NULL, "certificate does not verify"},
        {"another name", callers_ca_file, "other.example", "certificate does not verify"},
    };

    for (size_t p = 0; p < 2 * UNIT_COUNT(rows); p++) {
        const struct kms_http_conf conf = {
            .name = "test", .ca_file = rows[p / 2].ca_file, .server_name = rows[p / 2].server_name};
        struct kms_error error = KMS_ERROR_INIT;
        struct both both = {.server = https_server_start(protocols[p % 2].is_h2)};
        struct caller caller;

        CU_ASSERT_PTR_NOT_NULL_FATAL(both.server);
        CU_ASSERT_EQUAL_FATAL(kms_http_open(&conf, &both.door, &error), KMS_OK);
        caller = a_caller(&both, KMS_HTTP_POST, "/secret");
        caller_ask(&caller);
        UNIT_CHECK(rows[p / 2].name, caller.status == KMS_E_PROTOCOL);
        UNIT_CHECK(caller.error.text, strstr(caller.error.text, rows[p / 2].word) != NULL);
        UNIT_CHECK(rows[p / 2].name, !caller.was_sent);
        UNIT_CHECK(rows[p / 2].name, https_server_seen(both.server).requests == 0);
        end(&both);
    }
}

/* ---- handles ------------------------------------------------------------------------------- */

/* In this order over one connection, twice; each finds what the one before it left. */
static const struct ask {
    enum kms_http_method method;
    const char *path;
    size_t body_len;
    const char *token;
} asks[] = {
    {KMS_HTTP_POST, "/empty", 0, NULL},
    {KMS_HTTP_POST, "/small", 5, "first"},
    {KMS_HTTP_GET, "/get", 0, NULL},
    {KMS_HTTP_POST, "/over/64k", 70000, "second"},
    {KMS_HTTP_POST, "/empty/again", 0, NULL},
    {KMS_HTTP_DELETE, "/delete", 0, "third"},
    {KMS_HTTP_POST, "/large/both", 250000, NULL},
    {KMS_HTTP_LIST, "/list", 0, NULL},
    {KMS_HTTP_PUT, "/put", 65536, NULL},
    {KMS_HTTP_PUT, "/put/empty", 0, "fourth"},
    {KMS_HTTP_GET, "/large/get", 0, NULL},
    {KMS_HTTP_POST, "/query?a=b", 16384, NULL}, /* its handle is not kept */
    {KMS_HTTP_POST, "/one", 1, NULL},
};

static void nothing_is_left_over(void)
{
    for (size_t p = 0; p < UNIT_COUNT(protocols); p++) {
        struct both both = begin(&protocols[p]);

        for (size_t i = 0; i < 2 * UNIT_COUNT(asks); i++) {
            const struct ask *ask = &asks[i % UNIT_COUNT(asks)];
            struct caller caller = a_caller(&both, ask->method, ask->path);

            caller.body_len = ask->body_len;
            caller.token = ask->token;
            caller_ask(&caller);
            UNIT_CHECK(ask->path, caller.status == KMS_OK);
            UNIT_CHECK(ask->path, caller.is_mine);
        }
        UNIT_CHECK(protocols[p].name, https_server_seen(both.server).handshakes == 1);
        UNIT_CHECK(protocols[p].name, https_server_seen(both.server).resets == 0);
        /* backend/rest/http_wipe.c is in this program: no table keeps what was sent */
        UNIT_CHECK(protocols[p].name, https_server_seen(both.server).indexable == 0);
        end(&both);
    }
}

/* One exchange's deadline and cancellation are not the next one's. */
static void patience_is_not_left_over(void)
{
    for (size_t p = 0; p < UNIT_COUNT(protocols); p++) {
        struct both both = begin(&protocols[p]);
        struct caller hasty = a_caller(&both, KMS_HTTP_POST, "/held/hasty");
        struct caller slow = a_caller(&both, KMS_HTTP_POST, "/held/slow");

        hasty.deadline_ms = 200;
        caller_ask(&hasty);
        UNIT_CHECK(protocols[p].name, hasty.status == KMS_E_TIMEOUT);
        CU_ASSERT_TRUE_FATAL(caller_start(&slow));
        UNIT_CHECK(protocols[p].name, until_busy(both.door, 1));
        (void)poll(NULL, 0, 400); /* longer than the hasty one waited */
        https_server_release(both.server, 2);
        caller_join(&slow);
        UNIT_CHECK(protocols[p].name, slow.is_mine);
        end(&both);
    }
}

/* ---- handshakes ---------------------------------------------------------------------------- */

static void *ask_often(void *ctx)
{
    struct caller *caller = ctx;

    for (unsigned i = 0; i < CALLS; i++) {
        caller_ask(caller);
        if (!caller->is_mine) {
            break;
        }
    }
    return NULL;
}

static void ask_in_parallel(const struct both *both, const char *name)
{
    struct caller callers[CALLERS];

    for (size_t i = 0; i < CALLERS; i++) {
        callers[i] = a_caller(both, KMS_HTTP_POST, "/parallel");
        callers[i].body_len = 100 * i;
        CU_ASSERT_EQUAL_FATAL(pthread_create(&callers[i].thread, NULL, ask_often, &callers[i]), 0);
    }
    for (size_t i = 0; i < CALLERS; i++) {
        caller_join(&callers[i]);
        UNIT_CHECK(name, callers[i].is_mine);
    }
}

/* Calls that are all on their way at once, as far as connections go. */
static void ask_at_once(const struct both *both, const struct protocol *protocol)
{
    unsigned at_once = protocol->is_h2 ? CALLERS : CONNECTIONS;
    struct caller callers[CALLERS];

    for (size_t i = 0; i < CALLERS; i++) {
        callers[i] = a_caller(both, KMS_HTTP_POST, "/held/at/once");
        CU_ASSERT_TRUE_FATAL(caller_start(&callers[i]));
    }
    UNIT_CHECK(protocol->name, until_busy(both->door, CALLERS));
    UNIT_CHECK(protocol->name, until_held(both->server, at_once));
    https_server_release(both->server, CALLERS);
    for (size_t i = 0; i < CALLERS; i++) {
        caller_join(&callers[i]);
        UNIT_CHECK(protocol->name, callers[i].is_mine);
    }
}

static void no_handshake_after_the_first_call(void)
{
    for (size_t p = 0; p < UNIT_COUNT(protocols); p++) {
        const char *name = protocols[p].name;
        struct both both = begin(&protocols[p]);

        for (unsigned i = 0; i < 3 * CALLS; i++) {
            struct caller caller = a_caller(&both, KMS_HTTP_POST, "/sequential");

            caller_ask(&caller);
            UNIT_CHECK(name, caller.is_mine);
            UNIT_CHECK(name, https_server_seen(both.server).handshakes == 1);
        }
        UNIT_CHECK(name, https_server_seen(both.server).connections == 1);
        end(&both);
    }
}

/* What must go over a connection of its own begins a session of its own, too: a client certificate
 * that has been replaced since would be the former one in a session that is resumed. */
static void a_fresh_one_resumes_no_session(void)
{
    for (unsigned i = 0; i < 4; i++) {
        const struct protocol *protocol = &protocols[i / 2];
        struct both both = begin(protocol);
        struct caller first = a_caller(&both, KMS_HTTP_POST, "/first");
        struct caller second = a_caller(&both, KMS_HTTP_POST, "/second");
        struct caller third = a_caller(&both, KMS_HTTP_POST, "/third");
        struct https_seen seen;

        second.fresh = i % 2 == 0;
        second.once = !second.fresh; /* which may: over HTTP/1 it does */
        caller_ask(&first);
        caller_ask(&second);
        seen = https_server_seen(both.server);
        UNIT_CHECK(protocol->name, first.is_mine && second.is_mine && seen.handshakes == 2);
        UNIT_CHECK(protocol->name, second.once || seen.resumed == 0);
        UNIT_CHECK(protocol->name, second.fresh || protocol->is_h2 || seen.resumed == 1);
        caller_ask(&third);
        seen = https_server_seen(both.server);
        UNIT_CHECK(protocol->name, third.is_mine && seen.handshakes == 2);
        end(&both);
    }
}

/*
 * With eight callers at once, there are as many handshakes as connections in the first round, and
 * none afterwards; over HTTP/2 that is known to the door, there is none at all.
 */
static void no_handshake_after_the_first_round(void)
{
    for (size_t p = 0; p < UNIT_COUNT(protocols); p++) {
        const char *name = protocols[p].name;
        struct both both = begin(&protocols[p]);
        struct https_seen seen;

        ask_in_parallel(&both, name);
        seen = https_server_seen(both.server);
        UNIT_CHECK(name, seen.handshakes >= 1 && seen.handshakes <= CONNECTIONS);
        ask_at_once(&both, &protocols[p]);
        seen = https_server_seen(both.server);
        UNIT_CHECK(name, seen.handshakes <= CONNECTIONS);
        for (unsigned round = 0; round < 2; round++) {
            ask_at_once(&both, &protocols[p]);
            ask_in_parallel(&both, name);
            UNIT_CHECK(name, https_server_seen(both.server).handshakes == seen.handshakes);
        }
        UNIT_CHECK(name, https_server_seen(both.server).open_max <= CONNECTIONS);
        UNIT_CHECK(name, https_server_seen(both.server).connections == seen.handshakes);
        end(&both);
    }
}

static void h2_needs_one_handshake_for_all(void)
{
    struct both both = begin(&protocols[1]);
    struct caller first = a_caller(&both, KMS_HTTP_POST, "/first");

    caller_ask(&first);
    CU_ASSERT_TRUE(first.is_mine);
    for (unsigned round = 0; round < 3; round++) {
        ask_in_parallel(&both, "HTTP/2");
        ask_at_once(&both, &protocols[1]);
    }
    CU_ASSERT_EQUAL(https_server_seen(both.server).connections, 1);
    CU_ASSERT_EQUAL(https_server_seen(both.server).handshakes, 1);
    end(&both);
}

/* What holds packets back for one connection of a door does not for another one. */
static void hosts_do_not_slow_each_other(void)
{
    struct both both = begin(&protocols[1]);
    struct https_server *servers[2] = {both.server, https_server_start(true)};
    unsigned fastest[2] = {1000, 1000};

    CU_ASSERT_PTR_NOT_NULL_FATAL(servers[1]);
    for (unsigned i = 0; i < 10; i++) {
        struct caller caller = a_caller(&both, KMS_HTTP_POST, "/hosts");

        caller.server = servers[i % 2];
        caller.body_len = 100;
        caller_ask(&caller);
        CU_ASSERT_TRUE(caller.is_mine);
        if (i >= 2 && caller.took_ms < fastest[i % 2]) {
            fastest[i % 2] = caller.took_ms;
        }
    }
    CU_ASSERT(fastest[0] < 150); /* TCP_CORK holds back for 200 ms (tcp(7)) */
    CU_ASSERT(fastest[1] < 150);
    end(&both);
    https_server_stop(servers[1]);
}

static const struct unit_test tests[] = {
    {"others are not asked", others_are_not_asked},
    {"nothing is left over", nothing_is_left_over},
    {"patience is not left over", patience_is_not_left_over},
    {"no handshake after the first call", no_handshake_after_the_first_call},
    {"a fresh one resumes no session", a_fresh_one_resumes_no_session},
    {"no handshake after the first round", no_handshake_after_the_first_round},
    {"HTTP/2 needs one handshake for all", h2_needs_one_handshake_for_all},
    {"hosts do not slow each other", hosts_do_not_slow_each_other},
};

int main(void)
{
    return callers_main("test_rest_reuse", tests, UNIT_COUNT(tests));
}
