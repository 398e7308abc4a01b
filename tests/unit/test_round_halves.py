"""What the two halves owe their shells: when to be woken, what to say again, what to forget."""

import pytest
from hostile_fleets import HostileCoordinator
from msgspec.structs import replace
from virtual_fleet import VirtualFleet

from protocol import effects as fx
from protocol.device_checks import DeviceContext
from protocol.device_round import DeviceRound
from protocol.eligibility import Facts
from protocol.errors import MisuseError
from protocol.frames import Opened, open_coordinator_frame, open_device_frame, seal_frame
from protocol.ids import DeviceId, Seconds, UnixTime
from protocol.messages import Accept, Decline, Extension, Manifest, RoundEnded, RoundKeys, UploadOffer
from protocol.phases import Phase
from protocol.plan import Eligibility
from secagg.keys import Secret, public_key

NOW = UnixTime(1_700_000_000.0)
D1 = DeviceId("d001")


def kinds(effects: list[fx.Effect]) -> list[type]:
    return [type(effect) for effect in effects]


def wake(effects: list[fx.Effect]) -> float:
    (time,) = [effect.time for effect in effects if isinstance(effect, fx.WakeAt)]
    return time


class Counter:
    """A coordinator's half alone, with a hand on its clock."""

    def __init__(self, devices: int = 4) -> None:
        self.fleet = VirtualFleet(devices)
        self.round = self.fleet.round
        self.now = Seconds(100.0)

    def tell(self, event: fx.CoordinatorEvent) -> list[fx.Effect]:
        return self.round.handle(event, self.now)

    def hear(self, name: str, kind: type) -> list[fx.Effect]:
        order, t0, number = self.round.order, self.round._t0, int(name[1:])
        mask, seal = (public_key(Secret(bytes([number, salt]) * 16)) for salt in (1, 2))
        said = Accept(order, t0) if kind is Accept else RoundKeys(order, t0, mask, seal)
        frame = seal_frame(self.fleet.devices[DeviceId(name)].identity, said)
        return self.tell(fx.Heard(open_device_frame(frame, self.fleet.trust, NOW)))

    def everybody(self, kind: type) -> list[fx.Effect]:
        return [self.hear(name, kind) for name in self.fleet.devices][-1]


def test_the_silent_are_addressed_again_after_1_2_4_seconds() -> None:
    counter = Counter()
    assert kinds(counter.tell(fx.Begin())) == [fx.Invite] * 4 + [fx.WakeAt]
    counter.hear("d001", Accept)
    for pause in (1, 2, 4):
        counter.now = Seconds(counter.now + pause)
        again = counter.tell(fx.Woke())
        assert [effect.to for effect in again if isinstance(effect, fx.Invite)] == ["d002", "d003", "d004"]
    assert wake(again) == 110.0  # the deadline of inviting comes before the next repeat


def test_a_device_that_is_gone_is_not_waited_for_but_may_come_back() -> None:
    counter = Counter()
    counter.tell(fx.Begin())
    for name in ("d001", "d002", "d003"):
        counter.hear(name, Accept)
    counter.tell(fx.Gone(DeviceId("d004")))
    assert counter.round.phase is Phase.KEYING
    counter.hear("d004", RoundKeys)
    counter.everybody(RoundKeys)
    assert counter.round.progress.answered[Phase.KEYING] == 4


def test_nobody_is_woken_for_a_deadline_that_passed_during_a_computation() -> None:
    counter = Counter()
    counter.tell(fx.Begin())
    counter.everybody(Accept)
    assert fx.Compute in kinds(counter.everybody(RoundKeys))  # the cohort is being formed
    counter.now = Seconds(counter.now + 1000)  # longer than keying may last
    for _ in range(5):
        effects = counter.tell(fx.Woke())
        assert wake(effects) > counter.now
    assert counter.round.phase is Phase.KEYING


@pytest.mark.parametrize("keying", [False, True])
def test_a_restart_extends_the_phase_and_asks_the_silent_again(*, keying: bool) -> None:
    counter = Counter()
    counter.tell(fx.Begin())
    if keying:
        counter.everybody(Accept)
    before = counter.round.progress.deadline
    first, *rest = counter.tell(fx.Resumed(Seconds(40.0)))
    assert first == fx.Announce(Extension(counter.round.order, counter.round._t0, 40.0))
    assert kinds(rest) == ([fx.WakeAt] if keying else [*4 * [fx.Invite], fx.WakeAt])
    assert counter.round.progress.deadline == before  # the round's own time stood still
    again, *_ = counter.tell(fx.Resumed(Seconds(2.5)))
    assert again == fx.Announce(Extension(counter.round.order, counter.round._t0, 42.5))


