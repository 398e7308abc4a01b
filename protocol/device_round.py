"""The device's half of a round: it follows the coordinator's decisions, each checked before it is believed.

Without I/O: `handle(event, now)` returns effects. The stages and legal moves stand in `protocol.phases`.
A decision that is signed and bound to this round's transcript but breaks a rule makes the device leave; a
frame of another round or transcript is refused and changes nothing.
"""

from dataclasses import dataclass, field
from hashlib import sha256
from typing import TypeVar

from privacy.errors import PrivacyError
from protocol.device_checks import DeviceContext, check_manifest, check_set
from protocol.device_privacy import charge_for, privacy_objection
from protocol.device_work import CheckConfirmations, EncodeUpdate, JoinCohort, Masked, MaskUpdate, Membership
from protocol.effects import (
    Begin,
    Compute,
    Computed,
    ComputeFailed,
    ConditionsFailed,
    DeviceEvent,
    DeviceFailed,
    Effect,
    Enter,
    Fetch,
    Fetched,
    Reconnected,
    Refuse,
    Remember,
    Say,
    SendChunks,
    Told,
    Train,
    Trained,
    Upload,
    WakeAt,
    Woke,
)
from protocol.eligibility import missing
from protocol.errors import (
    CertificateError,
    ManifestError,
    MisuseError,
    PeerError,
    ProtocolError,
    SecondDecisionError,
    SetError,
    ShareDeliveryError,
    TranscriptError,
)
from protocol.frames import Opened
from protocol.ids import DeviceId, Seconds
from protocol.messages import (
    MAX_REASON,
    Accept,
    Cohort,
    Confirmation,
    Confirmations,
    Decline,
    Extension,
    FromCoordinator,
    FromDevice,
    Grant,
    HighWater,
    Manifest,
    Message,
    Pace,
    Reveal,
    RoundEnded,
    RoundKeys,
    RoundMessage,
    ShareDelivery,
    ShareSet,
    Stored,
    SurvivorSet,
    UploadOffer,
)
from protocol.phases import DEVICE_MOVES, Stage, Step
from protocol.transcript import begin, extend
from protocol.vector import encoding_of
from secagg.keys import RoundSecrets, Secret
from secagg.ring import RingVector

FIRST_RESEND = Seconds(1.0)
LAST_RESEND = Seconds(30.0)
"""An unanswered message is said again after 1, 2, 4 … 30 s."""


# What is known in each stage, and no more.


@dataclass(frozen=True)
class _Waiting:
    """Invited or training."""


@dataclass(frozen=True)
class _Keyed:
    vector: RingVector = field(repr=False)
    keys: RoundKeys


@dataclass(frozen=True)
class _Shared:
    vector: RingVector = field(repr=False)
    membership: Membership


@dataclass(frozen=True)
class _Chosen:
    vector: RingVector = field(repr=False)
    membership: Membership
    members: frozenset[DeviceId]
    transcript: bytes


@dataclass(frozen=True)
class _Uploading:
    membership: Membership
    share_set: frozenset[DeviceId]
    transcript: bytes
    masked: Masked


@dataclass(frozen=True)
class _Confirmed:
    membership: Membership
    masked: Masked
    share_set: frozenset[DeviceId]
    survivors: frozenset[DeviceId]
    transcript: bytes


_K = TypeVar("_K")


