"""The exception tree. Every message says what was expected, what came, and what to do.

FirmgroundError                 exit code 2
├── UsageError                  exit code 4: the command line itself is wrong
├── ModelError                  a model cannot be used
│   ├── UnsafeModelError        it would need a pickle or remote code
│   ├── BrokenModelError        files missing, truncated, not numbers, or not fitting one another
│   └── UnsupportedModelError   an architecture that is not a supported encoder
├── AdapterError                a prompt or PEFT adapter does not fit its base
├── DataError                   texts, images or labels cannot be used
├── OutputError                 a result cannot be written
└── MissingExtraError           an optional dependency is absent; names the install command

An inconclusive scan is an outcome of a `Verdict`, not an exception.
"""


class FirmgroundError(Exception):
    """The caller's mistake, or an input's; its text is one clear sentence."""

    exit_code = 2


class UsageError(FirmgroundError):
    """The command line asks for something that does not exist."""

    exit_code = 4


class ModelError(FirmgroundError):
    """A model cannot be used."""


class UnsafeModelError(ModelError):
    """Loading the model would execute something that came with it."""


class BrokenModelError(ModelError):
    """A model's files are missing, truncated, not finite, or do not fit one another."""


class UnsupportedModelError(ModelError):
    """The architecture is not an encoder that Firmground can read."""


class AdapterError(FirmgroundError):
    """A prompt or adapter does not fit the encoder it is put on."""


class DataError(FirmgroundError):
    """Texts, images or labels cannot be used."""


class OutputError(FirmgroundError):
    """A result cannot be written where it was asked for."""


class MissingExtraError(FirmgroundError):
    """An optional dependency is absent."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"this needs {package}, which is not installed; run: pip install 'firmground[{extra}]'")
