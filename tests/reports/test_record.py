import hashlib

import pytest

from firmground.errors import DataError, OutputError
from firmground.reports import record as records
from firmground.reports.html import html
from firmground.reports.pages import scan_page
from firmground.reports.record import Record
from firmground.reports.scan import unlike
from firmground.reports.writing import check_file, check_folder, write_atomically
from firmground.versions import versions


@pytest.fixture
def record(report) -> Record:
    return Record(
        verb="scan",
        arguments={"source": "models/odd [name]", "seed": 3},
        seed=3,
        methods={"sweep": {"words": 10}},
        versions=versions(),
        platform=records.platform_name(),
        target=report.target,
        data={"texts.txt": "00" * 32},
        results=report.model_dump(mode="json"),
        outcome=report.outcome,
        exit_code=1,
        started=records.now(),
        finished=records.now(),
    )


def test_round_trip(record, tmp_path):
    record.write(tmp_path / "record.json")
    assert Record.read(tmp_path / "record.json") == record
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_html_report_holds_the_record(record, report, tmp_path):
    (tmp_path / "report.html").write_text(html(scan_page(report, record)))
    assert Record.read(tmp_path / "report.html") == record


def test_versions_name_what_a_result_depends_on():
    assert {"python", "torch", "transformers", "peft", "firmground"} <= versions().keys()
    assert "absent" not in versions().values()


def test_file_hash(tmp_path):
    (tmp_path / "texts.txt").write_bytes(b"a\nb\n")
    assert records.file_sha256(tmp_path / "texts.txt") == hashlib.sha256(b"a\nb\n").hexdigest()


def test_no_record_is_refused(tmp_path):
    (tmp_path / "record.json").write_text('{"schema": "firmground/record/1"}')
    with pytest.raises(DataError, match="not a record"):
        Record.read(tmp_path / "record.json")
    with pytest.raises(DataError, match="cannot read"):
        Record.read(tmp_path / "absent.json")


def test_unlike_scans_name_outcomes_and_scores(report):
    assert unlike(report, report, exact=True) == ()
    first = report.findings[0].model_copy(update={"score": 2.6})
    moved = report.model_copy(update={"findings": (first, report.findings[1])})
    assert len(unlike(report, moved, exact=True)) == 1
    assert "2.5" in unlike(report, moved, exact=True)[0]
    assert unlike(report, moved, exact=False) == ()
    alone = report.model_copy(update={"findings": report.findings[:1], "outcome": "clean"})
    assert len(unlike(report, alone, exact=True)) == 2


def test_writing_keeps_the_old_file_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "out.json"
    write_atomically(path, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.json"]


def test_unwritable_places_are_found_before_the_run(tmp_path):
    check_file(tmp_path / "new.html")
    check_folder(tmp_path / "new" / "deeper")
    (tmp_path / "file").write_text("x")
    for wrong in (tmp_path, tmp_path / "absent" / "out.html", tmp_path / "file" / "out.html"):
        with pytest.raises(OutputError):
            check_file(wrong)
    for wrong in (tmp_path, tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(OutputError):
            check_folder(wrong)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
