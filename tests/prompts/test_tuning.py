"""What a run of prompt learning remembers of its best epoch."""

import pytest
import torch

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