def test_a_round_does_not_outlive_its_devices_secrets() -> None:
    counter = Counter()
    counter.tell(fx.Begin())
    counter.everybody(Accept)
    lifetime = counter.round.manifest.deadlines.max_lifetime
    counter.tell(fx.Resumed(Seconds(lifetime - 100)))
    assert counter.round.progress.deadline == counter.now + 100.0
    *_, announced = counter.tell(fx.Resumed(Seconds(100.0)))
    assert isinstance(announced, fx.Announce)
    assert isinstance(announced.decision, RoundEnded)
    assert announced.decision.reason == "the coordinator was away for too long"
    assert counter.round.over


def test_a_result_that_nobody_waits_for_is_our_bug() -> None:
    counter = Counter()
    counter.tell(fx.Begin())
    with pytest.raises(MisuseError, match="nobody waits for"):
        counter.tell(fx.Computed(_Idle(), None))


class _Idle:
    heavy = False

    def run(self) -> None:
        return None


# Devices.


def test_a_device_remembers_the_round_before_it_says_anything() -> None:
    fleet = VirtualFleet()
    frame = open_coordinator_frame(seal_frame(fleet.coordinator_identity, fleet.manifest), fleet.trust, NOW)
    assert isinstance(frame.message, Manifest)
    invitation = Opened(frame.signer, frame.message, frame.body, frame.frame, frame.signature)
    context = DeviceContext(
        D1,
        fleet.trust,
        min_cohort=3,
        corrupt_fraction=0.0,
        facts=Facts(idle=True, charging=True, unmetered=True),
        started=NOW,
    )
    half = DeviceRound(invitation, context, Secret(bytes(32)))
    effects = half.handle(fx.Begin(), Seconds(0.0))
    assert effects[0] == fx.Remember(fleet.manifest.order)  # I2: the tombstone first
    assert kinds(effects) == [fx.Remember, fx.Say, fx.Enter, fx.Fetch, fx.WakeAt]


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        ("idle", "busy"),
        ("charging", "on battery (needs mains power)"),
        ("unmetered", "network metered"),
    ],
)
def test_a_device_that_misses_a_condition_declines_in_words(condition: str, reason: str) -> None:
    fleet = VirtualFleet()
    manifest = replace(fleet.manifest, eligibility=Eligibility(**{condition: True}))
    frame = open_coordinator_frame(seal_frame(fleet.coordinator_identity, manifest), fleet.trust, NOW)
    invitation = Opened(frame.signer, manifest, frame.body, frame.frame, frame.signature)
    context = DeviceContext(
        D1, fleet.trust, min_cohort=3, corrupt_fraction=0.0, started=NOW,
        facts=Facts(**{name: name != condition for name in ("idle", "charging", "unmetered")}),
    )  # fmt: skip
    half = DeviceRound(invitation, context, Secret(bytes(32)))
    (said,) = half.handle(fx.Begin(), Seconds(0.0))
    assert isinstance(said, fx.Say)
    assert isinstance(said.message, Decline)
    assert said.message.reason == reason
    assert half.over


def test_a_device_says_again_what_was_not_answered() -> None:
    fleet = HostileCoordinator()
    fleet.invite()
    half = fleet.devices[D1].round
    assert half is not None
    said = [kinds(half.handle(fx.Woke(), Seconds(time))) for time in (0.5, 1.0, 2.0, 3.0)]
    assert said == [[fx.WakeAt], [fx.Say, fx.WakeAt], [fx.WakeAt], [fx.Say, fx.WakeAt]]
    assert kinds(half.handle(fx.Reconnected(), Seconds(3.1))) == [fx.Say, fx.WakeAt]


def test_an_upload_is_offered_again_when_the_shares_come_again() -> None:
    fleet = HostileCoordinator()
    share_set = fleet.share_set(fleet.bring_to_shares().transcript)
    fleet.tell_all(share_set)
    delivery = fleet.delivery("d001", share_set)
    for _ in range(2):
        assert fleet.tell("d001", delivery) == []
    offers = [said for said in fleet.devices[D1].said if isinstance(said, UploadOffer)]
    assert len(offers) == 2
    assert offers[0] == offers[1]


