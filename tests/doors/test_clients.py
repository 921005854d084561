"""The makers' browser clients load in Chromium as they are and reach a microphone."""

from __future__ import annotations

import pytest

from benchmarks.server_process import ServerProcess
from tests.doors.conftest import OpenKit

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]  # the first one installs the clients

MICROPHONE = """async () => {
  const { PipecatClient, SmallWebRTCTransport, WavMediaManager } = window.kit;
  const transport = new SmallWebRTCTransport({ mediaManager: new WavMediaManager() });
  const client = new PipecatClient({ transport, enableMic: true, enableCam: false });
  await client.initDevices();
  const track = client.tracks().local.audio;
  const heard = { state: client.state, kind: track.kind, live: track.readyState };
  await client.disconnect();
  return heard;
}"""


def test_pipecats_client_gets_the_microphone(open_kit: OpenKit, server: ServerProcess) -> None:
    page = open_kit(server.url, "pipecat")
    assert page.evaluate(MICROPHONE) == {"state": "initialized", "kind": "audio", "live": "live"}


@pytest.mark.parametrize(
    ("bundle", "names"),
    [("whip", ["WHIPClient", "WHEPClient"]), ("player", ["WebRTCPlayer"])],
)
def test_a_bundle_holds_its_client(
    open_kit: OpenKit, server: ServerProcess, bundle: str, names: list[str]
) -> None:
    page = open_kit(server.url, bundle)
    assert page.evaluate("names => names.map((n) => typeof window.kit[n])", names) == [
        "function"
    ] * len(names)
