"""How long from the microphone to the talking face on the screen, in a real browser on this machine.

Starts the server and Chromium, speaks beeps into a fake microphone, and follows each one: captured
by the browser, its packet at the server, its samples out of the receive buffer, its frame made by
the model, handed to the encoder, received and shown by the page, and heard as sound. The model runs
as always; only a strip with a code is drawn over the top of each frame.

  glass-to-glass   from the sample at the microphone until the first frame with that beep should light
                   up; the waiting for a full packet and a full frame are in it
  av_skew          beep in the received sound minus the place of the beep in the shown frame; the sign
                   is kept in `av_skew_signed_ms_p50` (+ means sound late), the rest are magnitudes
  fps_shown        frames given to the screen a second
  longest_freeze   longest time between two shown frames
  clocks           speed of the browser's fake microphone and loudspeaker against real time. On a busy
                   machine they fall behind and every latency is wrong
  cpu              cores used by server, browser and this script (ours), by other programs, and idle

A run counts only when both clocks are at least 0.995 and other programs took at most 0.3 cores.
Otherwise it is repeated; after the last attempt the figures are printed with "valid": false and the
reasons, and the exit status is 3: "machine too busy" is neither a pass nor a failure.

Not in the figures: real sound hardware, a real screen, a real network. The browser's echo and noise
filters are off, because they take beeps for noise.

Examples:
  python -m benchmarks.end_to_end
  python -m benchmarks.end_to_end --seconds 20 --out runs/end_to_end.json
  python -m benchmarks.end_to_end --cores 1 --out runs/one_core.json
  python -m benchmarks.end_to_end --server-command "python -m tests.server.fake_server"
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import beeps as arithmetic
from benchmarks.browser import launch, new_page
from benchmarks.environment import cpu_clock, describe, print_header, print_json, process_cpu_s
from benchmarks.server_process import (
    ServerProcess,
    add_server_arguments,
    describe_server,
    measured_server,
)

RECORDER = Path(__file__).with_name("recorder.js")
TOO_BUSY = 3


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.end_to_end",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--seconds", type=float, default=60, help="length of the measured part (60)"
    )
    parser.add_argument("--warm-up", type=float, default=12, help="seconds before it (12)")
    parser.add_argument("--attempts", type=int, default=3, help="runs until the clocks hold (3)")
    add_server_arguments(parser)
    parser.add_argument("--out", type=Path, help="also write the JSON to this file")
    return parser.parse_args()


def record(server: ServerProcess, seconds: float, warm_up: float, folder: Path) -> dict[str, Any]:
    """One run in a fresh browser: what the page, the server and the machine noted."""
    wav = folder / "beeps.wav"
    arithmetic.write_beeps(wav, seconds=180)
    with launch(wav) as browser:
        page = new_page(browser)
        page.context.add_init_script(path=RECORDER)
        page.goto(server.url)
        page.wait_for_selector("#pill[data-state=live]", timeout=30_000)
        page.wait_for_selector(".stage.playing", timeout=30_000)
        page.get_by_role("button", name="Talk", exact=True).click()
        page.get_by_role("button", name="Sound off").click()
        page.wait_for_timeout(warm_up * 1000)
        cpu_before, server_before = cpu_clock(), process_cpu_s(server.pid)
        page.evaluate("window.__recorder.start()")
        page.wait_for_timeout(seconds * 1000)
        noted: dict[str, Any] = page.evaluate("window.__recorder.take()")
        noted["cpu"] = cpu_clock().since(cpu_before)
        noted["server_cpu_s"] = process_cpu_s(server.pid) - server_before
        noted["events"] = server.get("/api/test/events")["events"]
        noted["chromium"] = browser.version
    return noted


def judge(noted: dict[str, Any]) -> dict[str, Any]:
    """The figures of one run."""
    before, after = noted["before"], noted["after"]
    wall_s = (after["at"] - before["at"]) / 1000
    clocks = arithmetic.clocks(before, after)
    frames = [
        frame
        for frame in arithmetic.read_frames(noted["frames"])
        if before["at"] <= frame.shown <= after["at"]
    ]
    found = arithmetic.match(
        _onsets(noted["captured"], device=True),
        noted["events"],
        frames,
        _onsets(noted["heard"], device=False),
    )
    way = arithmetic.percentiles([beep.glass_to_glass_ms for beep in found])
    skews = [beep.av_skew_ms for beep in found if beep.av_skew_ms is not None]
    skew = arithmetic.percentiles([abs(value) for value in skews])
    span_s = (frames[-1].shown - frames[0].shown) / 1000 if len(frames) > 1 else wall_s
    shown = frames[-1].presented - frames[0].presented if len(frames) > 1 else 0
    legs: dict[str, list[float]] = {}
    for beep in found:
        for name, value in beep.legs_ms().items():
            legs.setdefault(name, []).append(value)
    cpu = noted["cpu"]
    reasons = arithmetic.objections(clocks, cpu.others_cores, noted["connections"])
    return {
        "valid": not reasons,
        "objections": reasons,
        "seconds": round(wall_s, 1),
        "fps_shown": round(shown / span_s, 2),
        "fps_decoded": round(_grown(noted, "video.framesDecoded") / wall_s, 2),
        "longest_freeze_s": round(arithmetic.longest_gap_s(frames), 3),
        "glass_to_glass_ms_p50": way["p50"],
        "glass_to_glass_ms_p95": way["p95"],
        "glass_to_glass_ms_max": way["max"],
        "av_skew_ms_p50": skew["p50"],
        "av_skew_ms_p95": skew["p95"],
        "av_skew_signed_ms_p50": arithmetic.percentiles(skews)["p50"],
        "beeps": len(found),
        "beeps_captured": len(noted["captured"]["onsets"]),
        "legs_ms": {name: arithmetic.percentiles(values) for name, values in legs.items()},
        "browser": _browser(noted, frames),
        "clocks": {"microphone": clocks.microphone, "playout": clocks.playout},
        "cpu": {
            "server_cores": round(noted["server_cpu_s"] / wall_s, 2),
            **dataclasses.asdict(cpu),
        },
    }


def _browser(noted: dict[str, Any], frames: list[arithmetic.Shown]) -> dict[str, Any]:
    """What the browser's own statistics say, and how many frames' codes could be read."""
    read = sum(frame.stamp is not None for frame in frames)
    return {
        "freezes": int(_grown(noted, "video.freezeCount")),
        "frames_dropped": int(_grown(noted, "video.framesDropped")),
        "code_read_share": round(read / max(1, len(frames)), 4),
        "jitter_buffer_ms": _per(
            noted, "video.jitterBufferDelay", "video.jitterBufferEmittedCount"
        ),
        "audio_jitter_buffer_ms": _per(
            noted, "audio.jitterBufferDelay", "audio.jitterBufferEmittedCount"
        ),
        "decode_ms": _per(noted, "video.totalDecodeTime", "video.framesDecoded"),
        "width": noted["after"].get("video.frameWidth"),
        "height": noted["after"].get("video.frameHeight"),
    }


def _onsets(track: dict[str, Any], *, device: bool) -> list[float]:
    """Wall times of the beeps that the recorder found in one track."""
    if not track["chunks"]:
        return []
    chunks = [(at, begin, size) for at, begin, size, _ in track["chunks"]]
    clock = arithmetic.SoundClock(chunks, track["rate"], device=device)
    return [clock.wall_ms(sample) for sample in track["onsets"]]


def _grown(noted: dict[str, Any], name: str) -> float:
    """How much a total of the browser grew over the measured part."""
    return float(noted["after"].get(name, 0) - noted["before"].get(name, 0))


def _per(noted: dict[str, Any], seconds: str, count: str) -> float | None:
    """Milliseconds of `seconds` for each of `count`, over the measured part."""
    number = _grown(noted, count)
    return round(_grown(noted, seconds) * 1000 / number, 1) if number else None


def print_table(figures: dict[str, Any]) -> None:
    """Print one run for people."""
    rows = [
        ("frames shown a second", f"{figures['fps_shown']} (decoded {figures['fps_decoded']})"),
        ("longest freeze", f"{figures['longest_freeze_s']} s"),
        (
            "glass to glass, p50 / p95 / worst",
            " / ".join(str(figures[f"glass_to_glass_ms_{p}"]) for p in ("p50", "p95", "max"))
            + " ms",
        ),
        (
            "sound against picture, p50 / p95",
            f"{figures['av_skew_ms_p50']} / {figures['av_skew_ms_p95']} ms, "
            f"signed {figures['av_skew_signed_ms_p50']}",
        ),
        ("beeps followed", f"{figures['beeps']} of {figures['beeps_captured']}"),
        *(
            (f"  leg {name}", f"{leg['p50']} / {leg['p95']} / {leg['max']} ms")
            for name, leg in figures["legs_ms"].items()
        ),
        (
            "clocks, microphone / playout",
            f"{figures['clocks']['microphone']} / {figures['clocks']['playout']}",
        ),
        *((f"  {name}", str(value)) for name, value in figures["cpu"].items()),
    ]
    for name, value in rows:
        print(f"  {name:36} {value}")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run until the clocks hold, at most `--attempts` times; the figures of the last run."""
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for attempt in range(1, options.attempts + 1):
            log = folder / f"server_{attempt}.txt"
            with measured_server(log, options) as server:
                noted = record(server, options.seconds, options.warm_up, folder)
                figures = judge(noted)
                figures["server_start_s"] = round(server.started_in_s, 2)
                figures["chromium"] = noted["chromium"]
            figures["attempt"] = attempt
            print(f"attempt {attempt} of {options.attempts}")
            print_table(figures)
            if figures["valid"]:
                return figures
            print("  invalid: " + "; ".join(figures["objections"]), flush=True)
            if attempt < options.attempts:
                time.sleep(2)
    return figures


def main() -> None:
    """Run the benchmark."""
    options = arguments()
    about = describe()
    print_header("end_to_end: microphone to screen in Chromium, loopback", about)
    figures = measure(options)
    about["versions"]["chromium"] = figures.pop("chromium")
    result = {"benchmark": "end_to_end", **figures, **about, **describe_server(options)}
    if not figures["valid"]:
        print("machine too busy: no valid run; do not use these figures")
    print_json(result, options.out)
    sys.exit(0 if figures["valid"] else TOO_BUSY)


if __name__ == "__main__":
    main()
