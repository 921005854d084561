"""A conversation without a model: what its client appends is the assistant's own voice.

The sound is spoken as it comes; `commit` says that it is complete. A response begins with the first
sound of an item and is done when it was spoken, or cut off, so `response.create` asks for nothing new.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from server.conversation.realtime import (
    RATE_HZ,
    Conversation,
    Json,
    Sink,
    new_id,
    part,
    sound_in,
    sound_of,
)
from server.conversation.turn_detection import SILENCE_MS, TurnDetector
from server.errors import ApiError
from server.live.session import Session
from server.live.speech import Utterance
from server.service import AvatarService
from server.sound.intake import SOUND_RATE_HZ
from server.sound.sound_format import Decoder, SoundFormat

ITEMS_KEPT = 64  # that a client may still ask about
_MS = SOUND_RATE_HZ // 1000


class OwnVoice(Conversation):
    """A client that brings the assistant's voice: what it appends is spoken."""

    def __init__(self, session: Session, service: AvatarService, model: str) -> None:
        super().__init__(session, service)
        self._model = model
        self._sound, self._turn_detection = SoundFormat(RATE_HZ), None
        self._turns: tuple[TurnDetector, Decoder] | None = None
        self._utterance: Utterance | None = None  # being appended to
        self._known: dict[str, Utterance] = {}
        self._committed = False  # something, that no response was asked for
        self._last_item: str | None = None

    def attach(self, sink: Sink) -> Callable[[], None]:
        """Tell `sink` from now on, beginning with `session.created`."""
        created = {"type": "session.created", "event_id": new_id("event")}
        sink({**created, "session": self._describe()})
        return super().attach(sink)

    async def do(self, event: Json) -> None:
        """Do what a client says; raises `AvatarError`."""
        match event["type"]:
            case "session.update":
                await self._update(event.get("session"))
            case "input_audio_buffer.append":
                self._append(sound_in(event, "audio"))
            case "input_audio_buffer.commit":
                self._commit()
            case "input_audio_buffer.clear":
                if self._utterance is not None and not self._utterance.over:
                    self.session.interrupt()
                self._utterance = None
                self.tell("input_audio_buffer.cleared")
            case "response.create":
                self._respond()
            case "response.cancel":
                if not self.session.speech.busy:
                    raise ApiError(409, "response_cancel_not_active", "nothing is being said")
                self._cut()
            case "output_audio_buffer.clear":
                self._cut()
            case "conversation.item.truncate":
                self._truncate(event)
            case other:
                raise ApiError(
                    501, "no_model", f"{str(other)[:100]}: no model is attached to this avatar"
                )

    async def _update(self, wanted: object) -> None:
        sound = part(wanted, "audio", "input", "format") or part(wanted, "input_audio_format")
        if sound is not None:
            self._sound = sound_of(sound)
        heard = part(wanted, "audio", "input")
        if isinstance(heard, Mapping) and "turn_detection" in heard:
            self._detect(heard["turn_detection"])
        if (avatar := part(wanted, "avatar")) is not None:
            await self.change_avatar(avatar)
        self.tell("session.updated", session=self._describe())

    def _detect(self, wanted: Any) -> None:
        """Commit by itself where the appended sound pauses, or not (None)."""
        self._turns, self._turn_detection = None, None
        if wanted is None:
            return
        silence = part(wanted, "silence_duration_ms") or SILENCE_MS
        if part(wanted, "type") != "server_vad" or not isinstance(silence, int):
            raise ApiError(422, "bad_request", "turn_detection: server_vad or null")
        self._turns = TurnDetector(silence), Decoder(self._sound)
        self._turn_detection = wanted

    def _append(self, data: bytes) -> None:
        """Say more; the rest of what somebody has cut off is dropped."""
        if not data:
            return
        utterance = self._utterance
        if utterance is None:
            self.session.speech.check_room(Decoder(self._sound).seconds(data))
            utterance = self._begin()
        if not utterance.over:
            utterance.push(data)
        if self._turns is None:
            return
        detector, decoder = self._turns
        for turn in detector.push(decoder.push(data)):
            what, at = (
                ("started", "audio_start_ms") if turn.speaking else ("stopped", "audio_end_ms")
            )
            about = {at: turn.at_ms, "item_id": utterance.id}
            self.tell(f"input_audio_buffer.speech_{what}", **about)
            if not turn.speaking and self._utterance is utterance:
                self._commit()

    def _begin(self) -> Utterance:
        utterance = self._utterance = self.session.speech.begin(new_id("item"), self._sound)
        self._known[utterance.id] = utterance
        while len(self._known) > ITEMS_KEPT:
            self._known.pop(next(iter(self._known)))
        self.responses[utterance.id] = new_id("resp")
        self.tell("response.created", response=self._response(utterance.id, "in_progress"))
        return utterance

    def _commit(self) -> None:
        utterance, self._utterance = self._utterance, None
        if utterance is None:
            raise ApiError(422, "input_audio_buffer_commit_empty", "nothing was appended")
        utterance.end()
        self._committed = True
        after = {"previous_item_id": self._last_item}
        self.tell("input_audio_buffer.committed", item_id=utterance.id, **after)
        self.tell("conversation.item.added", item=_item(utterance.id, "in_progress"), **after)
        self._last_item = utterance.id

    def _respond(self) -> None:
        """What was committed is being said already; what was appended only is complete with this."""
        if self._utterance is not None:
            self._commit()
        if not self._committed:
            raise ApiError(501, "no_model", "nothing was appended, and no model is attached")
        self._committed = False

    def _cut(self) -> None:
        self._utterance = None
        self.session.interrupt()

    def _truncate(self, event: Json) -> None:
        utterance = self._known.get(str(event.get("item_id")))
        if utterance is None:
            raise ApiError(404, "item_not_found", "there is no such item")
        if not utterance.over:
            self._cut()
        played = utterance.played // _MS
        about = {"item_id": utterance.id, "content_index": event.get("content_index", 0)}
        self.tell("conversation.item.truncated", **about, audio_end_ms=played)

    def spoken(self, item: str) -> None:
        """Its response is done."""
        self._done(item, "completed")

    def cut_off(self, items: dict[str, float]) -> None:
        """Their responses are."""
        for item in items:
            self._done(item, "cancelled")

    def _done(self, item: str, status: str) -> None:
        self.tell("response.done", response=self._response(item, status))
        self.responses.pop(item, None)

    def _response(self, item: str, status: str) -> Json:
        response = {"object": "realtime.response", "id": self.responses[item], "status": status}
        output = [] if status == "in_progress" else [_item(item, status)]
        reason = {"type": "cancelled", "reason": "client_cancelled"}
        return {**response, "output": output} | (
            {"status_details": reason} if status == "cancelled" else {}
        )

    def _describe(self) -> Json:
        sound = {"ulaw": "audio/pcmu", "alaw": "audio/pcma"}.get(self._sound.encoding)
        given: Json = (
            {"type": sound} if sound else {"type": "audio/pcm", "rate": self._sound.rate_hz}
        )
        heard = {"format": given, "turn_detection": self._turn_detection}
        about = {"type": "realtime", "object": "realtime.session", "id": self.session.id}
        return {
            **about,
            "model": self._model,
            "audio": {"input": heard},
            "avatar": self.described(),
        }


def _item(id: str, status: str) -> Json:
    status = {"completed": "completed", "in_progress": "in_progress"}.get(status, "incomplete")
    content = [{"type": "output_audio", "transcript": None}]
    about = {"id": id, "object": "realtime.item", "type": "message", "role": "assistant"}
    return {**about, "status": status, "content": content}
