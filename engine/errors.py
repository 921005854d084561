"""The exceptions of the project. Messages say what was wanted, what came and what to do."""


class AvatarError(Exception):
    """Base of every error this project raises on purpose."""


class ConfigError(AvatarError):
    """A setting is unknown, out of range or contradicts another."""


class WeightsError(AvatarError):
    """Weights are missing, damaged or do not fit the graph."""


class BackendUnavailable(AvatarError):
    """The asked-for run time is not installed or cannot run here."""


class ExportMismatch(AvatarError):
    """An exported graph does not compute what its module computes."""


class DataError(AvatarError):
    """Training data or a training tool is missing or damaged."""


class MediaError(AvatarError):
    """A picture or sound file cannot be read."""


class PortraitRefused(AvatarError):
    """The portrait cannot be enrolled; `code` is stable, the message is for people.

    Codes: `no_face`, `no_such_face`, `face_too_small`, `turned_away`, `mouth_hidden`, `mouth_open`.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class PromptRefused(AvatarError):
    """A prompt asks for what the profile cannot show; the message says what it can."""
