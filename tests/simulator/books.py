"""What rounds with privacy cost, held against two sets of books: the devices' and the coordinator's.

P1 Nothing masked leaves a device before its ledger durably holds that round's charge, once.
P2 No ledger ever holds fewer charges than rounds in which its device offered an update.
P3 The accounts hold each committed round's cost once for each survivor, an aborted one's if its sum was
   unmasked, and nothing else; none exceeds the run's budget.
P4 A device has paid at least what the coordinator's account says.
P5 No set of fewer members than certain noise needs is announced or confirmed (in `oracle`).
P6 The clip of a round follows from the committed rounds before it.
P7 No device takes part twice within the plan's spacing, or is invited to.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from math import exp, floor, fsum

import msgspec

from coordinator.ledger import Account
from device_agent.ledger import Charge
from protocol.chunks import Chunk
from protocol.ids import Order
from protocol.messages import Manifest, UploadOffer
from protocol.noise import budget_of
from protocol.noise_cost import actual_cost, promised_cost
from protocol.plan import Plan
from simulator.operations import Lie, Restore, Schedule

UNMASKED = ("a sentinel", "cannot come from", "a secret cannot be recovered")
"""Why a round is aborted for which enough shares had come."""

_SLACK = 1e-9
"""Relative: sums of costs are rounded up, again and again in an account."""

_chunks = msgspec.msgpack.Decoder(Chunk)


@dataclass
class Costs:
    """What the cost of one round follows from, as it was announced.

    Attributes:
        manifest: of the round.
        members: of its cohort.
        shared: its share set.
        survivors: its survivor set.
        asked: whether its devices were asked for shares.
        reason: why it was aborted.
    """

    manifest: Manifest
    members: int = 0
    shared: tuple[str, ...] = ()
    survivors: tuple[str, ...] = ()
    asked: bool = False
    reason: str = ""

    @property
    def rho(self) -> float:
        """Of each survivor."""
        return actual_cost(self.manifest, len(self.survivors), self.members)


@dataclass
class _Account:
    """The bounds of a device's account."""

    least: list[float] = field(default_factory=list)
    most: list[float] = field(default_factory=list)
    last: int = 0


