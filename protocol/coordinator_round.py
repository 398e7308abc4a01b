"""The coordinator's half of a round: seven phases, each with a deadline and a quorum.

Without I/O: `handle(event, now)` returns effects. The legal moves stand in `protocol.phases`, what each phase
knows in `protocol.coordinator_phases`. A phase ends when everybody who is awaited has answered, or at its
deadline; then the round goes on if enough have answered, and is aborted with a reason if not. Whoever is
silent is only waited for; whatever is invalid is refused and counted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf

from privacy.encoding import MeanUpdate
from protocol.certificates import FleetTrust
from protocol.coordinator_phases import (
    LAST_AWAITED,
    Collecting,
    Committing,
    Confirming,
    Inviting,
    Keying,
    PhaseState,
    Recovering,
    Sharing,
)
from protocol.coordinator_work import (
    AddUpdate,
    Corrections,
    DecodeSum,
    ExpandMasks,
    FormCohort,
    FormedCohort,
    RecoverKeys,
    SortMail,
    count_masks,
)
from protocol.effects import (
    Announce,
    Begin,
    Commit,
    Committed,
    Compute,
    Computed,
    ComputeFailed,
    CoordinatorEvent,
    Effect,
    Gone,
    Heard,
    Refuse,
    Resumed,
    Revoked,
    StopReceiving,
    SumKept,
    Uploaded,
    UploadFailed,
    WakeAt,
    Woke,
)
from protocol.errors import MisuseError, PeerError, TranscriptError
from protocol.frames import Opened
from protocol.ids import DeviceId, Order, Seconds, UnixTime
from protocol.messages import MAX_REASON, Decline, Extension, FromDevice, Manifest, Offer, RoundEnded, encode
from protocol.noise_cost import survivors_needed
from protocol.phases import COORDINATOR_MOVES, Move, Phase
from protocol.transcript import begin
from protocol.vector import encoding_of, layout_of
from secagg.keys import Secret
from secagg.pairwise import share_out
from secagg.ring import RingVector

FIRST_RESEND = Seconds(1.0)
LAST_RESEND = Seconds(15.0)
"""What is not answered is said again after 1, 2, 4 … 15 s."""

RETRY_AFTER = 2.0
"""Seconds a device rests after an aborted round."""


def committed_end(order: Order) -> RoundEnded:
    """What all are told of a round whose model is stored."""
    return RoundEnded(order, "committed", "", 0.0)


def aborted_end(order: Order, reason: str) -> RoundEnded:
    """What all are told of a round that came to nothing."""
    return RoundEnded(order, "aborted", reason[:MAX_REASON], RETRY_AFTER)


@dataclass(frozen=True)
class Progress:
    """Where a round stands, for people.

    Attributes:
        phase: now.
        invited: devices invited.
        answered: how many answered in each phase that was entered.
        needed: fewest answers with which the phase can end well.
        cohort: members of the share set, 0 before it is decided.
        deadline: when the phase ends at the latest; infinite while the model is stored.
        reason: why it was aborted.
    """

    phase: Phase
    invited: int
    answered: Mapping[Phase, int]
    needed: int
    cohort: int
    deadline: Seconds
    reason: str


class CoordinatorRound:
    """One round from the coordinator's side.

    Args:
        manifest: what the round is; its order is new.
        invited: who is invited.
        wanted: cohort size at which keying ends early.
        trust: the fleet's root.
        workers: into how many parts unmasking is cut.
        started: wall clock, for certificate validity.
        noise_key: 32 bytes of fresh entropy, for noise that the coordinator adds; in memory only.

    Attributes:
        revealed: whether enough shares came to unmask the sum, whatever became of the round.
    """

    def __init__(
        self,
        manifest: Manifest,
        invited: Sequence[DeviceId],
        wanted: int,
        trust: FleetTrust,
        *,
        workers: int,
        started: UnixTime,
        noise_key: Secret,
    ) -> None:
        self.manifest = manifest
        self.order = manifest.order
        self.phase = Phase.INVITING
        self.reason = ""
        self.retry_after = 0.0
        self.revealed = False
        self._t0 = begin(encode(manifest))
        self._trust = trust
        self._workers = workers
        self._started = started
        self._noise_key = noise_key
        self._encoding = encoding_of(manifest)
        self._layout = layout_of(self._encoding)
        self._declined: set[DeviceId] = set()
        self._gone: set[DeviceId] = set()
        self._state: PhaseState = Inviting(manifest, self._t0, frozenset(invited), wanted, self._declined)
        self._invited = frozenset(invited)
        self._answered: dict[Phase, int] = {}
        self._fewest = survivors_needed(manifest, manifest.min_cohort)
        self._computing = False
        self._masks: list[RingVector] = []
        self._parts = 0
        self._deadline = Seconds(inf)
        self._resend_at = Seconds(inf)
        self._resend_after = FIRST_RESEND
        self._began = Seconds(0.0)
        self._away = 0.0

    @property
    def over(self) -> bool:
        """Committed or aborted."""
        return self.phase in (Phase.COMMITTED, Phase.ABORTED)

    @property
    def progress(self) -> Progress:
        """Where the round stands."""
        return Progress(
            phase=self.phase,
            invited=len(self._invited),
            answered=dict(self._answered),
            needed=self._fewest,
            cohort=self._answered.get(Phase.SHARING, 0),
            deadline=self._deadline,
            reason=self.reason,
        )

    def handle(self, event: CoordinatorEvent, now: Seconds) -> list[Effect]:
        """Decide what follows from an event.

        Args:
            event: what happened.
            now: monotonic time; never goes back.
        """
        if self.over:
            return []
        try:
            effects = self._decide(event, now)
        except PeerError as error:
            effects = [Refuse(error)]
        self._answered[self.phase] = self._state.answered()
        self.revealed |= isinstance(self._state, Recovering) and not self._state.shortage()
        while (following := self._advance(now)) is not None:
            effects += following
        if not self.over:
            # A deadline that passes during a computation decides when that ends; waking earlier is in vain.
            effects.append(WakeAt(self._resend_at if self._busy else min(self._deadline, self._resend_at)))
        return effects

    def _decide(self, event: CoordinatorEvent, now: Seconds) -> list[Effect]:  # noqa: C901, PLR0911 - one line an event
        match event:
            case Begin():
                self._began = now
                return self._enter(self._state, now)
            case Heard(frame):
                return self._heard(frame)
            case Gone(device):
                self._gone.add(device)
                return self._state.give_up(device) if isinstance(self._state, Collecting) else []
            case Revoked(device):
                return self._revoked(device)
            case Woke():
                return self._woke(now)
            case Uploaded():
                return self._state.take(event) if isinstance(self._state, Collecting) else []
            case UploadFailed(device):
                return self._upload_failed(device)
            case Computed(work, result):
                return self._computed(work, result, now)
            case ComputeFailed(work, error):
                return self._compute_failed(work, error)
            case SumKept():
                return self._state.next_upload() if isinstance(self._state, Collecting) else []
            case Committed():
                return self._end(Move.QUORUM, "")
            case Resumed(away):
                return self._resumed(away, now)

    def _revoked(self, device: DeviceId) -> list[Effect]:
        self._declined.add(device)
        if isinstance(self._state, Inviting):
            self._state.withdraw(device)
        return self._state.give_up(device) if isinstance(self._state, Collecting) else []

    # Messages.

    def _heard(self, frame: Opened[FromDevice]) -> list[Effect]:
        said = frame.message
        if not isinstance(said, Offer) and said.order != self.order:
            raise TranscriptError(f"{frame.sender} speaks of round {said.order} in round {self.order}")
        if not self.heeds(said):
            return []
        if isinstance(said, Decline):
            self._declined.add(frame.sender)
            return []
        effects = self._state.hear(frame)
        self._gone.discard(frame.sender)
        return effects

    def heeds(self, said: FromDevice) -> bool:
        """Whether a message can still matter; what cannot changes nothing."""
        if isinstance(said, Offer | Decline):
            return isinstance(said, Decline)
        return list(Phase).index(self.phase) <= list(Phase).index(LAST_AWAITED[type(said)])

    def _woke(self, now: Seconds) -> list[Effect]:
        if now < self._resend_at:
            return []
        self._resend_after = Seconds(min(2 * self._resend_after, LAST_RESEND))
        self._resend_at = Seconds(now + self._resend_after)
        return self._state.address(self._state.silent() - self._gone - self._declined)

    def _resumed(self, away: Seconds, now: Seconds) -> list[Effect]:
        """Extend the phase by the time away, tell everybody, and ask the silent again."""
        self._away += away
        if self._lifetime_left(now) <= 0:
            return self._end(Move.FAILED, "the coordinator was away for too long")
        self._deadline = Seconds(min(self._deadline, now + self._lifetime_left(now)))
        self._gone.clear()  # whoever was lost then may be back
        self._resend_after = FIRST_RESEND
        self._resend_at = Seconds(now + FIRST_RESEND)
        extension = [Announce(Extension(self.order, self._t0, self._away))] if self._away else []
        return [*extension, *self._state.address(self._state.silent() - self._declined)]

    def _lifetime_left(self, now: Seconds) -> float:
        """Seconds until devices erase the round's secrets; the round's own time stands still while away."""
        return self.manifest.deadlines.max_lifetime - self._away - (now - self._began)

    def _upload_failed(self, device: DeviceId) -> list[Effect]:
        if isinstance(self._state, Collecting):
            self._state.offered.pop(device, None)
        return []

    # Going on.

    def _advance(self, now: Seconds) -> list[Effect] | None:
        """Leave the phase if it is over; None when it is not."""
        state = self._state
        if self.over or self._busy:
            return None
        waiting = state.silent() - self._gone - self._declined
        if waiting and not state.satisfied() and now < self._deadline:
            return None
        shortage = state.shortage()
        return self._end(Move.TOO_FEW, shortage) if shortage else self._close(now)

    @property
    def _busy(self) -> bool:
        """Something is under way whose end comes as an event; until then the phase cannot end."""
        state = self._state
        adding = isinstance(state, Collecting) and state.adding
        return self._computing or adding or isinstance(state, Committing)

    def _close(self, now: Seconds) -> list[Effect]:
        state = self._state
        match state:
            case Keying():
                return self._form(state)
            case Inviting():
                return self._enter(state.keying(), now)
            case Sharing():
                return self._enter(state.collecting(self._layout), now)
            case Collecting():
                return [StopReceiving(), *self._enter(Confirming.after(state), now)]
            case Confirming():
                return self._enter(state.recovering(), now)
            case Recovering():
                return self._recover(state)
        raise MisuseError(f"{self.phase} does not end by itself")

    def _enter(self, state: PhaseState, now: Seconds) -> list[Effect]:
        if state is not self._state:
            self.phase = COORDINATOR_MOVES[self.phase, Move.QUORUM]
        if state.phase is not self.phase:
            raise MisuseError(f"{state.phase} cannot follow here; the table says {self.phase}")
        self._state = state
        duration = getattr(self.manifest.deadlines, self.phase, inf)
        self._deadline = Seconds(now + min(duration, self._lifetime_left(now)) if duration < inf else inf)
        self._resend_after = FIRST_RESEND
        self._resend_at = Seconds(now + FIRST_RESEND)
        self._answered[self.phase] = state.answered()
        return state.address(state.silent())

    def _end(self, move: Move, reason: str) -> list[Effect]:
        self.phase = COORDINATOR_MOVES[self.phase, move]
        self.reason = reason[:MAX_REASON]
        committed = self.phase is Phase.COMMITTED
        self.retry_after = 0.0 if committed else RETRY_AFTER
        ended = committed_end(self.order) if committed else aborted_end(self.order, self.reason)
        return [StopReceiving(), Announce(ended)]

    # Computations.

    def _form(self, state: Keying) -> list[Effect]:
        self._computing = True
        return [Compute(FormCohort(state.cohort(), self.manifest, self._t0, self._trust))]

    def _recover(self, state: Recovering) -> list[Effect]:
        if state.tried == len(state.reveals):
            return self._end(Move.FAILED, "a secret cannot be recovered from the revealed shares")
        state.tried = len(state.reveals)
        self._computing = True
        return [Compute(state.recover_keys())]

    def _computed(self, work: object, result: object, now: Seconds) -> list[Effect]:
        state = self._state
        match work, result, state:
            case FormCohort(), FormedCohort(), Keying():
                self._computing = False
                self._fewest = result.view.fewest
                return self._enter(Sharing(self.manifest, result), now)
            case SortMail(), dict(), _:
                return state.deliver(result) if isinstance(state, Collecting) else []
            case AddUpdate(device=device), _, Collecting():
                return state.added(device)
            case RecoverKeys(), tuple(), Recovering():
                return self._expand(result)
            case ExpandMasks(), RingVector(), Recovering():
                return self._expanded(result, state)
            case DecodeSum(), MeanUpdate(), Recovering():
                self._computing = False
                return self._commit(state, result, now)
        raise MisuseError(f"nobody waits for {type(work).__name__} while {self.phase}")

    def _compute_failed(self, work: object, error: Exception) -> list[Effect]:
        state = self._state
        match work, state:
            case AddUpdate(device=device), Collecting():
                self._gone.add(device)
                return [Refuse(error), *state.next_upload()]
            case RecoverKeys(), Recovering():
                # A later reveal may bring the share that is missing; `tried` says whether one has come.
                self._computing = False
                return [Refuse(error)]
        return [Refuse(error), *self._end(Move.FAILED, str(error))]

    def _expand(self, corrections: Corrections) -> list[Effect]:
        size = -(-count_masks(corrections) // self._workers)
        parts = [ExpandMasks(self._layout, tuple(part)) for part in share_out(corrections, size)]
        self._parts = len(parts)
        return [Compute(part) for part in parts]

    def _expanded(self, mask: RingVector, state: Recovering) -> list[Effect]:
        self._masks.append(mask)
        if len(self._masks) < self._parts:
            return []
        collected = state.confirmed.collected
        masks, self._masks = self._masks, []
        members = len(state.confirmed.survivors)
        return [Compute(DecodeSum(collected.total, masks, self._encoding, members, self._noise_key))]

    def _commit(self, state: Recovering, mean: MeanUpdate, now: Seconds) -> list[Effect]:
        survivors = len(state.confirmed.survivors)
        dropouts = len(state.confirmed.collected.members) - survivors
        effects = self._enter(Committing(survivors, dropouts), now)
        return [*effects, Commit(committed_end(self.order), mean, survivors, dropouts)]
