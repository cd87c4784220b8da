"""Settings of a scan that make no sense are refused in one sentence, before anything runs."""

from __future__ import annotations

import dataclasses
import math

import pytest

from firmground.defenses.scans import PhraseSearch, ShiftDistance, VocabularySweep
from firmground.errors import DataError

SCANS = (VocabularySweep, PhraseSearch, ShiftDistance)


@pytest.mark.parametrize(
    ("scan", "setting"), [(scan, field.name) for scan in SCANS for field in dataclasses.fields(scan)]
)
def test_every_setting_needs_something_to_measure(scan, setting):
    least = {"words": -1, "threshold": math.nan, "rows": 1, "contexts": 0}.get(setting, 0)
    with pytest.raises(DataError, match=f"expected {setting} of .* or more, got"):
        scan(**{setting: least})


def test_single_tokens_only_is_no_mistake():
    assert VocabularySweep(words=0).words == 0