@pytest.mark.parametrize("bring", ["invite", "bring_to_shares", "bring_to_uploads", "bring_to_confirmations"])
def test_secrets_are_gone_when_the_lifetime_is_over(bring: str) -> None:
    fleet = HostileCoordinator()
    getattr(fleet, bring)()
    half = fleet.devices[D1].round
    assert half is not None
    assert half._secrets is not None
    half.handle(fx.Woke(), Seconds(fleet.manifest.deadlines.max_lifetime))
    assert half.over
    assert half._secrets is None
    assert half.reason == "the round's lifetime is over"
    assert "Waiting" in repr(half._known)


def test_secrets_are_gone_when_the_round_ends_or_the_shares_are_revealed() -> None:
    fleet = HostileCoordinator()
    _, t3 = fleet.bring_to_confirmations()
    fleet.tell("d001", fleet.confirmations(t3))
    fleet.tell("d002", RoundEnded(fleet.manifest.order, "aborted", "enough", 5.0))
    for name, stage in (("d001", "revealed"), ("d002", "done")):
        half = fleet.devices[DeviceId(name)].round
        assert half is not None
        assert half.stage == stage
        assert half._secrets is None
    half = fleet.devices[DeviceId("d002")].round
    assert half is not None
    assert (half.reason, half.retry_after) == ("enough", 5.0)


def test_a_failure_of_the_device_itself_is_said_and_not_counted_as_a_refusal() -> None:
    fleet = HostileCoordinator()
    fleet.invite()
    half = fleet.devices[D1].round
    assert half is not None
    assert half.handle(fx.DeviceFailed("the agent ends"), Seconds(0.0)) == [
        fx.Say(Decline(fleet.manifest.order, fleet.t0, "the agent ends"))
    ]
    assert half.over


def test_the_shell_must_not_answer_what_was_not_asked() -> None:
    fleet = HostileCoordinator()
    fleet.bring_to_shares()
    half = fleet.devices[D1].round
    assert half is not None
    with pytest.raises(MisuseError, match="answered in stage shared"):
        half.handle(fx.Fetched(b"", b""), Seconds(0.0))
    with pytest.raises(MisuseError, match="nobody asked"):
        half.handle(fx.Computed(_Idle(), "text"), Seconds(0.0))


def invited(**changes: object) -> DeviceRound:
    """One that fulfils everything, before it begins."""
    fleet = VirtualFleet()
    frame = open_coordinator_frame(seal_frame(fleet.coordinator_identity, fleet.manifest), fleet.trust, NOW)
    invitation = Opened(frame.signer, fleet.manifest, frame.body, frame.frame, frame.signature)
    context = DeviceContext(
        D1, fleet.trust, min_cohort=3, corrupt_fraction=0.0, facts=Facts(), started=NOW, **changes  # type: ignore[arg-type]
    )  # fmt: skip
    return DeviceRound(invitation, context, Secret(bytes(32)))


def test_a_device_that_is_asleep_declines_with_that_reason() -> None:
    half = invited(asleep="on battery (41 %, needs 60 %)")
    (said,) = half.handle(fx.Begin(), Seconds(0.0))
    assert isinstance(said, fx.Say)
    assert isinstance(said.message, Decline)
    assert said.message.reason == "on battery (41 %, needs 60 %)"


def test_a_device_whose_conditions_fail_leaves_while_it_trains() -> None:
    half = invited()
    half.handle(fx.Begin(), Seconds(0.0))
    assert half.stage == "training"
    assert half.without_keys
    assert half.handle(fx.ConditionsFailed("too hot"), Seconds(9.0)) == [
        fx.Say(Decline(half.order, half._t0, "too hot"))
    ]
    assert (half.over, half.reason) == (True, "too hot")


@pytest.mark.parametrize("bring", ["invite", "bring_to_shares", "bring_to_uploads", "bring_to_confirmations"])
def test_a_device_whose_conditions_fail_stays_once_its_keys_have_left(bring: str) -> None:
    fleet = HostileCoordinator()
    getattr(fleet, bring)()
    half = fleet.devices[D1].round
    assert half is not None
    stage = half.stage
    assert not half.without_keys
    assert kinds(half.handle(fx.ConditionsFailed("too hot"), fleet.now)) == [fx.WakeAt]
    assert half.stage == stage
