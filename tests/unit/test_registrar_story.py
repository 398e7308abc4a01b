"""A registrar, a guard and devices on a bus in memory, with a clock that the test moves."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hand_clock import HandClock, settle
from registry import DAY, NOW, Registry, key

from broker.memory import MemoryBroker
from broker.transport import TransportError
from device_agent.join import (
    JoinError,
    apply,
    enrol,
    install,
    joined_before,
    keep,
    write_bundle,
    write_request,
)
from device_agent.renewal import Renewal, keep_renewed
from protocol.certificates import FleetTrust, Role
from protocol.enrolment import CLAIM, Claim, Enrolled, EnrolmentRefused, EnrolmentRequest, write_csr
from protocol.errors import RequestError
from protocol.frames import seal_frame
from protocol.ids import UnixTime
from protocol.revocations import RevocationList
from protocol.status import BrokerStatus, decode_status
from protocol.topics import Topics
from registrar.app import CRL_FILE, HELD, Registrar, crl_file
from registrar.authority import FleetAuthority
from registrar.guard import Guard, list_on_disk
from registrar.store import RegistrarStore
from runtime.entropy import SeededEntropy
from runtime.identity import Identity, load_identity, write_identity

TOPICS = Topics("demo")


class Clock(HandClock):
    """Wall-clock time goes with it, from a date at which certificates are valid."""

    def unix(self) -> UnixTime:
        return UnixTime(NOW + 10 + self.now())

    async def jump(self, seconds: float) -> None:
        """As for a machine that was asleep: nobody's timers run out meanwhile."""
        self._now += seconds
        self._sleepers = [(at + seconds, order, sleeper) for at, order, sleeper in self._sleepers]
        await self.pass_time(2)


