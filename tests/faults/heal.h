/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of heal share: the token (heal_token.c), and the tests in their order. */
#ifndef KMSBRIDGE_TESTS_FAULTS_HEAL_H
#define KMSBRIDGE_TESTS_FAULTS_HEAL_H

#include "backend/waist.h"
#include "tests/unit/unit.h"

#define PIN "1234"

/* Reads the environment; false: the script has not set it. */
bool heal_init(void);
void plan(const char *text); /* the shim's control file */
void set_pin(const char *pin);
const char *pin_file(void);
unsigned long calls(const char *name); /* of a C_ function, from the shim's counters */
struct kms_waist *open_on(const char *token, unsigned sessions);
/* A waist that works, and the KEK's ref. */
struct kms_waist *healthy(const char *token, unsigned sessions, char *ret_ref);
void sleep_ms(unsigned ms);

bool take_ref(void *ctx, const struct kms_key_info *info); /* a visitor: @ctx is the ref */
enum kms_status find_kek(struct kms_waist *waist, char *ret_ref, struct kms_call *call);
struct kms_call call_for(unsigned ms);

struct sealed {
    uint8_t iv[KMS_IV_MAX], ciphertext[2048];
    struct kms_sealed sealed;
};
enum kms_status seal(struct kms_waist *waist, const char *ref, struct kms_call *call,
                     struct sealed *ret);
enum kms_status unseal(struct kms_waist *waist, const char *ref, struct kms_call *call,
                       const struct sealed *sealed);
/* Encrypts and decrypts within @ms. */
enum kms_status round_trip(struct kms_waist *waist, const char *ref, unsigned ms,
                           struct kms_call *ret_call);

void every_class_is_repaired(void);
void sick_is_not_bad_data(void);
void a_lost_login_hides_no_key(void);
void away_and_back(void);
void generating_waits_for_the_repair(void);
void generating_does_not_wait_for_ever(void);
void two_tokens_are_nobodys_fault(void);
void wrong_pin_is_tried_once(void);
void pin_states_are_told(void);
void the_final_try_is_not_taken(void);
void other_login_failures_spare_the_pin(void);
void a_missing_pin_file_is_no_missing_key(void);
void its_own_iv_is_obeyed(void);
void a_handle_used_again_is_noticed(void);
void without_gcm_there_is_cbc_and_hmac(void);
void a_wrong_tag_reaches_no_decrypt(void);
void identity_needs_no_ecb(void);
void another_serial_is_the_same_key(void);
void destroying_ends(void);
void a_half_made_key_is_undone(void);
void gcm_has_no_companion(void);
void one_sick_key_is_passed_over(void);
void one_sick_key_restarts_little(void);
void gcm_that_fails_is_done_without(void);
void a_slow_token_keeps_deadlines(void);
void a_hanging_module_is_survived(void);
void lost_calls_are_not_a_wedge(void);
void no_finalize_under_a_stuck_call(void);
void a_full_token_is_shared(void);
void two_names_are_one_library(void);
void other_init_args_are_refused(void);
void finalizing_comes_before_the_next(void);
void doubt_spares_the_first_key(void);
void reconnects_under_load(void);

#endif
