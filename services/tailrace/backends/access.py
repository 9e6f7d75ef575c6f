"""ACLs on the broker: what the access matrix asks for, what is there, and bringing the two together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from tailrace.backends.kafka import admin
from tailrace.backends.settings import Settings
from tailrace.contracts.access import MATRIX, PREFIX, Grant, Kind, Streams, grants
from tailrace.errors import BrokerUnavailable, ConfigError
from tailrace.usecase.declaration import UseCase

ANSWER_S = 10.0
ANY_HOST = "*"
BLIND = "this user may not see or change ACLs: it needs DESCRIBE and ALTER on the cluster"

_KINDS: dict[Kind, ResourceType] = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional id": ResourceType.TRANSACTIONAL_ID,
}
_OPTIONS: dict[Kind, str] = {"topic": "--topic", "group": "--group", "transactional id": "--transactional-id"}


class UserGrant(msgspec.Struct, frozen=True, order=True):
    """A right and who has it."""

    user: str
    grant: Grant

    def __str__(self) -> str:
        """What a person reads."""
        beginning = "…" if self.grant.prefixed else ""
        return f"{self.user}  {self.grant.operation}  {self.grant.kind}  {self.grant.name}{beginning}"


class AccessPlan(msgspec.Struct, frozen=True):
    """What separates a broker from the matrix.

    Attributes:
        missing: Rights the matrix gives and the broker does not.
        present: Rights that both give.
        extra: Rights on the same use cases that only the broker gives to the same users; never taken away here.
    """

    missing: list[UserGrant]
    present: list[UserGrant]
    extra: list[UserGrant]


def streams_of(use_case: UseCase) -> Streams:
    """Topic names of a use case, for `contracts.access`."""
    first, *more = (topic.name for topic in use_case.outcome_topics)
    return Streams(use_case.name, use_case.requests.name, first, tuple(more), use_case.parallel_feedback)


def wanted(streams: Iterable[Streams], prefix: str = PREFIX) -> list[UserGrant]:
    """Every right of the matrix on some use cases, sorted; users are `prefix` and the name of the matrix's row."""
    found = {
        UserGrant(prefix + principal, grant)
        for one in streams
        for principal in MATRIX
        for grant in grants(principal, one)
    }
    return sorted(found)


def plan(settings: Settings, streams: Sequence[Streams], prefix: str = PREFIX) -> AccessPlan:
    """Compares the matrix with the broker; changes nothing.

    On a broker without an authorizer, which knows no ACLs, everything is missing.

    Raises:
        ConfigError: this user may not see ACLs.
        BrokerUnavailable: the broker does not answer.
    """
    asked = wanted(streams, prefix)
    client = admin(settings)
    _check_sight(client)
    there = _present(client, {right.user for right in asked})
    names = {right.grant.name for right in asked}
    ours = tuple(beginning for one in streams for beginning in (f"{one.use_case}.", f"tailrace.{one.use_case}."))
    extra = [right for right in there - set(asked) if right.grant.name in names or right.grant.name.startswith(ours)]
    return AccessPlan(
        missing=[right for right in asked if right not in there],
        present=[right for right in asked if right in there],
        extra=sorted(extra),
    )


def apply(settings: Settings, streams: Sequence[Streams], prefix: str = PREFIX) -> AccessPlan:
    """Adds the ACLs that are missing; a second call adds none.

    Returns:
        What was found before; `missing` has been added.

    Raises:
        ConfigError: the broker has no authorizer, or this user may not alter ACLs.
        BrokerUnavailable: the broker does not answer.
    """
    found = plan(settings, streams, prefix)
    if not found.missing:
        return found
    client = admin(settings)
    answers = client.create_acls([binding(right) for right in found.missing], request_timeout=ANSWER_S)
    for answer in answers.values():
        try:
            answer.result()
        except KafkaException as error:
            raise _refused(error) from error
    return found


def binding(right: UserGrant) -> AclBinding:
    """A right as the admin client takes it."""
    grant = right.grant
    return AclBinding(
        _KINDS[grant.kind],
        grant.name,
        ResourcePatternType.PREFIXED if grant.prefixed else ResourcePatternType.LITERAL,
        f"User:{right.user}",
        ANY_HOST,
        AclOperation[grant.operation],
        AclPermissionType.ALLOW,
    )


def command(right: UserGrant) -> str:
    """The arguments of `kafka-acls.sh` that add a right."""
    grant = right.grant
    pattern = " --resource-pattern-type prefixed" if grant.prefixed else ""
    return (
        f"kafka-acls.sh --add --allow-principal User:{right.user} --operation {grant.operation.title()} "
        f"{_OPTIONS[grant.kind]} {grant.name}{pattern}"
    )


def _check_sight(client: AdminClient) -> None:
    # Asking for ACLs without the right to see them gives none, and no error (confluent-kafka 2.15.1).
    try:
        cluster = client.describe_cluster(include_authorized_operations=True, request_timeout=ANSWER_S).result()
    except KafkaException as error:
        raise _refused(error) from error
    if AclOperation.DESCRIBE not in (cluster.authorized_operations or []):
        raise ConfigError(BLIND)


def _present(client: AdminClient, users: Iterable[str]) -> set[UserGrant]:
    found = set()
    for user in users:
        mine = AclBindingFilter(
            ResourceType.ANY,
            None,
            ResourcePatternType.ANY,
            f"User:{user}",
            None,
            AclOperation.ANY,
            AclPermissionType.ALLOW,
        )
        try:
            acls = client.describe_acls(mine, request_timeout=ANSWER_S).result()
        except KafkaException as error:
            raise _refused(error) from error
        found |= {right for acl in acls if (right := _right(user, acl)) is not None}
    return found


def _right(user: str, acl: AclBinding) -> UserGrant | None:
    kind = next((kind for kind, known in _KINDS.items() if known == acl.restype), None)
    if kind is None or acl.operation.name not in ("READ", "WRITE", "DESCRIBE") or acl.host != ANY_HOST:
        return None
    prefixed = acl.resource_pattern_type == ResourcePatternType.PREFIXED
    return UserGrant(user, Grant(kind, acl.name, acl.operation.name, prefixed))


def _refused(error: KafkaException) -> ConfigError | BrokerUnavailable:
    code = error.args[0].code()
    if code == KafkaError.SECURITY_DISABLED:
        return ConfigError("the broker has no authorizer, so that ACLs have no effect; set its `authorizer.class.name`")
    if code == KafkaError.CLUSTER_AUTHORIZATION_FAILED:
        return ConfigError(BLIND)
    return BrokerUnavailable(f"ACLs are not to be had: {error.args[0].str()}")
