"""What is wrong with a request is said in the reader's words, and the mistake that explains the others comes first."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from plaudit import Client
from plaudit.errors import Invalid
from plaudit.field_errors import by_field, not_json, sentence
from plaudit.schemas import RankRequest


def errors_of(items: object) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        RankRequest.model_validate({"items": items})
    return caught.value


def test_a_misspelt_field_comes_before_the_one_that_is_missing() -> None:
    error = errors_of([{"prompt": "p", "completion": ["c"]}])
    assert sentence(error.errors()) == (
        "items.0.completion: there is no such field; did you mean 'completions'?; items.0.completions: is missing"
    )


def test_an_unknown_field_without_a_likeness_is_named_alone() -> None:
    error = errors_of([{"prompt": "p", "completions": ["c"], "zebra": 1}])
    assert by_field(error.errors()) == [("items.0.zebra", "there is no such field", "extra_forbidden")]


def test_what_a_validator_says_is_said_without_pydantics_words() -> None:
    with pytest.raises(ValidationError) as caught:
        RankRequest.model_validate(
            {"spec": {"terms": [{"name": "t", "type": "execute"}]}, "items": [{"prompt": "p", "completions": ["c"]}]}
        )
    text = sentence(caught.value.errors())
    assert text == "items.0.tests is missing and term 't' needs it"


def test_many_errors_are_counted() -> None:
    error = errors_of([{"prompt": "p", "completions": ["c"], **{f"field{n}": 1 for n in range(5)}}])
    assert sentence(error.errors()).endswith(" (and 2 more)")


@pytest.mark.parametrize(
    ("text", "position", "said"),
    [
        ('{"a": }', 6, "not JSON: Expecting value at line 1, column 7"),
        ('{\n"a": 1,\n}', 10, "not JSON: Expecting value at line 3, column 1"),
        ("", 6, "not JSON: Expecting value at character 7"),
    ],
)
def test_a_body_that_is_not_json_says_where_it_stops_to_be(text: str, position: int, said: str) -> None:
    assert not_json("Expecting value", position, text) == said


def test_the_client_says_it_like_the_service_without_asking_it() -> None:
    with Client("http://127.0.0.1:9") as client, pytest.raises(Invalid) as caught:
        client.rank([{"prompt": "p", "completion": ["c"]}])
    assert "did you mean 'completions'?" in caught.value.detail
    assert "pydantic" not in caught.value.detail
