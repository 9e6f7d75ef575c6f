from __future__ import annotations

from pathlib import Path

import pytest

from tailrace.errors import UseCaseError
from tailrace.usecase.load import load_trainer, load_use_case, use_case_names

MODULE = """
import tailrace as tr

class Click(tr.Event):
    click_id: str
    user_id: str
    at_ms: int

class Purchase(tr.Event):
    click_id: str
    bought: bool
    at_ms: int

clicks = tr.Topic("clicks", Click, key="user_id", event_time="at_ms")
purchases = tr.Topic("purchases", Purchase, key="click_id", event_time="at_ms")
usecase = tr.UseCase(
    name="{name}",
    requests=clicks,
    prediction_id="click_id",
    features=[tr.HourOfDay()],
    label=tr.Label(purchases, on="click_id", value="bought", matures_after="1d"),
    model=tr.Binary(threshold={threshold}),
)
"""


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "usecase.py").write_text(text)
    return folder


def finding(folder: Path, name: str) -> str:
    with pytest.raises(UseCaseError) as caught:
        load_use_case(folder, name)
    (only,) = caught.value.findings
    return only


def test_only_folders_with_a_use_case_are_named(tmp_path: Path) -> None:
    write(tmp_path, "shop", "")
    write(tmp_path, "ads", "")
    write(tmp_path, ".hidden", "")
    (tmp_path / "data").mkdir()
    assert use_case_names(tmp_path) == ["ads", "shop"]


def test_two_folders_with_use_cases_of_one_name_do_not_clash(tmp_path: Path) -> None:
    ours = write(tmp_path / "ours", "shop", MODULE.format(name="shop", threshold=0.1))
    theirs = write(tmp_path / "theirs", "shop", MODULE.format(name="shop", threshold=0.9))
    assert [load_use_case(folder, "shop").plan.threshold for folder in (ours, theirs)] == [0.1, 0.9]


def test_deferred_annotations_are_understood(tmp_path: Path) -> None:
    folder = write(tmp_path, "shop", "from __future__ import annotations" + MODULE.format(name="shop", threshold=0.5))
    assert load_use_case(folder, "shop").plan.entities == ("user_id",)


def test_a_missing_use_case_is_answered_with_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, "shop", MODULE.format(name="shop", threshold=0.5))
    assert "did you mean 'shop'?" in finding(tmp_path, "shpo")


def test_an_empty_folder_says_so(tmp_path: Path) -> None:
    assert finding(tmp_path, "shop").endswith("there are none")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("import tailrace as tr\nx = (", "usecase.py:2: '(' was never closed"),
        ("import tailrace as tr\nx = tr.Cuont()", "'Cuont'; did you mean 'Count'?"),
        ("import tailrace as tr\n\nx = tr.Field(nam='x')", "usecase.py:3: TypeError"),
        ("import no_such_module_anywhere", "usecase.py:1: ModuleNotFoundError"),
        ("x = 1", "must declare exactly one tr.UseCase, it declares none"),
        (MODULE.format(name="shops", threshold=0.5), "name: 'shops' differs from the folder"),
        (
            MODULE.format(name="shop", threshold=0.5)
            + MODULE.format(name="second", threshold=0.5).replace("usecase =", "another ="),
            "it declares 'shop', 'second'",
        ),
    ],
)
def test_a_module_that_declares_no_use_case_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    assert sentence in finding(write(tmp_path, "shop", text), "shop")


def test_findings_of_the_declaration_come_through_unchanged(tmp_path: Path) -> None:
    folder = write(tmp_path, "shop", MODULE.format(name="shop", threshold=2))
    assert finding(folder, "shop") == "model.threshold: 2 must lie in [0, 1]"


def test_a_trainer_is_found_below_the_folder(tmp_path: Path) -> None:
    write(tmp_path, "shop", "")
    (tmp_path / "shop" / "train.py").write_text("def fit(rows):\n    return rows\n\nseed = 1\n")
    assert load_trainer(tmp_path, "shop.train:fit")(3) == 3
    for train, sentence in [
        ("shop.trian:fit", "did you mean 'shop.train'?"),
        ("shop.train:fti", "defines no function 'fti'"),
        ("shop.train:seed", "defines no function 'seed'"),
    ]:
        with pytest.raises(UseCaseError, match=sentence.replace("?", r"\?")):
            load_trainer(tmp_path, train)
