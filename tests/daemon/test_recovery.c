/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nothing that was encrypted is ever lost, and the daemon comes back by itself: killed at random
 * moments under load, started with a wrong PIN, with a new key in the token.
 */
#include "config.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/secure.h"
#include "tests/daemon/fixture.h"
#include "tests/unit/unit.h"

#define NAME    "test_recovery"
#define KILLS   20
#define CALLERS 3
#define KEPT    4096 /* envelopes that a caller keeps at most */
#define PATIENT SEC(10)

static struct fixture fx;

/* --- killed ----------------------------------------------------------------------------------- */

struct caller {
    pthread_t thread;
    size_t count;
    size_t wrong; /* Decrypts that gave something else */
    struct fixture_sealed kept[KEPT];
};

static struct caller callers[CALLERS];
static atomic_bool stop;

/* Encrypts and decrypts, over a new connection whenever the daemon has gone. */
static void *caller_main(void *arg)
{
    struct caller *caller = arg;
    struct kms_v2_client *client = NULL;

    while (!atomic_load(&stop)) {
        struct kms_error err = KMS_ERROR_INIT;
        struct fixture_sealed *sealed = &caller->kept[caller->count];

        if (client == NULL &&
            kms_v2_client_open(fx.socket, fixture_now() + SEC(1), &client, &err) != KMS_OK) {
            (void)usleep(1000);
            continue;
        }
        if (caller->count < KEPT && fixture_encrypt(client, SEC(2), sealed, &err) == KMS_OK) {
            caller->count++;
            if (fixture_decrypt(client, SEC(2), sealed, &err) == KMS_E_BAD_DATA) {
                caller->wrong++;
            }
        } else {
            kms_v2_client_close(client);
            client = NULL;
        }
    }
    kms_v2_client_close(client);
    return NULL;
}

static uint32_t random_below(uint32_t bound)
{
    uint32_t n = 0;

    if (kms_random(&n, sizeof(n)) != KMS_OK) {
        abort();
    }
    return n % bound;
}

/* All that was ever returned decrypts; the number of envelopes. */
static size_t check_all(const char *key_id)
{
    struct kms_v2_client *client = fixture_connect(&fx);
    size_t total = 0;
    size_t lost = 0;
    size_t renamed = 0;

    for (size_t c = 0; client != NULL && c < CALLERS; c++) {
        UNIT_CHECK("meanwhile", callers[c].wrong == 0);
        for (size_t i = 0; i < callers[c].count; i++, total++) {
            struct fixture_sealed *sealed = &callers[c].kept[i];
            struct kms_error err = KMS_ERROR_INIT;

            lost += fixture_decrypt(client, PATIENT, sealed, &err) != KMS_OK ? 1 : 0;
            renamed += strcmp(sealed->sealed.key_id, key_id) != 0 ? 1 : 0;
            kms_v2_sealed_done(&sealed->sealed);
        }
    }
    UNIT_CHECK("", client != NULL && lost == 0);
    UNIT_CHECK("", renamed == 0);
    kms_v2_client_close(client);
    return total;
}

static void killed_under_load(void)
{
    struct kms_v2_client *client;
    struct kms_v2_status status = {.key_id = ""};
    struct kms_error err = KMS_ERROR_INIT;
    unsigned restarts = 0;

    fixture_configure(&fx, NULL, NULL);
    UNIT_CHECK("", fixture_start(&fx));
    client = fixture_connect(&fx);
    UNIT_CHECK("", client != NULL && fixture_status(client, &status, &err) == KMS_OK);
    kms_v2_client_close(client);
    atomic_store(&stop, false);
    for (size_t i = 0; i < CALLERS; i++) {
        UNIT_CHECK("", pthread_create(&callers[i].thread, NULL, caller_main, &callers[i]) == 0);
    }
    for (unsigned i = 0; i < KILLS; i++) {
        (void)usleep(random_below(100000)); /* the moment is what is random here */
        UNIT_CHECK("", fixture_end(&fx, SIGKILL, PATIENT));
        restarts += fixture_start(&fx) ? 1 : 0;
    }
    (void)usleep(100000);
    atomic_store(&stop, true);
    for (size_t i = 0; i < CALLERS; i++) {
        (void)pthread_join(callers[i].thread, NULL);
    }
    UNIT_CHECK("", restarts == KILLS);
    UNIT_CHECK("", check_all(status.key_id) > KILLS);
    UNIT_CHECK("", fixture_stop(&fx));
}

/* --- PIN -------------------------------------------------------------------------------------- */

