"""The report's pictures: labels that can be read, and lines that can be told apart."""

from __future__ import annotations

import itertools
import random
import re
from pathlib import Path
from typing import Any

import pytest

from training.evaluation.plots import LABEL_GAP, LOOKS, label_places, plot_best_of_n

SIZES = (1, 4, 32)


def rows() -> list[dict[str, Any]]:
    points = [{"n": n, "value": 0.3, "low": 0.2, "high": 0.4} for n in SIZES]
    return [{"ranker": name, "points": points} for name in [*LOOKS, "another ranker"]]


@pytest.mark.parametrize("seed", range(20))
def test_labels_keep_their_distance_and_their_order(seed: int) -> None:
    draw = random.Random(seed)
    values = [draw.choice((draw.random(), 0.5, 0.0, 1.0)) for _ in range(draw.randint(1, 12))]
    places = label_places(values)
    ordered = sorted(places)
    assert all(high - low >= LABEL_GAP - 1e-9 for low, high in itertools.pairwise(ordered))
    assert max(places) <= 1.0 + LABEL_GAP
    for first in range(len(values)):
        for second in range(len(values)):
            if values[first] < values[second]:
                assert places[first] < places[second]


def test_every_line_has_a_colour_of_its_own_and_its_name(tmp_path: Path) -> None:
    assert len({colour for colour, _ in LOOKS.values()}) == len(LOOKS)
    plot_best_of_n(rows(), tmp_path / "bestofn.svg")
    svg = (tmp_path / "bestofn.svg").read_text()
    assert all((">auto<" if name.startswith("auto") else f">{name}<") in svg for name in LOOKS)
    assert "another ranker" not in svg
    ticks = re.findall(r">(\d+)</text>", svg)
    assert {int(tick) for tick in ticks if int(tick) in (1, 2, 4, 8, 16, 32, 64)} == set(SIZES)
