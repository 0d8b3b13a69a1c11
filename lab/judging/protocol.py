"""What the judging process and its client send each other through two pipes.

A request is its length and JSON, a reply is of fixed size: nothing that comes back is ever evaluated or unpickled.
"""

from __future__ import annotations

import json
import os
import struct
from enum import IntEnum

LENGTH = struct.Struct("<I")
REPLY = struct.Struct("<IB")
"""Number of the request, then the `Outcome`."""
READY = 0
"""Number of the reply that says that the process is ready; requests count from 1."""


class Outcome(IntEnum):
    """How a judgement ended."""

    WRONG = 0
    RIGHT = 1
    UNREADABLE = 2
    """The verifier could not tell, such as when it cannot read the right answer."""
    TIMEOUT = 3
    CRASH = 4
    """The process died, out of memory for one."""


def encode(number: int, answer: str, completion: str) -> bytes:
    """Return the request `number`, in bytes; any text is possible, NUL and lone surrogates included."""
    body = json.dumps([number, answer, completion]).encode("ascii")
    return LENGTH.pack(len(body)) + body


def receive(descriptor: int) -> tuple[int, str, str] | None:
    """Return the next request, or None once the client has closed its end.

    It is read without a buffer: what follows it stays in the pipe, for whichever process reads on.
    """
    head = _read(descriptor, LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    body = _read(descriptor, LENGTH.unpack(head)[0])
    number, answer, completion = json.loads(body)
    return number, answer, completion


def write(descriptor: int, data: bytes) -> None:
    """Write all of `data`.

    Raises:
        BrokenPipeError: nobody reads any more.
    """
    while data:
        data = data[os.write(descriptor, data) :]


def _read(descriptor: int, count: int) -> bytes:
    data = b""
    while len(data) < count and (part := os.read(descriptor, count - len(data))):
        data += part
    return data