static void wrong_pin_is_tried_once(void)
{
    long logins = fixture_calls(&fx, "C_Login");
    uint64_t end;

    fixture_write(fx.pin_file, "not-the-pin\n");
    fixture_configure(&fx, "  probe_interval: 1s\n", NULL);
    UNIT_CHECK("", fixture_start(&fx)); /* it serves, and says how it is */
    UNIT_CHECK("", fixture_wait_healthy(&fx, false));
    UNIT_CHECK("", fixture_http(&fx, "/readyz", NULL, 0) == 503);
    UNIT_CHECK("", fixture_http(&fx, "/livez", NULL, 0) == 200);
    for (end = fixture_now() + SEC(4);
         fixture_now() < end;) { /* the PIN's file is read each second */
        UNIT_CHECK("", fixture_wait_healthy(&fx, false));
        (void)kill(fx.pid, SIGHUP);
        (void)usleep(200000);
    }
    UNIT_CHECK("", fixture_calls(&fx, "C_Login") - logins == 1);
    fixture_write(fx.pin_file, FIXTURE_PIN "\n");
    UNIT_CHECK("", fixture_wait_healthy(&fx, true));
    UNIT_CHECK("", fixture_round_trip(&fx));
    UNIT_CHECK("", fixture_calls(&fx, "C_Login") - logins == 2);
    UNIT_CHECK("", fixture_stop(&fx));
}

/* --- keys ------------------------------------------------------------------------------------- */

static bool has_other_key(void *ctx)
{
    struct kms_v2_client *client = fixture_connect(&fx);
    struct kms_v2_status status;
    struct kms_error err = KMS_ERROR_INIT;
    bool other = client != NULL && fixture_status(client, &status, &err) == KMS_OK &&
                 strcmp(status.key_id, ctx) != 0;

    kms_v2_client_close(client);
    return other;
}

/* A newer key is seen at SIGHUP; what the older one encrypted goes on decrypting. */
static void new_key_at_sighup(void)
{
    struct kms_v2_client *client = NULL;
    struct fixture_sealed old = {.sealed = {.storage = NULL}};
    struct fixture_sealed now = {.sealed = {.storage = NULL}};
    struct kms_error err = KMS_ERROR_INIT;
    char key_id[KMS_V2_TEXT_MAX] = "";

    fixture_configure(&fx, "  refresh_interval: 1h\n  probe_interval: 10m\n", NULL);
    UNIT_CHECK("", fixture_start(&fx));
    client = fixture_connect(&fx);
    if (!UNIT_CHECK("", client != NULL && fixture_encrypt(client, PATIENT, &old, &err) == KMS_OK)) {
        return;
    }
    (void)snprintf(key_id, sizeof(key_id), "%s", old.sealed.key_id);
    UNIT_CHECK("", fixture_token(&fx, "key", "02"));
    UNIT_CHECK("", !has_other_key(key_id)); /* nobody has looked yet */
    (void)kill(fx.pid, SIGHUP);
    UNIT_CHECK("", fixture_until(has_other_key, key_id, SEC(5)));
    UNIT_CHECK("", fixture_decrypt(client, PATIENT, &old, &err) == KMS_OK);
    UNIT_CHECK("", fixture_encrypt(client, PATIENT, &now, &err) == KMS_OK);
    UNIT_CHECK("", strcmp(now.sealed.key_id, key_id) != 0);
    UNIT_CHECK("", fixture_metric(&fx, "keys") == 2);
    UNIT_CHECK("", fixture_round_trip(&fx));
    /* the active key vanishes: no Encrypt under the older one, which goes on decrypting */
    UNIT_CHECK("", fixture_token(&fx, "destroy", "02"));
    (void)kill(fx.pid, SIGHUP);
    UNIT_CHECK("gone", fixture_wait_healthy(&fx, false));
    struct fixture_sealed none = {.sealed = {.storage = NULL}};
    UNIT_CHECK("gone", fixture_encrypt(client, PATIENT, &none, &err) == KMS_E_KEY_STATE);
    UNIT_CHECK("gone", fixture_decrypt(client, PATIENT, &old, &err) == KMS_OK);
    kms_v2_sealed_done(&old.sealed);
    kms_v2_sealed_done(&now.sealed);
    kms_v2_client_close(client);
    UNIT_CHECK("", fixture_stop(&fx));
}

static char *metrics_page(void)
{
    static char page[256 * 1024];

    return fixture_http(&fx, "/metrics", page, sizeof(page)) == 200 ? page : NULL;
}

/* Status, Encrypt and the metric name one and the same key; its name for comparing to @ret_key_id.
 */
