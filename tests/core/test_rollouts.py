import msgspec
import pytest

from tailrace.contracts.quality import Quality
from tailrace.contracts.records import RoutingTable
from tailrace.contracts.retraining import CandidateRegistered, PromoteRequested, RollbackRequested
from tailrace.core.rollouts import Decided, Rollout, RolloutState

DAY_MS = 86_400_000
SHADOW = Rollout(use_case="uc", shadow=True, hold_ms=DAY_MS, min_predictions=100, max_disagreement=0.2, min_labels=50)


def candidate(version: str, at_ms: int = 0) -> CandidateRegistered:
    return CandidateRegistered(
        run_id=f"run-{version}",
        use_case="uc",
        model_version=version,
        bundle_uri=f"file:///bundles/{version}",
        digest=f"sha256:{version}",
        registered_at_ms=at_ms,
        gates=[],
        metrics={},
        lineage={},
    )


def quality(
    variant: str, version: str, watermark_ms: int, *, disagreements: int = 0, loss: float | None = None, final: int = 0
) -> Quality:
    return Quality(
        use_case="uc",
        label_name="fraud",
        window_start_ms=0,
        window_end_ms=DAY_MS,
        variant=variant,
        model_version=version,
        slice="",
        predictions=1_000,
        labelled=final,
        final=final,
        maturity=0.0,
        bins=[],
        n=[],
        positives=[],
        metrics={"log_loss": loss},
        watermark_ms=watermark_ms,
        paired=1_000,
        disagreements=disagreements,
    )


def serving(*versions: str) -> RolloutState:
    """A controller whose champion is the first version; each further one goes into shadow."""
    state = SHADOW.start(None)
    for version in versions:
        assert state.candidate(candidate(version)) is not None
    return state


def roles(table: RoutingTable | None) -> dict[str, str]:
    return {} if table is None else {variant.name: variant.model_version for variant in table.variants}


def decided(decision: Decided | None) -> Decided:
    assert decision is not None
    return decision


def test_first_candidate_serves_at_once() -> None:
    state = serving("1")
    assert roles(state.table) == {"champion": "1"}


def test_second_candidate_goes_into_shadow() -> None:
    state = serving("1", "2")
    assert roles(state.table) == {"champion": "1", "shadow": "2"}
    assert state.table is not None
    assert state.table.epoch == 2


def test_shadow_is_not_judged_before_its_hold_is_over() -> None:
    assert serving("1", "2").quality(quality("shadow", "2", DAY_MS - 1)) is None


def test_shadow_that_agrees_becomes_champion_and_the_old_one_stays_warm() -> None:
    decision = decided(serving("1", "2").quality(quality("shadow", "2", DAY_MS)))
    assert decision.action == "promoted"
    assert roles(decision.table) == {"champion": "2", "shadow": "1"}
    assert decision.table.in_shadow == "former"
    assert [variant.model_version for variant in decision.table.warm] == ["1"]


def test_shadow_that_decides_otherwise_too_often_is_refused() -> None:
    decision = decided(serving("1", "2").quality(quality("shadow", "2", DAY_MS, disagreements=201)))
    assert decision.action == "refused"
    assert roles(decision.table) == {"champion": "1"}


def test_shadow_with_worse_log_loss_on_enough_labels_is_refused() -> None:
    state = serving("1", "2")
    assert state.quality(quality("champion", "1", 0, loss=0.10, final=60)) is None
    decision = decided(state.quality(quality("shadow", "2", DAY_MS, loss=0.13, final=60)))
    assert decision.action == "refused"


def test_few_labels_do_not_refuse_a_shadow() -> None:
    state = serving("1", "2")
    assert state.quality(quality("champion", "1", 0, loss=0.10, final=49)) is None
    assert decided(state.quality(quality("shadow", "2", DAY_MS, loss=0.13, final=49))).action == "promoted"


def promoted() -> RolloutState:
    """A controller whose champion, version 2, has just followed version 1."""
    state = serving("1", "2")
    assert decided(state.quality(quality("shadow", "2", DAY_MS))).action == "promoted"
    return state


def test_champion_is_graded_against_its_predecessor_once_labels_are_in() -> None:
    state = promoted()
    assert state.quality(quality("champion", "2", 2 * DAY_MS, loss=0.10, final=60)) is None
    decision = decided(state.quality(quality("shadow", "1", 2 * DAY_MS, loss=0.13, final=60)))
    assert decision.action == "graded"
    assert decision.evidence["gain"] == "0.030000"
    assert decision.evidence["run_id"] == "run-2"
    assert roles(decision.table) == {"champion": "2"}


