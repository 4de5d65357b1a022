/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Callers who drive libcurl themselves (backend/rest/http_loop.c): who leads, who follows, who
 * gives up, and whom that must not touch; over a server that answers when the test lets it.
 */
#include <poll.h>
#include <signal.h>
#include <string.h>

#include "common/clock.h"
#include "tests/unit/http_callers.h"
#include "tests/unit/unit.h"

static struct https_server *server;
static struct kms_http_door *door;

static void begin(bool is_h2, unsigned connections)
{
    const struct kms_http_conf conf = {
        .name = "test", .ca_file = callers_ca_file, .connections = connections};
    struct kms_error error = KMS_ERROR_INIT;

    server = https_server_start(is_h2);
    CU_ASSERT_PTR_NOT_NULL_FATAL(server);
    CU_ASSERT_EQUAL_FATAL(kms_http_open(&conf, &door, &error), KMS_OK);
}

static struct caller a_caller(const char *path)
{
    return (struct caller){.door = door, .server = server, .method = KMS_HTTP_POST, .path = path};
}

/* As begin(), and the door knows already that the server speaks HTTP/2. */
static void begin_h2(unsigned connections)
{
    struct caller first = {.method = KMS_HTTP_GET};

    begin(true, connections);
    first = a_caller("/first");
    caller_ask(&first);
    UNIT_CHECK(first.error.text, first.is_mine);
}

static void end(void)
{
    kms_http_door_close(door);
    https_server_stop(server);
}

/* Starts @caller, and waits until its request is one of @held that are held back. */
static void start_held(struct caller *caller, unsigned held)
{
    CU_ASSERT_TRUE_FATAL(caller_start(caller));
    UNIT_CHECK(caller->path, until_held(server, held));
}

static void ends_well(struct caller *caller)
{
    caller_join(caller);
    UNIT_CHECK(caller->error.text, caller->status == KMS_OK);
    UNIT_CHECK(caller->path, caller->is_mine);
}

/* ---- who shares what ---------------------------------------------------------------------- */

#define CONNECTIONS 3
#define CALLERS     6

/* Over HTTP/1 as many callers are served at once as there may be connections; the others come in
 * the order in which they came. */
static void http1_callers_have_a_connection_each(void)
{
    static const char *const paths[CALLERS] = {"/held/0", "/held/1", "/held/2",
                                               "/held/3", "/held/4", "/held/5"};
    struct caller callers[CALLERS];

    begin(false, CONNECTIONS);
    for (unsigned i = 0; i < CALLERS; i++) {
        callers[i] = a_caller(paths[i]);
        start_held(&callers[i], i < CONNECTIONS ? i + 1 : CONNECTIONS);
        CU_ASSERT_TRUE(until_busy(door, i + 1));
    }
    CU_ASSERT_EQUAL(https_server_seen(server).requests, CONNECTIONS);
    CU_ASSERT_EQUAL(https_server_seen(server).open, CONNECTIONS);
    for (unsigned i = CONNECTIONS; i < CALLERS; i++) {
        https_server_release(server, 1);
        ends_well(&callers[i - CONNECTIONS]);
        CU_ASSERT_TRUE(until_held(server, CONNECTIONS));
        CU_ASSERT_STRING_EQUAL(https_server_seen(server).last, paths[i]);
    }
    https_server_release(server, CONNECTIONS);
    for (unsigned i = CALLERS - CONNECTIONS; i < CALLERS; i++) {
        ends_well(&callers[i]);
    }
    CU_ASSERT_EQUAL(https_server_seen(server).connections, CONNECTIONS);
    CU_ASSERT_EQUAL(https_server_seen(server).open_max, CONNECTIONS);
    end();
}

static void h2_callers_share_a_connection(void)
{
    static const char *const paths[CALLERS] = {"/held/0",       "/held/1", "/held/large/2",
                                               "/held/large/3", "/held/4", "/held/5"};
    struct caller callers[CALLERS];

    begin_h2(CONNECTIONS);
    for (unsigned i = 0; i < CALLERS; i++) {
        callers[i] = a_caller(paths[i]);
        callers[i].body_len = i * 20000; /* over a stream's window, too */
        start_held(&callers[i], i + 1);
    }
    https_server_release(server, CALLERS);
    for (unsigned i = 0; i < CALLERS; i++) {
        ends_well(&callers[i]);
    }
    CU_ASSERT_EQUAL(https_server_seen(server).connections, 1);
    end();
}

