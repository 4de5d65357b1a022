/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an HTTP/2 connection keeps of the last exchange is wiped from notes of which there is a
 * fixed number (backend/rest/wiping.h): one for each connection that a loop can have.
 */
#include <string.h>

#include "backend/rest/http_parts.h"
#include "common/clock.h"
#include "tests/unit/http_callers.h"
#include "tests/unit/unit.h"

/* ---- the notes ---------------------------------------------------------------------------- */

#define BUFFER_LEN 32
#define TAKEN      20

static bool is_all(const uint8_t *bytes, size_t len, uint8_t value)
{
    for (size_t i = 0; i < len; i++) {
        if (bytes[i] != value) {
            return false;
        }
    }
    return true;
}

static void every_note_is_wiped(void)
{
    static uint8_t buffers[KMS_RECEIVED_MAX][BUFFER_LEN]; /* their addresses stand for sessions */
    static struct kms_received received;

    memset(buffers, 's', sizeof(buffers));
    kms_receiving = &received;
    for (size_t i = 0; i < KMS_RECEIVED_MAX; i++) {
        kms_received_note(buffers[i], buffers[i], TAKEN, BUFFER_LEN);
    }
    kms_received_forget(buffers[1]); /* freed: not ours any more */
    kms_received_wipe(&received);
    kms_receiving = NULL;
    for (size_t i = 0; i < KMS_RECEIVED_MAX; i++) {
        CU_ASSERT_TRUE(is_all(buffers[i], TAKEN, i == 1 ? 's' : 0));
        CU_ASSERT_TRUE(is_all(buffers[i] + TAKEN, BUFFER_LEN - TAKEN, 's'));
    }
}

/* ---- the connections ---------------------------------------------------------------------- */

#define SERVERS (KMS_RECEIVED_MAX + 1)

static struct {
    struct https_server *servers[SERVERS];
    CURL *easies[SERVERS];
    CURLM *multi;
    int running;
} asked;

static unsigned held_of_all(void)
{
    unsigned held = 0;

    for (size_t i = 0; i < SERVERS; i++) {
        held += https_server_seen(asked.servers[i]).held;
    }
    return held;
}

static unsigned connections_of_all(void)
{
    unsigned connections = 0;

    for (size_t i = 0; i < SERVERS; i++) {
        connections += https_server_seen(asked.servers[i]).connections;
    }
    return connections;
}

static bool drive_until(bool (*holds_now)(void), uint64_t ms)
{
    uint64_t end = kms_deadline_in(ms * KMS_NS_PER_MS);

    while (!holds_now() && !kms_deadline_passed(end)) {
        (void)curl_multi_perform(asked.multi, &asked.running);
        (void)curl_multi_poll(asked.multi, NULL, 0, 2, NULL);
    }
    return holds_now();
}

static bool all_notes_are_held(void)
{
    return held_of_all() == KMS_RECEIVED_MAX;
}
static bool one_more_is_connected(void)
{
    return connections_of_all() > KMS_RECEIVED_MAX;
}
static bool one_more_is_held(void)
{
    return one_more_is_connected() && all_notes_are_held();
}
static bool all_are_answered(void)
{
    return asked.running == 0;
}

static size_t drop(char *data, size_t size, size_t count, void *ctx)
{
    (void)data;
    (void)ctx;
    return size * count;
}

static CURL *ask(const struct https_server *server)
{
    CURL *easy = curl_easy_init();
    const char *ca_file = callers_ca_file;
    char url[64];

    (void)snprintf(url, sizeof(url), "https://127.0.0.1:%u/held", https_server_port(server));
    CU_ASSERT_PTR_NOT_NULL_FATAL(easy);
    CU_ASSERT_EQUAL_FATAL(curl_easy_setopt(easy, CURLOPT_URL, url), CURLE_OK);
    CU_ASSERT_EQUAL_FATAL(curl_easy_setopt(easy, CURLOPT_CAINFO, ca_file), CURLE_OK);
    CU_ASSERT_EQUAL_FATAL(curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, drop), CURLE_OK);
    CU_ASSERT_EQUAL_FATAL(curl_multi_add_handle(asked.multi, easy), CURLM_OK);
    return easy;
}

static void ask_all(void)
{
    const struct kms_http_conf conf = {.name = "test", .ca_file = callers_ca_file};
    struct kms_http_door *door = NULL;
    struct kms_error error = KMS_ERROR_INIT;

    CU_ASSERT_EQUAL_FATAL(kms_http_open(&conf, &door, &error), KMS_OK); /* libcurl is ready */
    kms_http_door_close(door);
    asked.multi = kms_http_multi_new();
    CU_ASSERT_PTR_NOT_NULL_FATAL(asked.multi);
    for (size_t i = 0; i < SERVERS; i++) {
        asked.servers[i] = https_server_start(true);
        CU_ASSERT_PTR_NOT_NULL_FATAL(asked.servers[i]);
        asked.easies[i] = ask(asked.servers[i]);
    }
}

static void end_all(void)
{
    for (size_t i = 0; i < SERVERS; i++) {
        long status = 0;

        CU_ASSERT_EQUAL(curl_easy_getinfo(asked.easies[i], CURLINFO_RESPONSE_CODE, &status),
                        CURLE_OK);
        CU_ASSERT_EQUAL(status, 200);
        (void)curl_multi_remove_handle(asked.multi, asked.easies[i]);
        curl_easy_cleanup(asked.easies[i]);
    }
    (void)curl_multi_cleanup(asked.multi);
    for (size_t i = 0; i < SERVERS; i++) {
        https_server_stop(asked.servers[i]);
    }
}

/* One exchange with each of more servers than there are notes: the last one waits until another
 * one's connection can be closed. */
static void a_loop_has_no_more_connections_than_notes(void)
{
    ask_all();
    CU_ASSERT_TRUE(drive_until(all_notes_are_held, 10000));
    CU_ASSERT_FALSE(drive_until(one_more_is_connected, 300));
    for (size_t i = 0; i < SERVERS; i++) {
        if (https_server_seen(asked.servers[i]).held == 1) {
            https_server_release(asked.servers[i], 1);
            break;
        }
    }
    CU_ASSERT_TRUE(drive_until(one_more_is_held, 10000));
    for (size_t i = 0; i < SERVERS; i++) {
        https_server_release(asked.servers[i], 1);
    }
    CU_ASSERT_TRUE(drive_until(all_are_answered, 10000));
    end_all();
}

static const struct unit_test tests[] = {
    {"every note is wiped", every_note_is_wiped},
    {"a loop has no more connections than notes", a_loop_has_no_more_connections_than_notes},
};

int main(void)
{
    return callers_main("test_rest_received", tests, UNIT_COUNT(tests));
}