def test_predecessor_stays_in_shadow_for_the_hold_however_many_labels_are_in() -> None:
    state = promoted()
    assert state.quality(quality("champion", "2", 2 * DAY_MS - 1, loss=0.10, final=60)) is None
    assert state.quality(quality("shadow", "1", 2 * DAY_MS - 1, loss=0.13, final=60)) is None


def test_predecessor_leaves_the_shadow_ungraded_where_labels_do_not_come() -> None:
    state = promoted()
    assert state.quality(quality("shadow", "1", 11 * DAY_MS - 1)) is None
    decision = decided(state.quality(quality("shadow", "1", 11 * DAY_MS)))
    assert "gain" not in decision.evidence
    assert roles(decision.table) == {"champion": "2"}


def test_candidate_takes_the_place_of_the_predecessor_in_shadow() -> None:
    decision = decided(promoted().candidate(candidate("3", 2 * DAY_MS)))
    assert roles(decision.table) == {"champion": "2", "shadow": "3"}
    assert decision.table.in_shadow == "candidate"
    assert "supersedes" not in decision.table.reason


def test_recalled_champion_goes_through_shadow_like_any_candidate() -> None:
    state = promoted()
    recalled = msgspec.structs.replace(candidate("1", 2 * DAY_MS), run_id="run-3", recalled=True)
    assert roles(decided(state.candidate(recalled)).table) == {"champion": "2", "shadow": "1"}
    assert state.quality(quality("shadow", "1", 3 * DAY_MS - 1)) is None
    decision = decided(state.quality(quality("shadow", "1", 3 * DAY_MS)))
    assert roles(decision.table) == {"champion": "1", "shadow": "2"}
    state.validate()


def test_recalled_version_that_serves_already_changes_nothing() -> None:
    recalled = msgspec.structs.replace(candidate("2", 2 * DAY_MS), run_id="run-3", recalled=True)
    assert promoted().candidate(recalled) is None


def test_newer_candidate_supersedes_the_one_in_shadow() -> None:
    assert roles(serving("1", "2", "3").table) == {"champion": "1", "shadow": "3"}


def test_candidate_seen_twice_changes_nothing() -> None:
    assert serving("1", "2").candidate(candidate("2")) is None


def test_rollback_returns_to_the_former_champion_and_can_be_taken_back() -> None:
    state = serving("1", "2")
    decided(state.quality(quality("shadow", "2", DAY_MS)))
    request = RollbackRequested(use_case="uc", by="ana", reason="complaints", requested_at_ms=2 * DAY_MS)
    first = decided(state.roll_back(request))
    assert roles(first.table) == {"champion": "1"}
    assert [variant.model_version for variant in first.table.warm] == ["2"]
    assert roles(decided(state.roll_back(request)).table) == {"champion": "2"}


def test_rollback_without_former_champion_does_nothing() -> None:
    request = RollbackRequested(use_case="uc", by="ana", reason="complaints", requested_at_ms=1)
    assert serving("1").roll_back(request) is None


@pytest.mark.parametrize("version", ["7", "1"])
def test_promotion_of_an_unknown_or_serving_version_does_nothing(version: str) -> None:
    request = PromoteRequested(use_case="uc", model_version=version, by="ana", reason="why not", requested_at_ms=1)
    assert serving("1").promote(request) is None


def test_person_promotes_the_shadow_before_its_hold_is_over() -> None:
    request = PromoteRequested(use_case="uc", model_version="2", by="ana", reason="urgent", requested_at_ms=1)
    decision = decided(serving("1", "2").promote(request))
    assert roles(decision.table) == {"champion": "2"}
    assert decision.by == "ana"


def test_restored_controller_goes_on_as_the_one_that_ran() -> None:
    running = serving("1", "2")
    restored = SHADOW.start(running.table, [candidate("1"), candidate("2")])
    judged = quality("shadow", "2", DAY_MS)
    assert decided(restored.quality(judged)) == decided(running.quality(judged))


def test_every_step_keeps_the_invariants_and_raises_the_epoch_by_one() -> None:
    state = SHADOW.start(None)
    for number in range(1, 8):
        before = state.table.epoch if state.table is not None else 0
        state.candidate(candidate(str(number), at_ms=number * DAY_MS))
        state.validate()
        state.quality(quality("shadow", str(number), (number + 1) * DAY_MS))
        state.validate()
        assert state.table is not None
        assert state.table.epoch in (before + 1, before + 2)
