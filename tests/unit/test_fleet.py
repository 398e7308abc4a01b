"""Who is on offer: an offer expires, a frame renews it, a will of an earlier boot is old news."""

from cryptography.hazmat.primitives.serialization import Encoding
from hand_clock import HandClock
from virtual_fleet import NOW

from broker.transport import Delivery
from coordinator.fleet import Fleet
from protocol.certificates import FleetTrust, Role
from protocol.eligibility import NEVER, Facts
from protocol.frames import Opened, seal_frame
from protocol.ids import ORIGIN, DeviceId, Order, UnixTime
from protocol.messages import Accept, FromDevice, Message, Offer
from protocol.pace import SHORTEST, offer_lasts
from protocol.revocations import encode_revocations
from protocol.status import DeviceState, DeviceStatus, encode_status
from protocol.topics import Topics
from registrar.authority import FleetAuthority
from runtime.entropy import SeededEntropy
from runtime.identity import Identity

TOPICS = Topics("test")
FACTS = Facts(idle=True, charging=False, battery=41, tags=("lab",), version="0.1.0")
OFFER_LASTS = offer_lasts(SHORTEST)


class WallClock(HandClock):
    def unix(self) -> UnixTime:
        return NOW


class Yard:
    """A coordinator's view of one device, `d1`."""

    def __init__(self) -> None:
        self.authority = FleetAuthority.create("test", UnixTime(NOW - 1000), SeededEntropy(1).bytes)
        self.identity = self.authority.issue("d1", Role.DEVICE)
        self.clock = WallClock()
        self.facts = FACTS
        self.fleet = Fleet(FleetTrust(self.identity.root), self.clock)
        self.frames: list[Opened[FromDevice]] = []
        self.lost: list[DeviceId] = []
        self.fleet.on_frame = self.frames.append
        self.fleet.on_lost = self.lost.append
        self.restarted: list[DeviceId] = []
        self.fleet.on_restarted = self.restarted.append

    def hear(self, message: Message) -> None:
        topic = TOPICS.outbox(DeviceId("d1"))
        self.fleet.frame_arrived(Delivery(topic, seal_frame(self.identity, message), retained=False))

    def offer(self, boot: int = 1, seen: Order = ORIGIN) -> None:
        self.hear(Offer(boot, seen, self.facts, ()))

    def presence(self, state: DeviceState, boot: int) -> None:
        status = encode_status(DeviceStatus(state, boot=boot))
        self.fleet.status_arrived(Delivery(TOPICS.device_status(DeviceId("d1")), status, retained=True))

    @property
    def on_offer(self) -> bool:
        return [candidate.device for candidate in self.fleet.candidates()] == ["d1"]


def test_a_device_is_a_candidate_while_its_offer_lasts() -> None:
    yard = Yard()
    assert not yard.on_offer
    yard.offer()
    assert yard.on_offer
    (candidate,) = yard.fleet.candidates()
    assert candidate.facts == FACTS


async def test_an_offer_expires_and_any_frame_renews_it() -> None:
    yard = Yard()
    yard.offer()
    await yard.clock.pass_time(OFFER_LASTS)
    assert yard.on_offer
    yard.hear(Accept(Order(1, 1, 1), bytes(32)))
    await yard.clock.pass_time(OFFER_LASTS)
    assert yard.on_offer
    await yard.clock.pass_time(1)
    assert not yard.on_offer


def test_a_will_of_this_boot_counts_and_one_of_an_earlier_boot_does_not() -> None:
    yard = Yard()
    yard.offer(boot=3)
    yard.presence("lost", boot=2)
    assert yard.on_offer
    yard.presence("training", boot=3)
    assert yard.on_offer
    assert yard.lost == []
    yard.presence("lost", boot=3)
    assert not yard.on_offer
    assert yard.lost == ["d1"]


