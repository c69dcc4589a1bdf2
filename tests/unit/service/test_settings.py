"""Settings: flags over environment over defaults, no typo passes, secrets stay hidden, children get the same ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plaudit.errors import UsageError
from service.settings import PREFIX, Settings, load, metadata
from service.up.process import environ_of


def test_flags_win_over_the_environment_and_the_environment_over_defaults() -> None:
    environ = {"PLAUDIT_PORT": "9001", "PLAUDIT_SCORERS": "3"}
    settings = load({"port": "9002", "host": None}, environ)
    assert (settings.port, settings.scorers, settings.host) == (9002, 3, "127.0.0.1")


def test_an_unknown_variable_is_an_error_and_those_of_others_are_not() -> None:
    with pytest.raises(UsageError, match="PLAUDIT_PROT is not a setting; did you mean PLAUDIT_PORT"):
        load({}, {"PLAUDIT_PROT": "1"})
    assert load({}, {"PLAUDIT_URL": "http://127.0.0.1:1", "PATH": "/bin"}) == Settings()


def test_a_wrong_value_is_named_with_what_it_takes() -> None:
    with pytest.raises(UsageError, match=r"port: .*65535"):
        load({"port": "70000"}, {})


def test_a_wrong_value_is_named_by_the_flag_or_the_variable_that_brought_it() -> None:
    with pytest.raises(UsageError, match=r"^--port: "):
        load({"port": "no"}, {"PLAUDIT_PORT": "1"})
    with pytest.raises(UsageError, match=r"^PLAUDIT_PORT: "):
        load({}, {"PLAUDIT_PORT": "no"})


def test_every_setting_is_described() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


@pytest.mark.parametrize("name", [name for name in Settings.model_fields if "key" in name.split("_")])
def test_keys_are_secrets_and_a_wrong_one_is_not_shown(name: str) -> None:
    assert metadata(name)["secret"]
    with pytest.raises(UsageError) as caught:
        load({name: {"sesame": 1}}, {f"{PREFIX}PORT": "1"})
    assert "sesame" not in str(caught.value)


def test_models_are_named_once_and_the_shipped_one_is_the_default() -> None:
    assert load({"model": ["a=x", "b=y=z"]}, {}).models == {"a": "x", "b": "y=z"}
    assert list(Settings().models) == ["default"]
    assert load({}, {"PLAUDIT_MODEL": "a=x, b=y"}).models == {"a": "x", "b": "y"}
    for wrong in (["a"], ["=x"], ["a=x", "a=y"]):
        with pytest.raises(UsageError, match="--model"):
            load({"model": wrong}, {})


def test_secrets_are_hidden_where_settings_are_shown() -> None:
    settings = load({}, {"PLAUDIT_API_KEY": "k1,k2", "PLAUDIT_REDIS_URL": "redis://me:secret@example.org:6379/0"})
    shown = str(settings.public())
    assert settings.api_key == ["k1", "k2"]
    assert not any(secret in shown for secret in ("k1", "k2", "secret"))
    assert "example.org" in shown


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]


words = st.text("abcdefgh-._/:", min_size=1, max_size=12)
changes = st.fixed_dictionaries(
    {},
    optional={
        "port": st.integers(0, 65535),
        "redis_url": st.just("unix:///tmp/x/s"),
        "model": st.dictionaries(words, words, min_size=1, max_size=3),
        "api_key": st.lists(words, min_size=1, max_size=3),
        "accept_no_auth": st.just(True),
        "executors": st.integers(0, 8),
        "executor_memory_mb": st.none(),
        "state_dir": st.just(Path("/tmp/kept")),
        "max_cpu_s": st.floats(0.5, 100),
        "dtype": st.just("bfloat16"),
        "log_level": st.sampled_from(["debug", "error"]),
    },
)


@given(changes)
def test_children_get_exactly_the_parents_settings(changed: dict[str, Any]) -> None:
    settings = load(changed, {})
    environ = environ_of(settings, {"PLAUDIT_PORT": "1", "PLAUDIT_DATA": "/data", "HOME": "/home"})
    assert load({}, environ) == settings
    assert (environ["PLAUDIT_DATA"], environ["HOME"]) == ("/data", "/home")


def test_a_comma_inside_a_key_is_refused_before_it_becomes_two() -> None:
    with pytest.raises(UsageError, match="api_key: a comma"):
        environ_of(Settings(api_key=["a,b"]), {})
