/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Self-healing, against a token that fails when told to: tests/fakes/p11_shim_plan.h. The script
 * makes the token, with an AES key "kek" and an HMAC key "kek-mac" beside it, and sets the
 * environment: KMS_TEST_DIR (ours), KMS_TEST_MODULE (the shim), KMSBRIDGE_SHIM_CONTROL and
 * KMSBRIDGE_SHIM_COUNTERS.
 */
#include "tests/faults/heal.h"

#include "common/secure.h"

static const struct unit_test tests[] = {
    {"every class is repaired", every_class_is_repaired},
    {"sick is not bad data", sick_is_not_bad_data},
    {"a lost login hides no key", a_lost_login_hides_no_key},
    {"away and back", away_and_back},
    {"generating waits for the repair", generating_waits_for_the_repair},
    {"generating does not wait for ever", generating_does_not_wait_for_ever},
    {"two tokens are nobody's fault", two_tokens_are_nobodys_fault},
    {"wrong PIN is tried once", wrong_pin_is_tried_once},
    {"PIN states are told", pin_states_are_told},
    {"the final try is not taken", the_final_try_is_not_taken},
    {"other login failures spare the PIN", other_login_failures_spare_the_pin},
    {"a missing PIN file is no missing key", a_missing_pin_file_is_no_missing_key},
    {"its own IV is obeyed", its_own_iv_is_obeyed},
    {"a handle used again is noticed", a_handle_used_again_is_noticed},
    {"without GCM there is CBC and HMAC", without_gcm_there_is_cbc_and_hmac},
    {"a wrong tag reaches no decrypt", a_wrong_tag_reaches_no_decrypt},
    {"identity needs no ECB", identity_needs_no_ecb},
    {"another serial is the same key", another_serial_is_the_same_key},
    {"destroying ends", destroying_ends},
    {"a half-made key is undone", a_half_made_key_is_undone},
    {"GCM has no companion", gcm_has_no_companion},
    {"one sick key is passed over", one_sick_key_is_passed_over},
    {"one sick key restarts little", one_sick_key_restarts_little},
    {"GCM that fails is done without", gcm_that_fails_is_done_without},
    {"a slow token keeps deadlines", a_slow_token_keeps_deadlines},
    {"a hanging module is survived", a_hanging_module_is_survived},
    {"lost calls are not a wedge", lost_calls_are_not_a_wedge},
    {"no finalize under a stuck call", no_finalize_under_a_stuck_call},
    {"a full token is shared", a_full_token_is_shared},
    {"two names are one library", two_names_are_one_library},
    {"other init_args are refused", other_init_args_are_refused},
    {"finalizing comes before the next", finalizing_comes_before_the_next},
    {"doubt spares the first key", doubt_spares_the_first_key},
    {"reconnects under load", reconnects_under_load},
};

int main(void)
{
    if (!heal_init()) {
        fprintf(stderr, "heal: run by tests/faults/heal.sh\n");
        return EXIT_FAILURE;
    }
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    if (kms_secure_init() != KMS_OK) {
        return EXIT_FAILURE;
    }
    return unit_main("heal", tests, UNIT_COUNT(tests));
}
