# SPDX-License-Identifier: Apache-2.0
"""What the scripts have in common that put the vendor's SDK and our fake side by side."""
import json
import urllib.request


def control(ports, do, **ask):
    """Asks the fake's control interface; @ports is the fake's line of JSON, read."""
    request = urllib.request.Request(f"http://127.0.0.1:{ports['control']}/",
                                     json.dumps({"do": do, **ask}).encode())
    return json.load(urllib.request.urlopen(request))


def check(what, good, why=""):
    print(f"ok {what}" if good else f"FAIL {what}: {why}")
