# SPDX-License-Identifier: Apache-2.0
"""The wrapped key in a file of tests/services/envelope.c (struct stored there).

usage: wrapped.py FILE         prints it
       wrapped.py FILE OTHER   prints FILE with what is in OTHER in its place
"""
import sys

ROOM = 2048
raw = open(sys.argv[1], "rb").read()
if len(sys.argv) == 2:
    sys.stdout.buffer.write(raw[8:8 + int.from_bytes(raw[:8], sys.byteorder)])
else:
    new = open(sys.argv[2], "rb").read()
    sys.stdout.buffer.write(len(new).to_bytes(8, sys.byteorder) + new.ljust(ROOM, b"\0") + raw[8 + ROOM:])