static bool agree_on_key(struct kms_v2_client *client, char ret_key_id[KMS_V2_TEXT_MAX],
                         char ret_hash[80])
{
    static const char row[] = "kmsbridge_active_key_info{key_id_hash=\"sha256:";
    struct fixture_sealed sealed = {.sealed = {.storage = NULL}};
    struct kms_v2_status status;
    struct kms_error err = KMS_ERROR_INIT;
    const char *at = NULL;
    const char *page = metrics_page();
    bool agree = client != NULL && fixture_status(client, &status, &err) == KMS_OK &&
                 strcmp(status.healthz, "ok") == 0 &&
                 fixture_encrypt(client, PATIENT, &sealed, &err) == KMS_OK &&
                 strcmp(sealed.sealed.key_id, status.key_id) == 0;

    at = page == NULL ? NULL : strstr(page, row);
    if (agree && at != NULL) {
        (void)snprintf(ret_key_id, KMS_V2_TEXT_MAX, "%s", status.key_id);
        (void)snprintf(ret_hash, 80, "%.64s", at + strlen(row));
    }
    kms_v2_sealed_done(&sealed.sealed);
    return agree && at != NULL;
}

static bool still_decrypts(void *ctx)
{
    struct kms_v2_client *client = fixture_connect(&fx);
    struct kms_error err = KMS_ERROR_INIT;
    bool good = client != NULL && fixture_decrypt(client, PATIENT, ctx, &err) == KMS_OK;

    kms_v2_client_close(client);
    return good;
}

/*
 * Only the newest key is sick when the daemon starts. What it is cannot be found out, so the older
 * one serves, which Status, Encrypt, the metric and a warning say; once the newer one can be looked
 * at it takes over by itself.
 */
static void newest_key_is_sick_at_start(void)
{
    char older[KMS_V2_TEXT_MAX] = "";
    char newer[KMS_V2_TEXT_MAX] = "";
    char now[KMS_V2_TEXT_MAX] = "";
    char hashes[3][80] = {"", "", ""};
    struct kms_v2_client *client = NULL;
    struct fixture_sealed old = {.sealed = {.storage = NULL}};
    struct kms_error err = KMS_ERROR_INIT;

    fixture_shim(&fx, "");
    fixture_configure(&fx, "  refresh_interval: 1s\n  probe_interval: 1s\n", NULL);
    UNIT_CHECK("", fixture_start(&fx));
    client = fixture_connect(&fx);
    UNIT_CHECK("older", agree_on_key(client, older, hashes[0]));
    UNIT_CHECK("", fixture_token(&fx, "key", "03"));
    UNIT_CHECK("newer", fixture_until(has_other_key, older, SEC(5)));
    UNIT_CHECK("newer", agree_on_key(client, newer, hashes[1]));
    kms_v2_client_close(client);
    UNIT_CHECK("", fixture_stop(&fx));

    fixture_shim(&fx, "fail_id=CKR_FUNCTION_FAILED:03\n");
    UNIT_CHECK("sick", fixture_start(&fx));
    UNIT_CHECK("sick", fixture_log_wait(&fx, "CKA_ID 03 does not work, and is passed over"));
    UNIT_CHECK("sick", fixture_log_count(&fx, " warn ") >= 1);
    UNIT_CHECK("sick", fixture_wait_healthy(&fx, true));
    client = fixture_connect(&fx);
    UNIT_CHECK("sick", agree_on_key(client, now, hashes[2]));
    UNIT_CHECK("sick", strcmp(now, older) == 0 && strcmp(hashes[2], hashes[0]) == 0);
    UNIT_CHECK("sick", fixture_encrypt(client, PATIENT, &old, &err) == KMS_OK);

    fixture_shim(&fx, "");
    UNIT_CHECK("healed", fixture_until(has_other_key, older, SEC(10)));
    UNIT_CHECK("healed", agree_on_key(client, now, hashes[2]));
    UNIT_CHECK("healed", strcmp(now, newer) == 0 && strcmp(hashes[2], hashes[1]) == 0);
    UNIT_CHECK("healed", fixture_decrypt(client, PATIENT, &old, &err) == KMS_OK);
    /* sick again, while it is the active one: nothing goes back */
    fixture_shim(&fx, "fail_id=CKR_FUNCTION_FAILED:03\n");
    UNIT_CHECK("sick again", fixture_wait_healthy(&fx, false));
    /* not each at once: the backend may be restarting the module on suspicion */
    UNIT_CHECK("sick again", fixture_until(still_decrypts, &old, SEC(10)));
    fixture_shim(&fx, "");
    UNIT_CHECK("sick again", fixture_wait_healthy(&fx, true));
    UNIT_CHECK("sick again", agree_on_key(client, now, hashes[2]) && strcmp(now, newer) == 0);
    kms_v2_sealed_done(&old.sealed);
    kms_v2_client_close(client);
    UNIT_CHECK("", fixture_stop(&fx));
}

static const struct unit_test tests[] = {
    {"killed twenty times under load", killed_under_load},
    {"a wrong PIN is tried once", wrong_pin_is_tried_once},
    {"a new key at SIGHUP", new_key_at_sighup},
    {"the newest key is sick at a start", newest_key_is_sick_at_start},
};

int main(void)
{
    fixture_init(&fx, NAME);
    return fixture_main(&fx, NAME, tests, UNIT_COUNT(tests));
}
