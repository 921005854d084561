"""What is measured."""

from __future__ import annotations

from server.metrics import Legs, Metrics


def test_legs_are_means_since_the_last_report() -> None:
    legs = Legs()
    for seconds in (0.010, 0.020):
        legs.add("mic", seconds)
    legs.add("wait", 0.0051)
    assert legs.take() == {"mic": 15.0, "wait": 5.1}
    assert legs.take() == {}


def test_two_servers_do_not_share_their_numbers() -> None:
    one, two = Metrics(), Metrics()
    one.frames.inc(3)
    assert b"portraittalk_frames_total 3.0" in one.text()
    assert b"portraittalk_frames_total 0.0" in two.text()
