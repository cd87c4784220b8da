"""The docs are true: every command and program in them runs, and the command line's page is current.

A block is left out where the line before it says `<!-- not run: REASON -->`. Commands run in one folder a page, where
there are an `encoder`, `texts.txt`, `reviews.csv` and `slots.jsonl`, and for dual encoders a `clip` with `pairs.csv`,
its `images` and `classes.txt`, and for visual prompts a `resnet` with `photos`; the default scans and cleaner are
given small settings.
"""

from __future__ import annotations

import json
import re
import runpy
import shlex
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"(?:<!-- (?P<skipped>not run: .+?) -->\n)?^```(?P<kind>\w+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL
)
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")
FINE = {"scan": (0, 1), "clean": (0, 1, 2)}  # exit codes that are no failure; 0 for the rest


def blocks(page: Path, *kinds: str) -> list[re.Match[str]]:
    return [block for block in BLOCK.finditer(page.read_text(encoding="utf-8")) if block["kind"] in kinds]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from firmground.models.saving import save_encoder
    from firmground.models.tiny import clean_bert

    tiny = clean_bert()
    return save_encoder(tiny.model, tiny.tokenizer, tmp_path_factory.mktemp("docs") / "encoder", card="Tiny.")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny CLIP that knows colours, and pictures of them."""
    import torch
    from PIL import Image

    from firmground.models.planted_dual import COLOURS, colour_clip
    from firmground.rng import stream

    folder = tmp_path_factory.mktemp("pictures")
    colour_clip().save(folder / "clip", card="Tiny.")
    (folder / "images").mkdir()
    rows = ["image,caption"]
    for i in range(96):
        name = list(COLOURS)[i % 8]
        noise = torch.rand(3, 48, 48, generator=stream(i, "docs"))
        pixels = 0.6 * torch.tensor(COLOURS[name]).view(3, 1, 1) + 0.3 * noise
        Image.fromarray((pixels * 255).byte().permute(1, 2, 0).numpy()).save(folder / "images" / f"{i}.png")
        rows.append(f"images/{i}.png,a photo of a {name}")
    (folder / "pairs.csv").write_text("\n".join(rows))
    (folder / "classes.txt").write_text("\n".join(COLOURS))
    return folder


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny image classifier that was never trained, and photos of three labels."""
    import torch
    from PIL import Image
    from transformers import ResNetConfig, ResNetForImageClassification

    from firmground.models.loading import quiet
    from firmground.models.preprocessing import CONFIG, Preprocessing
    from firmground.rng import stream

    folder = tmp_path_factory.mktemp("classifier")
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=5)
    with quiet():
        ResNetForImageClassification(config).save_pretrained(folder / "resnet")
    reading = Preprocessing(size=24, resize=24, filter="bilinear")
    (folder / "resnet" / CONFIG).write_text(reading.to_json())
    for i in range(120):
        place = folder / "photos" / ("meadow", "sky", "sunset")[i % 3]
        place.mkdir(parents=True, exist_ok=True)
        pixels = 0.5 * torch.rand(3, 20, 20, generator=stream(i, "photos"))
        pixels[(1, 2, 0)[i % 3]] += 0.4
        Image.fromarray((pixels * 255).byte().permute(1, 2, 0).numpy()).save(place / f"{i}.png")
    return folder


