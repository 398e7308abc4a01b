"""What released rounds have cost each device, in zCDP (`privacy.accounting`).

Participation is public, so every device has an account of its own: a round costs those whose contribution is
in a sum that was unmasked, and nobody else. This ledger keeps a run within its plan. It is not what protects
a device, which keeps its own: a state folder that was restored from a backup has forgotten charges.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from privacy.accounting import compose
from protocol.ids import DeviceId
from protocol.messages import Cohort, Manifest, Message, ShareSet, SurvivorSet
from protocol.noise_cost import actual_cost


@dataclass(frozen=True, slots=True)
class Account:
    """What one device has paid.

    Attributes:
        rho: zCDP of all its released contributions together, >= 0, rounded up.
        rounds: how many they were.
        last: number of the newest round that it took part in.
    """

    rho: float
    rounds: int
    last: int


@dataclass(frozen=True, slots=True)
class Release:
    """What a round with privacy cost, whether or not it was committed.

    Attributes:
        survivors: devices whose contributions are in a sum that was unmasked, each once; none if none was.
        rho: what that costs each of them, >= 0.
        others: members that sent, or may have sent, a masked update for nothing. By their own count they have
            paid, and so they rest as well.
    """

    survivors: tuple[DeviceId, ...]
    rho: float
    others: tuple[DeviceId, ...] = ()


def release_of(manifest: Manifest, decisions: Iterable[Message], *, unmasked: bool) -> Release | None:
    """What a round cost, from what was announced in it; None without privacy or before anybody sent anything.

    Args:
        manifest: of the round.
        decisions: announced in it.
        unmasked: whether its sum was, or may have been.
    """
    said = {type(decision): decision for decision in decisions}
    cohort, chosen, survived = said.get(Cohort), said.get(ShareSet), said.get(SurvivorSet)
    if manifest.noise is None or not isinstance(cohort, Cohort) or not isinstance(chosen, ShareSet):
        return None
    members = tuple(map(DeviceId, chosen.members))
    if not unmasked or not isinstance(survived, SurvivorSet):
        return Release((), 0.0, members)
    survivors = tuple(map(DeviceId, survived.members))
    rho = actual_cost(manifest, len(survivors), len(cohort.members))
    return Release(survivors, rho, tuple(device for device in members if device not in survivors))


@dataclass(frozen=True, slots=True)
class PrivacyLedger:
    """The accounts of a run.

    Attributes:
        accounts: of every device that took part; nobody else has one.
    """

    accounts: Mapping[DeviceId, Account] = field(default_factory=dict)

    @property
    def worst(self) -> float:
        """The largest rho of any device, which is that of the run; 0 before the first charge."""
        return max((account.rho for account in self.accounts.values()), default=0.0)

    def charged(self, release: Release, round_number: int) -> "PrivacyLedger":
        """The ledger after a release of this round, which is later than every round before.

        Sums are rounded up: after n charges an account holds at most n parts in 2^51 too much, far below
        the margin that `privacy.accounting` leaves of a target.
        """
        charged = dict(self.accounts)
        for device in release.survivors:
            before = self.account(device)
            charged[device] = Account(compose((before.rho, release.rho)), before.rounds + 1, round_number)
        for device in release.others:
            charged[device] = replace(self.account(device), last=round_number)
        return PrivacyLedger(charged)

    def account(self, device: DeviceId) -> Account:
        """What a device has paid; nothing, in round 0, if it never took part."""
        return self.accounts.get(device, Account(0.0, 0, 0))


@dataclass(frozen=True, slots=True)
class Limits:
    """What privacy asks of the devices of one round.

    Attributes:
        ledger: before the round.
        cost: rho that the round will charge a survivor, >= 0.
        budget: rho that no account may exceed; None is no limit.
        round: number of the round, later than every charge.
        spacing: a device takes part at most once in so many rounds, >= 1.
    """

    ledger: PrivacyLedger = PrivacyLedger()
    cost: float = 0.0
    budget: float | None = None
    round: int = 0
    spacing: int = 1

    def affords(self, device: DeviceId) -> bool:
        """Whether its account stays within the budget when it is charged with this round."""
        return self.budget is None or compose((self.ledger.account(device).rho, self.cost)) <= self.budget

    def rests(self, device: DeviceId) -> bool:
        """Whether it took part less than `spacing` rounds ago."""
        last = self.ledger.account(device).last
        return last > 0 and self.round - last < self.spacing


UNLIMITED = Limits()
"""Rounds without privacy: they cost nothing, and nobody rests."""