def test_a_sleeping_device_is_not_on_offer_and_its_round_is_told_nothing() -> None:
    yard = Yard()
    yard.offer()
    yard.presence("sleeping", boot=1)
    assert not yard.on_offer
    assert yard.lost == []
    yard.presence("idle", boot=1)
    assert yard.on_offer


async def test_an_offer_lasts_longer_in_a_large_fleet() -> None:
    yard = Yard()
    yard.fleet.interval = 1000.0
    yard.offer()
    await yard.clock.pass_time(2500.0)
    assert yard.on_offer
    await yard.clock.pass_time(1.0)
    assert not yard.on_offer


async def test_devices_are_counted_for_the_pace_for_as_long_as_any_offer_can_last() -> None:
    yard = Yard()
    yard.offer()
    yard.presence("lost", boot=1)
    await yard.clock.pass_time(9000.0)
    assert yard.fleet.heard_lately() == 1
    await yard.clock.pass_time(1.0)
    assert yard.fleet.heard_lately() == 0


async def test_a_device_rests_since_it_has_entered_a_round_whatever_its_last_offer_said() -> None:
    yard = Yard()
    yard.offer()
    assert [one.facts.rested for one in yard.fleet.candidates()] == [NEVER]
    await yard.clock.pass_time(50.0)
    yard.hear(Accept(Order(1, 1, 1), bytes(32)))
    await yard.clock.pass_time(100.0)
    assert [one.facts.rested for one in yard.fleet.candidates()] == [100]
    yard.facts = Facts(rested=99)
    yard.offer()
    await yard.clock.pass_time(1.0)
    assert [one.facts.rested for one in yard.fleet.candidates()] == [100]


def test_a_lost_device_that_speaks_is_back() -> None:
    yard = Yard()
    yard.offer()
    yard.presence("offline", boot=1)
    assert not yard.on_offer
    yard.hear(Accept(Order(1, 1, 1), bytes(32)))
    assert yard.on_offer


def test_a_frame_does_not_replace_an_offer() -> None:
    yard = Yard()
    yard.hear(Accept(Order(1, 1, 1), bytes(32)))
    assert not yard.on_offer
    assert len(yard.frames) == 1  # the round still hears it


def test_what_is_not_valid_is_counted_and_dropped() -> None:
    yard = Yard()
    yard.fleet.frame_arrived(Delivery(TOPICS.outbox(DeviceId("d1")), b"noise", retained=False))
    stranger = FleetAuthority.create("test", NOW, SeededEntropy(2).bytes).issue("d1", Role.DEVICE)
    frame = seal_frame(stranger, Accept(Order(1, 1, 1), bytes(32)))
    yard.fleet.frame_arrived(Delivery(TOPICS.outbox(DeviceId("d1")), frame, retained=False))
    assert yard.fleet.refused == 2
    assert yard.frames == []
    yard.offer()
    yard.fleet.status_arrived(Delivery(TOPICS.device_status(DeviceId("d1")), b"noise", retained=True))
    assert yard.on_offer


def test_the_newest_round_is_what_more_devices_than_may_lie_have_seen() -> None:
    yard = Yard()
    assert yard.fleet.newest_seen(1 / 3) == ORIGIN
    for name, seen in (("d2", Order(1, 4, 8)), ("d3", Order(1, 4, 9)), ("d4", Order(1, 4, 9))):
        yard.identity = yard.authority.issue(name, Role.DEVICE)
        yard.offer(seen=seen)
    yard.identity = yard.authority.issue("d5", Role.DEVICE)
    yard.offer(seen=Order(2**32 - 1, 2**53 - 1, 2**53 - 1))
    assert yard.fleet.newest_seen(1 / 3) == Order(1, 4, 9)


def test_an_old_offer_said_again_changes_nothing() -> None:
    yard = Yard()
    yard.offer(boot=4)
    yard.offer(boot=5)
    yard.restarted.clear()
    yard.offer(boot=4)
    yard.offer(boot=5)
    assert yard.restarted == []


