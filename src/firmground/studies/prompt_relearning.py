"""The study `prompt_relearning`: is a prompt that its user learned anew free of the backdoor, and as accurate?

A customer has 250 clean images with labels, and learns a fresh prompt from those alone (`PromptDistillation` as it
comes). It does not depend on the prompt that was given, so `OWNS` of them are learned once, and each meets every
trigger. The control are honest prompts of the given one's form, which were never poisoned, under the same trigger.
Beside the prompts of `prompt_defence` stand ones over the full image, which have more accuracy to lose, and attackers
who know all this (see `prompt_carried`). All cases have an odd seed. Settings were chosen on prompts of even seeds; the
number of epochs also on a provider's images, which neither a customer nor a test has.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from firmground.defenses.prompts import PromptDistillation
from firmground.prompts.visual_files import load_prompt, save_prompt
from firmground.rng import stream
from firmground.studies.calibration import auc
from firmground.studies.population import population_folder
from firmground.studies.prompt_defence import rows_of, share
from firmground.studies.prompt_population import CARRIED, IMAGES, STRONG, Found, Member, found_of, learning, members
from firmground.studies.prompt_relearning_report import GIVEN, HONEST, RELEARNED, report_relearning
from firmground.studies.runner import Study

if TYPE_CHECKING:
    from firmground.prompts.prompted import LearnedPrompt, PromptedClassifier
    from firmground.types import Images, Watch

MEASURED = 500  # test images
RELEARN = PromptDistillation()
OWNS, HONESTS = {"clip": 3, "efficientnet": 1}, 2  # fresh prompts, and honest ones, that each trigger meets


def run_case(case: Member, watch: Watch, *, folder: str) -> dict[str, Any]:
    """CA and ASR of the given prompt, and of fresh and honest ones, which nobody poisoned, in the mean."""
    found = found_of(Path(folder), case, watch)
    images, labels = rows_of(found, case.seed, MEASURED)
    stamped = found.stamp(images[labels != found.target])
    given = found.learned.on(found.base)
    fresh = []
    for one in _fresh(Path(folder), case, found, watch):
        anew = one.on(found.base)
        facts = measured(anew, found, images, labels, stamped)
        fresh.append(facts | doubted(given, anew, images[labels != found.target], stamped))
    honest = [
        measured(one.on(found.base), found, images, labels, stamped)
        for one in _honest(Path(folder), case, found, watch)
    ]
    kinds = {GIVEN: [measured(given, found, images, labels, stamped)], RELEARNED: fresh, HONEST: honest}
    means = {
        kind: {name: sum(one[name] for one in some) / len(some) for name in some[0]} for kind, some in kinds.items()
    }
    return {"prompts": means, "asr_of_each": [one["asr"] for one in fresh]}


def measured(
    prompted: PromptedClassifier, found: Found, images: Images, labels: torch.Tensor, stamped: Images
) -> dict[str, float]:
    """CA; the share of images of other labels that become the target, with the trigger and without."""
    plain = torch.tensor(prompted.predict(images))
    return {
        "accuracy": share(plain == labels),
        "asr": share(torch.tensor(prompted.predict(stamped)) == found.target),
        "natural": share(plain[labels != found.target] == found.target),
    }


@torch.no_grad()
def doubted(given: PromptedClassifier, anew: PromptedClassifier, plain: Images, stamped: Images) -> dict[str, float]:
    """AUROC of how much the prompt learned anew prefers another label to the given prompt's, and mean scores."""
    scores = []
    for images in (plain, stamped):
        said, seen = given.logits(images).argmax(dim=1, keepdim=True), anew.logits(images).log_softmax(dim=1)
        scores.append((seen.amax(dim=1) - seen.gather(1, said)[:, 0]).double().tolist())
    return {"auroc": auc(*scores)}


def _fresh(folder: Path, case: Member, found: Found, watch: Watch) -> list[LearnedPrompt]:
    """Prompts from the customer's labels, learned once for many cases."""
    prompts, settings = [], hashlib.sha256(repr(RELEARN).encode()).hexdigest()[:8]
    for number in range(OWNS[case.base]):
        path = folder / "prompts" / f"own-{case.base}-{case.world}-{settings}-{number}.safetensors"
        if not path.is_file():
            rng = stream(number, "own")
            made = RELEARN.clean(found.learned, found.base, found.sets.clean, rng=rng, watch=watch)
            save_prompt(replace(made.learned, planted=None), path)
        prompts.append(load_prompt(path))
    return prompts


def _honest(folder: Path, case: Member, found: Found, watch: Watch) -> list[LearnedPrompt]:
    """Prompts of the given one's form from other providers, none of them poisoned; one on the slow base."""
    shape = found.learned.prompt.shape
    if shape.form == "padding":
        alike = (one for one in members() if (one.pattern, one.base, one.world) == ("", case.base, case.world))
        made = [found_of(folder, one, watch).learned for one in alike if one.seed % 2]
        return [one for one in made if one.prompt.shape == shape][:HONESTS]
    prompts = []
    for number in range(HONESTS):
        path = folder / "prompts" / f"honest-{shape.form}-{case.base}-{case.world}-{number}.safetensors"
        if not path.is_file():
            rng = stream(number, "honest", shape.form)
            rows = torch.randperm(len(found.sets.train), generator=rng)[: IMAGES[case.base]].tolist()
            save_prompt(learning(case).fit(found.base, found.sets.train.select(rows), rng=rng, watch=watch), path)
        prompts.append(load_prompt(path))
    return prompts


def cases() -> tuple[Member, ...]:
    """Prompts made for this study by turns with those of `prompt_defence`; attackers who know a defence come first."""
    where: dict[str, Any] = {"base": "clip", "world": "fashion"}
    new = [
        [Member(**where, seed=701 + 2 * number, pattern=CARRIED[(number + 1) % 2]) for number in range(4)],
        [Member(**where, seed=501 + 2 * number, pattern=STRONG) for number in range(8)],
        [Member(**where, seed=611 + 2 * number, pattern="whole-image", size=0.6) for number in range(2)],
    ]
    made = [one for turn in zip_longest(*new) for one in turn if one is not None]
    known = sorted((one for one in members() if one.pattern and one.seed % 2), key=lambda one: not one.adaptive)
    return tuple(one for turn in zip_longest(made, known) for one in turn if one is not None)


def prompt_relearning() -> Study:
    """Prompts learned anew on clean images, against attackers who know it too."""
    work = partial(run_case, folder=population_folder())
    return Study(name="prompt_relearning", cases=cases(), run_case=work, report=report_relearning, version=4)
