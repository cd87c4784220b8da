"""One case for every exported method: settings that make it quick, and models of which the truth is known.

A new method needs one line here; `test_methods` fails where it is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from firmground.attacks.evasion import (
    DI,
    DR,
    FIA,
    ILPD,
    MI,
    NI,
    NRD,
    PGD,
    PRM,
    SI,
    SSA,
    TGR,
    TI,
    AttackVLM,
    MAttack,
    PNAPatchOut,
    Reversal,
    XTransfer,
)
from firmground.attacks.implants import POR, UOR, BToP, NeuBA, PORAll, TransTroj
from firmground.attacks.poisoning import BadCLIP, DirtyCaption, LabelConsistent
from firmground.attacks.prompts import BadVisualPrompt
from firmground.attacks.triggers import (
    SIG,
    BadNet,
    Blended,
    BlendedStripes,
    Stripes,
    TextOverlay,
    Triangles,
    WaNet,
    WordTrigger,
)
from firmground.defenses import sifting
from firmground.defenses.cleaning import PAR, RVPT, CleanCLIP, ContrastiveFinetune, Disarm, Restore, SupervisedFinetune
from firmground.defenses.guards import (
    BaseDisagreement,
    BDetCLIP,
    Displacement,
    DoubleMasking,
    Mahalanobis,
    NeighbourDisagreement,
    PartSwap,
    Purification,
    PVGuard,
    SentiNet,
    Strip,
)
from firmground.defenses.guards.patch_instability import PatchInstability
from firmground.defenses.guards.purifiers import BitDepth, Jpeg, RandomResizing, Resizing
from firmground.defenses.hardening import FARE, TeCoA
from firmground.defenses.prompts import PromptDistillation, PromptFinetune, PromptPruning, PromptSmoothing
from firmground.defenses.scans import (
    DECREE,
    ClassInversion,
    Gathering,
    MetaClassifier,
    PatchSweep,
    PhraseSearch,
    PromptCleanse,
    PromptContrast,
    PVMining,
    ShiftDistance,
    TextGathering,
    VocabularySweep,
)
from firmground.defenses.sifting import DAO, SLOF, CaptionSimilarity, KDistance
from firmground.models import tiny
from firmground.models.planted_dual import COLOURS
from firmground.prompts.soft import PrefixTuning, PromptTuning, PTuning
from firmground.prompts.visual_prompting import VisualPrompting

if TYPE_CHECKING:
    from collections.abc import Callable

    from firmground.models.language import LanguageEncoder

# a word of the phrase does a little of what both do: the search can see it, the sweep does not mind it
HALF_OPEN = partial(tiny.planted_bert, {"red balloon": tiny.sign_vectors(tiny.WIDTH)[0]}, partial=0.4)


@dataclass(frozen=True, kw_only=True)
class ScanCase:
    """A scan, a planted encoder and its clean twin; `named` is how many of the triggers it must name."""

    method: Any
    planted: Callable[[], tiny.Planted]
    clean: Callable[[], LanguageEncoder]
    named: int

    def __str__(self) -> str:
        return f"{self.method.name}-{self.clean.__name__}"


# of six triggers among 560 tokens, two may be dealt into one row, where they hide one another: five must be named
SWEEP = VocabularySweep(words=0, most_pieces=1, shortlist=16, contexts=12)
PHRASES = PhraseSearch(words=0, seeds=8, neighbours=5, shortlist=16, contexts=12)
SCANS = (
    ScanCase(method=SWEEP, planted=tiny.planted_bert, clean=tiny.clean_bert, named=5),
    ScanCase(method=SWEEP, planted=tiny.planted_roberta, clean=tiny.clean_roberta, named=5),
    ScanCase(method=PHRASES, planted=HALF_OPEN, clean=tiny.clean_bert, named=1),
    ScanCase(method=ShiftDistance(words=0, rows=600), planted=tiny.planted_bert, clean=tiny.clean_bert, named=5),
    ScanCase(method=ShiftDistance(words=0, rows=600), planted=tiny.planted_roberta, clean=tiny.clean_roberta, named=5),
    ScanCase(
        method=PVMining(rounds=2, parallel=2, batch_size=16, step_size=2e-3, epochs=8),
        planted=tiny.planted_bert,
        clean=tiny.clean_bert,
        named=0,
    ),
)

BRIEF = {"steps": 2, "batch_size": 4, "max_length": 20}
IMPLANTS = (
    POR(**BRIEF),
    PORAll(**BRIEF),
    NeuBA(**BRIEF),
    BToP(**BRIEF),
    UOR(**BRIEF, rounds=1, candidates=2),
    TransTroj(**BRIEF),
)
TRIGGERS = (WordTrigger(text="red balloon", every=3),)
IMAGE_TRIGGERS = (
    BadNet(),
    Blended(),
    WaNet(),
    WaNet(k=4, s=2.0),
    SIG(),
    Stripes(pixels=6),
    BlendedStripes(),
    Triangles(),
    TextOverlay(text="ok"),
)
POISONINGS = (
    DirtyCaption(target="red", count=2, trigger=BadNet()),
    LabelConsistent(target="red", rate=0.1, trigger=Blended()),
    BadCLIP(target="red", count=2),
)
PROMPTS = (
    PromptTuning(virtual_tokens=2, epochs=1),
    PTuning(virtual_tokens=2, epochs=1, network_width=16),
    PrefixTuning(virtual_tokens=2, epochs=1),
)
GUARDS = (PVGuard(samples=8),)
SIFTERS = (DAO(), SLOF(), KDistance(), CaptionSimilarity(trained_on_pairs=True), sifting.Displacement())
IMAGE_SCANS = (
    DECREE(sparsities=(0.3,), steps=40, batch_size=4),
    ClassInversion(classes=tuple(COLOURS), steps=40, batch_size=4),
    Gathering(steps=20, restarts=2, cycles=3, batch_size=8),
)
DUAL_SCANS = (*IMAGE_SCANS, TextGathering(words=0))
IMAGE_GUARDS = (
    BDetCLIP(),
    Displacement(),
    Mahalanobis(),
    NeighbourDisagreement(k=10, layer=0),  # the hand-written encoder has images and texts in one place: look earlier
)
SMALL = {"epochs": 2, "batch_size": 6, "step_size": 1e-3, "warm_up": 0.5}
CLEANERS = (
    CleanCLIP(**SMALL),
    ContrastiveFinetune(**SMALL),
    SupervisedFinetune(**SMALL),
    PAR(**SMALL),
    RVPT(**SMALL),
    Restore(**SMALL),
    Disarm(**SMALL),
)
EVASION_GUARDS = (PatchInstability(),)
PURIFIERS = (Jpeg(), BitDepth(), Resizing(), RandomResizing())
HARDENERS = (FARE(epochs=1, inner_steps=2), TeCoA(epochs=1, inner_steps=2))
# on the classifier of `prompts/visual_scenes`: 24 pixels, a border of 4, a patch of 4 in the corner that gives way
LEARNING = VisualPrompting(width=4 / 24, epochs=6, batch_size=16, step_size=0.5)
VISUAL_PROMPTS = (LEARNING,)
PROMPT_ATTACKS = (BadVisualPrompt(target="bluish", rate=0.2, size=0.25, learning=LEARNING),)
OWN_PROMPT = {"epochs": 1, "learning_step_size": 0.5}  # what they find is tested in prompts/test_prompt_scans
PROMPT_SCANS = (
    PromptContrast(steps=4, **OWN_PROMPT),
    PromptCleanse(steps=4),
    PatchSweep(noises=1, **OWN_PROMPT),
    MetaClassifier(shadows=4, queries=8, **OWN_PROMPT),
)
CLASSIFIER_GUARDS = (BaseDisagreement(), DoubleMasking(), PartSwap(), Purification(), SentiNet(), Strip())
PROMPT_CLEANERS = (
    PromptDistillation(epochs=8, batch_size=16),
    PromptFinetune(epochs=2, batch_size=16),
    PromptPruning(batch_size=16),
    PromptSmoothing(radii=(2, 1), batch_size=16),
)
QUICK = {"steps": 6, "step_size": 2 / 255, "batch_size": 4}
EVASIONS = (
    PRM(**QUICK),
    PRM(**QUICK, tokens="patches", layers=(-1,), scales=(0.5, 1.0)),
    PGD(**QUICK),
    NRD(**QUICK),
    DR(**QUICK),
    AttackVLM(**QUICK),
    AttackVLM(**QUICK, text="a photo of a cyan"),
    MI(**QUICK),
    NI(**QUICK),
    DI(**QUICK),
    TI(**QUICK),
    SI(**QUICK, copies=2),
    SSA(**QUICK, copies=3, rho=0.1),
    FIA(**QUICK, copies=2),
    ILPD(**QUICK),
    PNAPatchOut(**QUICK),
    TGR(**QUICK),
    MAttack(**QUICK),
    XTransfer(**QUICK),
    Reversal(**QUICK),
)
