"""The rollout controller: from candidate to champion by evidence, and back.

    stage        event                       next stage
    ----------   -------------------------   ------------------------------------------
    (none)       candidate, no champion      champion
    (none)       candidate, Immediate        champion, the old one stays warm
    (none)       candidate of another plan   champion: workers of the new plan cannot run the old model
    (none)       candidate, Shadow           shadow
    shadow       newer candidate             shadow of the newer one; the old: superseded
    shadow       hold over, evidence good    champion, the old one stays warm and goes into shadow
    shadow       hold over, evidence bad     refused
    any          a person promotes           champion, the old one stays warm
    champion     a person rolls back         the former champion
    former       labels are in               graded: what its successor gained over it; out of shadow

All times are stream time. The state is what the newest routing table says plus the evidence of the
candidate in shadow, so that it can be rebuilt from the topics.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tailrace.contracts.quality import Quality
from tailrace.contracts.records import RoutingTable, Variant
from tailrace.contracts.retraining import CandidateRegistered, PromoteRequested, RollbackRequested
from tailrace.core.rollout_evidence import RolloutEvidence

WARM = 2
"""Former models kept loaded. One would do for a rollback; with two, a rollback can itself be taken back."""
GRADING_HOLDS = 10
"""Holds after which a former champion leaves the shadow though too few labels have come to compare it."""


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """How candidates become champion.

    Args:
        shadow: Whether candidates spend time in shadow.
        hold_ms: Stream time in shadow.
        min_predictions: Fewest shadow predictions before a decision.
        max_disagreement: Largest share of decisions that may differ from the champion's.
        max_loss_gap: Largest excess of the shadow's loss over the champion's, where labels are in.
        min_labels: Fewest final labels on both sides before losses are compared.
        loss: Metric that models are compared by.
    """

    use_case: str
    shadow: bool
    hold_ms: int = 0
    min_predictions: int = 0
    max_disagreement: float = 1.0
    max_loss_gap: float = 0.02
    min_labels: int = 200
    loss: str = "log_loss"

    def start(self, table: RoutingTable | None, history: Iterable[CandidateRegistered | Quality] = ()) -> RolloutState:
        """A controller that continues from the newest routing table and the records it takes account of."""
        state = RolloutState(self, table)
        for record in history:
            state.remember(record)
        return state


class Decided(msgspec.Struct, frozen=True):
    """A new routing table and what to write into the audit trail about it."""

    table: RoutingTable
    action: str
    by: str
    evidence: dict[str, str]


class RolloutState:
    """State of the controller of one use case; takes events, returns decisions."""

    def __init__(self, spec: Rollout, table: RoutingTable | None) -> None:
        self._spec = spec
        self._registered: dict[str, CandidateRegistered] = {}
        self._runs: set[str] = set()
        self._evidence = RolloutEvidence()
        self.table = table

    @property
    def champion(self) -> Variant | None:
        """The model that serves."""
        return with_role(self.table, "champion")

    @property
    def shadow(self) -> Variant | None:
        """The candidate in shadow."""
        return with_role(self.table, "shadow")

    def remember(self, record: CandidateRegistered | Quality) -> None:
        """Takes in a record that was decided upon before, as after a restart; decides nothing."""
        if isinstance(record, CandidateRegistered):
            # Of a former champion that comes back, the newest record says since when it is on trial.
            self._registered[record.model_version] = record
            self._runs.add(record.run_id)
            return
        versions = {model.model_version for model in (self.shadow, self.champion) if model is not None}
        if not (record.slice or record.auxiliary) and record.model_version in versions:
            self._evidence.take(record)

    def candidate(self, record: CandidateRegistered) -> Decided | None:
        """A candidate passed its gates. A run that is already known changes nothing, nor does the champion itself."""
        champion = self.champion
        if record.run_id in self._runs or (champion is not None and champion.model_version == record.model_version):
            return None
        self.remember(record)
        model = _variant(record, "champion")
        if self.champion is None or not self._spec.shadow or self._serves_another_plan(record):
            return self._install(
                model, record.registered_at_ms, "promoted", "rollout", f"passed its gates ({record.run_id})"
            )
        old = self.shadow
        reason = f"version {record.model_version} goes into shadow"
        if record.recalled:
            reason = f"former champion, version {record.model_version}, goes into shadow again"
        if old is not None and not self._grading:
            reason += f"; it supersedes version {old.model_version}"
        self._evidence.forget_shadows()
        return self._decide(
            [self.champion, msgspec.structs.replace(model, name="shadow", role="shadow", share=0.0)],
            self._warm(),
            record.registered_at_ms,
            "shadowed",
            "rollout",
            reason,
        )

    def quality(self, record: Quality) -> Decided | None:
        """A live metric moved; the candidate in shadow is judged when its hold is over."""
        if record.slice or record.auxiliary:
            return None
        self.remember(record)
        shadow, champion = self.shadow, self.champion
        if shadow is None or champion is None or self.table is None:
            return None
        since = self.table.decided_at_ms if self._grading else self._registered[shadow.model_version].registered_at_ms
        if record.watermark_ms < since + self._spec.hold_ms:
            return None
        if self._grading:
            return self._grade(shadow, champion, since, record.watermark_ms)
        return self._judge(shadow, champion, record.watermark_ms)

    def promote(self, request: PromoteRequested) -> Decided | None:
        """A person makes a version champion; None when it is not registered or serves already."""
        record = self._registered.get(request.model_version)
        champion = self.champion
        if record is None or (champion is not None and champion.model_version == request.model_version):
            return None
        return self._install(
            _variant(record, "champion"), request.requested_at_ms, "promoted", request.by, request.reason
        )

    def roll_back(self, request: RollbackRequested) -> Decided | None:
        """A person returns to the former champion; None when there is none."""
        if self.table is None or not self.table.warm:
            return None
        former = msgspec.structs.replace(self.table.warm[0], name="champion", role="champion", share=1.0)
        return self._install(former, request.requested_at_ms, "rolled_back", request.by, request.reason)

    def validate(self) -> None:
        """Asserts what must always hold."""
        if self.table is None:
            return
        carrying = [v for v in self.table.variants if v.role != "shadow"]
        assert sum(v.role == "champion" for v in carrying) == 1
        assert abs(sum(v.share for v in carrying) - 1.0) < 1e-9
        assert all(v.share == 0.0 for v in self.table.variants if v.role == "shadow")
        assert len(self.table.warm) <= WARM
        assert self.champion not in self.table.warm

    @property
    def _grading(self) -> bool:
        return self.table is not None and self.table.in_shadow == "former"

    def _serves_another_plan(self, record: CandidateRegistered) -> bool:
        champion = self.champion
        known = self._registered.get(champion.model_version) if champion is not None else None
        return known is not None and known.lineage.get("plan") != record.lineage.get("plan")

    def _judge(self, shadow: Variant, champion: Variant, now_ms: int) -> Decided | None:
        predictions, disagreement = self._evidence.disagreement(shadow.model_version)
        if predictions < self._spec.min_predictions:
            return None
        losses = self._losses(shadow, champion)
        evidence = {"shadow_predictions": str(predictions), "disagreement": f"{disagreement:.6f}"}
        if losses is not None:
            evidence |= {
                f"{self._spec.loss}_shadow": f"{losses[0]:.6f}",
                f"{self._spec.loss}_champion": f"{losses[1]:.6f}",
            }
        refusal, spoken = "", self._spec.loss.replace("_", " ")
        if disagreement > self._spec.max_disagreement:
            refusal = f"decides otherwise than the champion on {disagreement:.1%} of the events"
        elif losses is not None and losses[0] - losses[1] > self._spec.max_loss_gap:
            refusal = f"{spoken} {losses[0]:.4f} in shadow against the champion's {losses[1]:.4f}"
        if refusal:
            reason = f"version {shadow.model_version} refused: {refusal}"
            return self._decide([champion], self._warm(), now_ms, "refused", "rollout", reason, evidence)
        model = msgspec.structs.replace(shadow, name="champion", role="champion", share=1.0)
        former = msgspec.structs.replace(champion, name="shadow", role="shadow", share=0.0)
        reason = f"version {shadow.model_version} held in shadow over {predictions} predictions"
        return self._install(model, now_ms, "promoted", "rollout", reason, evidence, former)

    def _grade(self, former: Variant, champion: Variant, since_ms: int, now_ms: int) -> Decided | None:
        """What the champion gained over its predecessor, on the events that both scored."""
        losses = self._losses(former, champion)
        if losses is None and now_ms < since_ms + GRADING_HOLDS * self._spec.hold_ms:
            return None
        evidence = {"run_id": self._registered[champion.model_version].run_id, "former": former.model_version}
        reason = f"version {champion.model_version} not graded: too few labels to compare it with its predecessor"
        if losses is not None:
            gain, spoken = losses[0] - losses[1], self._spec.loss.replace("_", " ")
            evidence |= {
                f"{self._spec.loss}_former": f"{losses[0]:.6f}",
                f"{self._spec.loss}_champion": f"{losses[1]:.6f}",
                "gain": f"{gain:.6f}",
            }
            reason = f"version {champion.model_version} gained {gain:+.4f} of {spoken} over {former.model_version}"
        return self._decide([champion], self._warm(), now_ms, "graded", "rollout", reason, evidence)

    def _losses(self, shadow: Variant, champion: Variant) -> tuple[float, float] | None:
        return self._evidence.losses(
            shadow.model_version, champion.model_version, loss=self._spec.loss, min_labels=self._spec.min_labels
        )

    def _install(
        self,
        model: Variant,
        now_ms: int,
        action: str,
        by: str,
        reason: str,
        evidence: dict[str, str] | None = None,
        former: Variant | None = None,
    ) -> Decided:
        # Only the champion's own windows speak of it; those of its predecessor are done with.
        self._evidence = RolloutEvidence()
        variants = [model] if former is None else [model, former]
        return self._decide(variants, self._warm(besides=model), now_ms, action, by, reason, evidence, former)

    def _warm(self, besides: Variant | None = None) -> list[Variant]:
        """Former champions to keep loaded, the newest first."""
        if self.table is None:
            return []
        former = list(self.table.warm)
        champion = self.champion
        if besides is not None and champion is not None:
            former.insert(0, msgspec.structs.replace(champion, name="former", share=0.0))
        kept = [v for v in former if besides is None or v.model_version != besides.model_version]
        return kept[:WARM]

    def _decide(
        self,
        variants: list[Variant],
        warm: list[Variant],
        now_ms: int,
        action: str,
        by: str,
        reason: str,
        evidence: dict[str, str] | None = None,
        former: Variant | None = None,
    ) -> Decided:
        self.table = RoutingTable(
            use_case=self._spec.use_case,
            epoch=self.table.epoch + 1 if self.table is not None else 1,
            decided_at_ms=now_ms,
            reason=reason,
            salt=self._spec.use_case,
            variants=variants,
            warm=warm,
            by=by,
            in_shadow="candidate" if former is None else "former",
        )
        return Decided(self.table, action, by, {"champion": variants[0].model_version} | (evidence or {}))


def _variant(record: CandidateRegistered, name: str) -> Variant:
    return Variant(
        name=name,
        role="champion",
        model_version=record.model_version,
        bundle_uri=record.bundle_uri,
        digest=record.digest,
        share=1.0,
    )


def with_role(table: RoutingTable | None, role: str) -> Variant | None:
    """The variant of a table that has a role; None where none has, or there is no table."""
    return next((v for v in table.variants if v.role == role), None) if table is not None else None
