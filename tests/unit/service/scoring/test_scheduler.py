"""The scheduler decides what is scored together; nothing is lost, doubled, starved, or put where it does not fit."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.scoring.scheduler import ScheduledBatch, Scheduler, ScoreFailure, SequenceGroup

FAR = 10**15


@dataclass(frozen=True)
class Text:
    """A sequence of so many tokens of its own behind a prompt, with a score of its own."""

    name: float
    length: int
    prompt: tuple[int, ...] = ()

    @property
    def ids(self) -> tuple[int, ...]:
        return self.prompt + (0,) * self.length

    @property
    def prompt_tokens(self) -> int:
        return len(self.prompt)


def group(
    key: str, lengths: list[int], *, lane: int = 1, deadline_ms: int = FAR, alone: bool = False, prompt: int = 0
) -> SequenceGroup[Text]:
    """`prompt`: so many tokens that no other length of prompt begins with."""
    begin = (prompt,) * prompt
    texts = [Text(hash((key, at)) % 100_003 + at / 1000, length, begin) for at, length in enumerate(lengths)]
    return SequenceGroup(key, texts, lane, deadline_ms, alone=alone)


def keys(batch: ScheduledBatch[Text]) -> list[str]:
    return [part.group.key for part in batch.slices]


def run(scheduler: Scheduler[Text]) -> tuple[list[ScheduledBatch[Text]], list[SequenceGroup[Text]]]:
    """All batches until nothing waits, and the groups in the order in which they were done."""
    batches: list[ScheduledBatch[Text]] = []
    done: list[SequenceGroup[Text]] = []
    while len(scheduler):
        batch = scheduler.schedule()
        batches.append(batch)
        done += scheduler.finish(batch, [text.name for text in batch.sequences])
        assert len(batches) < 1000, "the scheduler makes no progress"
    return batches, done


# lengths, lane, alone, tokens of the prompt: few prompts, so that some groups have the same
GROUPS = st.lists(
    st.tuples(
        st.lists(st.integers(1, 40), min_size=1, max_size=8),
        st.integers(0, 2),
        st.booleans(),
        st.sampled_from([0, 3, 7, 20]),
    ),
    max_size=12,
)
Drawn = list[tuple[list[int], int, bool, int]]


def fill(scheduler: Scheduler[Text], groups: Drawn) -> list[SequenceGroup[Text]]:
    added = [
        group(str(at), lengths, lane=lane, alone=alone, prompt=prompt)
        for at, (lengths, lane, alone, prompt) in enumerate(groups)
    ]
    for one in added:
        scheduler.add(one)
    return added


def computed(batch: ScheduledBatch[Text], *, sharing: bool = True, kept: int = -1) -> int:
    """What a model computes: each prompt once, or with every sequence; one of `kept` tokens not at all."""
    prompts = {text.prompt for text in batch.sequences} if sharing else [text.prompt for text in batch.sequences]
    prompts = [prompt for prompt in prompts if len(prompt) != kept or not sharing]
    return sum(map(len, prompts)) + sum(text.length for text in batch.sequences)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(groups=GROUPS, budget=st.integers(1, 60), sharing=st.booleans())
def test_every_sequence_is_scored_once_and_its_score_goes_back_in_order(
    groups: Drawn, budget: int, sharing: bool
) -> None:
    scheduler = Scheduler[Text](budget, sharing=sharing)
    added = fill(scheduler, groups)

    batches, done = run(scheduler)

    assert [one.scores for one in added] == [[text.name for text in one.sequences] for one in added]
    assert sorted(id(one) for one in done) == sorted(id(one) for one in added)
    assert sum(len(batch.sequences) for batch in batches) == sum(len(one.sequences) for one in added)
    assert scheduler.waiting_tokens(2) == 0


@settings(deadline=None, derandomize=True, max_examples=200)
@given(groups=GROUPS, budget=st.integers(1, 60), sharing=st.booleans(), kept=st.sampled_from([-1, 7, 20]))
def test_batch_budget_counts_computed_tokens_and_only_a_longer_single_sequence_exceeds_it(
    groups: Drawn, budget: int, sharing: bool, kept: int
) -> None:
    """Also where the model has a prompt already, that of `kept` tokens."""
    scheduler = Scheduler[Text](budget, sharing=sharing, is_cached=lambda prompt: len(prompt) == kept)
    added = fill(scheduler, groups)
    first = {one.prompt: len(one.prompt) for one in added if len(one.prompt) != kept} if sharing else {}
    own = sum(len(text.ids) - len(one.prompt) * sharing for one in added for text in one.sequences)
    assert scheduler.waiting_tokens(2) == sum(first.values()) + own

    for batch in run(scheduler)[0]:
        assert batch.tokens == computed(batch, sharing=sharing, kept=kept)
        assert batch.tokens <= budget or len(batch.sequences) == 1


@settings(deadline=None, derandomize=True, max_examples=200)
@given(groups=GROUPS, budget=st.integers(1, 60))
def test_what_fits_in_a_batch_runs_in_one_batch(groups: Drawn, budget: int) -> None:
    scheduler = Scheduler[Text](budget)
    fill(scheduler, groups)

    slices: dict[str, list[int]] = {}
    for batch in run(scheduler)[0]:
        for part in batch.slices:
            slices.setdefault(part.group.key, []).append(part.stop - part.start)

    for key, counts in slices.items():
        lengths, _, _, prompt = groups[int(key)]
        assert sum(counts) == len(lengths)
        if prompt + sum(lengths) <= budget:
            assert len(counts) == 1


@settings(deadline=None, derandomize=True, max_examples=200)
@given(groups=GROUPS, late=GROUPS, budget=st.integers(1, 60))
def test_the_first_that_waits_is_the_first_that_runs_whatever_comes_meanwhile(
    groups: Drawn, late: Drawn, budget: int
) -> None:
    scheduler = Scheduler[Text](budget)
    fill(scheduler, groups)
    while len(scheduler):
        first = scheduler._waiting[0]
        before = first.scheduled
        batch = scheduler.schedule()
        assert batch.slices[0].group is first
        assert first.scheduled > before
        scheduler.finish(batch, [0.0] * len(batch.sequences))
        fill(scheduler, late[:1])
        late = late[1:]


@settings(deadline=None, derandomize=True, max_examples=100)
@given(order=st.permutations(range(12)), budget=st.integers(40, 200))
def test_single_completions_of_one_prompt_run_in_the_batches_of_a_group(order: list[int], budget: int) -> None:
    """Four prompts, three completions each, one a request and shuffled: as few tokens as if they came as groups."""
    single, grouped = Scheduler[Text](budget), Scheduler[Text](budget)
    for at in order:
        single.add(group(str(at), [3], prompt=17 + at % 4))
    for prompt in dict.fromkeys(17 + at % 4 for at in order):
        grouped.add(group(str(prompt), [3, 3, 3], prompt=prompt))

    apart, together = run(single)[0], run(grouped)[0]

    assert len(apart) <= len(together)
    computed = [prompt for batch in apart for prompt in {text.prompt for text in batch.sequences}]
    assert len(computed) <= 4 + len(apart) - 1  # a prompt is computed again only where a batch ends in it


def test_requests_with_one_prompt_are_taken_together_past_those_between_them() -> None:
    scheduler = Scheduler[Text](40)
    for key, prompt in (("a", 20), ("b", 7), ("a too", 20), ("c", 0), ("a three", 20)):
        scheduler.add(group(key, [5], prompt=prompt))

    assert [keys(batch) for batch in run(scheduler)[0]] == [["a", "a too", "a three", "c"], ["b"]]


def test_what_waits_is_counted_with_each_prompt_once() -> None:
    sharing, whole = Scheduler[Text](100), Scheduler[Text](100, sharing=False)
    for scheduler in (sharing, whole):
        for key, prompt in (("a", 20), ("b", 7), ("a too", 20)):
            scheduler.add(group(key, [5, 1], prompt=prompt))

    assert sharing.waiting_tokens(1) == 20 + 7 + 3 * 6
    assert whole.waiting_tokens(1) == 2 * (20 + 7 + 20) + 3 * 6
    assert sharing.waiting_tokens(0) == 0

    sharing.add(group("high", [2], lane=0, prompt=20))
    assert sharing.waiting_tokens(0) == 20 + 2
    assert sharing.waiting_tokens(1) == 20 + 7 + 3 * 6 + 2


def test_a_group_whose_sequences_were_cut_to_different_beginnings_has_no_prompt() -> None:
    made = SequenceGroup("cut", [Text(0.0, 2, (1, 2)), Text(1.0, 2, (2, 2))], 1, FAR)
    assert made.prompt == ()


def test_a_refusal_stands_where_its_score_would() -> None:
    scheduler = Scheduler[Text](10)
    one = group("one", [4, 4])
    scheduler.add(one)
    refused = ScoreFailure("invalid", "no")
    assert scheduler.finish(scheduler.schedule(), [1.0, refused]) == [one]
    assert one.scores == [1.0, refused]


def test_lanes_come_first_and_arrival_decides_within_a_lane() -> None:
    scheduler = Scheduler[Text](10)
    for key, lane in (("low", 2), ("normal", 1), ("high", 0), ("normal too", 1), ("high too", 0)):
        scheduler.add(group(key, [10], lane=lane))

    assert [keys(batch) for batch in run(scheduler)[0]] == [["high"], ["high too"], ["normal"], ["normal too"], ["low"]]


def test_a_smaller_group_behind_fills_what_a_larger_one_leaves() -> None:
    scheduler = Scheduler[Text](10)
    for key, lengths in (("first", [4, 4]), ("too big now", [3, 3]), ("fits", [2])):
        scheduler.add(group(key, lengths))

    assert [keys(batch) for batch in run(scheduler)[0]] == [["first", "fits"], ["too big now"]]


def test_a_group_larger_than_the_budget_runs_in_slices_and_shares_what_is_left() -> None:
    scheduler = Scheduler[Text](10)
    scheduler.add(group("large", [6, 6, 6]))
    scheduler.add(group("small", [4]))

    assert [keys(batch) for batch in run(scheduler)[0]] == [["large", "small"], ["large"], ["large"]]


def test_a_higher_lane_goes_first_between_two_slices_of_a_group() -> None:
    scheduler = Scheduler[Text](10)
    begun = group("begun", [10, 10, 10], lane=2)
    scheduler.add(begun)
    scheduler.finish(scheduler.schedule(), [begun.sequences[0].name])
    for key, lane in (("low", 2), ("high", 0), ("normal", 1)):
        scheduler.add(group(key, [10], lane=lane))

    assert [keys(batch) for batch in run(scheduler)[0]] == [["high"], ["normal"], ["begun"], ["begun"], ["low"]]
    assert begun.scores == [text.name for text in begun.sequences]


@pytest.mark.parametrize("budget", [10, 16])
def test_a_large_group_does_not_starve_under_a_stream_of_small_ones(budget: int) -> None:
    scheduler = Scheduler[Text](budget)
    large = group("large", [9] * 5)
    scheduler.add(group("before", [budget]))
    scheduler.add(large)
    rounds = 0
    while not large.done:
        for at in range(3):
            scheduler.add(group(f"small {rounds} {at}", [1]))
        batch = scheduler.schedule()
        scheduler.finish(batch, [0.0] * len(batch.sequences))
        rounds += 1
        assert rounds < 20

    assert rounds == 6


def test_expired_groups_come_out_with_the_scores_that_they_have() -> None:
    scheduler = Scheduler[Text](10)
    for key, deadline_ms in (("begun", 5), ("late", 5), ("on time", 6)):
        scheduler.add(group(key, [10, 10], deadline_ms=deadline_ms))
    scheduler.finish(scheduler.schedule(), [7.0])

    assert [(one.key, one.scores) for one in scheduler.drop_expired(6)] == [("begun", [7.0]), ("late", [])]
    assert scheduler.drop_expired(6) == []
    assert [keys(batch) for batch in run(scheduler)[0]] == [["on time"], ["on time"]]


@settings(deadline=None, derandomize=True, max_examples=200)
@given(groups=GROUPS, budget=st.integers(1, 60), dropped=st.sets(st.integers(0, 11)), after=st.integers(0, 5))
def test_a_dropped_group_runs_no_more_and_takes_nothing_from_the_others(
    groups: Drawn, budget: int, dropped: set[int], after: int
) -> None:
    scheduler = Scheduler[Text](budget)
    added = fill(scheduler, groups)
    for _ in range(after):
        batch = scheduler.schedule()
        scheduler.finish(batch, [text.name for text in batch.sequences])
    gone = [added[at] for at in dropped if at < len(added) and not added[at].done]
    before = [list(one.scores) for one in gone]
    for one in gone:
        scheduler.drop(one)
    run(scheduler)

    assert [one.scores for one in gone] == before
    kept = [one for one in added if all(one is not other for other in gone)]
    assert [one.scores for one in kept] == [[text.name for text in one.sequences] for one in kept]


def test_a_suspect_runs_without_batch_mates_before_or_after_it() -> None:
    scheduler = Scheduler[Text](100)
    for key in ("before", "suspect", "after"):
        scheduler.add(group(key, [1], alone=key == "suspect"))

    assert [keys(batch) for batch in run(scheduler)[0]] == [["before", "after"], ["suspect"]]

    scheduler.add(group("suspect", [1], alone=True))
    scheduler.add(group("after", [1]))
    assert [keys(batch) for batch in run(scheduler)[0]] == [["suspect"], ["after"]]


def test_two_groups_of_one_name_are_two_groups() -> None:
    scheduler = Scheduler[Text](10)
    twins = [group("same", [10]), group("same", [10])]
    for one in twins:
        scheduler.add(one)

    done = run(scheduler)[1]

    assert len(done) == 2
    assert all(one.done for one in twins)


def test_nothing_waits_nothing_runs() -> None:
    scheduler = Scheduler[Text](10)
    assert scheduler.schedule() == ScheduledBatch((), 0)
    assert scheduler.finish(ScheduledBatch((), 0), []) == []
    assert len(scheduler) == 0


def test_an_empty_group_and_a_wrong_number_of_scores_are_the_callers_errors() -> None:
    scheduler = Scheduler[Text](10)
    with pytest.raises(ValueError, match="no sequences"):
        scheduler.add(SequenceGroup("empty", [], 1, FAR))
    scheduler.add(group("one", [1]))
    with pytest.raises(ValueError, match="2 scores for 1"):
        scheduler.finish(scheduler.schedule(), [0.0, 0.0])
