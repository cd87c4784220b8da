"""What a run of prompt learning remembers of its best epoch, and settings that it refuses."""

import pytest
import torch

from firmground.errors import DataError
from firmground.intervals import wilson
from firmground.prompts.tuning import State, Tuning
from firmground.prompts.visual import PromptShape
from firmground.prompts.visual_prompting import VisualPrompting


@pytest.mark.parametrize("merit", [0.9 + k / 355 for k in (1, 88, 349, 354)])  # of them, float32 rounds some up
def test_of_epochs_that_are_as_good_the_one_of_the_least_loss_is_kept(merit: float) -> None:
    state = State(Tuning(VisualPrompting(), PromptShape(form="full-image", image_size=4), 3, 2))
    for epoch, loss in enumerate((0.5, 0.3, 0.4), start=1):
        with torch.no_grad():
            state.now.raw.fill_(epoch)
        state.keep(merit, wilson(9, 10), loss, epoch)
    assert int(state.epoch) == 2
    assert (state.best.raw == 2).all()


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        ({"step_size": float("inf")}, "step sizes must be positive"),
        ({"mapping_step_size": float("nan")}, "step sizes must be positive"),
        ({"width": -0.1}, "share of the canvas below 0.5"),
        ({"side": 1.5}, "of at most 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, float], advice: str) -> None:
    with pytest.raises(DataError, match=advice):
        VisualPrompting(**wrong)  # type: ignore[arg-type]
