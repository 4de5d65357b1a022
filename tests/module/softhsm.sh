#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The behaviour tests on SoftHSM itself: what fails there is likely to be wrong in the tests.
. "$(dirname "$0")/lib.sh"
make_token one
"$module" run softhsm "$softhsm" one 1234