/* What speaks HTTP/1 only is not put into the queue of a connection of HTTP/2 to somebody else. */
static void hosts_are_not_mixed(void)
{
    struct https_server *other = https_server_start(false);
    struct caller callers[4];

    CU_ASSERT_PTR_NOT_NULL_FATAL(other);
    begin_h2(CONNECTIONS);
    callers[0] = a_caller("/held/0");
    start_held(&callers[0], 1);
    for (unsigned i = 1; i < 3; i++) {
        callers[i] = a_caller("/held/other");
        callers[i].server = other;
        CU_ASSERT_TRUE_FATAL(caller_start(&callers[i]));
        CU_ASSERT_TRUE(until_held(other, i));
    }
    callers[3] = a_caller("/held/3"); /* shares with the first one still */
    start_held(&callers[3], 2);
    https_server_release(other, 2);
    https_server_release(server, 2);
    for (unsigned i = 0; i < 4; i++) {
        ends_well(&callers[i]);
    }
    CU_ASSERT_EQUAL(https_server_seen(server).connections, 1);
    end();
    https_server_stop(other);
}

/* Who must have a connection of its own gets it in place of the one that is idle: there are never
 * more than the door was given. */
static void a_fresh_connection_replaces_the_idle_one(void)
{
    static const bool protocols[] = {false, true};

    for (size_t p = 0; p < UNIT_COUNT(protocols); p++) {
        begin(protocols[p], 1);
        for (unsigned i = 0; i < 3; i++) {
            struct caller caller = a_caller("/once");
            unsigned open = 0;
            unsigned busy = 0;
            unsigned max = 0;
            uint64_t oldest = 0;

            caller.once = true;
            caller_ask(&caller);
            UNIT_CHECK(caller.error.text, caller.is_mine);
            door->count(door, &open, &busy, &max, &oldest);
            CU_ASSERT_EQUAL(open, 1);
        }
        CU_ASSERT_EQUAL(https_server_seen(server).connections, 3);
        end();
    }
}

/* Nor does anybody join who has one of his own. */
static void who_is_alone_stays_alone(void)
{
    struct caller alone;
    struct caller next;

    begin_h2(1);
    alone = a_caller("/held/alone");
    alone.once = true;
    start_held(&alone, 1);
    next = a_caller("/held/next");
    CU_ASSERT_TRUE_FATAL(caller_start(&next));
    CU_ASSERT_TRUE(until_busy(door, 2));
    (void)poll(NULL, 0, 100);
    CU_ASSERT_EQUAL(https_server_seen(server).held, 1);
    https_server_release(server, 2);
    ends_well(&alone);
    ends_well(&next);
    end();
}

/* ---- who gives up ------------------------------------------------------------------------- */

enum patience { CANCELLED, LATE };

static void gives_up(struct caller *caller, enum patience patience)
{
    if (patience == CANCELLED) {
        atomic_store(&caller->cancelled, true);
    }
    UNIT_CHECK(caller->path, until_back(caller));
    caller_join(caller);
    UNIT_CHECK(caller->error.text,
               caller->status == (patience == CANCELLED ? KMS_E_CANCELLED : KMS_E_TIMEOUT));
    UNIT_CHECK(caller->path, caller->was_sent);
    UNIT_CHECK(caller->path, caller->took_ms < 3000);
}

static struct caller an_impatient(const char *path, enum patience patience)
{
    struct caller caller = a_caller(path);

    caller.may_cancel = patience == CANCELLED;
    caller.deadline_ms = patience == LATE ? 400 : 0;
    caller.body_len = 3000;
    return caller;
}

/* The first of three leads. The others go on without it, and the connection stays. */
static void leader_gives_up(enum patience patience)
{
    struct caller leader;
    struct caller followers[2];

    begin_h2(CONNECTIONS);
    leader = an_impatient("/held/leader", patience);
    start_held(&leader, 1);
    for (unsigned i = 0; i < 2; i++) {
        followers[i] = a_caller("/held/follower");
        start_held(&followers[i], 2 + i);
    }
    gives_up(&leader, patience);
    CU_ASSERT_TRUE(until_busy(door, 2));
    https_server_release(server, 2); /* the leader's, too: libcurl tells the server later */
    ends_well(&followers[0]);
    https_server_release(server, 1);
    ends_well(&followers[1]);
    CU_ASSERT_TRUE(until_reset(server, 1)); /* the leader's stream, and no other */
    CU_ASSERT_EQUAL(https_server_seen(server).connections, 1);
    end();
}

