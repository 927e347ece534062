"""Run in another network namespace: ADDRESS PORT...; prints as JSON what open ports say to a stranger."""

from __future__ import annotations

import json
import socket
import sys
from contextlib import suppress
from typing import Final

import grpc  # type: ignore[import-untyped]  # it ships no types

METHODS: Final = ("/ray.serve.ASGIService/HandleRequest", "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo")


def ask(address: str, port: int) -> list[str]:
    """What `port` says: nothing where it cannot be reached."""
    try:
        connection = socket.create_connection((address, port), timeout=2)
    except OSError:
        return []
    said = ["open"]
    with connection, suppress(OSError):
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        if connection.recv(64).startswith(b"HTTP/"):
            said.append("http")
    codes = set()
    with grpc.insecure_channel(f"{address}:{port}") as channel:
        for method in METHODS:
            try:
                channel.unary_unary(method)(b"", timeout=5)
                codes.add("OK")
            except grpc.RpcError as refusal:
                codes.add(refusal.code().name)
    codes -= {"UNAVAILABLE", "DEADLINE_EXCEEDED"}  # nobody there speaks gRPC
    return said + [f"grpc {code}" for code in sorted(codes)]


if __name__ == "__main__":
    ports = {port: ask(sys.argv[1], int(port)) for port in sys.argv[2:]}
    print(json.dumps({port: said for port, said in ports.items() if said}))
