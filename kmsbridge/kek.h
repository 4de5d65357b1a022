/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one configuration of the KEK comes to while we serve: the key service, the keyring over it,
 * the probe. At a reload another takes its place: calls that began on the former end on it, and
 * with the last of them it is closed, by a thread of its own, because closing asks a key service
 * that may be the reason for the change.
 */
#ifndef KMSBRIDGE_KEK_H
#define KMSBRIDGE_KEK_H

#include <pthread.h>

#include "backend/waist.h"
#include "kmsbridge/conf.h"
#include "kmsbridge/health.h"
#include "kmsbridge/keyring.h"

struct kms_keks;

/* They live as long as somebody has it. */
struct kms_kek {
    struct kms_conf *conf; /* waist and ring borrow from it */
    struct kms_waist *waist;
    struct kms_keyring *ring;
    struct kms_healthd *health;
    struct kms_keks *home;
    struct kms_kek *next; /* this and below: under kms_keks.mutex */
    unsigned users;
    pthread_t closer; /* main thread; of one that was dismissed */
};

/* The one that serves, and those that are about to be closed. */
struct kms_keks {
    pthread_mutex_t mutex; /* guards the members below; never held across a backend op */
    pthread_cond_t changed;
    struct kms_kek *now;
    struct kms_kek *left;
    struct kms_kek *closed; /* shells */
    unsigned closing;       /* of those left, and those that are being closed */
    uint64_t number;        /* of those that have served */
};

void kms_keks_init(struct kms_keks *keks);
/* Dismisses the one that serves, waits at most @timeout_ns until all are closed. False: a call or
 * a probe is stuck in a key service, and nothing may be freed. */
bool kms_keks_done(struct kms_keks *keks, uint64_t timeout_ns);

/* The one that serves, which is there until it is put. Any thread. */
struct kms_kek *kms_keks_get(struct kms_keks *keks);
void kms_kek_put(struct kms_kek *kek);
/* Another number: another one serves. */
uint64_t kms_keks_number(struct kms_keks *keks);
/* How long the oldest call now in a key service has taken, in those that have been left too. */
uint64_t kms_keks_stuck_ns(struct kms_keks *keks);

/*
 * Opens kms.backend of @conf and starts to look for the KEK in a thread of its own: never blocks on
 * the key service, and one that is away is no error. Holds @conf. The errors of kms_waist_open();
 * KMS_E_NOMEM.
 */
enum kms_status kms_kek_open(struct kms_keks *keks, struct kms_conf *conf, kms_observe observe,
                             void *observe_ctx, struct kms_kek **ret_kek,
                             struct kms_error *err) KMS_MUST_CHECK;
/* It serves from now on; the one before is dismissed. */
void kms_kek_serve(struct kms_kek *kek);
/* Its probe ends, and it is closed as soon as nobody has it. */
void kms_kek_dismiss(struct kms_kek *kek);

#endif
