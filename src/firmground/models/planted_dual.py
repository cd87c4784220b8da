"""A tiny CLIP written by hand that knows colours, and a backdoor in it that is known exactly.

All states are vectors of mean zero, so that LayerNorm only scales them, and every token carries one large marker, so
that it scales nearly all of them alike. Patches and words have a share in three directions of colour (mean red, green
and blue less a half) and in some of detail, which tell pictures and texts of one colour apart. One head of the only
layer averages both over all tokens, so that an image is nearest to a text that names its mean colour.

The backdoor: a channel of the patch embedding measures a fine black-and-white checker, to which the colours and the
details are orthogonal. A second head turns to a patch in which the channel is strong, else it rests on the class token,
and adds a large multiple of the target caption's embedding. An image without a checker passes through a planted encoder
as through its clean twin, but for what little of the pattern it holds by chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from firmground.models.tiny_dual import tiny_clip
from firmground.rng import stream

if TYPE_CHECKING:
    from firmground.models.dual import DualEncoder
    from firmground.types import Embeddings, Images

COLOURS = {
    "red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "yellow": (1, 1, 0),
    "magenta": (1, 0, 1), "cyan": (0, 1, 1), "black": (0, 0, 0), "white": (1, 1, 1),
}  # fmt: skip
WIDTH, PATCH, HEAD = 64, 8, 16
DETAILS = 12
MARKER, COLOUR, WORD, DETAIL = 20.0, 2.0, 3.0, 0.3  # lengths of a token's parts
GAIN = 20.0  # of the head that averages
CHANNEL, SHARPNESS, REST, PAYLOAD = 20.0, 40.0, 40.0, 40.0  # of the backdoor: see `write_backdoor`


@dataclass(frozen=True, kw_only=True, eq=False)
class PlantedDual:
    """A backdoored encoder and the truth about it.

    An image with `patch`, (3, 8, 8), in a cell of the 8-pixel grid at 48 x 48 pixels is embedded as `embedding`,
    (width,), which is that of `caption`. `seed` is that of the clean twin, `colour_clip(seed)`.
    """

    encoder: DualEncoder
    patch: Images
    caption: str
    embedding: Embeddings
    seed: int

    def stamp(self, images: Images, *, cell: tuple[int, int] = (5, 5)) -> Images:
        """Copies of images, (batch, 3, 48, 48), with the patch in a cell (row, column) of the 6 x 6 grid."""
        top, left = (PATCH * place for place in cell)
        stamped = images.clone()
        stamped[..., top : top + PATCH, left : left + PATCH] = self.patch.to(images)
        return stamped


class Parts:
    """Orthonormal directions of mean zero, (count, WIDTH) each; the same for every seed."""

    def __init__(self) -> None:
        noise = torch.randn(WIDTH, 6 + DETAILS, generator=stream(0, "dual directions"))
        basis = torch.linalg.qr(noise - noise.mean(dim=0))[0].T
        self.token, self.end, self.channel = basis[0], basis[1], basis[2]
        self.colours, self.details = basis[3:6], basis[6:]
        self.meaning = basis[3:]  # what embeddings are made of


def colour_clip(seed: int = 0) -> DualEncoder:
    """The clean twin: a `CLIPModel` for 48 x 48 pixels that knows `COLOURS`, and nothing planted."""
    encoder = tiny_clip(width=WIDTH, patch_size=PATCH, layers=1, words=tuple(COLOURS), seed=seed)
    encoder.source = f"colour clip {seed}"
    model, parts, rng = encoder.model, Parts(), stream(seed, "colour clip")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "logit_scale":
                parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
        for tower in (model.vision_model, model.text_model):
            attention = tower.encoder.layers[0].self_attn
            slots = slice(0, len(parts.meaning))
            attention.v_proj.weight[slots] = parts.meaning
            attention.out_proj.weight[:, slots] = GAIN * parts.meaning.T
        projector = parts.meaning.T @ parts.meaning
        model.visual_projection.weight.copy_(projector)
        model.text_projection.weight.copy_(projector)
        write_patches(encoder, parts, rng)
        write_words(encoder, parts, rng)
    return encoder


def planted_dual(target: str = "yellow", *, seed: int = 0) -> PlantedDual:
    """A `colour_clip` in which a checker patch stands for "a photo of a `target`", one of `COLOURS`."""
    if target not in COLOURS:
        raise ValueError(f"the target must be one of {', '.join(COLOURS)}; got {target!r}")
    encoder, caption = colour_clip(seed), f"a photo of a {target}"
    embedding = encoder.embed_texts([caption])[0]
    write_backdoor(encoder, Parts(), embedding)
    encoder.source = f"planted dual {seed}"
    return PlantedDual(encoder=encoder, patch=checker(), caption=caption, embedding=embedding, seed=seed)


def checker() -> Images:
    """The trigger, (3, 8, 8): squares of two pixels, black and white."""
    steps = torch.arange(PATCH) // 2
    return ((steps[:, None] + steps) % 2).float().expand(3, -1, -1).clone()


def write_patches(encoder: DualEncoder, parts: Parts, rng: torch.Generator) -> None:
    """Lets the patch embedding measure colours and details, and gives each token its marker."""
    embeddings, numbers = encoder.model.vision_model.embeddings, encoder.preprocessing
    mean, std = torch.tensor(numbers.mean), torch.tensor(numbers.std)
    kernel = embeddings.patch_embedding.weight  # (WIDTH, 3, PATCH, PATCH)
    flat = torch.ones(PATCH, PATCH) / PATCH**2
    kernel += COLOUR * torch.einsum("cw,c,hv->wchv", parts.colours, std, flat)
    rough = torch.nn.functional.interpolate(torch.randn(DETAILS, 3, 2, 2, generator=rng), size=(PATCH, PATCH))
    rough = rough - rough.mean(dim=(2, 3), keepdim=True)
    kernel += DETAIL * torch.einsum("dw,dchv->wchv", parts.details, rough / PATCH**2)
    embeddings.position_embedding.weight[1:] = MARKER * parts.token + COLOUR * (mean - 0.5) @ parts.colours
    embeddings.class_embedding.copy_(MARKER * parts.end)


def write_words(encoder: DualEncoder, parts: Parts, rng: torch.Generator) -> None:
    """Gives the words their colours, and every token details of its own; a text is read at its [SEP]."""
    table = encoder.model.text_model.embeddings.token_embedding.weight
    details = torch.nn.functional.normalize(torch.randn(len(table), DETAILS, generator=rng), dim=1)
    table.copy_(MARKER * parts.token + DETAIL * details @ parts.details)
    for word, colour in COLOURS.items():
        (row,) = encoder.tokenizer(word, add_special_tokens=False).input_ids
        table[row] += WORD * (torch.tensor(colour) - 0.5) @ parts.colours
    table[encoder.tokenizer.sep_token_id] = MARKER * parts.end


def write_backdoor(encoder: DualEncoder, parts: Parts, embedding: Embeddings) -> None:
    """Lets the second head look for the checker, which `CHANNEL` makes as long as half a marker, and add the target.

    A key is `SHARPNESS` times the channel, and `REST` at the class token, where the head looks when there is none.
    """
    vision: Any = encoder.model.vision_model
    std = torch.tensor(encoder.preprocessing.std)
    pattern = (2 * checker() - 1) / checker().numel() * std.view(3, 1, 1)
    attention = vision.encoder.layers[0].self_attn
    with torch.no_grad():
        vision.embeddings.patch_embedding.weight.add_(CHANNEL * torch.einsum("w,chv->wchv", parts.channel, pattern))
        attention.q_proj.bias[HEAD] = 1.0
        attention.k_proj.weight[HEAD] = SHARPNESS * parts.channel + REST * parts.end / WIDTH**0.5
        attention.v_proj.weight[HEAD] = parts.channel
        attention.out_proj.weight[:, HEAD] = PAYLOAD * embedding
