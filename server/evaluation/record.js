// Runs in an otherwise empty page of the server: joins a session, keeps every decoded picture as it came
// (its luma and chroma) and when it came. Judges nothing.
(() => {
  const kept = [];

  async function look(track) {
    const reader = new MediaStreamTrackProcessor({ track, maxBufferSize: 100 }).readable.getReader();
    for (;;) {
      const { value: frame, done } = await reader.read();
      if (done) return;
      const at = performance.timeOrigin + performance.now();
      const { width, height } = frame.visibleRect;
      const half = Math.ceil(width / 2);
      const luma = width * height;
      const chroma = half * Math.ceil(height / 2);
      const planes = new Uint8Array(luma + 2 * chroma);
      const layout = [
        { offset: 0, stride: width },
        { offset: luma, stride: half },
        { offset: luma + chroma, stride: half },
      ];
      const { format } = frame;
      if (format === "I420") await frame.copyTo(planes, { layout });
      kept.push({ at, width, height, format, planes });
      frame.close();
    }
  }

  function text(bytes) {
    let out = "";
    for (let i = 0; i < bytes.length; i += 32768) out += String.fromCharCode(...bytes.subarray(i, i + 32768));
    return btoa(out);
  }

  window.__record = {
    async join(sessionId) {
      const pc = new RTCPeerConnection({ iceServers: [], bundlePolicy: "max-bundle" });
      pc.addTransceiver("video", { direction: "recvonly" });
      pc.addTransceiver("audio", { direction: "recvonly" });
      pc.createDataChannel("control");
      pc.addEventListener("track", ({ track }) => {
        if (track.kind === "video") look(track);
      });
      await pc.setLocalDescription();
      while (pc.iceGatheringState !== "complete") await new Promise((done) => setTimeout(done, 10));
      const body = { sdp: pc.localDescription.sdp, type: "offer", session_id: sessionId };
      const headers = { "Content-Type": "application/json" };
      const answer = await fetch("/api/offer", { method: "POST", headers, body: JSON.stringify(body) });
      if (!answer.ok) throw new Error(await answer.text());
      const { sdp, type } = await answer.json();
      await pc.setRemoteDescription({ sdp, type });
      this.pc = pc;
    },
    count: () => kept.length,
    forget: () => kept.splice(0).length,
    /** The oldest pictures, at most so many: they are handed on once. */
    take: (most) => kept.splice(0, most).map(({ planes, ...about }) => ({ ...about, planes: text(planes) })),
  };
})();
