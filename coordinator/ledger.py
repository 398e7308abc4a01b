"""What released rounds have cost each device, in zCDP (`privacy.accounting`).

Participation is public, so every device has an account of its own: a round costs those whose contribution is
in a sum that was unmasked, and nobody else. This ledger keeps a run within its plan. It is not what protects
a device, which keeps its own: a state folder that was restored from a backup has forgotten charges.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from privacy.accounting import compose
from protocol.ids import DeviceId


@dataclass(frozen=True, slots=True)
class Account:
    """What one device has paid.

    Attributes:
        rho: zCDP of all its released contributions together, >= 0, rounded up.
        rounds: how many they were.
        last: number of the newest round among them.
    """

    rho: float
    rounds: int
    last: int


@dataclass(frozen=True, slots=True)
class Release:
    """A sum that was unmasked, whether or not its round was committed.

    Attributes:
        survivors: devices whose contributions are in it, each once.
        rho: what it costs each of them, >= 0.
    """

    survivors: tuple[DeviceId, ...]
    rho: float


@dataclass(frozen=True, slots=True)
class PrivacyLedger:
    """The accounts of a run.

    Attributes:
        accounts: of every device that was charged; nobody else has one.
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
        return PrivacyLedger(charged)

    def account(self, device: DeviceId) -> Account:
        """What a device has paid; nothing, in round 0, if it was never charged."""
        return self.accounts.get(device, Account(0.0, 0, 0))


@dataclass(frozen=True, slots=True)
class Limits:
    """What privacy asks of the devices of one round.

    Attributes:
        ledger: before the round.
        cost: rho that the round will charge a survivor, >= 0.
        budget: rho that no account may exceed; None is no limit.
        round: number of the round, later than every charge.
        spacing: a device is in a sum at most once in so many rounds, >= 1.
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
        """Whether a sum that it is in was unmasked less than `spacing` rounds ago."""
        account = self.ledger.account(device)
        return account.rounds > 0 and self.round - account.last < self.spacing


UNLIMITED = Limits()
"""Rounds without privacy: they cost nothing, and nobody rests."""
