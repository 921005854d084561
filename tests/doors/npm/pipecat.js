export * from "@pipecat-ai/client-js";
export * from "@pipecat-ai/small-webrtc-transport";
