"""Several Redis, called shards: what they are named, and on which of them a key lives.

- A shard's name is its URL without credentials and parameters, or what stands behind a `#` in the URL. Keys are placed
  by names, so a shard that moves to another address keeps its keys if it keeps its name.
- A key lives on the shard with the greatest hash of name and key (rendezvous hashing: Thaler and Ravishankar, "Using
  name-based mappings to increase hit rates", IEEE/ACM Transactions on Networking 6(1), 1998). A shard that is added
  to n others takes 1/(n+1) of the keys, equally from each of them; the other keys stay where they are. The order in
  which the shards are listed does not matter.
- All processes of a deployment need the same list. Every API process writes it to each shard once a second
  (`Keys.shards`), a process that starts compares its own, and workers announce theirs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from plaudit.errors import UsageError
from service.settings import Settings, masked

MAX_SHARDS = 64
KEEP_LIST_S = 15  # a list is forgotten so long after the last API process that had it


@dataclass(frozen=True, slots=True)
class ShardAddress:
    """A shard's name, and the URL at which this process reaches it."""

    name: str
    url: str

    @property
    def shown(self) -> str:
        """The URL without its secrets, for logs and answers."""
        return masked(self.url)


def addresses(urls: Sequence[str]) -> list[ShardAddress]:
    """The shards of `--redis-url`. Raises UsageError if one is named twice, or if there are too many."""
    shards = [_address(url) for url in urls]
    names = [shard.name for shard in shards]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UsageError(f"--redis-url names {min(twice)} twice; each shard is named once")
    if len(shards) > MAX_SHARDS:
        raise UsageError(f"--redis-url names {len(shards)} shards; at most {MAX_SHARDS} are supported")
    return shards


def served_shards(settings: Settings) -> list[ShardAddress]:
    """The shards that a worker with these settings serves. Raises UsageError."""
    shards = addresses(settings.redis_urls)
    if settings.serve_shard is None:
        return shards
    served = [shard for shard in shards if shard.name == settings.serve_shard]
    if not served:
        names = ", ".join(shard.name for shard in shards)
        raise UsageError(f"--serve-shard {settings.serve_shard} is not a shard of --redis-url; the shards are {names}")
    return served


def _address(url: str) -> ShardAddress:
    url, _, name = url.partition("#")
    scheme, _, rest = url.partition("://")
    return ShardAddress(name or f"{scheme}://{rest.partition('?')[0].rpartition('@')[2].rstrip('/')}", url)


def rank(names: Sequence[str], key: str) -> list[int]:
    """The indices of all shards, that on which the key lives first, then where it would live without that one."""
    weights = [hashlib.blake2b(f"{name}\0{key}".encode(), digest_size=8).digest() for name in names]
    return sorted(range(len(names)), key=lambda index: weights[index], reverse=True)


def deal(num_shards: int, num_workers: int) -> list[range]:
    """The indices of the shards that each of so many workers serves: one in turn if there are enough, else all."""
    if num_workers < num_shards:
        return [range(num_shards)] * num_workers
    return [range(index % num_shards, index % num_shards + 1) for index in range(num_workers)]


def list_of(shards: Sequence[ShardAddress]) -> str:
    """The names of these shards in one order, as each shard keeps them; "" for a Redis that is alone."""
    return " ".join(sorted(shard.name for shard in shards)) if len(shards) > 1 else ""