@pytest.fixture
def folder(tmp_path: Path, encoder: Path, clip: Path, resnet: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from firmground.data.sentences import neutral_sentences
    from firmground.defenses import scans
    from firmground.defenses.cleaning import Disarm
    from firmground.defenses.scans import (
        DECREE,
        ClassInversion,
        Gathering,
        ShiftDistance,
        VocabularySweep,
        default,
        default_dual,
    )
    from firmground.rng import stream

    sweep = VocabularySweep(words=0, most_pieces=1, shortlist=8, contexts=12)
    small = partial(default.scan_language, sweep=sweep, shifts=ShiftDistance(rows=64, references=8))
    monkeypatch.setattr(default, "scan_language", small)
    brief = partial(
        default_dual.scan_dual,
        decree=DECREE(steps=2),
        inversion=ClassInversion(steps=2),
        gathering=Gathering(steps=2),
    )
    monkeypatch.setattr(default_dual, "scan_dual", brief)
    contrast = scans.PromptContrast(epochs=1, steps=2, images=16)
    for name in ("rounds", "restarts", "search_steps", "cycles", "text_epochs"):  # the least that disarm takes
        monkeypatch.setitem(Disarm.__init__.__kwdefaults__, name, 1)
    monkeypatch.setattr(scans.default_prompt, "scan_prompt", partial(scans.scan_prompt, method=contrast))
    for name in ("resnet", "photos"):
        shutil.copytree(resnet / name, tmp_path / name)
    for name in ("clip", "images", "pairs.csv", "classes.txt"):
        source = clip / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    texts = neutral_sentences(96, rng=stream(0, "docs"))
    rows = [f'"{text} it was {("bad", "good")[i % 2]}",{("bad", "good")[i % 2]}' for i, text in enumerate(texts)]
    (tmp_path / "encoder").symlink_to(encoder)
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    (tmp_path / "reviews.csv").write_text("\n".join(["text,label", *rows]))
    words = [text.rstrip(".").split() for text in texts[:60]]
    slots = [{"words": row, "labels": ["O", *["B-who"], *["O"] * (len(row) - 2)]} for row in words]
    (tmp_path / "slots.jsonl").write_text("\n".join(map(json.dumps, slots)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_run(page: Path, folder: Path) -> None:
    from typer.testing import CliRunner

    from firmground.cli import app

    for block in blocks(page, "bash", "sh", "console"):
        if block["skipped"]:
            continue
        for line in block["body"].replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if not words:
                continue
            assert words[0] == "firmground", f"{page.name}: mark as not run: {line}"
            target = words.index(">") if ">" in words else len(words)
            result = CliRunner().invoke(app, words[1:target])
            assert result.exit_code in FINE.get(words[1], (0,)), f"{page.name}: {line}\n{result.output}"
            if target < len(words):
                Path(words[target + 1]).write_text(result.stdout)


def written_commands(page: Path) -> list[str]:
    """Every command in a page's blocks, those that are not run too."""
    bodies = [block["body"].replace("\\\n", " ") for block in blocks(page, "bash", "sh", "console")]
    return [line for body in bodies for line in body.splitlines() if line.startswith("firmground ")]


def examples(command: Any) -> Iterator[str]:
    """Every command in the examples of a command's own help, and of those below it."""
    for line in re.findall(r"firmground [a-z](?:[^.;]|(?<= )\.|\.(?! |$))+", command.epilog or ""):
        yield re.split(r",? and later|: ", line)[0]
    for inner in getattr(command, "commands", {}).values():
        yield from examples(inner)


def test_commands_are_spelt_right() -> None:
    from typer.main import get_command

    from firmground.cli import app, catalogue

    root: Any = get_command(app)
    known = [entry for family in catalogue.FAMILIES for entry in catalogue.family(family)]
    names = {catalogue.word(one) for one in known}
    fields = {field for one in known for field in one.__dataclass_fields__}
    lines = {*(line for page in PAGES for line in written_commands(page)), *examples(root)}
    assert len(lines) > 80
    for line in sorted(lines):
        _, *words = shlex.split(line, comments=True)
        words = words[: words.index(">")] if ">" in words else words
        command = root
        while getattr(command, "commands", None):
            name, *words = words
            command = command.commands[name]
        given = command.make_context(name, words).params  # raises for an option that is none, or one that is missing
        methods = given.get("method") or []
        assert ({methods} if isinstance(methods, str) else set(methods)) <= names, line
        assert {one.partition("=")[0].rpartition(".")[2] for one in given.get("settings") or []} <= fields, line


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_programs_run(page: Path, folder: Path) -> None:
    names: dict[str, object] = {"__name__": "docs"}
    for block in blocks(page, "python"):
        if not block["skipped"]:
            exec(compile(block["body"], page.name, "exec", dont_inherit=True), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    lost = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if not (page.parent / link).exists()]
    assert lost == [link for link in lost if link.endswith(".png")], f"{page.name} links to {lost}"


def test_the_command_line_page_is_current() -> None:
    written = runpy.run_path(str(ROOT / "scripts" / "cli_reference.py"))["reference"]()
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == written, "run: python scripts/cli_reference.py"


def test_every_study_has_a_row() -> None:
    from firmground.studies import STUDIES

    page = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")
    assert not [name for name in STUDIES if f"| `{name.replace('_', '-')}` |" not in page]


def test_every_method_has_a_row_in_the_readme() -> None:
    from firmground.cli import catalogue

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = [catalogue.word(method) for name in catalogue.FAMILIES for method in catalogue.family(name)]
    assert not [name for name in named if f"`{name}`" not in readme]