class DeviceRound:
    """One round from one device's side.

    Args:
        invitation: the verified manifest.
        context: what the device brings.
        master: 32 bytes of fresh entropy, from which every secret of the round is derived; in memory only.
    """

    def __init__(self, invitation: Opened[Manifest], context: DeviceContext, master: Secret) -> None:
        self.manifest = invitation.message
        self.order = self.manifest.order
        self.stage = Stage.INVITED
        self.reason = ""
        self.retry_after = 0.0
        self._context = context
        self._t0 = begin(invitation.body)
        self._invitation = invitation.body
        self._signer = invitation.signer
        self._secrets: RoundSecrets | None = RoundSecrets.from_master(master)
        self._known: _Waiting | _Keyed | _Shared | _Chosen | _Uploading | _Confirmed = _Waiting()
        self._decisions: dict[type, bytes] = {}
        self._early: ShareDelivery | None = None
        self._masking = False
        self._said: FromDevice | None = None
        self._unanswered = False
        self._resend_after = FIRST_RESEND
        self._resend_at = Seconds(0.0)
        self._ends_at = Seconds(0.0)
        self._extension = 0.0

    @property
    def over(self) -> bool:
        """Nothing more will come of it; its secrets are gone."""
        return self.stage in (Stage.DONE, Stage.LEFT)

    @property
    def without_keys(self) -> bool:
        """Its keys have not left: leaving costs the others nothing yet."""
        return self.stage in (Stage.INVITED, Stage.TRAINING)

    def handle(self, event: DeviceEvent, now: Seconds) -> list[Effect]:
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
        if not self.over:
            wake = min(self._ends_at, self._resend_at) if self._unanswered else self._ends_at
            effects.append(WakeAt(wake))
        return effects

    def _decide(self, event: DeviceEvent, now: Seconds) -> list[Effect]:  # noqa: C901, PLR0911 - one line an event
        match event:
            case Begin():
                return self._begin(now)
            case Told(frame):
                return self._told(frame, now)
            case Fetched(bundle, weights):
                return self._fetched(bundle, weights)
            case Trained():
                return self._trained(event)
            case Computed(result=result):
                return self._computed(result, now)
            case ComputeFailed(error=error):
                return self._leave(error)
            case DeviceFailed(reason):
                return self._leave(ProtocolError(reason), refuse=False)
            case ConditionsFailed(reason):
                return self._leave(ProtocolError(reason), refuse=False) if self.without_keys else []
            case Reconnected():
                return self._say_again(now) if self._unanswered else []
            case Woke():
                return self._woke(now)

    # Invited and training.

    def _begin(self, now: Seconds) -> list[Effect]:
        self._ends_at = Seconds(now + self.manifest.deadlines.max_lifetime)
        try:
            check_manifest(self.manifest, self._signer, self._context)
        except (ManifestError, PrivacyError) as error:
            return self._leave(error)
        reason = (
            self._context.asleep
            or missing(self._context.facts, self.manifest.eligibility)
            or privacy_objection(self.manifest, self._context.privacy)
        )
        if reason:
            return self._leave(ProtocolError(reason), refuse=False)
        self._move(Step.ACCEPT)
        self._said = Accept(self.order, self._t0)
        return [
            Remember(self.order),
            Say(self._said),
            Enter("training"),
            Fetch(self.manifest.bundle, self.manifest.weights),
        ]

    def _fetched(self, bundle: bytes, weights: bytes | memoryview) -> list[Effect]:
        self._expect(Stage.TRAINING)
        # Public, and the same on every device that gets this manifest; shuffling hides nothing.
        seed = int.from_bytes(extend(self._t0, self._context.own.encode())[:8], "big")
        return [Train(bundle, weights, self.manifest.training, self.manifest.eligibility.min_examples, seed)]

    def _trained(self, event: Trained) -> list[Effect]:
        self._expect(Stage.TRAINING)
        work = EncodeUpdate(
            event.initial,
            event.trained,
            event.metrics,
            encoding_of(self.manifest),
            self._live_secrets.encoding_key,
        )
        return [Compute(work)]

    # Decisions and deliveries from the coordinator.

    def _told(self, frame: Opened[FromCoordinator], now: Seconds) -> list[Effect]:  # noqa: C901, PLR0911, PLR0912 - one line a message
        message, body = frame.message, frame.body
        if message.order != self.order:
            raise TranscriptError(f"round {message.order} spoke to round {self.order}")
        if frame.signer.generation != self.order.generation:
            raise CertificateError(
                f"a coordinator of generation {frame.signer.generation} speaks in round {self.order}"
            )
        match message:
            case Manifest():
                return self._invited_again(body, now)
            case RoundEnded():
                return self._ended(message)
            case Grant(blob=blob, chunks=chunks):
                return self._granted(blob, chunks)
            case Stored(blob=blob):
                return self._stored(blob)
            case Extension():
                return self._extended(message, now)
            case HighWater() | Pace():
                raise ProtocolError(f"a {type(message).__name__} is no message of a round")
            case Cohort():
                return self._on_cohort(message, body)
            case ShareSet():
                return self._on_share_set(message, body)
            case ShareDelivery():
                return self._on_delivery(message, now)
            case SurvivorSet():
                return self._on_survivor_set(message, body, now)
            case Confirmations():
                return self._on_confirmations(message, body)

    def _on_cohort(self, cohort: Cohort, body: bytes) -> list[Effect]:
        if self._is_repeat(cohort, body):
            return []
        known = self._in_turn(_Keyed, cohort)
        self._take(cohort, body, self._t0)
        return [
            Compute(
                JoinCohort(
                    cohort=cohort,
                    manifest=self.manifest,
                    context=self._t0,
                    own=self._context.own,
                    own_keys=known.keys,
                    floor=self._floor,
                    trust=self._context.trust,
                    now=self._context.started,
                    min_enrolled_age=self._context.min_enrolled_age,
                    secrets=self._live_secrets,
                )
            )
        ]

    def _on_share_set(self, share_set: ShareSet, body: bytes) -> list[Effect]:
        if self._is_repeat(share_set, body):
            return []
        known = self._in_turn(_Shared, share_set)
        view = known.membership.view
        self._take(share_set, body, view.transcript)
        try:
            members = check_set(
                share_set.members, frozenset(view.members), known.membership, self._context.own, self._floor
            )
        except SetError as error:
            return self._leave(error)
        self._known = _Chosen(known.vector, known.membership, members, extend(view.transcript, body))
        return self._mask()

    def _on_delivery(self, delivery: ShareDelivery, now: Seconds) -> list[Effect]:
        if isinstance(self._known, _Uploading):
            # It comes again only while the coordinator knows of no offer, or has given the upload up.
            return self._say_again(now)
        # Set and delivery come by different topics, so either may be first.
        self._early = delivery
        return self._mask() if isinstance(self._known, _Chosen) else []

    def _mask(self) -> list[Effect]:
        chosen, delivery = self._own(_Chosen), self._early
        self._early = None
        if delivery is None or self._masking:
            return []
        if delivery.transcript != chosen.transcript:
            raise TranscriptError("the delivered shares are of another share set")
        live = chosen.membership.neighbours & chosen.members
        delivered = {DeviceId(sender): sealed for sender, sealed in delivery.shares}
        if live - delivered.keys():
            return self._leave(
                ShareDeliveryError(f"no shares from {', '.join(sorted(live - delivered.keys()))[:120]}")
            )
        self._masking = True
        return [
            Compute(
                MaskUpdate(
                    vector=chosen.vector,
                    own=self._context.own,
                    membership=chosen.membership,
                    transcript=chosen.transcript,
                    live=live,
                    delivered=delivered,
                    secrets=self._live_secrets,
                )
            )
        ]

    def _granted(self, blob: bytes, chunks: tuple[int, ...]) -> list[Effect]:
        known = self._known
        if not isinstance(known, _Uploading | _Confirmed) or blob != known.masked.ref.sha256:
            raise ProtocolError("a grant for an upload that was not offered")
        self._unanswered = False
        return [SendChunks(tuple(index for index in chunks if index < known.masked.ref.chunks))]

    def _stored(self, blob: bytes) -> list[Effect]:
        known = self._known
        if not isinstance(known, _Uploading | _Confirmed) or blob != known.masked.ref.sha256:
            raise ProtocolError("an upload was stored that was not offered")
        if isinstance(known, _Uploading):
            self._unanswered = False
        return []

    def _on_survivor_set(self, survivors: SurvivorSet, body: bytes, now: Seconds) -> list[Effect]:
        if self._is_repeat(survivors, body):
            return []
        known = self._in_turn(_Uploading, survivors)
        self._take(survivors, body, known.transcript)
        try:
            members = check_set(
                survivors.members, known.share_set, known.membership, self._context.own, self._floor
            )
        except SetError as error:
            return self._leave(error)
        transcript = extend(known.transcript, body)
        self._known = _Confirmed(known.membership, known.masked, known.share_set, members, transcript)
        self._move(Step.SURVIVOR_SET)
        return self._say(Confirmation(self.order, transcript), now)

    def _on_confirmations(self, confirmations: Confirmations, body: bytes) -> list[Effect]:
        if self._is_repeat(confirmations, body):
            return []
        known = self._in_turn(_Confirmed, confirmations)
        self._take(confirmations, body, known.transcript)
        neighbours = known.membership.neighbours & known.survivors
        return [Compute(CheckConfirmations(confirmations, neighbours, known.membership.view))]

    def _invited_again(self, body: bytes, now: Seconds) -> list[Effect]:
        if body != self._invitation:
            raise SecondDecisionError(f"a second manifest for round {self.order}")
        return self._say_again(now)

    def _extended(self, extension: Extension, now: Seconds) -> list[Effect]:
        """The coordinator was restarted, and may have forgotten what it heard last."""
        if extension.transcript != self._t0:
            raise TranscriptError("the extension is of another manifest")
        if extension.seconds > self.manifest.deadlines.max_lifetime:
            raise ProtocolError(f"an extension of {extension.seconds:g} s exceeds the round's lifetime")
        if extension.seconds <= self._extension:
            return []
        self._extension = extension.seconds
        self._resend_after = FIRST_RESEND
        return self._say_again(now) if self._unanswered else []

    def _ended(self, message: RoundEnded) -> list[Effect]:
        self.reason = message.reason
        self.retry_after = message.retry_after
        self._erase()
        self._move(Step.ENDED if self.stage is not Stage.INVITED else Step.LEAVE)
        return []

    # Results of computations.

    def _computed(self, result: object, now: Seconds) -> list[Effect]:
        match result:
            case RingVector():
                return self._encoded(result, now)
            case Membership():
                return self._joined(result, now)
            case Masked():
                return self._masked(result, now)
            case frozenset():
                return self._reveal(now)
        raise MisuseError(f"nobody asked for a {type(result).__name__}")

    def _encoded(self, vector: RingVector, now: Seconds) -> list[Effect]:
        secrets = self._live_secrets
        keys = RoundKeys(self.order, self._t0, secrets.mask_public, secrets.seal_public)
        self._known = _Keyed(vector, keys)
        self._move(Step.TRAINED)
        return self._say(keys, now)

    def _joined(self, membership: Membership, now: Seconds) -> list[Effect]:
        known = self._own(_Keyed)
        self._known = _Shared(known.vector, membership)
        self._move(Step.COHORT)
        return self._say(membership.shares, now)

    def _masked(self, masked: Masked, now: Seconds) -> list[Effect]:
        chosen = self._own(_Chosen)
        self._known = _Uploading(chosen.membership, chosen.members, chosen.transcript, masked)
        self._move(Step.SHARE_SET)
        return [
            *(Refuse(error) for error in masked.refused),
            Enter("uploading"),
            *charge_for(self.manifest),
            Upload(masked.ref, masked.data),
            *self._say(UploadOffer(self.order, chosen.transcript, masked.ref), now),
        ]

    def _reveal(self, now: Seconds) -> list[Effect]:
        known = self._own(_Confirmed)
        shares = tuple(
            # I1: one share a peer, its kind from the survivor set alone.
            (peer, seed_share if peer in known.survivors else key_share)
            for peer, (seed_share, key_share) in sorted(known.masked.held.items())
        )
        self._move(Step.CONFIRMATIONS)
        self._erase()
        return self._say(Reveal(self.order, known.transcript, shares), now)

    # Common parts.

    @property
    def _floor(self) -> int:
        return max(self._context.min_cohort, self.manifest.min_cohort)

    @property
    def _live_secrets(self) -> RoundSecrets:
        if self._secrets is None:
            raise MisuseError("the round's secrets are erased")
        return self._secrets

    def _is_repeat(self, decision: RoundMessage, body: bytes) -> bool:
        """Whether this very decision was taken already; a different one of its kind is refused."""
        taken = self._decisions.get(type(decision))
        if taken is not None and taken != sha256(body).digest():
            raise SecondDecisionError(f"a second {type(decision).__name__} for round {self.order}")
        return taken is not None

    def _take(self, decision: RoundMessage, body: bytes, transcript: bytes) -> None:
        if decision.transcript != transcript:
            raise TranscriptError(f"the {type(decision).__name__} continues another transcript")
        self._decisions[type(decision)] = sha256(body).digest()

    def _in_turn(self, kind: type[_K], message: Message) -> _K:
        """What is known, if the message comes in its turn."""
        if not isinstance(self._known, kind):
            raise ProtocolError(f"a {type(message).__name__} while {self.stage}")
        return self._known

    def _own(self, kind: type[_K]) -> _K:
        """What is known, which our own computation cannot have outlived."""
        if not isinstance(self._known, kind):
            raise MisuseError(f"a result came while {self.stage}")
        return self._known

    def _say(self, message: FromDevice, now: Seconds) -> list[Effect]:
        self._said = message
        self._unanswered = True
        self._resend_after = FIRST_RESEND
        self._resend_at = Seconds(now + FIRST_RESEND)
        return [Say(message)]

    def _say_again(self, now: Seconds) -> list[Effect]:
        self._resend_after = Seconds(min(2 * self._resend_after, LAST_RESEND))
        self._resend_at = Seconds(now + self._resend_after)
        return [Say(self._said)] if self._said is not None else []

    def _woke(self, now: Seconds) -> list[Effect]:
        if now >= self._ends_at:
            return self._leave(ProtocolError("the round's lifetime is over"))
        if self._unanswered and now >= self._resend_at:
            return self._say_again(now)
        return []

    def _leave(self, error: Exception, *, refuse: bool = True) -> list[Effect]:
        self.reason = str(error)[:MAX_REASON]
        self._erase()
        self._move(Step.LEAVE)
        effects: list[Effect] = [Say(Decline(self.order, self._t0, self.reason))]
        return [Refuse(error), *effects] if refuse else effects

    def _erase(self) -> None:
        self._secrets = None
        self._known = _Waiting()
        self._early = None

    def _expect(self, stage: Stage) -> None:
        if self.stage is not stage:
            raise MisuseError(f"the shell answered in stage {self.stage}, expected {stage}")

    def _move(self, step: Step) -> None:
        self.stage = DEVICE_MOVES[self.stage, step]
