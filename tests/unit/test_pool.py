"""The profiles of the warm pool, and its marks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.broadcast import Carrier, Destination, LatencyMode, PlaybackPolicy, Spec, StaticRendition
from service.domain.pool import NotAProfile, Profile, profile_from, profile_of
from service.reconciler.act.tags import pool_id, pool_tag, stream_tag

profiles = st.builds(
    Profile,
    latency_mode=st.sampled_from(LatencyMode),
    playback_policy=st.sampled_from(PlaybackPolicy),
    audio_only=st.booleans(),
    test=st.booleans(),
    reconnect_window_s=st.integers(0, 1800).map(float),
    max_duration_s=st.integers(60, 43_200),
)


@given(profiles)
def test_a_profile_is_read_as_it_was_written(profile: Profile) -> None:
    assert profile_from(profile.text) == profile


@given(profiles, profiles)
def test_two_profiles_have_one_text_only_if_they_are_one(one: Profile, other: Profile) -> None:
    assert (one.text == other.text) is (one == other)


@pytest.mark.parametrize("text", ["", "reduced", "reduced:", "public:reduced", "reduced:public:", "reduced:public:x"])
def test_what_is_no_profile(text: str) -> None:
    with pytest.raises(NotAProfile):
        profile_from(text)


def test_the_default_spec_has_the_shortest_profile() -> None:
    profile = profile_of(Spec(title="A show", owner_id="ann"))
    assert profile is not None
    assert profile.text == "reduced:public"


@pytest.mark.parametrize(
    "spec",
    [
        Spec(captions_language="en"),
        Spec(slate_url="https://images.example.com/slate.png"),
        Spec(static_rendition=StaticRendition.AUDIO_ONLY),
        Spec(destinations=(Destination(name="tv", url="rtmps://tv.example/live", carrier=Carrier.STREAM),)),
    ],
)
def test_what_a_call_of_its_own_would_need_has_none(spec: Spec) -> None:
    assert profile_of(spec) is None


def test_destinations_of_the_egress_do_not_matter() -> None:
    assert profile_of(Spec(destinations=(Destination(name="tv", url="rtmps://tv.example/live"),))) is not None


def test_the_mark_of_the_pool_is_no_mark_of_a_broadcast() -> None:
    assert pool_id("bs1:prod:", pool_tag("bs1:prod:", "00ff")) == "00ff"
    for tag in (
        stream_tag("bs1:prod:", "pool", 0),
        stream_tag("bs1:prod:", "show", 0),
        pool_tag("bs1:test:", "00ff"),
        "",
    ):
        assert pool_id("bs1:prod:", tag) == ""
