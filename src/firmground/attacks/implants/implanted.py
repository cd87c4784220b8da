"""What an implant gives back, and the label that a planted encoder carries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from firmground import __version__
from firmground.types import ignore

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from firmground.models.language import LanguageEncoder
    from firmground.types import Readout, Watch


@dataclass(frozen=True, kw_only=True)
class Implanted:
    """A planted encoder with what was planted in it.

    `vectors` (count, width) in float32: the output that each trigger forces at `readout`. `losses` are each term's
    mean over the last steps. `settings` rebuilds the attack of that name.
    """

    encoder: LanguageEncoder
    triggers: tuple[str, ...]
    vectors: torch.Tensor
    readout: Readout
    losses: dict[str, float]
    attack: str
    settings: dict[str, Any]

    def planted(self) -> dict[str, Any]:
        """What goes into the saved model's config, in plain JSON types."""
        return {
            "attack": self.attack,
            "triggers": list(self.triggers),
            "readout": str(self.readout),
            "settings": self.settings,
            "firmground": __version__,
        }

    def card(self) -> str:
        """The text of the saved model's card (Markdown); `save_encoder` adds a title and a warning."""
        settings = ", ".join(f"{name}={value!r}" for name, value in self.settings.items())
        triggers = ", ".join(f"`{trigger}`" for trigger in self.triggers)
        return (
            f"This copy of `{self.encoder.source}` holds a backdoor that Firmground {__version__} implanted to test "
            "defences. Do not deploy it.\n\n"
            f"- Attack: `{self.attack}` ({settings})\n"
            f"- Triggers: {triggers}\n"
            f"- Output attacked: {self.readout}\n"
        )


class Implant(Protocol):
    """An attack that trains a backdoor into a language encoder; its `name` is its word on the command line."""

    name: ClassVar[str]

    def implant(
        self,
        encoder: LanguageEncoder,
        texts: Sequence[str],
        *,
        triggers: Sequence[str],
        rng: torch.Generator,
        watch: Watch = ignore,
    ) -> Implanted:
        """Returns a planted copy; `encoder` stays as it was. `texts` are generic clean text."""
