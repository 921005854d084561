"""What a client of the speech WebSocket may say: its query and its text messages."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from engine.motion.expression import MAX_PROMPT
from server.errors import ApiError
from server.live.line import Voice
from server.live.speech import MAX_ID
from server.sound.sound_format import Encoding, SoundFormat
from server.web.http import MAX_JSON_BYTES, unfit

MAX_WORDS = 2000


class Strict(BaseModel):
    """A misspelt field is an error: sound at a rate that nobody asked for helps nobody."""

    model_config = ConfigDict(extra="forbid")


class Query(Strict):
    """What the address of a socket asks for; `token` is looked at before (`server.trust.access`).

    Raises:
        SpeechRefused: bad_format.
    """

    token: str = ""
    rate_hz: int = 24_000
    encoding: Encoding = "pcm16"
    listen: int | None = None

    def model_post_init(self, context: Any) -> None:
        """Refuse what is not taken, and rates at which the microphone is not given."""
        SoundFormat(self.rate_hz, self.encoding)
        if self.listen is not None:
            SoundFormat(self.listen)


class NewSessionQuery(Query):
    """The same, and what its new session is to be."""

    portrait_id: str = Field("default", max_length=100)
    prompt: str = Field("", max_length=MAX_PROMPT)
    voice: Voice = "assistant"


class Begin(Strict):
    """A new utterance."""

    type: Literal["begin"]
    utterance: str | None = Field(None, max_length=MAX_ID)
    rate_hz: int | None = None
    encoding: Encoding | None = None


class TimedWord(Strict):
    """A word and when it is spoken."""

    text: str = Field(max_length=200)
    start_ms: float = Field(ge=0, allow_inf_nan=False)
    end_ms: float = Field(ge=0, allow_inf_nan=False)


class Words(Strict):
    """When which word of the current utterance, or of the one just ended, is spoken."""

    type: Literal["words"]
    words: list[TimedWord] = Field(max_length=MAX_WORDS)


class State(Strict):
    """What the assistant does while it does not speak."""

    type: Literal["state"]
    state: Literal["idle", "listening", "thinking"]


class NewPrompt(Strict):
    """What the face expresses."""

    type: Literal["prompt"]
    prompt: str = Field(max_length=MAX_PROMPT)


class NewPortrait(Strict):
    """Whose face is shown."""

    type: Literal["portrait"]
    portrait_id: str = Field(max_length=100)


class Plain(Strict):
    """What needs no more than its name."""

    type: Literal["end", "interrupt", "ping"]


Message = Annotated[
    Begin | Words | State | NewPrompt | NewPortrait | Plain, Field(discriminator="type")
]
_MESSAGE: TypeAdapter[Message] = TypeAdapter(Message)


def parse(text: str) -> Message:
    """Read a text message; raises `ApiError` too_large, bad_json or bad_request."""
    if len(text) > MAX_JSON_BYTES:
        raise ApiError(413, "too_large", f"the message is longer than {MAX_JSON_BYTES} characters")
    try:
        return _MESSAGE.validate_json(text)
    except ValidationError as error:
        if error.errors(include_url=False)[0]["type"] == "json_invalid":
            raise ApiError(400, "bad_json", "the message is not JSON") from None
        raise unfit(error) from None
