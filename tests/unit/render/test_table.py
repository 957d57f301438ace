"""The table of images: what is written is what is read."""

import csv
import io

import pytest

from kdcompress.render.table import table
from tests.sample_report import HOSTILE, rows

HEAD = "id,label,student_prediction,student_verdict,student_broken_by,student_stood_eps"


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.mark.parametrize("name", ["a,b.png", 'a"b.png', "a\r\nb.png", " a ", "=1+1", "犬.png", HOSTILE])
def test_ids_and_labels_come_back_exactly(name: str) -> None:
    first, second = read(table(rows(id=name, label=name)))
    assert (first["id"], first["label"], first["student_prediction"]) == (name, name, name)
    assert second["id"] == "test/dog/1.png"


def test_every_models_answers_have_their_columns_and_what_is_missing_is_empty() -> None:
    first, second = read(table(rows()))
    assert first["student_verdict"] == "broken" and first["student_broken_by"] == "apgd-ce"
    assert first["teacher_verdict"] == "stood" and first["teacher_broken_by"] == ""
    assert float(first["student_stood_eps"]) == 2 / 255
    assert second["student_stood_eps"] == ""


def test_lines_end_as_the_standard_says() -> None:
    text = table(rows())
    assert text.startswith(HEAD) and text.count("\r\n") == 3 == text.count("\n")


def test_a_model_that_saw_fewer_images_leaves_cells_empty() -> None:
    first, second = rows()
    alone = type(second)(id=second.id, label=second.label, models={"student": second.models["student"]})
    assert read(table((first, alone)))[1]["teacher_prediction"] == ""


def test_without_rows_there_is_a_header() -> None:
    assert table(()) == "id,label\r\n"
    assert table((), ["student"]) == f"{HEAD}\r\n"
