/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is the KEK good? One thread asks: a real encrypt and decrypt under the active key, and now and
 * then which keys there are. Everybody else reads the last verdict from memory. Real traffic
 * counts: while Encrypts and Decrypts succeed no probe is spent, and when one fails for the key
 * service's fault the probe comes at once.
 *
 * A verdict ages: when the probe itself hangs in the module, the verdict turns bad by itself.
 */
#ifndef KMSBRIDGE_HEALTH_H
#define KMSBRIDGE_HEALTH_H

#include "backend/waist.h"
#include "kmsbridge/keyring.h"

struct kms_health_conf {
    uint64_t probe_interval_ns;
    uint64_t refresh_interval_ns;
    uint64_t call_timeout_ns;
};

struct kms_verdict {
    bool known; /* a first probe has ended */
    bool good;
    char key_id[KMS_KEY_ID_MAX]; /* the active key, "" when there was never one */
    uint64_t age_ns;             /* since the proof: probe or real traffic */
    struct kms_error error;      /* why not good */
};

struct kms_healthd;

/* Borrows all but @conf; starts the thread. NULL when out of memory or threads. */
struct kms_healthd *kms_healthd_start(struct kms_waist *waist, struct kms_keyring *ring,
                                      const struct kms_health_conf *conf);
/* No more probes; returns at once. The last verdict stays. */
void kms_healthd_dismiss(struct kms_healthd *health);
/* Joins the thread; waits at most @timeout_ns for a probe that hangs: false then, and nothing is
 * freed. NULL is fine. */
bool kms_healthd_stop(struct kms_healthd *health, uint64_t timeout_ns);

void kms_healthd_configure(struct kms_healthd *health, const struct kms_health_conf *conf);
/* Probe and look for keys now (SIGHUP). */
void kms_healthd_kick(struct kms_healthd *health);
/* Blocks until the first verdict is known or @deadline_ns; true when known. */
bool kms_healthd_wait_known(struct kms_healthd *health, uint64_t deadline_ns);

/* What a real operation came to; cheap, from any thread. */
void kms_healthd_note(struct kms_healthd *health, enum kms_op op, enum kms_status status);

void kms_healthd_verdict(struct kms_healthd *health, struct kms_verdict *ret_verdict);

#endif
