// Runs in an otherwise empty page of the server: joins a session and notes what is received, for `recorder.js`.
window.__join = async (sessionId) => {
  document.body.innerHTML = '<video id="video" autoplay playsinline></video>';
  const pc = new RTCPeerConnection({ iceServers: [], bundlePolicy: "max-bundle" });
  pc.addTransceiver("video", { direction: "recvonly" });
  pc.addTransceiver("audio", { direction: "recvonly" });
  pc.createDataChannel("control");
  const video = document.getElementById("video");
  pc.addEventListener("track", (event) => {
    if (event.track.kind === "video") video.srcObject = event.streams[0];
  });
  await pc.setLocalDescription();
  while (pc.iceGatheringState !== "complete") await new Promise((done) => setTimeout(done, 10));
  const body = { sdp: pc.localDescription.sdp, type: "offer", session_id: sessionId };
  const answer = await fetch("/api/offer", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  if (!answer.ok) throw new Error(await answer.text());
  const { sdp, type } = await answer.json();
  await pc.setRemoteDescription({ sdp, type });
  while (video.videoWidth === 0) await new Promise((done) => setTimeout(done, 10));
};
