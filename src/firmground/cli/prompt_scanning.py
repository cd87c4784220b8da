"""What the scan of a visual prompt needs: the prompt on its base, and clean labelled images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firmground.cli.bases import labelled_images, prompt_on
from firmground.cli.prompt_pictures import images_section, shown_prompt
from firmground.cli.subjects import Subject
from firmground.errors import UsageError
from firmground.reports.findings import Target
from firmground.reports.html import PicturesSection
from firmground.reports.prompt_scans import KIND
from firmground.reports.record import file_sha256

if TYPE_CHECKING:
    import torch

    from firmground.cli.scanning import ScanOptions
    from firmground.data.labelled_images import LabelledImages
    from firmground.prompts.prompted import PromptedClassifier
    from firmground.reports.html import Section
    from firmground.types import Watch


def prompt_subject(options: ScanOptions, device: torch.device, watch: Watch) -> Subject:
    """Puts the prompt on its base. Raises `FirmgroundError` where it does not fit, `UsageError` without images."""
    from firmground.defenses.scans import default_prompt

    ours = prompt_on(options.source, options.model, revision=options.revision, device=device)
    if options.images is None:
        raise UsageError(f"scanning a visual prompt needs clean images of its labels ("
                         f"{', '.join(ours.learned.label_names)}); give a few with --data")  # fmt: skip
    given = labelled_images(
        options.images,
        image_size=ours.learned.base.image_size,
        watch=watch,
        classes=options.classes,
        names=ours.learned.label_names,
    )
    return Subject(
        kind=KIND,
        encoder=ours.classifier,
        clean=given.data,
        default=default_prompt.scan_prompt,
        target=Target(
            source=options.source,
            revision=options.revision,
            base=options.model,
            weights_sha256=file_sha256(options.source),
        ),
        shown=shown_sections(ours.classifier, given.data),
    )


def shown_sections(classifier: PromptedClassifier, data: LabelledImages) -> tuple[Section, ...]:
    """The prompt, and images before and behind it; a scan knows no trigger but those that it recovers."""
    return (
        PicturesSection(heading="The prompt", pictures=(shown_prompt(classifier.prompt),), crisp=True),
        images_section(classifier, data),
    )