class Books:
    """Holds one simulation to P1 to P4, P6 and P7.

    Args:
        schedule: what is done to it.
        plan: of the run.
        fail: notes a violation: invariant, and in words what it is.
        ledger: what is durable of the ledger of a life.
        costs: what was announced in a round, if any was.
    """

    def __init__(
        self,
        schedule: Schedule,
        plan: Plan,
        fail: Callable[[str, str], None],
        ledger: Callable[[str], Sequence[Charge]],
        costs: Callable[[Order], Costs | None],
    ) -> None:
        self._plan = plan
        self._fail = fail
        self._ledger = ledger
        self._costs = costs
        self._is_private = plan.privacy.mode != "none"
        self._is_restored = any(isinstance(one, Restore) for one in schedule.operations)
        self._is_lied_to = any(isinstance(one, Lie) for one in schedule.operations)
        self._offered: dict[str, dict[Order, None]] = {}
        self._blobs: dict[tuple[str, bytes], Manifest] = {}
        self._accounts: Mapping[str, Account] = {}

    # Devices.

    def offers(self, life: str, offer: UploadOffer, manifest: Manifest) -> None:
        """A device is about to offer its masked update."""
        self._blobs[life, offer.blob.sha256] = manifest
        self._offered.setdefault(life, {})[offer.order] = None
        self._is_charged(life, manifest, "offers")

    def sends(self, life: str, payload: bytes) -> None:
        """A device is about to send a chunk."""
        if not self._is_private:
            return
        manifest = self._blobs.get((life, _chunks.decode(payload).blob))
        if manifest is None:
            self._fail("P1", f"{life} sends of an update that it has not offered")
        else:
            self._is_charged(life, manifest, "sends")

    def _is_charged(self, life: str, manifest: Manifest, does: str) -> None:
        if manifest.noise is None:
            return
        charged = [charge.rho for charge in self._ledger(life) if charge.order == manifest.order]
        if charged != [promised_cost(manifest)]:
            self._fail("P1", f"{life} {does} an update of round {manifest.order} charged with {charged}")

    def begins(self, life: str, charges: Sequence[Charge]) -> None:
        """A device's program reads its ledger, or it is read at the end."""
        orders = [charge.order for charge in charges]
        missing = [str(order) for order in self._offered.get(life, ()) if order not in orders]
        if self._is_private and missing:
            self._fail("P2", f"the ledger of {life} has forgotten {', '.join(missing)}")
        if len(orders) != len(set(orders)):
            self._fail("P1", f"the ledger of {life} has charged a round twice")
        for earlier, later in pairwise(orders):
            if _apart(earlier, later) < self._plan.privacy.spacing:
                self._fail("P7", f"{life} has paid for rounds {earlier} and {later}")

    def declines(self, life: str, reason: str) -> None:
        """A device does not take part; a coordinator that was told no lies about it knows who rests."""
        if "rests" in reason and not self._is_lied_to:
            self._fail("P7", f"{life} is invited while it rests")

    def compares(self, paid: Mapping[str, Iterable[Charge]]) -> None:
        """P4: what each device has paid, in all its lives, with its account."""
        for device, charges in paid.items():
            rounds = {charge.order: charge.rho for charge in charges}
            account = self._accounts.get(device)
            if account is not None and fsum(rounds.values()) < account.rho * (1 - _SLACK):
                self._fail("P4", f"{device} has paid less than its account says")

    # The coordinator.

    def balances(self, accounts: Mapping[str, Account], closed: Mapping[Order, bool]) -> None:
        """P3: what is durable.

        Args:
            accounts: of the devices.
            closed: rounds that are over, and whether they were committed.
        """
        self._accounts = accounts
        expected = self._expected(closed)
        for device in sorted(accounts.keys() | expected.keys()):
            found = accounts.get(device, Account(0.0, 0, 0))
            bounds = expected.get(device, _Account())
            if not (
                fsum(bounds.least) * (1 - _SLACK) <= found.rho <= fsum(bounds.most) * (1 + _SLACK)
                and len(bounds.least) <= found.rounds <= len(bounds.most)
            ):
                self._fail("P3", f"the account of {device} is {found} after {_shown(closed)}")
            elif found.last < bounds.last:
                self._fail("P3", f"{device} took part in round {bounds.last}, its account knows {found.last}")
        self._is_within_budget(accounts)

    def _expected(self, closed: Mapping[Order, bool]) -> dict[str, _Account]:
        expected: dict[str, _Account] = {}
        for order, committed in sorted(closed.items()):
            costs = self._costs(order)
            if costs is None or costs.manifest.noise is None:
                continue
            is_certain = committed or (not self._is_restored and any(one in costs.reason for one in UNMASKED))
            for device in costs.survivors if committed or costs.asked else ():
                account = expected.setdefault(device, _Account())
                account.most.append(costs.rho)
                account.least += [costs.rho] if is_certain else []
            for device in costs.shared if committed or not self._is_restored else ():
                expected.setdefault(device, _Account()).last = order.round
        return expected

    def _is_within_budget(self, accounts: Mapping[str, Account]) -> None:
        if self._is_private:
            budget = budget_of(self._plan.privacy, self._plan.stopping.rounds).run
            for device, account in accounts.items():
                if account.rho > budget:
                    self._fail("P3", f"{device} has spent {account.rho:.6g} of {budget:.6g}")

    def may_end(self, accounts: Mapping[str, Account], committed: int) -> bool:
        """Whether a run is over: enough rounds, or too few that can pay for another."""
        if committed >= self._plan.stopping.rounds or not self._is_private:
            return committed >= self._plan.stopping.rounds
        budget = budget_of(self._plan.privacy, self._plan.stopping.rounds)
        payers = sum(account.rho + budget.round <= budget.run for account in accounts.values())
        return payers < self._plan.selection.min_cohort

    # Clips.

    @property
    def is_adaptive(self) -> bool:
        """Whether the clip follows the updates."""
        return self._plan.privacy.adaptive_clipping.quantile is not None

    def clip_after(self, clipped_rates: Iterable[float]) -> float:
        """P6: what the clip is after committed rounds with these parts of clipped updates."""
        clip, rule = self._plan.secure_aggregation.clip, self._plan.privacy.adaptive_clipping
        if rule.quantile is not None:
            for clipped in clipped_rates:
                clip *= exp(-rule.learning_rate * (1 - clipped - rule.quantile))
        return clip


def certain_noise(manifest: Manifest, members: int) -> int:
    """Survivors of a cohort of so many among whom enough are honest; P5."""
    if manifest.noise is None or manifest.noise.mode == "central":
        return manifest.min_cohort
    # As PROTOCOL.md has it, gamma is the shortest decimal: six times 0.3333333333333333 is less than two.
    gamma, fewest = Fraction(repr(manifest.secure_aggregation.corrupt_fraction)), manifest.min_cohort
    return max(fewest, fewest - floor(gamma * fewest) + floor(gamma * members))


def charges_in(lines: bytes) -> list[Charge]:
    """The charges that a ledger's lines hold, up to one that is none."""
    charges = []
    for line in lines.splitlines(keepends=True):
        try:
            charges.append(msgspec.json.decode(line, type=Charge))
        except (msgspec.MsgspecError, ValueError):
            break
    return charges


def _apart(earlier: Order, later: Order) -> float:
    """Rounds between two of the same epoch; others cannot be counted."""
    same = (earlier.generation, earlier.epoch) == (later.generation, later.epoch)
    return later.round - earlier.round if same else float("inf")


def _shown(closed: Mapping[Order, bool]) -> str:
    ends = (f"{order} {'committed' if committed else 'aborted'}" for order, committed in closed.items())
    return ", ".join(ends) or "no round"
