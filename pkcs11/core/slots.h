/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The list of slots, as the agent last told it. One caller at a time asks; others use what is
 * known, and wait only where nothing is. Slots stay until the list is freed.
 */
#ifndef KMS_PKCS11_CORE_SLOTS_H
#define KMS_PKCS11_CORE_SLOTS_H

#include "pkcs11/core/slot.h"

struct kms_slots;

/* @agent and @cancelled are borrowed. NULL: no memory. */
struct kms_slots *kms_slots_new(struct kms_agent *agent, const atomic_bool *cancelled);
void kms_slots_free(struct kms_slots *slots);
void kms_slots_forked(void); /* in a child, before any other */

CK_RV kms_slots_list(struct kms_slots *slots, bool refresh, struct kms_slot ***ret_slots,
                     size_t *ret_count);
CK_RV kms_slots_get(struct kms_slots *slots, CK_SLOT_ID id, struct kms_slot **ret_slot);

#endif
