"""Every error that a person is meant to read.

    GhostError                    (replicate_deployment.errors; exit code 1)
    ├── UsageError                wrong flags or a wrong combination of them (exit code 2)
    ├── ExportError               a chat export that cannot be read, or whose dates cannot be decided
    ├── ConfigError               training_config.yaml or user_config.json: unknown key, impossible value
    ├── DataError                 CSV or JSONL that is missing, malformed or not enough to train on
    ├── BaseModelError            a base that is missing, not causal-LM or not the one that is recorded
    ├── TrainingError             training cannot start or go on
    │   └── ProcessLost           one of several processes is gone (training.finetuning.processes)
    ├── MergeError                an adapter that does not fit its base, or a merge that fails its proof
    ├── ConversionError           a model that another program's format cannot hold as it is
    ├── ServerError               the prediction server does not start, or does not answer
    │   ├── ServerUnreachable     nobody listens there: nothing was sent (this and the next four: ghost.serving.client)
    │   ├── ServerBusy            it works for somebody else and took nothing on; `.retry_after` seconds, when told
    │   ├── ServerStarting        its model is still being loaded
    │   ├── PredictionFailed      it ran and did not succeed; `.prediction` holds what the server told
    │   └── PredictionLost        the connection was cut: whether it runs or ran is unknown; `.id` when there is one
    ├── BotError                  the bot cannot start or go on: its token, its state, another one of it
    │   └── DiskFull              its disk is full (telegram_bot.database)
    ├── HubError                  the Hub cannot be reached, refuses, or holds something else than it should
    ├── ArtifactError             ghost.json missing, malformed or contradicted by the files beside it
    ├── PromptError               a prompt that cannot be answered      ┐
    ├── SettingsError             a sampling setting out of range       │ replicate_deployment.errors
    └── WeightsError              a model folder that must not be served ┘

Raise the branch whose stage found the problem. The message says what is wrong, what was found and what to type
next; it never holds the body of a chat message. `ghost.cli` prints it and exits; others catch it only to
go on with the next file or check.
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