static void a_leader_is_cancelled(void)
{
    leader_gives_up(CANCELLED);
}

static void a_leader_is_late(void)
{
    leader_gives_up(LATE);
}

/* Its leader takes the exchange down, though its caller is gone. */
static void follower_gives_up(enum patience patience)
{
    struct caller leader;
    struct caller followers[2];

    begin_h2(CONNECTIONS);
    leader = a_caller("/held/leader");
    start_held(&leader, 1);
    followers[0] = an_impatient("/held/follower/0", patience);
    start_held(&followers[0], 2);
    followers[1] = a_caller("/held/follower/1");
    start_held(&followers[1], 3);
    gives_up(&followers[0], patience);
    CU_ASSERT_TRUE(until_busy(door, 2));
    https_server_release(server, 3);
    ends_well(&leader);
    ends_well(&followers[1]);
    CU_ASSERT_TRUE(until_busy(door, 0));
    CU_ASSERT_EQUAL(https_server_seen(server).connections, 1);
    end();
}

static void a_follower_is_cancelled(void)
{
    follower_gives_up(CANCELLED);
}

static void a_follower_is_late(void)
{
    follower_gives_up(LATE);
}

/* Over HTTP/1 it leads alone; its connection is of no more use, the next one gets another. */
static void an_http1_caller_gives_up(void)
{
    struct caller caller;

    begin(false, 1);
    caller = an_impatient("/held/0", CANCELLED);
    start_held(&caller, 1);
    gives_up(&caller, CANCELLED);
    CU_ASSERT_TRUE(until_held(server, 0));
    caller = a_caller("/next");
    caller_ask(&caller);
    CU_ASSERT_TRUE(caller.is_mine);
    CU_ASSERT_EQUAL(https_server_seen(server).connections, 2);
    end();
}

/* Nothing of it was sent: asking again is safe. And it says nothing of the server, which answers
 * others. */
static void a_waiting_caller_gives_up(void)
{
    static const enum patience rows[] = {CANCELLED, LATE};
    struct caller first;
    struct caller waiting;

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        begin(false, 1);
        first = a_caller("/held/0");
        start_held(&first, 1);
        waiting = an_impatient("/held/1", rows[i]);
        CU_ASSERT_TRUE_FATAL(caller_start(&waiting));
        CU_ASSERT_TRUE(until_busy(door, 2));
        atomic_store(&waiting.cancelled, true);
        caller_join(&waiting);
        CU_ASSERT_EQUAL(waiting.status, rows[i] == CANCELLED ? KMS_E_CANCELLED : KMS_E_BUSY);
        CU_ASSERT_FALSE(waiting.was_sent);
        CU_ASSERT_TRUE(until_busy(door, 1));
        https_server_release(server, 1);
        ends_well(&first);
        CU_ASSERT_EQUAL(https_server_seen(server).requests, 1);
        end();
    }
}

/* One that may share no connection waits for one of its own, and those behind it for it. When it
 * gives up, they need not wait any longer. */
static void who_waited_behind_it_goes_on(void)
{
    struct caller sharing[2];
    struct caller alone;

    begin_h2(1);
    sharing[0] = a_caller("/held/0");
    start_held(&sharing[0], 1);
    alone = an_impatient("/held/alone", CANCELLED);
    alone.once = true;
    CU_ASSERT_TRUE_FATAL(caller_start(&alone));
    CU_ASSERT_TRUE(until_busy(door, 2));
    sharing[1] = a_caller("/held/1");
    CU_ASSERT_TRUE_FATAL(caller_start(&sharing[1]));
    CU_ASSERT_TRUE(until_busy(door, 3));
    CU_ASSERT_EQUAL(https_server_seen(server).held, 1);
    atomic_store(&alone.cancelled, true);
    caller_join(&alone);
    CU_ASSERT_EQUAL(alone.status, KMS_E_CANCELLED);
    CU_ASSERT_FALSE(alone.was_sent);
    CU_ASSERT_TRUE(until_held(server, 2));
    https_server_release(server, 2);
    ends_well(&sharing[0]);
    ends_well(&sharing[1]);
    end();
}

/*
 * A connection that has died without a word: who is on it is late. Those who come then get another
 * one, whether or not somebody waits on the dead one still.
 */
