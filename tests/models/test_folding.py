"""Folding leaves a classifier's function and its name, and takes its batch norms."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from firmground.models.classifiers import ImageClassifier
from firmground.models.folding import folded
from firmground.models.preprocessing import Preprocessing

SIZE = 12
PLAIN = Preprocessing(size=SIZE, resize=SIZE, mean=(0.5,) * 3, std=(0.5,) * 3)


class Net(nn.Module):
    """A convolution and its batch norm; a second one that is `shared`, used twice, or meets a ReLU first."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.first, self.first_norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.second, self.second_norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 5)
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(0)
            for value in [*self.parameters(), self.first_norm.running_mean, self.second_norm.running_mean]:
                value.uniform_(-1, 1)
            for norm in (self.first_norm, self.second_norm):
                norm.running_var.uniform_(0.5, 2)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        seen = self.first_norm(self.first(pixels)).relu()
        seen = self.second(seen)
        seen = self.second_norm(seen.relu() if self.how == "relu" else seen)
        if self.how == "shared":
            seen = self.second_norm(self.second(seen))
        return self.head(seen.mean(dim=(2, 3)))


@pytest.mark.parametrize(("how", "left"), [("plain", 0), ("relu", 1), ("shared", 1)])
def test_the_function_and_the_identity_stay(how, left):
    base = ImageClassifier.of_module(Net(how), 5, PLAIN)
    before = {name: value.clone() for name, value in base.module.state_dict().items()}
    quick = folded(base)
    canvas = torch.rand(3, 3, SIZE, SIZE, requires_grad=True)
    assert torch.allclose(quick.read(canvas), base.read(canvas), atol=1e-5)
    gradients = [torch.autograd.grad(model.read(canvas).square().sum(), canvas)[0] for model in (quick, base)]
    assert torch.allclose(*gradients, rtol=1e-3, atol=1e-5)
    assert sum(isinstance(part, nn.BatchNorm2d) for part in quick.module.modules()) == left
    assert quick.sha256 == base.sha256
    after = base.module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_without_batch_norms_it_is_the_same_object():
    base = ImageClassifier.of_module(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 2)), 2, PLAIN)
    assert folded(base) is base


def test_what_reads_a_convolution_beside_its_norm_is_not_folded():
    """Here the hidden second use of a convolution's output makes folding wrong, and the outputs show it."""

    class Leaky(Net):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            raw = self.first(pixels)
            return self.head((self.first_norm(raw) + 3 * raw).mean(dim=(2, 3)))

    base = ImageClassifier.of_module(Leaky("plain"), 5, PLAIN)
    assert folded(base) is base
