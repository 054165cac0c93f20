"""A seeded fault proxy in front of an S3 server, for tests; runs in its own process.

    python tests/s3/proxy.py --upstream 127.0.0.1:8333 --seed 7 --rate 0.1

Prints its port. Raw bytes go through unchanged, Host header included, so signatures survive.
Whether the n-th request for a target fails, and how, follows from (seed, method, target, n) alone,
not from the order in which requests arrive. `GET /__counts__` answers what was done so far,
`GET /__seen__` how often each target was asked for.

| fault | the client sees | the server |
|---|---|---|
| `503` | SlowDown | saw nothing |
| `500` | InternalError | saw nothing |
| `reset_before` | connection reset | saw nothing |
| `reset_after` | connection reset | did it |
| `truncate` | half of the answer | did it |
| `delay` | the answer, 0.2 s later | did it |
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import socket
import struct
from collections import Counter
from dataclasses import dataclass

FAULTS = ("503", "500", "reset_before", "reset_after", "truncate", "delay")
_DELAY_S = 0.2
_CODES = {"503": "SlowDown", "500": "InternalError"}
_REASONS = {"503": "Service Unavailable", "500": "Internal Server Error"}


@dataclass
class Message:
    """One HTTP message, as it came over the wire."""

    head: bytes
    """Start line and headers, with the empty line."""
    body: bytes = b""

    @property
    def start(self) -> list[str]:
        """The start line's words."""
        return self.head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)

    def header(self, name: str) -> str:
        """Value of a header in lower case; empty if it is not there."""
        found = re.search(rf"\r\n{name}:[ \t]*([^\r]*)".encode(), self.head, re.IGNORECASE)
        return found[1].decode("latin-1").strip().lower() if found else ""

    @property
    def raw(self) -> bytes:
        """All of it."""
        return self.head + self.body


async def _body(reader: asyncio.StreamReader, message: Message) -> bytes:
    if message.header("transfer-encoding") == "chunked":
        parts = []
        while True:
            line = await reader.readuntil(b"\r\n")
            size = int(line.split(b";")[0], 16)
            parts += [line, await reader.readexactly(size + 2) if size else b""]
            if not size:
                trailer = b""
                while trailer != b"\r\n":
                    trailer = await reader.readuntil(b"\r\n")
                    parts.append(trailer)
                return b"".join(parts)
    return await reader.readexactly(int(message.header("content-length") or 0))


async def read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Message:
    """The client's next request; its wish to be told to go on is granted here."""
    message = Message(await reader.readuntil(b"\r\n\r\n"))
    if message.header("expect") == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await writer.drain()
    message.body = await _body(reader, message)
    return message


async def read_response(reader: asyncio.StreamReader, method: str) -> Message:
    """The server's answer, interim ones passed over."""
    while True:
        message = Message(await reader.readuntil(b"\r\n\r\n"))
        status = int(message.start[1])
        if status >= 200:
            break
    if method != "HEAD" and status not in (204, 304):
        message.body = await _body(reader, message)
    return message


class Proxy:
    """Forwards requests one by one; some of them fail."""

    def __init__(self, host: str, port: int, seed: int, rate: float, latency: float) -> None:
        self.host, self.port, self.seed, self.rate = host, port, seed, rate
        self.latency = latency
        self.seen: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.tasks: set[asyncio.Task[None]] = set()

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection; asyncio itself keeps no hold of the task."""
        task = asyncio.create_task(self.serve(reader, writer))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def fault(self, request: Message) -> str | None:
        """What becomes of a request; None = it goes through."""
        method, target = request.start[:2]
        key = f"{method} {target}"
        self.seen[key] += 1
        dice = random.Random(f"{self.seed} {key} {self.seen[key]}")
        return dice.choice(FAULTS) if dice.random() < self.rate else None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client's connection."""
        upstream: asyncio.StreamWriter | None = None
        try:
            upstream_reader, upstream = await asyncio.open_connection(self.host, self.port)
            while True:
                request = await read_request(reader, writer)
                if not await self._answer(request, writer, upstream_reader, upstream):
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # either side has gone
        finally:
            writer.close()
            if upstream:
                upstream.close()

    async def _answer(
        self,
        request: Message,
        writer: asyncio.StreamWriter,
        upstream_reader: asyncio.StreamReader,
        upstream: asyncio.StreamWriter,
    ) -> bool:
        """Whether the connection goes on."""
        asked = {"/__counts__": self.counts, "/__seen__": self.seen}.get(request.start[1])
        if asked is not None:
            writer.write(_response("200 OK", json.dumps(asked).encode()))
            await writer.drain()
            return False
        fault = self.fault(request)
        await asyncio.sleep(self.latency)
        self.counts["requests"] += 1
        if fault:
            self.counts[fault] += 1
        if fault in _CODES:
            body = f"<Error><Code>{_CODES[fault]}</Code><Message>injected</Message></Error>"
            writer.write(_response(f"{fault} {_REASONS[fault]}", body.encode()))
            await writer.drain()
            return True
        if fault == "reset_before":
            return _reset(writer)
        if fault == "delay":
            await asyncio.sleep(_DELAY_S)
        upstream.write(request.raw)
        await upstream.drain()
        answer = await read_response(upstream_reader, request.start[0])
        if fault == "reset_after":
            return _reset(writer)
        if fault == "truncate":
            whole = answer.raw
            cut = len(answer.head) + len(answer.body) // 2 if answer.body else len(whole) // 2
            writer.write(whole[:cut])
            await writer.drain()
            return False
        writer.write(answer.raw)
        await writer.drain()
        return answer.header("connection") != "close"


def _response(status: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def _reset(writer: asyncio.StreamWriter) -> bool:
    """Close with RST, as a broken middlebox does."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


async def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upstream", required=True, metavar="HOST:PORT")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=0.1, help="share of requests that fail")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds, of every answer")
    args = parser.parse_args()
    host, port = args.upstream.rsplit(":", 1)
    proxy = Proxy(host, int(port), args.seed, args.rate, args.latency)
    limit = 1 << 20  # longest header
    server = await asyncio.start_server(proxy.connected, "127.0.0.1", 0, limit=limit, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201  # for the parent
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
