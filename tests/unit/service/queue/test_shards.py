"""Rendezvous hashing moves only what it must; shards are named by their URLs without secrets, once each."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.errors import UsageError
from service.queue.shards import addresses, list_of, rank, served_shards
from service.settings import Settings, load

NUM_KEYS = 2000
KEYS = [f"key-{number}" for number in range(NUM_KEYS)]
lists_of_names = st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=8, unique=True)


@settings(max_examples=25, deadline=None)
@given(lists_of_names, st.text(min_size=21, max_size=24))
def test_a_new_shard_takes_its_share_and_nothing_else_moves(names: list[str], new: str) -> None:
    before = [names[rank(names, key)[0]] for key in KEYS]
    grown = [new, *names]
    after = [grown[rank(grown, key)[0]] for key in KEYS]
    moved = [(old, now) for old, now in zip(before, after, strict=True) if old != now]
    assert {now for _, now in moved} <= {new}
    share = 1 / len(grown)
    deviation = (share * (1 - share) / NUM_KEYS) ** 0.5
    assert abs(len(moved) / NUM_KEYS - share) < 5.5 * deviation


@settings(max_examples=25, deadline=None)
@given(lists_of_names, st.randoms())
def test_where_a_key_lives_does_not_depend_on_the_order_of_the_list(names: list[str], random) -> None:  # type: ignore[no-untyped-def]
    shuffled = random.sample(names, len(names))
    for key in KEYS[:50]:
        assert [names[index] for index in rank(names, key)] == [shuffled[index] for index in rank(shuffled, key)]


def test_shards_are_named_without_secrets_or_as_their_url_says() -> None:
    urls = ["redis://me:secret@a:6379/0?password=x", "rediss://b:1", "unix:///run/s", "redis://:pw@c:6379#third"]
    shards = addresses(urls)
    assert [shard.name for shard in shards] == ["redis://a:6379/0", "rediss://b:1", "unix:///run/s", "third"]
    assert shards[3].url == "redis://:pw@c:6379"
    assert not any(secret in f"{shard.shown} {shard.name}" for shard in shards for secret in ("secret", "pw", "=x"))
    assert list_of(shards) == list_of(shards[::-1])
    assert list_of(shards[:1]) == ""


@pytest.mark.parametrize("urls", [["redis://a:1", "redis://me:pw@a:1/"], ["redis://a:1#x", "redis://b:1#x"]])
def test_a_shard_that_is_named_twice_is_refused(urls: list[str]) -> None:
    with pytest.raises(UsageError, match="twice"):
        addresses(urls)


def test_several_urls_are_given_as_flags_or_separated_by_spaces() -> None:
    urls = ["sentinel://a,b/primary", "redis://c:1"]
    assert load({"redis_url": urls}, {}).redis_urls == urls
    assert load({}, {"PLAUDIT_REDIS_URL": "  ".join(urls)}).redis_urls == urls


def test_a_worker_serves_the_shard_that_it_is_told_or_all() -> None:
    both = Settings(redis_url="redis://a:1#one redis://b:1#two")
    assert [shard.name for shard in served_shards(both)] == ["one", "two"]
    assert [shard.url for shard in served_shards(both.model_copy(update={"serve_shard": "two"}))] == ["redis://b:1"]
    with pytest.raises(UsageError, match=r"three is not a shard .* one, two"):
        served_shards(both.model_copy(update={"serve_shard": "three"}))
