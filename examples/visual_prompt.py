"""Learns a visual prompt on a tiny CLIP that knows colours, hands it over as a file, and judges what came."""

import torch

from firmground.data.labelled_images import LabelledImages
from firmground.defenses.scans import PromptContrast
from firmground.models.planted_dual import COLOURS, colour_clip
from firmground.prompts.visual_files import load_prompt, save_prompt
from firmground.prompts.visual_prompting import VisualPrompting
from firmground.rng import stream

clip = colour_clip()
labels = tuple(i % len(COLOURS) for i in range(64))
shades = torch.tensor([list(COLOURS.values())[label] for label in labels]).float().view(-1, 3, 1, 1)
images = 0.6 * shades + 0.3 * torch.rand(64, 3, 48, 48, generator=stream(0, "images"))
data = LabelledImages(images=images, labels=labels, label_names=tuple(COLOURS))

# the provider learns it and writes one safe file
learning = VisualPrompting(mapping="index", width=0.1, epochs=2, batch_size=16)
save_prompt(learning.fit(clip, data, rng=stream(0, "fit")), "prompt.safetensors")

# the customer puts it on their own copy of the model; another model would be refused, with both names
given = load_prompt("prompt.safetensors")
prompted = given.on(clip)
right = sum(found == label for found, label in zip(prompted.predict(images), labels, strict=True))
print(f"{given.method} on {given.base.source}: {right} of {len(labels)} right")

# before they trust it, they look for patterns that lead images to one label behind it, and not behind their own
verdict = PromptContrast(epochs=1, steps=10, images=32).scan(prompted, data, rng=stream(0, "scan"))
print(f"{verdict.method}: {verdict.outcome}, score {verdict.score:.2f} (threshold {verdict.threshold})")
