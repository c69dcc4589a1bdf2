"""Which answers a suite shows: asserts and unittest's methods, on either side, and nothing else."""

from __future__ import annotations

import pytest

from service.audit.suite_texts import shown_calls


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("assert f(1, k=2) == 3", [("f", "1, k=2", "3")]),
        ("assert 3 == f(1)", [("f", "1", "3")]),
        ("assert f(1)", [("f", "1", "True")]),
        ("assert not f(1)", [("f", "1", "False")]),
        ("assert f(1) is None", [("f", "1", "None")]),
        ("assert f(1) != 2", []),
        ("assert f(1) == 2 == 2", []),
        ("self.assertEqual(f([1]), 'a')", [("f", "[1]", "'a'")]),
        ("self.assertEqual('a', f([1]), 'message')", [("f", "[1]", "'a'")]),
        ("self.assertTrue(f(1))", [("f", "1", "True")]),
        ("self.assertTrue(f(1) == 2)", [("f", "1", "2")]),
        ("self.assertFalse(f(1))", [("f", "1", "False")]),
        ("self.assertIsNone(f(1))", [("f", "1", "None")]),
        ("self.assertAlmostEqual(f(1), 0.5, places=3)", [("f", "1", "0.5")]),
        ("self.assertNotEqual(f(1), 2)", []),
        ("self.assertRaises(E, f, 1)", []),
        ("assert f(", []),
    ],
)
def test_what_an_assertion_shows(text: str, shown: list[tuple[str, str, str]]) -> None:
    assert list(shown_calls(text)) == shown
    assert list(shown_calls(text, "g")) == []