@dataclass
class Story:
    """A fleet on one bus."""

    folder: Path
    clock: Clock = field(default_factory=Clock)
    broker: MemoryBroker = field(default_factory=MemoryBroker)
    entropy: SeededEntropy = field(default_factory=lambda: SeededEntropy(7))
    kicked: list[str] = field(default_factory=list)
    kicks_fail: bool = False
    in_force: list[int] = field(default_factory=list)
    tasks: list[tuple[asyncio.Task[None], asyncio.Event]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.registry = Registry(self.folder / "state")
        self.bus = self.broker.connect("registrar")

    async def start_registrar(self, registry: Registry | None = None) -> Registrar:
        office = (registry or self.registry).reopened()
        self.registry.office = office
        registrar = Registrar(
            office,
            TOPICS,
            self.bus,
            self.clock,
            kick=self.kick,
            files=(self.folder / CRL_FILE, self.folder / "no root.crl"),
        )
        await self.start(registrar.run)
        return registrar

    async def start_guard(self, on_disk: x509.CertificateRevocationList | None = None) -> Guard:
        trust = FleetTrust(self.registry.identity.root)
        guard = Guard(
            trust,
            TOPICS,
            self.broker.connect("guard"),
            self.clock,
            put_in_force=self.take_list,
            on_disk=on_disk,
        )
        await self.start(guard.run)
        return guard

    def take_list(self, known: RevocationList) -> None:
        self.in_force.append(known.sequence)

    async def kick(self, name: str) -> None:
        if self.kicks_fail:
            raise TransportError("no broker")
        self.kicked.append(name)

    async def start(self, run: object) -> None:
        stop = asyncio.Event()
        self.tasks.append((asyncio.create_task(run(stop)), stop))  # type: ignore[operator]
        await self.clock.pass_time(2)

    async def stop_last(self) -> None:
        task, stop = self.tasks.pop()
        stop.set()
        await settle()
        await task

    def token(self, name: str | None = None) -> Claim:
        return self.registry.office.give_claim(self.clock.unix(), 600, name)

    def joining(self, claim: Claim, name: str, seconds: float = 60) -> "asyncio.Task[Identity]":
        async def join() -> Identity:
            folder = self.folder / name
            applying = apply(claim, name, folder, self.entropy)
            answer = await enrol(
                applying, lambda: self.broker.connect(CLAIM, clean=True), self.clock, self.entropy, seconds
            )
            keep(folder, name, claim.root, answer, applying.key)
            return load_identity(folder)

        return asyncio.create_task(join())

    async def join(self, name: str) -> Identity:
        task = self.joining(self.token(), name)
        await self.clock.pass_time(5)
        return await task

    def revoke(self, name: str) -> None:
        device = self.registry.store.standing(name)
        assert device is not None
        with contextlib.closing(RegistrarStore(self.registry.folder)) as command:
            command.revoke(device.id, self.clock.unix(), "stolen")

    def status(self) -> BrokerStatus:
        return decode_status(self.broker.retained[TOPICS.broker_status], BrokerStatus)


@pytest.fixture
async def story(tmp_path: Path) -> AsyncIterator[Story]:
    made = Story(tmp_path)
    yield made
    while made.tasks:
        await made.stop_last()


async def test_a_device_joins_and_the_fleet_believes_it(story: Story) -> None:
    await story.start_registrar()
    device = await story.join("d1")
    trust, own = device.trust(Role.DEVICE, story.clock.unix())
    assert own.subject == "d1"
    assert trust.heed((story.folder / "d1" / "revocations").read_bytes())
    trust.check_standing(own, story.clock.unix())
    assert joined_before(story.folder / "d1", "d1", device.root, story.clock.unix())
    assert all(file.stat().st_mode & 0o077 == 0 for file in (story.folder / "d1").iterdir())


async def test_a_join_waits_for_the_registrar_and_can_be_repeated(story: Story) -> None:
    claim = story.token()
    first = story.joining(claim, "d1", seconds=30)
    await story.clock.pass_time(31)
    with pytest.raises(JoinError, match="no answer within 30 s"):
        await first
    second = story.joining(claim, "d1")
    await story.clock.pass_time(10)
    assert not second.done()
    await story.start_registrar()
    await story.clock.pass_time(20)
    assert (await second).name == "d1"
    # The certificate was lost with the power: the same token brings it again.
    (story.folder / "d1" / "d1.crt").unlink()
    third = story.joining(claim, "d1")
    await story.clock.pass_time(5)
    assert (await third).certificate == (await second).certificate


async def test_many_join_at_once_under_one_client_id(story: Story) -> None:
    await story.start_registrar()
    joins = [story.joining(story.token(), f"d{number}") for number in range(12)]
    await story.clock.pass_time(59)
    assert [(await one).name for one in joins] == [f"d{number}" for number in range(12)]


async def test_a_refusal_is_told_at_once(story: Story) -> None:
    await story.start_registrar()
    refused = story.joining(story.token("pump-3"), "d1")
    await story.clock.pass_time(3)
    with pytest.raises(JoinError, match="for a device called pump-3"):
        await refused


async def test_a_refusal_of_another_request_refuses_nothing(story: Story) -> None:
    """Of an earlier try with the same token under another name; it came late, or somebody says it again."""
    claim = story.token("pump-3")
    await story.start_registrar()
    said = list[bytes]()
    async with story.broker.connect("listener") as listener:
        await listener.subscribe(TOPICS.enrolment_answer(claim.id), lambda late: said.append(late.payload))
        early = story.joining(claim, "d1")
        await story.clock.pass_time(3)
    with pytest.raises(JoinError):
        await early
    applying = apply(claim, "pump-3", story.folder / "pump-3", story.entropy)
    with pytest.raises(RequestError, match="of another request"):
        applying.read(said[0], story.clock.unix())


async def test_a_revocation_is_seen_through(story: Story) -> None:
    await story.start_registrar()
    await story.start_guard()
    device = await story.join("d1")
    assert story.status() == BrokerStatus("online", 3)
    story.revoke("d1")
    await story.clock.pass_time(1.5)
    trust = FleetTrust(device.root)
    trust.heed(story.broker.retained[TOPICS.revocations])
    assert trust.sequence == 4
    assert trust.read(device.certificate).serial in (trust.revocations.serials if trust.revocations else ())
    assert story.in_force == [3, 4]
    assert story.kicked == ["d1"]
    [record] = story.registry.store.devices()
    assert None not in {record.listed, record.guarded, record.kicked}
    crl = x509.load_pem_x509_crl((story.folder / CRL_FILE).read_bytes())
    assert crl.get_revoked_certificate_by_serial_number(trust.read(device.certificate).serial) is not None


async def test_without_a_guard_the_session_is_ended_all_the_same(story: Story) -> None:
    await story.start_registrar()
    await story.join("d1")
    story.revoke("d1")
    await story.clock.pass_time(1.5)
    [record] = story.registry.store.devices()
    assert story.kicked == ["d1"]
    assert (record.guarded, record.kicked is None) == (None, False)


async def test_a_late_guard_has_the_session_ended_again(story: Story) -> None:
    """Until the broker goes by the list, the device may have come back."""
    await story.start_registrar()
    await story.join("d1")
    story.broker.publish(TOPICS.broker_status, b'{"state":"online","revocations":3}', retain=True)
    story.revoke("d1")
    await story.clock.pass_time(3)
    assert story.kicked == ["d1"]
    story.broker.publish(TOPICS.broker_status, b'{"state":"online","revocations":4}', retain=True)
    await story.clock.pass_time(1)
    assert story.kicked == ["d1", "d1"]
    assert story.registry.store.unfinished() == []
    await story.clock.pass_time(30)
    assert story.kicked == ["d1", "d1"]


async def test_a_guard_that_comes_back_catches_up(story: Story) -> None:
    await story.start_registrar()
    await story.join("d1")
    story.revoke("d1")
    await story.clock.pass_time(30)
    assert story.kicked == ["d1"]
    await story.start_guard()
    assert story.in_force == [4]
    assert story.kicked == ["d1", "d1"]
    assert story.registry.store.unfinished() == []


async def test_a_session_that_begins_late_is_ended_once_more_and_every_day(story: Story) -> None:
    """On a connection whose TLS was set up before the revocation the broker still lets the device in."""
    await story.start_registrar()
    await story.start_guard()
    await story.join("d1")
    story.revoke("d1")
    await story.clock.pass_time(1.5)
    assert story.kicked == ["d1"]
    await story.clock.pass_time(HELD + 1)
    assert story.kicked == ["d1", "d1"]
    await story.clock.jump(DAY)
    assert story.kicked == ["d1", "d1", "d1"]


async def test_a_registrar_that_starts_ends_old_sessions_once_more(story: Story) -> None:
    await story.start_registrar()
    for name in ("d1", "d2"):
        await story.join(name)
        story.revoke(name)
    await story.clock.pass_time(1.5)
    story.registry.enrolled("d2", 9, story.clock.unix())
    await story.stop_last()
    story.kicked.clear()
    story.bus = story.broker.connect("registrar")
    story.kicks_fail = True
    await story.start_registrar()
    await story.clock.pass_time(HELD + 1)
    story.kicks_fail = False
    await story.clock.pass_time(11)
    assert story.kicked == ["d1"]  # somebody else is called d2 now


async def test_a_kick_that_fails_is_tried_again(story: Story) -> None:
    await story.start_registrar()
    await story.join("d1")
    story.kicks_fail = True
    story.revoke("d1")
    await story.clock.pass_time(5)
    story.kicks_fail = False
    await story.clock.pass_time(11)
    assert story.kicked == ["d1"]


async def test_what_was_revoked_while_the_registrar_was_down_is_told_at_its_start(story: Story) -> None:
    await story.start_registrar()
    await story.join("d1")
    await story.stop_last()
    story.revoke("d1")
    story.bus = story.broker.connect("registrar")
    await story.start_registrar()
    assert story.kicked == ["d1"]


async def test_a_restored_registrar_goes_beyond_the_published_list(story: Story) -> None:
    await story.start_registrar()
    device = await story.join("d1")
    story.revoke("d1")
    for _ in range(3):
        await story.clock.jump(DAY)
    published = FleetTrust(device.root)
    published.heed(story.broker.retained[TOPICS.revocations])
    await story.stop_last()
    story.bus = story.broker.connect("registrar")
    restored = Registry(story.folder / "an old copy")
    assert restored.identity.certificate == story.registry.identity.certificate
    await story.start_registrar(restored)
    assert published.heed(story.broker.retained[TOPICS.revocations])
    assert published.revocations is not None
    assert published.read(device.certificate).serial in published.revocations.serials


async def test_a_new_list_is_signed_every_day(story: Story) -> None:
    await story.start_registrar()
    before = story.registry.office.trust.sequence
    for days in range(1, 4):
        await story.clock.jump(DAY)
        assert story.registry.office.trust.sequence == before + days


async def test_a_broker_that_forgot_is_told_again(story: Story) -> None:
    await story.start_registrar()
    story.broker.restart(keep_state=False)
    await story.clock.pass_time(1)
    assert story.broker.retained[TOPICS.revocations] == story.registry.office.current_list.message


async def test_hostile_requests_are_counted_and_not_answered(story: Story) -> None:
    registrar = await story.start_registrar()
    device = await story.join("d1")
    answers = list[bytes]()
    async with story.broker.connect("listener") as listener:
        await listener.subscribe(
            TOPICS.enrolment_answer("+"), lambda delivery: answers.append(delivery.payload)
        )
        await settle()
        answers.clear()
        good = seal_frame(device, EnrolmentRequest(write_csr("d1", device.private_key)))
        noise = random.Random(1).randbytes
        for payload in (b"", noise(40), noise(100_000), good[:-1], good[:-5] + noise(5)):
            story.broker.publish(TOPICS.enrolment_request("d1"), payload)
            await story.clock.pass_time(1)
        story.broker.publish(TOPICS.enrolment_request("d2"), good)
        await story.clock.pass_time(1)
        assert registrar.refused == 6
        assert answers == []
        story.broker.publish(TOPICS.enrolment_request("d1"), good)
        await story.clock.pass_time(1)
        assert len(answers) == 1
        # Many at once: one waits for each applicant, and no more than so many applicants.
        for number in range(1000):
            story.broker.publish(TOPICS.enrolment_request(f"x{number}"), b"junk")
        assert len(registrar._pending) <= 256
        await story.clock.pass_time(1)


async def test_a_certificate_is_renewed_in_time_and_shown_from_then_on(story: Story) -> None:
    await story.start_registrar()
    device = await story.join("d1")
    trust, before = device.trust(Role.DEVICE, story.clock.unix())
    folder = story.folder / "d1"
    for wait in (0, 250 * DAY):
        assert load_identity(folder).certificate == device.certificate
        await story.clock.jump(wait)
        bus = story.broker.connect("d1")
        renewed = keep_renewed(device, folder, None)
        renewal = Renewal(
            device, trust, TOPICS, bus, clock=story.clock, entropy=story.entropy, renewed=renewed
        )
        async with bus, renewal:
            await story.clock.pass_time(2)
    after = trust.read(device.certificate)
    assert after.not_after > before.not_after + 200 * DAY
    assert (after.not_before, after.public_key) == (before.not_before, before.public_key)
    assert load_identity(folder).certificate == device.certificate


async def test_a_renewal_that_fails_leaves_everything_as_it_was(story: Story) -> None:
    await story.start_registrar()
    device = await story.join("d1")
    await story.stop_last()
    await story.clock.jump(250 * DAY)
    trust, own = device.trust(Role.DEVICE, story.clock.unix())
    before, bus = device.certificate, story.broker.connect("d1")

    def disk_full() -> None:
        raise OSError(28, "No space left on device")

    renewal = Renewal(device, trust, TOPICS, bus, clock=story.clock, entropy=story.entropy, renewed=disk_full)
    async with renewal:
        await story.clock.pass_time(1)  # there is no connection yet
        async with bus:
            refusal = EnrolmentRefused(bytes(32), "not enrolled here")
            for payload in (b"junk", seal_frame(story.registry.identity, refusal)):
                story.broker.publish(TOPICS.enrolment_answer("d1"), payload)
            await story.clock.pass_time(2 * DAY)  # nobody answers
            assert renewal._task is not None
            assert not renewal._task.done()
            assert device.certificate == before
            story.bus = story.broker.connect("registrar")
            await story.start_registrar()
            await asking_again(story, renewal)
            assert device.certificate == before
            renewal._renewed = keep_renewed(device, story.folder / "d1", None)
            await asking_again(story, renewal)
    assert trust.read(device.certificate).not_after > own.not_after
    assert load_identity(story.folder / "d1").certificate == device.certificate


async def asking_again(story: Story, renewal: Renewal) -> None:
    asking = asyncio.create_task(renewal._ask())
    await story.clock.pass_time(1)
    await asking


async def test_a_device_of_the_root_renews_nothing(story: Story) -> None:
    device = story.registry.root.issue("d9", Role.DEVICE)
    trust, _ = device.trust(Role.DEVICE, NOW)
    async with story.broker.connect("d9") as bus:
        renewal = Renewal(
            device, trust, TOPICS, bus, clock=story.clock, entropy=story.entropy, renewed=lambda: None
        )
        async with renewal:
            assert renewal._task is None


async def test_a_guard_tells_why_a_list_is_not_in_force_and_tries_again(story: Story) -> None:
    await story.start_registrar()

    def fail(_known: RevocationList) -> None:
        raise PermissionError(1, "Operation not permitted")

    story.take_list = fail  # type: ignore[method-assign]
    guard = await story.start_guard()
    assert story.status() == BrokerStatus("online", 0, "list 3 is not in force: Operation not permitted")
    guard._put_in_force = lambda known: story.in_force.append(known.sequence)
    await story.clock.pass_time(2)
    assert (story.status(), story.in_force) == (BrokerStatus("online", 3), [3])


async def test_a_guard_starts_before_any_list_and_refuses_what_is_none(story: Story) -> None:
    guard = await story.start_guard()
    assert story.status() == BrokerStatus("online", 0)
    story.broker.publish(TOPICS.revocations, b"junk", retain=True)
    await settle()
    assert (guard.refused, story.in_force) == (1, [])


async def test_a_guard_goes_on_from_the_list_in_its_file(story: Story) -> None:
    """An older one of the same registrar is noticed; one of a later registrar begins anew."""
    ahead = story.registry.office
    for second in range(1, 6):
        ahead.sign_list(UnixTime(NOW + second))
    assert ahead.trust.revocations is not None
    file = story.folder / "revoked.crl"
    file.write_bytes(crl_file(ahead.trust.revocations, story.folder / "no root.crl"))
    old = Registry(story.folder / "an old copy")
    await story.start_guard(list_on_disk(file))
    story.broker.publish(TOPICS.revocations, old.office.current_list.message, retain=True)
    await settle()
    assert story.in_force == []
    assert story.status().why == "the published list is older than list 6"
    root = FleetAuthority(old.root.root, old.root._key, UnixTime(NOW + 1), old.entropy)
    second = root.issue("registrar-2", Role.REGISTRAR)
    later = old.reopened(second, RegistrarStore(story.folder / "second"), NOW + 5)
    story.broker.publish(TOPICS.revocations, later.current_list.message, retain=True)
    await settle()
    assert story.in_force == [1]


def test_enrolling_by_hand(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "state")
    folder, entropy = tmp_path / "d1", SeededEntropy(3)
    csr = write_request(folder, "d1", entropy)
    assert write_request(folder, "d1", entropy) == csr
    der = x509.load_pem_x509_csr(csr).public_bytes(Encoding.DER)
    certificate = registry.office.enrol_by_hand(der, NOW)
    answer = Enrolled(certificate, registry.identity.certificate, registry.office.current_list.message)
    bundle = write_bundle(registry.identity.root, answer)
    assert install(bundle, folder, NOW) == ("d1", "demo", registry.identity.root)
    identity = load_identity(folder)
    assert identity.certificate == certificate
    assert identity.trust(Role.DEVICE, NOW)[1].subject == "d1"
    for wrong in (b"", bundle[:400], csr, bundle.replace(b"X509 CRL", b"NOTHING")):
        with pytest.raises(JoinError, match="copy the file again"):
            install(wrong, folder, NOW)
    with pytest.raises(JoinError, match=r"holds no d1\.key"):
        install(bundle, tmp_path / "another device", NOW)
    write_identity(tmp_path / "d2", Identity("d1", certificate, registry.identity.root, key(9)))
    with pytest.raises(Exception, match="d1's certificate"):
        install(bundle, tmp_path / "d2", NOW)
