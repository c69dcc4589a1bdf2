"""`evaluate` ranks samples by what their prompts say, as `/rank` does without tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from plaudit.errors import HostLacks
from sandbox.capabilities import HostCapabilities
from training.evaluation.evaluate import add_evidence, has_generated_tests
from training.evaluation.rankers import SampledProblem, best_of_n_curves
from training.pipeline.config import EvaluateConfig, HubConfig, Recipe
from training.pipeline.records import Problem
from training.pipeline.run import Run

PROMPT = 'def double(n: int) -> int:\n    """Return n times two.\n    >>> double(2)\n    4\n    """\n'
BODIES = ["    return n + 2\n", "    return 4\n", "    return n * 2\n", "    return n + n\n"]


def test_evidence_of_the_prompt_chooses_among_samples(tmp_path: Path) -> None:
    """All four pass the example; the two right ones agree on other inputs, and the model prefers a wrong one."""
    if HostCapabilities.probe().level not in ("strong", "userns"):
        pytest.skip("programs cannot run here")
    problem = Problem("t", "t", PROMPT, "double", None, "", (), "test", "none", fold="test")
    sample = SampledProblem(
        "t", completions=list(BODIES), rates=[0.0, 0.0, 1.0, 1.0], scores=[3.0, 2.0, 1.0, 0.0], programs=list("abcd")
    )
    solutions = {name: PROMPT + body for name, body in zip(sample.programs, BODIES, strict=True)}
    add_evidence(Run(tmp_path, quiet=True), [sample], {"t": problem}, solutions, num_inputs=12)
    assert sample.example_rates == [1.0] * 4

    rows = best_of_n_curves([sample], EvaluateConfig(num_candidates=(4,), resamples=10, draws=5), seed=1)
    chosen = {row["ranker"]: row["points"][0]["value"] for row in rows}
    assert chosen["reward model"] == 0.0
    assert chosen["examples"] == 0.5
    assert chosen["auto: examples, behavior, consensus, model"] == 1.0


def test_without_evidence_its_rows_are_left_out() -> None:
    sample = SampledProblem("t", completions=["a", "b"], rates=[0.0, 1.0], scores=[0.0, 1.0], programs=["a", "b"])
    rows = best_of_n_curves([sample], EvaluateConfig(num_candidates=(2,), resamples=10, draws=5), seed=1)
    assert not any("examples" in row["ranker"] for row in rows)


def test_a_set_without_generated_tests_is_reported_without_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path)
    recipe = Recipe(data=str(tmp_path), hub=HubConfig(adapter="mbpp"))
    assert not has_generated_tests(recipe, run)
    assert "no rows of generated tests" in capsys.readouterr().err
    with pytest.raises(HostLacks, match="generated_tests"):  # the public data has them
        has_generated_tests(Recipe(data=str(tmp_path)), run)
