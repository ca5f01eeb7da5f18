"""Sessions of viewers: what the service signed is read, and nothing else is."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.playback.sessions import Sessions, ViewerSession

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
OLD, NEW = b"o" * 32, b"n" * 32
LIFE = timedelta(hours=2)
_IDS = st.text("abcXYZ019._:@-", min_size=1, max_size=100)


def sessions(*keys: bytes, environment: str = "test") -> Sessions:
    return Sessions(keys or (OLD,), environment=environment, life=LIFE)


def issued(**options: str) -> str:
    return sessions(**options).issue("show", "ann", NOW)[0]


@given(st.text("abc019-", min_size=1, max_size=63), _IDS)
def test_a_session_is_read_as_it_was_issued(broadcast_id: str, viewer_id: str) -> None:
    text, expires = sessions().issue(broadcast_id, viewer_id, NOW)
    assert expires == NOW + LIFE
    assert sessions().read(text) == ViewerSession(
        broadcast_id=broadcast_id,
        viewer_id=viewer_id,
        issued=int(NOW.timestamp()),
        expires=int(expires.timestamp()),
    )
    assert len(text) < 300
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def test_the_form_of_a_session_does_not_change() -> None:
    """Callers keep sessions over new versions of the service."""
    assert issued() == FORM


@given(st.integers(0), st.integers(1, 255))
def test_a_session_with_any_bit_changed_is_none(place: int, change: int) -> None:
    signed = bytearray(base64.urlsafe_b64decode(issued() + "=="))
    signed[place % len(signed)] ^= change
    assert sessions().read(base64.urlsafe_b64encode(signed).rstrip(b"=").decode()) is None


@given(st.text(max_size=500) | st.integers(0, len(issued()) - 1).map(lambda n: issued()[:n]))
def test_what_is_no_session_is_none(text: str) -> None:
    assert sessions().read(text) is None


@pytest.mark.parametrize("change", ["=", " ", "A", "==", "\n"])
def test_a_second_spelling_of_a_session_is_none(change: str) -> None:
    assert sessions().read(issued() + change) is None
    assert sessions().read(change + issued()) is None


def test_no_spelling_of_the_last_sign_but_one_is_read() -> None:
    text = issued()
    signs = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    assert [sign for sign in signs if sessions().read(text[:-1] + sign)] == [text[-1]]


def test_another_environment_with_the_same_keys_reads_nothing() -> None:
    assert sessions(environment="prod").read(issued()) is None


def test_sessions_rotate_with_the_secret_keys() -> None:
    by_old, by_new = sessions(OLD).issue("show", "ann", NOW)[0], sessions(NEW, OLD).issue("show", "ann", NOW)[0]
    assert by_old != by_new
    for rotating in (sessions(NEW, OLD), sessions(OLD, NEW)):
        assert rotating.read(by_old) is not None
        assert rotating.read(by_new) is not None
    assert sessions(NEW).read(by_old) is None


FORM = "AWsNZUBrDYFgBHNob3dhbm7I6eJZQEy0djhK6lgiWIAN"
