import numpy as np
import pytest

from tailrace.core.validation import GateSpec, calibrated, judge, parity

SCORES = np.array([0.1, 0.2, 0.7])
GOOD: dict[str, float | None] = {"log_loss": 0.30, "pr_auc": 0.60, "calibration": 1.0}


def failed(
    gates: list[GateSpec],
    candidate: dict[str, float | None] = GOOD,
    champion: dict[str, float | None] | None = None,
    scores: np.ndarray = SCORES,
) -> list[str]:
    return [gate.name for gate in judge(gates, candidate, champion, scores) if not gate.passed]


@pytest.mark.parametrize(
    ("champion", "margin", "expected"),
    [
        (None, 0.0, []),
        ({"log_loss": 0.30}, 0.0, []),
        ({"log_loss": 0.29}, 0.0, ["log_loss_not_worse"]),
        ({"log_loss": 0.29}, 0.02, []),
        ({"log_loss": None}, 0.0, []),
    ],
)
def test_loss_may_not_exceed_the_champions_by_more_than_the_margin(
    champion: dict[str, float | None] | None, margin: float, expected: list[str]
) -> None:
    assert failed([GateSpec("log_loss", margin)], champion=champion) == expected


def test_larger_is_better_for_other_metrics() -> None:
    assert failed([GateSpec("pr_auc")], champion={"pr_auc": 0.61}) == ["pr_auc_not_worse"]
    assert failed([GateSpec("pr_auc")], champion={"pr_auc": 0.59}) == []


def test_absolute_bound_is_kept_from_the_right_side() -> None:
    assert failed([GateSpec("log_loss", value=0.29)]) == ["log_loss_at_most"]
    assert failed([GateSpec("pr_auc", value=0.61)]) == ["pr_auc_at_least"]
    assert failed([GateSpec("log_loss", value=0.31), GateSpec("pr_auc", value=0.59)]) == []


def test_metric_that_the_rows_cannot_give_fails_its_gates() -> None:
    unknown: dict[str, float | None] = {"log_loss": None, "calibration": 1.0}
    assert failed([GateSpec("log_loss", value=1.0)], unknown) == ["log_loss_at_most"]
    assert failed([GateSpec("log_loss")], unknown, champion={"log_loss": 1.0}) == ["log_loss_not_worse"]


@pytest.mark.parametrize("ratio", [0.49, 2.01, None])
def test_candidate_of_another_base_rate_fails(ratio: float | None) -> None:
    assert failed([], {"calibration": ratio}) == ["base_rate"]


@pytest.mark.parametrize("scores", [np.full(3, 0.2), np.array([0.1, np.nan, 0.3])])
def test_scores_that_are_all_the_same_or_not_finite_fail(scores: np.ndarray) -> None:
    assert failed([], scores=scores) == ["sane_scores"]


def test_export_may_differ_by_rounding_only() -> None:
    assert parity(SCORES, SCORES + 9e-5).passed
    assert not parity(SCORES, SCORES + 2e-4).passed


@pytest.mark.parametrize(("mean", "passed"), [(0.209, True), (0.2, True), (0.189, False), (0.22, False)])
def test_candidate_that_predicts_more_or_fewer_than_there_are_is_refused(mean: float, passed: bool) -> None:
    targets = np.array([0.0, 0.0, 0.0, 1.0, 0.0] * 20)
    assert passed == calibrated(np.full(100, mean), targets).passed
    # An outcome that stands for two counts as two.
    assert calibrated(np.full(100, 0.4), 2.0 * targets).passed
    assert not calibrated(np.full(100, 0.4), np.zeros(100, bool)).passed


def passes(gate: str, *, seed: int, worse: float, rows: int, margin: float = 0.0) -> bool:
    """Whether a candidate passes whose losses are so much worse on average, each row by chance anything else."""
    differences = np.random.default_rng(seed).normal(worse, 0.5, rows)
    held: dict[str, float | None] = {"log_loss": 0.3 - float(differences.mean()), "calibration": 1.0}
    results = judge([GateSpec("log_loss", margin)], GOOD, held, SCORES, worse={"log_loss": differences})
    return next(result.passed for result in results if result.name == gate)


def test_an_equal_of_the_champion_is_seldom_refused_and_one_that_is_worse_almost_always() -> None:
    gate = "log_loss_not_worse"
    assert sum(passes(gate, seed=seed, worse=0.0, rows=100) for seed in range(200)) >= 180
    assert sum(passes(gate, seed=seed, worse=0.25, rows=100) for seed in range(200)) <= 10
    assert sum(passes(gate, seed=seed, worse=0.25, rows=100, margin=0.25) for seed in range(200)) >= 180


def test_a_base_rate_that_moved_by_chance_alone_is_no_reason_to_refuse() -> None:
    answers = np.zeros(100)
    answers[:4] = 1.0
    ratio: dict[str, float | None] = {"calibration": 2.5}
    by_chance = judge([], ratio, None, np.full(100, 0.1), answers=answers)
    assert all(result.passed for result in by_chance if result.name == "base_rate")
    many = np.tile(answers, 30)
    rng = np.random.default_rng(3)
    rng.shuffle(many)
    beyond = judge([], ratio, None, np.full(3_000, 0.1), answers=many)
    assert [result.name for result in beyond if not result.passed][-1] == "base_rate"
