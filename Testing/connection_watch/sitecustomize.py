"""Python runs this at its start where this folder is on PYTHONPATH: every attempt to reach another machine is written down.

Tests that show that nothing leaves the computer start their processes so; processes that these start inherit it.
"""

import ipaddress
import os
import sys


def _is_far(host):
    if host in ("localhost", "", None):
        return False
    try:
        return not ipaddress.ip_address(str(host).split("%")[0]).is_loopback
    except ValueError:
        return True  # a name that has to be looked up


def _watch(event, arguments):
    if event == "socket.connect":
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else ""  # else a socket of this computer's own (Unix)
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host != "0.0.0.0" and _is_far(host):
        with open(os.environ["CONNECTION_LOG"], "a", encoding="utf-8") as log:
            log.write(f"{event} {host}\n")


if "CONNECTION_LOG" in os.environ:
    sys.addaudithook(_watch)