static void a_dead_connection_is_left(void)
{
    for (unsigned with_other = 0; with_other < 2; with_other++) {
        struct caller other;
        struct caller late;
        struct caller next;

        begin_h2(2);
        other = an_impatient("/held/other", CANCELLED);
        if (with_other == 1) {
            start_held(&other, 1);
        }
        late = an_impatient("/stall", LATE);
        CU_ASSERT_TRUE_FATAL(caller_start(&late));
        gives_up(&late, LATE);
        for (unsigned i = 0; i < 3; i++) {
            next = a_caller("/next");
            next.deadline_ms = 3000;
            caller_ask(&next);
            UNIT_CHECK(next.error.text, next.is_mine);
        }
        CU_ASSERT_EQUAL(https_server_seen(server).connections, 2);
        if (with_other == 1) {
            gives_up(&other, CANCELLED);
        }
        end();
    }
}

/* ---- news ---------------------------------------------------------------------------------- */

static void sleep_a_while(int number)
{
    (void)number;
    (void)poll(NULL, 0, 600);
}

/*
 * A caller that waits for a connection is so slow to wake that others have got its answer before it
 * looks. It takes the answer, and waits for no more news.
 */
static void an_answer_may_come_first(void)
{
    const struct sigaction slow = {.sa_handler = sleep_a_while};
    struct caller first;
    struct caller waiting[2];

    (void)sigaction(SIGUSR1, &slow, NULL);
    begin(true, 1); /* the door does not know HTTP/2 yet, so nobody joins the first one */
    first = a_caller("/held/0");
    start_held(&first, 1);
    for (unsigned i = 0; i < 2; i++) {
        waiting[i] = a_caller(i == 0 ? "/held/leads" : "/slow");
        CU_ASSERT_TRUE_FATAL(caller_start(&waiting[i]));
        CU_ASSERT_TRUE(until_busy(door, 2 + i));
    }
    (void)poll(NULL, 0, 50); /* until it is asleep */
    (void)pthread_kill(waiting[1].thread, SIGUSR1);
    (void)poll(NULL, 0, 50);
    https_server_release(server, 1);
    ends_well(&first);
    CU_ASSERT_TRUE(until_busy(door, 1)); /* the slow one's is there, the leader waits for its own */
    CU_ASSERT_TRUE(until_held(server, 1));
    CU_ASSERT_FALSE(atomic_load(&waiting[1].is_back));
    https_server_release(server, 1);
    ends_well(&waiting[0]);
    ends_well(&waiting[1]);
    CU_ASSERT(waiting[1].took_ms < 5000);
    end();
}

/*
 * A leader is slow to wake, and when it does, a follower has gone and it has to go itself: it takes
 * the follower's exchange down before it looks for who leads next, or nobody would.
 */
static void a_leader_and_a_follower_go_at_once(void)
{
    const struct sigaction slow = {.sa_handler = sleep_a_while};
    struct caller leader;
    struct caller patient;
    struct caller gone;

    (void)sigaction(SIGUSR1, &slow, NULL);
    begin_h2(CONNECTIONS);
    leader = an_impatient("/held/leader", CANCELLED);
    start_held(&leader, 1);
    patient = a_caller("/held/patient");
    start_held(&patient, 2);
    gone = an_impatient("/held/gone", CANCELLED);
    start_held(&gone, 3);
    (void)pthread_kill(leader.thread, SIGUSR1);
    (void)poll(NULL, 0, 50);
    gives_up(&gone, CANCELLED);
    CU_ASSERT_FALSE(atomic_load(&leader.is_back));
    gives_up(&leader, CANCELLED);
    CU_ASSERT_TRUE(until_busy(door, 1));
    https_server_release(server, 3);
    ends_well(&patient);
    CU_ASSERT(patient.took_ms < 5000);
    end();
}

/* The last caller closes the door at once: what others left behind is gone with them. */
static void all_give_up_and_close(void)
{
    static const bool protocols[] = {false, true};
    struct caller callers[CALLERS];

    for (size_t p = 0; p < UNIT_COUNT(protocols); p++) {
        begin(protocols[p], CONNECTIONS);
        for (unsigned i = 0; i < CALLERS; i++) {
            callers[i] = an_impatient("/held", LATE);
            callers[i].deadline_ms = 300 + i % 2;
            CU_ASSERT_TRUE_FATAL(caller_start(&callers[i]));
        }
        for (unsigned i = 0; i < CALLERS; i++) {
            caller_join(&callers[i]);
            CU_ASSERT_EQUAL(callers[i].status, KMS_E_TIMEOUT);
            CU_ASSERT(callers[i].took_ms < 3000);
        }
        CU_ASSERT_TRUE(until_busy(door, 0));
        kms_http_door_close(door);
        CU_ASSERT_TRUE(until_held(server, 0));
        https_server_stop(server);
    }
}