def test_one_forged_will_does_not_keep_a_device_out_for_ever() -> None:
    yard = Yard()
    yard.offer(boot=1)
    yard.presence("lost", boot=2**52)
    assert not yard.on_offer
    yard.offer(boot=1)
    yard.offer(boot=1)
    assert yard.on_offer


def test_a_round_that_is_over_hears_nothing() -> None:
    yard = Yard()
    yard.fleet.forget_round()
    yard.offer(boot=1)
    yard.presence("lost", boot=1)
    assert (yard.frames, yard.lost) == ([], [])


def test_a_new_boot_means_that_the_old_one_is_gone() -> None:
    yard = Yard()
    yard.offer(boot=1)
    yard.offer(boot=1)
    assert yard.restarted == []
    yard.offer(boot=2)
    assert yard.restarted == ["d1"]


def test_a_will_that_overtakes_its_offer_counts_until_the_device_shows_itself() -> None:
    yard = Yard()
    yard.presence("lost", boot=3)
    yard.offer(boot=3)
    assert not yard.on_offer
    yard.presence("idle", boot=3)
    assert yard.on_offer
    yard.presence("lost", boot=3)
    yard.offer(boot=4)
    assert yard.on_offer


def test_a_presence_of_what_is_no_name_is_not_remembered() -> None:
    yard = Yard()
    for name in ("x" * 60_000, "UPPER", "a b"):
        lost = encode_status(DeviceStatus("lost", boot=1))
        yard.fleet.status_arrived(Delivery(TOPICS.device_status(DeviceId(name)), lost, retained=False))
    assert yard.fleet._away == {}


class RegisteredYard(Yard):
    """A coordinator's view of one device that a registrar has enrolled."""

    def __init__(self) -> None:
        super().__init__()
        registrar = self.authority.issue("registrar", Role.REGISTRAR)
        self.registrar = FleetAuthority.of_registrar(registrar, UnixTime(NOW - 500), SeededEntropy(2).bytes)
        self.identity = self.registrar.issue("d1", Role.DEVICE)
        self.trust = FleetTrust(self.identity.root)
        self.fleet = Fleet(self.trust, self.clock)
        self.fleet.on_frame = self.frames.append
        self.revoked: list[DeviceId] = []
        self.fleet.on_revoked = self.revoked.append

    def publish(self, sequence: int, *identities: Identity) -> None:
        serials = [self.trust.read(one.certificate).serial for one in identities]
        revoked = dict.fromkeys(serials, NOW)
        signed = self.registrar.revocation_list(sequence, revoked, UnixTime(NOW + 1000))
        own = self.registrar.certificate.public_bytes(Encoding.DER)
        self.trust.heed(encode_revocations(own, signed.public_bytes(Encoding.DER)))
        self.fleet.list_arrived()


def test_a_registrars_device_is_heard_once_its_list_is_there() -> None:
    yard = RegisteredYard()
    yard.offer()
    assert not yard.on_offer
    yard.publish(1)
    yard.offer()
    assert yard.on_offer
    (candidate,) = yard.fleet.candidates()
    assert candidate.enrolled == 500


def test_a_revoked_device_is_not_on_offer_nor_heard_and_the_round_is_told() -> None:
    yard = RegisteredYard()
    yard.publish(1)
    yard.offer()
    yard.publish(2, yard.identity)
    assert yard.revoked == ["d1"]
    assert yard.fleet.is_revoked(DeviceId("d1"))
    heard = len(yard.frames)
    yard.offer()
    assert not yard.on_offer
    assert len(yard.frames) == heard


def test_a_device_that_is_enrolled_again_is_another() -> None:
    yard = RegisteredYard()
    yard.publish(1)
    yard.offer()
    yard.publish(2, yard.identity)
    yard.identity = yard.registrar.issue("d1", Role.DEVICE)
    yard.offer()
    assert yard.on_offer
    assert not yard.fleet.is_revoked(DeviceId("d1"))
