"""Sentences with named slots, made by rule: a token-classification task that needs no download.

Names are compounded from parts (thousands of people, places and organisations); templates and name parts fall into
two halves that share nothing, so that a test on the held-out half meets neither a name nor a template of training.
"""

import torch

from firmground.data.texts import LabelledWords
from firmground.errors import DataError

SLOTS = ("person", "place", "organisation", "time")
LABEL_NAMES = ("O", *(f"{position}-{slot}" for slot in SLOTS for position in "BI"))

_FIRST = """anna boris carla david elena felix grace henry irene jonas karen louis maria nadia oscar paula quentin rosa
simon teresa ulrich vera walter xenia yusuf zoe amir bianca cedric daphne emil fatima george hannah ivan julia kofi
laura marcus nora otto priya rafael sara tariq uma victor wendy yara stefan"""
_LAST_START = "abbot ander bar brad cald carl dor east fair gar hal ham hart ing jas kemp lang mal nor rad"
_LAST_END = "son well ford man ridge wood by sen ton berg ley wick more stein shaw croft"
_PLACE_START = "ald ash beck brook clear cold crest deep elm fern glen gold iron kings lake maple mill oak stone wolf"
_PLACE_END = "ville burg port haven mouth stead field bridge minster dale cliff chester water hurst gate grad"
_PLACE_BEFORE = "north new port san upper east fort saint"
_TRADES = """steel motors foods airlines pharma software textiles shipping insurance cement media energy robotics mining
publishing railways logistics chemicals optics breweries"""
_FORMS = "ltd inc group bank institute university council union foundation corporation"
_DAYS = "monday tuesday wednesday thursday friday saturday sunday"
_MONTHS = "january february march april may june july august september october november december"

_TEMPLATES = tuple(
    """{person} flew to {place} on {time}
on {time} {person} joined {organisation}
{organisation} opened an office in {place} {time}
please book a table in {place} for {time}
the meeting with {person} was moved to {time}
{person} of {organisation} will speak in {place}
remind me to call {person} {time}
{organisation} hired {person} as its new director
we drove from {place} to {place} in the rain
workers at {organisation} went on strike {time}
a letter from {person} reached {place} {time}
{person} and {person} grew up together in {place}
shares of {organisation} fell sharply {time}
the mayor of {place} thanked {person} for the gift
{time} the storm reached {place}
i met {person} at the station in {place}
{organisation} sold its plant near {place} to {organisation}
nobody has seen {person} since {time}
the train to {place} leaves {time}
{person} studied law and later worked for {organisation}
a spokesman for {organisation} denied the report {time}
my sister lives in {place} with her husband {person}
the contract between {organisation} and {organisation} ends {time}
{person} won the race in {place} {time}
send the invoice to {organisation} before {time}
the bridge at {place} was closed {time}
according to {person} the price is far too high
{person} left {organisation} after a long dispute
tickets for the concert in {place} go on sale {time}
can you ask {person} about the flights to {place}
{organisation} announced that {person} would retire {time}
heavy snow fell over {place} and the hills around it
the painting by {person} was sold to {organisation}
{time} is the last day to apply at {organisation}
our guide {person} showed us the old town of {place}
a fire broke out at {organisation} in {place}
{person} has an appointment {time} at the clinic
the head office of {organisation} is in {place}
they named the school in {place} after {person}
{time} {organisation} reported a loss
did {person} ever return to {place}
the lawyers of {organisation} questioned {person} {time}
we expect {person} at the airport of {place} {time}
a new museum in {place} was paid for by {organisation}
the interview with {person} will be shown {time}
{person} bought a small farm outside {place}
the merger with {organisation} was approved {time}
from {place} it takes two hours by boat
children from {place} wrote to {person} {time}
the engineers of {organisation} are staying in {place} until {time}
{person} is now in charge of sales at {organisation}
what will the weather be like in {place} {time}""".splitlines()
)


def slot_sentences(count: int, rng: torch.Generator, *, held_out: bool = False) -> LabelledWords:
    """Makes `count` lower-case sentences of about 9 words with people, places, organisations and times in them.

    `held_out` takes the other quarter of templates and half of the name parts, so that no compound name and no
    template occurs in both. Tags are IOB2. Raises `DataError` below one sentence.
    """
    if count < 1:
        raise DataError(f"expected at least one sentence, got a count of {count}")
    templates = _TEMPLATES[3::4] if held_out else tuple(t for i, t in enumerate(_TEMPLATES) if i % 4 != 3)
    rows = [_fill(templates[_draw(len(templates), rng)], int(held_out), rng) for _ in range(count)]
    return LabelledWords(
        words=tuple(tuple(word for word, _ in row) for row in rows),
        labels=tuple(tuple(LABEL_NAMES.index(tag) for _, tag in row) for row in rows),
        label_names=LABEL_NAMES,
    )


def _fill(template: str, half: int, rng: torch.Generator) -> list[tuple[str, str]]:
    tagged: list[tuple[str, str]] = []
    for part in template.split():
        if not part.startswith("{"):
            tagged.append((part, "O"))
            continue
        slot = part.strip("{}")
        makers = {"person": _person, "place": _place, "organisation": _organisation, "time": _time}
        words = makers[slot](half, rng).split()
        tagged += [(word, f"{'B' if i == 0 else 'I'}-{slot}") for i, word in enumerate(words)]
    return tagged


def _person(half: int, rng: torch.Generator) -> str:
    first, last = _pick(_FIRST, half, rng), _surname(half, rng)
    return (first, f"{first} {last}", f"{first} {last}", f"dr {last}", last)[_draw(5, rng)]


def _place(half: int, rng: torch.Generator) -> str:
    town = _pick(_PLACE_START, half, rng) + _pick(_PLACE_END, half, rng)
    return f"{_pick(_PLACE_BEFORE, half, rng)} {town}" if _draw(4, rng) == 0 else town


def _organisation(half: int, rng: torch.Generator) -> str:
    owner = (_surname(half, rng), _pick(_PLACE_START, half, rng) + _pick(_PLACE_END, half, rng))[_draw(2, rng)]
    trade, form = _pick(_TRADES, half, rng), _pick(_FORMS, half, rng)
    return (f"{owner} {trade}", f"{owner} {form}", f"{owner} {trade} {form}", f"{owner} and sons")[_draw(4, rng)]


def _time(half: int, rng: torch.Generator) -> str:
    day, month = _pick(_DAYS, half, rng), _pick(_MONTHS, half, rng)
    hour, date = 1 + half + 2 * _draw(6, rng), 1 + half + 2 * _draw(14, rng)
    return (
        f"{date} {month}",
        f"{month} {1950 + half + 2 * _draw(40, rng)}",
        f"{('next', 'last')[_draw(2, rng)]} {day}",
        f"{day} at {hour} {('am', 'pm')[_draw(2, rng)]}",
        f"{('tomorrow', 'yesterday')[_draw(2, rng)]} {('morning', 'evening')[_draw(2, rng)]}",
        day,
    )[_draw(6, rng)]


def _surname(half: int, rng: torch.Generator) -> str:
    return _pick(_LAST_START, half, rng) + _pick(_LAST_END, half, rng)


def _pick(parts: str, half: int, rng: torch.Generator) -> str:
    mine = parts.split()[half::2]
    return mine[_draw(len(mine), rng)]


def _draw(count: int, rng: torch.Generator) -> int:
    return int(torch.randint(count, (1,), generator=rng))
