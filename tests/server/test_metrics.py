"""What is measured."""

from __future__ import annotations

from server.metrics import Legs, Metrics, MicrophoneCounts


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


def test_the_microphones_of_all_sessions_are_added_up() -> None:
    metrics = Metrics()
    one, two = MicrophoneCounts(metrics), MicrophoneCounts(metrics)
    one.update(lost=3, late=1, concealed_s=0.06, delay_s=0.0)
    two.update(lost=1, late=0, concealed_s=0.02, delay_s=0.11)
    one.update(lost=2, late=2, concealed_s=0.06, delay_s=0.0)  # one was late, not lost
    one.update(lost=4, late=2, concealed_s=0.08, delay_s=0.0)
    lines = metrics.text().decode().splitlines()
    assert "portraittalk_microphone_lost_total 5.0" in lines
    assert "portraittalk_microphone_late_total 2.0" in lines
    assert "portraittalk_microphone_concealed_seconds_total 0.1" in lines
    assert 'portraittalk_microphone_delay_seconds_bucket{le="0.0"} 3.0' in lines
    assert "portraittalk_microphone_delay_seconds_count 4.0" in lines
