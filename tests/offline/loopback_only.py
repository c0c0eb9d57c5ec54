"""Sockets may reach this machine only: importing this refuses everything else, in this process.

`sitecustomize.py` beside it does the same in every Python process that a test starts with this folder on PYTHONPATH.
"""

import ipaddress
import os
import socket
from typing import Any

LOCAL_NAMES = {None, "", "localhost", "0.0.0.0", "::"}

_connect, _connect_ex, _getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo


class BlockedAddress(OSError):
    """Something tried to leave the machine."""


def check(host: Any) -> None:
    if isinstance(host, bytes):
        host = host.decode()
    if host in LOCAL_NAMES:
        return
    try:
        if ipaddress.ip_address(host).is_loopback:
            return
    except ValueError:
        pass
    if log := os.environ.get("LOOPBACK_ONLY_LOG"):  # some libraries swallow the error and go on: nobody would know
        with open(log, "a", encoding="utf-8") as stream:
            stream.write(f"{host}\n")
    raise BlockedAddress(f"the network is blocked, and something asked for {host}")


def connect(self: socket.socket, address: Any) -> Any:
    if self.family in (socket.AF_INET, socket.AF_INET6):
        check(address[0])
    return _connect(self, address)


def connect_ex(self: socket.socket, address: Any) -> Any:
    if self.family in (socket.AF_INET, socket.AF_INET6):
        check(address[0])
    return _connect_ex(self, address)


def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
    check(host)
    return _getaddrinfo(host, *args, **kwargs)


socket.socket.connect = connect  # type: ignore[method-assign]
socket.socket.connect_ex = connect_ex  # type: ignore[method-assign]
socket.getaddrinfo = getaddrinfo
