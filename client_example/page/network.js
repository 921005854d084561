// When the way to the server may have changed: another network, the machine awake again, the page in sight again.

/** Call `run` at each such moment; returns what ends it. */
export function onNetworkChange(run) {
  const controller = new AbortController();
  const { signal } = controller;
  for (const type of ["online", "offline"]) addEventListener(type, run, { signal });
  document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && run(), { signal });
  navigator.connection?.addEventListener("change", run, { signal });
  return () => controller.abort();
}