/* ---- all at once --------------------------------------------------------------------------- */

#define MANY   12
#define ROUNDS 40

struct crowd {
    unsigned number;
    unsigned good;
    unsigned given_up;
    pthread_t thread;
};

static void *ask_often(void *ctx)
{
    static const char *const paths[] = {"/some", "/some/large", "/held/some"};
    struct crowd *crowd = ctx;
    unsigned seed = crowd->number * 7919 + 1;

    for (unsigned i = 0; i < ROUNDS; i++) {
        struct caller caller = a_caller(paths[0]);

        seed = seed * 1103515245 + 12345;
        caller.path = paths[(seed >> 16) % 3];
        caller.body_len = (seed >> 18) % 4 == 0 ? 70000 : (seed >> 20) % 2000;
        caller.once = (seed >> 22) % 16 == 0;
        caller.may_cancel = i % 2 == 0;
        /* what is held is never let go */
        caller.deadline_ms = caller.path == paths[2] ? 1 + (seed >> 24) % 30 : 0;
        caller_ask(&caller);
        crowd->good += caller.status == KMS_OK && caller.is_mine ? 1u : 0u;
        crowd->given_up += caller.path == paths[2] &&
                                   (caller.status == KMS_E_TIMEOUT || caller.status == KMS_E_BUSY)
                               ? 1u
                               : 0u;
        if (caller.path != paths[2]) {
            UNIT_CHECK(caller.error.text, caller.status == KMS_OK);
        }
    }
    return NULL;
}

static void a_crowd(bool is_h2)
{
    struct crowd crowds[MANY];
    unsigned good = 0;
    unsigned given_up = 0;

    begin(is_h2, 2);
    for (unsigned i = 0; i < MANY; i++) {
        crowds[i] = (struct crowd){.number = i};
        CU_ASSERT_EQUAL_FATAL(pthread_create(&crowds[i].thread, NULL, ask_often, &crowds[i]), 0);
    }
    for (unsigned i = 0; i < MANY; i++) {
        (void)pthread_join(crowds[i].thread, NULL);
        good += crowds[i].good;
        given_up += crowds[i].given_up;
    }
    CU_ASSERT_EQUAL(good + given_up, MANY * ROUNDS);
    CU_ASSERT(good > 0 && given_up > 0);
    CU_ASSERT_TRUE(until_busy(door, 0));
    end();
}

static void a_crowd_over_http1(void)
{
    a_crowd(false);
}

static void a_crowd_over_h2(void)
{
    a_crowd(true);
}

static const struct unit_test tests[] = {
    {"HTTP/1 callers have a connection each", http1_callers_have_a_connection_each},
    {"HTTP/2 callers share a connection", h2_callers_share_a_connection},
    {"hosts are not mixed", hosts_are_not_mixed},
    {"a fresh connection replaces the idle one", a_fresh_connection_replaces_the_idle_one},
    {"who is alone stays alone", who_is_alone_stays_alone},
    {"a leader is cancelled", a_leader_is_cancelled},
    {"a leader is late", a_leader_is_late},
    {"a follower is cancelled", a_follower_is_cancelled},
    {"a follower is late", a_follower_is_late},
    {"an HTTP/1 caller gives up", an_http1_caller_gives_up},
    {"a waiting caller gives up", a_waiting_caller_gives_up},
    {"who waited behind it goes on", who_waited_behind_it_goes_on},
    {"a dead connection is left", a_dead_connection_is_left},
    {"an answer may come first", an_answer_may_come_first},
    {"a leader and a follower go at once", a_leader_and_a_follower_go_at_once},
    {"all give up, and the door closes", all_give_up_and_close},
    {"a crowd over HTTP/1", a_crowd_over_http1},
    {"a crowd over HTTP/2", a_crowd_over_h2},
};

int main(void)
{
    return callers_main("test_rest_share", tests, UNIT_COUNT(tests));
}
