"""An Ethernet between network namespaces that may be slow, lossy or cut, each direction of each pair by itself.

A program: wire.py PREFIX SUBNET NAMESPACE… makes a TAP device in each namespace and carries frames between them until
its standard input ends. The namespace number N (from 1) has the address SUBNET.N on the device PREFIX and N; the
namespace `-` is the one in which it runs.
Lines on its standard input are JSON: {"from": "a", "to": "b", "delay_s": 0.1, "loss": 0.05, "cut": false}. It answers
each with the number of frames that it has carried so far. Frames that are lost or cut vanish, as on a real network: a
sender learns nothing. It needs no module of the kernel but `tun`.
"""

from __future__ import annotations

import fcntl
import heapq
import json
import os
import random
import selectors
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

MTU = 9000
MAX_IN_FLIGHT = 100_000  # delayed frames; more are dropped, as by a switch whose buffers are full
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000


@dataclass
class Link:
    """One direction of one pair. `loss`: share of the frames."""

    delay_s: float = 0.0
    loss: float = 0.0
    cut: bool = False


def _mac(number: int) -> str:
    return f"02:00:00:00:00:{number:02x}"


def _ip(namespace: str, *words: str) -> None:
    enter = [] if namespace == "-" else ["nsenter", f"--net=/run/netns/{namespace}"]
    subprocess.run([*enter, "ip", *words], check=True)


def plug(namespaces: list[str], prefix: str, subnet: str) -> list[int]:
    """A TAP device in each namespace, with its address and the addresses of all others; their descriptors."""
    descriptors = []
    for number, namespace in enumerate(namespaces, 1):
        device = f"{prefix}{number}"
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH", device.encode(), _IFF_TAP | _IFF_NO_PI))
        if namespace != "-":
            _ip("-", "link", "set", device, "netns", namespace)
            _ip(namespace, "link", "set", "lo", "up")
        _ip(namespace, "link", "set", device, "address", _mac(number), "mtu", str(MTU), "up")
        _ip(namespace, "addr", "add", f"{subnet}.{number}/24", "dev", device)
        for other in range(1, len(namespaces) + 1):
            if other != number:
                neighbour = ("neigh", "replace", f"{subnet}.{other}", "lladdr", _mac(other), "dev", device)
                _ip(namespace, *neighbour, "nud", "permanent")
        descriptors.append(descriptor)
    return descriptors


class Wire:
    """Carries frames. One thread does it all."""

    def __init__(self, namespaces: list[str], descriptors: list[int]) -> None:
        self.names = namespaces
        self.descriptors = descriptors
        self.links = [[Link() for _ in namespaces] for _ in namespaces]
        self.num_carried = 0
        self._delayed: list[tuple[float, int, int, bytes]] = []
        self._number = 0
        self._draw = random.Random(1)

    def change(self, order: dict[str, Any]) -> None:
        link = self.links[self.names.index(order.pop("from"))][self.names.index(order.pop("to"))]
        for name, value in order.items():
            setattr(link, name, value)

    def take(self, source: int) -> None:
        """Everything that a namespace has sent."""
        for _ in range(64):
            try:
                frame = os.read(self.descriptors[source], MTU + 64)
            except BlockingIOError:
                return
            to = frame[5] - 1 if frame[:5] == b"\x02\0\0\0\0" else -1
            if not 0 <= to < len(self.names):
                continue  # broadcasts: every neighbour is known
            link = self.links[source][to]
            if link.cut or (link.loss and self._draw.random() < link.loss):
                continue
            if link.delay_s:
                if len(self._delayed) < MAX_IN_FLIGHT:
                    self._number += 1
                    heapq.heappush(self._delayed, (time.monotonic() + link.delay_s, self._number, to, frame))
            else:
                self._give(to, frame)

    def _give(self, to: int, frame: bytes) -> None:
        try:
            os.write(self.descriptors[to], frame)
            self.num_carried += 1
        except (BlockingIOError, OSError):
            return  # its queue is full, or its namespace is going: a frame is lost

    def wait_s(self) -> float | None:
        """Deliver what is due; how long until the next frame is."""
        while self._delayed and self._delayed[0][0] <= time.monotonic():
            _, _, to, frame = heapq.heappop(self._delayed)
            self._give(to, frame)
        return max(0.0, self._delayed[0][0] - time.monotonic()) if self._delayed else None


def main() -> None:
    prefix, subnet, *namespaces = sys.argv[1:]
    wire = Wire(namespaces, plug(namespaces, prefix, subnet))
    with selectors.DefaultSelector() as selector:
        for number, descriptor in enumerate(wire.descriptors):
            selector.register(descriptor, selectors.EVENT_READ, number)
        selector.register(sys.stdin, selectors.EVENT_READ, None)
        print(0, flush=True)
        while True:
            for key, _ in selector.select(wire.wait_s()):
                if key.data is not None:
                    wire.take(key.data)
                    continue
                line = sys.stdin.buffer.readline()
                if not line:
                    return
                wire.change(json.loads(line))
                print(wire.num_carried, flush=True)


if __name__ == "__main__":
    main()
