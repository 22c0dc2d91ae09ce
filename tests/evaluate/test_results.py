"""Figures with their intervals, results in and out, and what a comparison says. Guards `lut_tf.evaluate.results`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest, t
from sklearn.metrics import average_precision_score

from lut_tf.cli.program import main
from lut_tf.evaluate.results import (
    Figure,
    Result,
    accuracy,
    bootstrap,
    find_results,
    mean_of_draws,
    read_result,
    results_path,
    save_result,
    table,
)


def result(value: int, **changes: Any) -> Result:
    """A k-NN result of so many per cent on 100 images."""
    plain = Result(
        "knn",
        {"knn20": accuracy(value, 100)},
        {"source": "/a", "origin": f"runs/{value}", "kind": "encoder", "checksum": f"{value}", "image_size": [8, 8]},
        {"source": "image_folder", "name": "my photos/train", "digest": "d", "part": "100 evaluation images"},
        {"neighbours": (20,), "temperature": 0.07},
        {"confusion": np.eye(2, dtype=int), "path": Path("x")},
    )
    return replace(plain, **changes)


@pytest.mark.parametrize(("correct", "total"), [(81, 263), (0, 10), (10, 10), (1, 1), (7, 50_000)])
def test_accuracies_have_wilsons_interval(correct: int, total: int) -> None:
    expected = binomtest(correct, total).proportion_ci(method="wilson")
    figure = accuracy(correct, total)
    assert (figure.value, figure.count) == (correct / total, total)
    assert (figure.low, figure.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_draws_have_students_interval() -> None:
    values = [0.5, 0.62, 0.55, 0.6, 0.48]
    low, high = t.interval(0.95, 4, loc=np.mean(values), scale=np.std(values, ddof=1) / np.sqrt(5))
    figure = mean_of_draws(values)
    assert (figure.value, figure.low, figure.high, figure.count) == pytest.approx((np.mean(values), low, high, 5))
    assert mean_of_draws([1.0, 1.0]) == Figure(1.0, 1.0, 1.0, 2)


def test_other_statistics_have_a_bootstrap_over_images() -> None:
    random = np.random.default_rng(0)
    values = random.random(400)
    figure = bootstrap(values, seed=3)
    half = 1.96 * values.std() / 20  # of a mean, what the normal distribution says
    assert (figure.value, figure.count) == (values.mean(), 400)
    assert (figure.low, figure.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.004)
    assert bootstrap(values, seed=3) == figure != bootstrap(values, seed=4)
    rows = np.stack([random.random(40), np.arange(40) < 2], axis=1)  # a draw may have no positive image

    def area(drawn: np.ndarray) -> float:
        return float(average_precision_score(drawn[:, 1], drawn[:, 0])) if drawn[:, 1].any() else np.nan

    precision = bootstrap(rows, area, resamples=200)
    assert 0 < precision.low < precision.value < precision.high <= 1


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: accuracy(3, 2), "correct=3"),
        (lambda: accuracy(0, 0), "total=0"),
        (lambda: mean_of_draws([0.5]), "two or more"),
        (lambda: bootstrap([]), "no images"),
        (lambda: bootstrap([np.nan]), "no finite number"),
    ],
)
def test_what_has_no_interval_is_refused(call: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        call()


def test_a_result_is_what_was_written_and_a_repeat_replaces_it(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    path = save_result(result(60), tmp_path / "run")
    assert path == results_path(tmp_path / "run", path.stem)
    assert path.parent == tmp_path / "run" / "results"
    assert path.stem.startswith("knn_my-photos-train_")
    read = read_result(path)
    assert read.figures == result(60).figures
    assert read.settings == {"neighbours": [20], "temperature": 0.07}
    assert read.details == {"confusion": [[1, 0], [0, 1]], "path": "x"}
    assert {"lut_tf", "python", "numpy", "date"} <= read.versions.keys()
    again = result(61, model=result(60).model, versions={"date": "later"})
    assert save_result(again, tmp_path / "run") == path
    others = [result(61), result(60, settings={"neighbours": [10]}), result(60, data={"digest": "other"})]
    assert len({path.stem, *(each.name for each in others)}) == 4
    assert save_result(result(60), tmp_path / "encoder.keras").parent == tmp_path / "results"


def test_a_comparison_is_sorted_and_says_what_the_intervals_do_not_bear_out(tmp_path: Path) -> None:
    lines = table([result(20), result(60), result(66)]).splitlines()
    assert lines[0] == "knn on my photos/train, 100 evaluation images: per cent [95 % interval]"
    assert [line.split()[0] for line in lines[2:5]] == ["runs/66", "runs/60", "runs/20"]
    assert "66.0 [56.3, 74.5]" in lines[2]
    assert lines[5:] == [
        "not borne out, because the intervals overlap:",
        "  knn20: runs/66 is not shown to differ from runs/60",
    ]
    assert table([result(20), result(60)]).endswith("the intervals bear out every difference")
    assert len(table([result(20)]).splitlines()) == 3


@pytest.mark.parametrize(
    ("change", "tables"),
    [
        ({"data": {**result(0).data, "name": "elsewhere", "source": "tfrecord"}}, 1),  # the same images, moved
        ({"settings": {"neighbours": [20], "temperature": 0.1}}, 1),
        ({"data": {**result(0).data, "digest": "others"}}, 2),
        ({"data": {**result(0).data, "part": "100 held-out images"}}, 2),
        ({"protocol": "few_shot"}, 2),
    ],
)
def test_one_table_is_of_one_protocol_and_the_same_images(change: dict[str, Any], tables: int) -> None:
    text = table([result(60), result(20, **change)])
    assert text.count("[95 % interval]") == tables
    assert ("are not comparable" in text) == (tables > 1)
    assert ("temperature=0.1" in text) == ("settings" in change)  # rows that differ in settings say so


def test_compare_reads_files_and_run_directories(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for run, value in (("a", 60), ("b", 20)):
        (tmp_path / run).mkdir()
        save_result(result(value), tmp_path / run)
    single = next((tmp_path / "a" / "results").iterdir())
    assert find_results([tmp_path / "a", tmp_path / "b" / "results", single]) == [
        single, *(tmp_path / "b" / "results").iterdir()
    ]  # fmt: skip
    (tmp_path / "a" / "probe").mkdir()
    of_probe = save_result(result(30), tmp_path / "a" / "probe")  # a run's probe lies in it
    assert find_results([tmp_path / "a"]) == [single, of_probe]
    of_probe.unlink()
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert "the intervals bear out every difference" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, "does not exist"),
        ("{", "holds no result"),
        ("[]", "holds no result"),
        (json.dumps({"protocol": "knn"}), "holds no result"),
        (
            json.dumps(
                {
                    **json.loads("{}"),
                    "protocol": "knn",
                    "figures": {"a": {"value": "x", "low": 0, "high": 1, "count": 2}},
                }
            ),
            "holds no result",
        ),
        ("a folder", "holds no results"),
    ],
)
def test_what_is_no_result_is_refused_in_a_line(
    content: str | None, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "r.json"
    if content == "a folder":
        path.mkdir()
    elif content is not None:
        path.write_text(content)
    assert main(["compare", str(path)]) == 2
    err = capsys.readouterr().err
    assert named in err
    assert f"RESULT={path}" in err
    assert err.count("\n") == 1
