#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# PyKCS11 and python-pkcs11, of Python's index: session keys, keys wrapped under the KEK, pieces, threads,
# a forked child.
# shellcheck disable=SC2016 # check() evaluates its words later
. "$(dirname "$0")/lib.sh"
lane python
from_pip "$python" python "$top/tests/interop/python/requirements.txt"

token
key rsa rsa
key ec ec
key ed ed
key aes aes
serve
limit=120 run "$venv/bin/python" "$top/tests/interop/python/use_pykcs11.py" "$module" "$TOKEN" "$PIN" "$tmp"
check_lines PyKCS11 50
limit=120 run "$venv/bin/python" "$top/tests/interop/python/use_python_pkcs11.py" "$module" "$TOKEN" "$PIN"
check_lines python-pkcs11 18
if [ "$ours" = yes ]; then
    stop_daemon
    run "$venv/bin/python" "$top/tests/interop/python/use_python_pkcs11.py" "$module" "$TOKEN" "$PIN"
    check 'without an agent' refused 'NoSuchToken|TokenNotPresent|DeviceError|DeviceRemoved'
fi
lane_end
