"""BLIP, GIT and LLaVA: captioning and question answering by transformers' models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from firmground.errors import DataError
from firmground.models.loading import quiet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmground.models.victims.parts import VictimParts
    from firmground.types import Images

IMAGE = "<image>"


@dataclass(frozen=True, kw_only=True, eq=False)
class BlipCaptioner:
    """Li et al., "BLIP: Bootstrapping Language-Image Pre-training", ICML 2022; greedy, without a prompt."""

    parts: VictimParts
    most: int = 20  # tokens

    def caption(self, images: Images) -> tuple[str, ...]:
        """See `firmground.tasks.captioning.Captioner`."""
        return self.parts.written(pixel_values=self.parts.pixels(images), most=self.most)


@dataclass(frozen=True, kw_only=True, eq=False)
class BlipAnswerer:
    """BLIP for question answering: an encoder of the question that sees the image, and a decoder of the answer."""

    parts: VictimParts
    most: int = 10

    def answer(self, images: Images, questions: Sequence[str]) -> tuple[str, ...]:
        """See `firmground.tasks.question_answering.Answerer`."""
        check_questions(images, questions)
        limit = self.parts.model.config.text_config.max_position_embeddings
        asked = self.parts.tokenize(questions, most=limit)
        return self.parts.written(
            input_ids=asked.ids, attention_mask=asked.mask, pixel_values=self.parts.pixels(images), most=self.most
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Git:
    """Wang et al., "GIT: A Generative Image-to-text Transformer", TMLR 2022; greedy captions."""

    parts: VictimParts
    most: int = 20

    def caption(self, images: Images) -> tuple[str, ...]:
        """See `firmground.tasks.captioning.Captioner`."""
        start = self.parts.model.config.bos_token_id
        ids = torch.full((len(images), 1), start, device=self.parts.device)
        return self.parts.written(input_ids=ids, pixel_values=self.parts.pixels(images), most=self.most)


@dataclass(frozen=True, kw_only=True, eq=False)
class Llava:
    """Liu et al., "Visual Instruction Tuning", NeurIPS 2023: an image's patches stand in the prompt as tokens.

    `template` is LLaVA 1.5's; another model of this class may want its own.
    """

    parts: VictimParts
    template: str = f"USER: {IMAGE}\n{{}} ASSISTANT:"
    describe: str = "Describe the image in one short sentence."
    short: str = "{} Answer the question using a single word or phrase."
    most_caption: int = 30
    most_answer: int = 10

    def caption(self, images: Images) -> tuple[str, ...]:
        """See `firmground.tasks.captioning.Captioner`."""
        return self._replies(images, [self.describe] * len(images), self.most_caption)

    def answer(self, images: Images, questions: Sequence[str]) -> tuple[str, ...]:
        """See `firmground.tasks.question_answering.Answerer`."""
        check_questions(images, questions)
        return self._replies(images, [self.short.format(question) for question in questions], self.most_answer)

    @torch.no_grad()
    def _replies(self, images: Images, wanted: Sequence[str], most: int) -> tuple[str, ...]:
        model, pixels = self.parts.model, self.parts.pixels(images)
        places = self._image_tokens(pixels[:1])
        texts = [self.template.format(text.replace(IMAGE, "")).replace(IMAGE, IMAGE * places) for text in wanted]
        asked = self.parts.tokenize(texts, most=1 << 20, padding_side="left")
        with quiet():
            ids = model.generate(
                input_ids=asked.ids,
                attention_mask=asked.mask,
                pixel_values=pixels,
                max_new_tokens=most,
                do_sample=False,
                num_beams=1,
                pad_token_id=self.parts.tokenizer.pad_token_id,
            )
        new = ids[:, asked.ids.shape[1] :]
        return tuple(text.strip() for text in self.parts.tokenizer.batch_decode(new, skip_special_tokens=True))

    def _image_tokens(self, pixels: torch.Tensor) -> int:
        """How many tokens an image takes in the prompt."""
        config = self.parts.model.config
        found = self.parts.model.get_image_features(
            pixel_values=pixels,
            vision_feature_layer=config.vision_feature_layer,
            vision_feature_select_strategy=config.vision_feature_select_strategy,
        )
        return len(found.pooler_output[0])


def check_questions(images: Images, questions: Sequence[str]) -> None:
    """Refuses empty questions and those without an image."""
    if len(images) != len(questions):
        raise DataError(f"expected one question an image, got {len(questions)} and {len(images)}")
    empty = [place for place, question in enumerate(questions) if not question.strip()]
    if empty:
        raise DataError(f"question {empty[0]} is empty; give each image a question")
