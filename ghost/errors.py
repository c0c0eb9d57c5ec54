"""Every error that is shown to the user.

    GhostError                    (replicate_deployment.errors; exit code 1)
    ├── UsageError                wrong flags or a wrong combination of them (exit code 2)
    ├── ExportError               a chat export that cannot be read, or whose date order is ambiguous
    ├── ConfigError               a config file (ghost.config): unknown key, impossible value
    ├── DataError                 CSV or JSONL that is missing, malformed or too small to train on
    ├── BaseModelError            a base that is missing, not causal-LM or not the recorded one
    ├── TrainingError             training cannot start or continue
    │   └── ProcessLost           one of several processes has died (training.finetuning.processes)
    ├── MergeError                an adapter that does not fit its base, or a merge that fails its check
    ├── ConversionError           a model that another program's format cannot represent exactly
    ├── ServerError               the prediction server does not start or does not answer
    │   ├── ServerUnreachable     no connection: nothing was sent (this and the next four: ghost.serving.client)
    │   ├── ServerBusy            it serves another request and rejected this one; `.retry_after` seconds, if given
    │   ├── ServerStarting        its model is still loading
    │   ├── PredictionFailed      it ran and did not succeed; `.prediction` holds the server's answer
    │   └── PredictionLost        the connection broke: whether it runs or ran is unknown; `.id` if there is one
    ├── BotError                  the bot cannot start or continue: its token, its state, a second instance
    │   └── DiskFull              its disk is full (telegram_bot.database)
    ├── HubError                  the Hub is unreachable, refuses, or holds other files than expected
    ├── ArtifactError             ghost.json missing, malformed or contradicted by the files beside it
    ├── Problem                   a check that failed; `.todo` says what to type (ghost.serving.checks)
    ├── PromptError               a prompt that cannot be answered      ┐
    ├── SettingsError             a sampling setting out of range       │ replicate_deployment.errors
    └── WeightsError              a model folder that must not be served ┘

Raise the class of the stage that found the problem. Say in the message what is wrong, what was found and what to
type next; never include the body of a chat message. `ghost.cli` prints it and exits. Catch it elsewhere only to
continue with the next file or check.
"""

from replicate_deployment.errors import GhostError


class UsageError(GhostError):
    exit_code = 2


class ExportError(GhostError):
    pass


class ConfigError(GhostError):
    pass


class DataError(GhostError):
    pass


class BaseModelError(GhostError):
    pass


class TrainingError(GhostError):
    pass


class MergeError(GhostError):
    pass


class ConversionError(GhostError):
    pass


class ServerError(GhostError):
    pass


class ServerUnreachable(ServerError):
    pass


class ServerBusy(ServerError):
    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ServerStarting(ServerError):
    pass


class PredictionLost(ServerError):
    def __init__(self, message: str, id: str | None = None) -> None:
        super().__init__(message)
        self.id = id


class ArtifactError(GhostError):
    pass


class HubError(GhostError):
    pass


class BotError(GhostError):
    pass
