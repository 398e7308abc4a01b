"""What devices and their noise withstand: every way to get more of a device than its manifest says."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace as changed
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hostile_fleets import HostileCoordinator, WatchedFleet, refused
from msgspec.structs import replace
from numpy.typing import NDArray
from virtual_fleet import Device, VirtualFleet, manifest_for

from coordinator.ledger import Release, release_of
from device_agent.errors import DamagedStateError
from device_agent.ledger import FILE
from device_agent.memory import AgentMemory
from privacy.accounting import compose, epsilon
from privacy.encoding import LocalMetrics
from privacy.errors import MaskMismatchError, QuantizationError
from privacy.noise import SIGMA_PARTS
from privacy.noised_update import NoisedEncoding
from privacy.rounding import squared_length
from protocol import effects as fx
from protocol.chunks import describe
from protocol.device_privacy import PrivacyStance, charge_for, privacy_objection
from protocol.device_work import EncodeUpdate
from protocol.errors import (
    FrameError,
    ManifestError,
    OrderError,
    ProtocolError,
    SecondDecisionError,
    SetError,
    TranscriptError,
)
from protocol.ids import DeviceId, Order
from protocol.messages import (
    Accept,
    Confirmation,
    Decline,
    Grant,
    Manifest,
    Noise,
    SealedShares,
    UploadOffer,
)
from protocol.noise_cost import actual_cost, bounds_of, promised_cost, survivors_needed
from protocol.order_checks import check_order
from protocol.phases import Phase
from protocol.plan import Privacy
from protocol.vector import noised_encoding
from secagg.keys import Secret
from secagg.prg import Keystream

DISTRIBUTED = Privacy(mode="distributed", noise_multiplier=1.0)
CENTRAL = Privacy(mode="central", noise_multiplier=1.0)
SIX: dict[str, object] = {"members": 6, "min_cohort": 5, "bits": 16}
"""Of five survivors four are honest, of four three."""


class PrivateFleet(HostileCoordinator):
    """Honest devices that add noise; what each half asked of its shell is written down, in order."""

    def __init__(self, devices: int = 6, size: int = 64, **more: object) -> None:
        self.asked: dict[DeviceId, list[fx.Effect]] = {}
        super().__init__(
            devices, size, **{"privacy": DISTRIBUTED, "bits": 16, "min_cohort": min(devices, 5)} | more
        )

    def _perform_on_device(self, name: DeviceId, device: Device, effect: fx.Effect) -> None:
        self.asked.setdefault(name, []).append(effect)
        super()._perform_on_device(name, device, effect)

    def asked_for(self, name: str, kind: type[fx.Effect]) -> list[int]:
        """Where in its order a device asked for this."""
        asked = self.asked.get(DeviceId(name), [])
        return [index for index, effect in enumerate(asked) if isinstance(effect, kind)]


def noisy(**arguments: object) -> Manifest:
    return manifest_for(64, **SIX | {"privacy": DISTRIBUTED} | arguments)  # type: ignore[arg-type]


def with_noise(manifest: Manifest, **fields: object) -> Manifest:
    return replace(manifest, noise=replace(noise_in(manifest), **fields))


def noise_in(manifest: Manifest) -> Noise:
    assert manifest.noise is not None
    return manifest.noise


def with_masking(manifest: Manifest, **fields: object) -> Manifest:
    return replace(manifest, secure_aggregation=replace(manifest.secure_aggregation, **fields))


def declined(fleet: PrivateFleet, manifest: Manifest, gist: str) -> None:
    """One device is told; it says why not, before it remembers, trains or pays anything."""
    fleet.tell("d001", manifest)
    assert gist in fleet.said("d001", Decline).reason
    assert fleet.stage("d001") == "left"
    kinds = {type(effect) for effect in fleet.asked[DeviceId("d001")]}
    assert kinds <= {fx.Refuse, fx.Say}
    assert not fleet.has_said("d001", Accept)


# A label that says less than the numbers cost.


@pytest.mark.parametrize(
    "lie",
    [
        lambda m: with_noise(m, sigma_parts=noise_in(m).sigma_parts * 9 // 10),
        lambda m: with_noise(m, metrics_sigma_parts=noise_in(m).metrics_sigma_parts // 2),
        lambda m: with_noise(m, metrics_half=noise_in(m).metrics_half * 2),
        lambda m: with_noise(m, scale=noise_in(m).scale * 1.5),
        lambda m: with_noise(m, epsilon=noise_in(m).epsilon * 0.999),
        lambda m: with_noise(m, delta=noise_in(m).delta / 10),
        lambda m: with_noise(m, participations=2),
        lambda m: with_masking(m, clip=m.secure_aggregation.clip * 1.5),
        lambda m: with_masking(m, corrupt_fraction=0.45),
        lambda m: replace(m, min_cohort=4),
        lambda m: replace(m, weights=describe(bytes(4 * 10**6))),
    ],
    ids=[
        "less noise on the update",
        "less noise on the metrics",
        "metrics spread further",
        "a larger scale",
        "a smaller epsilon",
        "a smaller delta",
        "more rounds",
        "a wider clip",
        "more who may add no noise",
        "fewer survivors",
        "a larger model",
    ],
)
def test_a_manifest_whose_numbers_cost_more_than_its_label_is_refused(
    lie: Callable[[Manifest], Manifest],
) -> None:
    fleet = PrivateFleet()
    lying = lie(fleet.manifest)
    declined(fleet, lying, "it promises epsilon")
    (error,) = fleet.devices[DeviceId("d001")].refused
    assert isinstance(error, ManifestError)
    assert fleet.tell("d002", fleet.manifest) == []  # the true one is taken


def test_more_members_than_announced_to_the_accountant_make_no_noise_uncertain() -> None:
    """The ring may be too small for so many; what is certain of their noise is what it was."""
    honest, many = noisy(), replace(noisy(), max_cohort=1024)
    assert promised_cost(many) == promised_cost(honest)
    for members in range(6, 1025):
        fewest = survivors_needed(many, members)
        assert actual_cost(many, fewest, members) <= promised_cost(honest)


IMPOSSIBLE = [
    *((field, wrong) for field in ("scale", "epsilon", "delta") for wrong in (math.nan, math.inf, -1.0)),
    *((field, 0.0) for field in ("scale", "delta")),
    *((field, wrong) for field in ("sigma_parts", "metrics_half") for wrong in (math.nan, 0, -1, 2**37)),
    *(("metrics_sigma_parts", wrong) for wrong in (0, 2**37)),
    *((field, wrong) for field in ("spacing", "participations") for wrong in (0, -1, 2**32)),
]


@pytest.mark.parametrize(("field", "wrong"), IMPOSSIBLE)
def test_noise_in_numbers_out_of_range_is_no_message(field: str, wrong: float) -> None:
    no_message(lambda manifest: with_noise(manifest, **{field: wrong}))


@pytest.mark.parametrize("field", ["clip", "sketch", "corrupt_fraction"])
def test_masking_in_numbers_that_are_none_is_no_message(field: str) -> None:
    no_message(lambda manifest: with_masking(manifest, **{field: math.nan}))


def no_message(lie: Callable[[Manifest], Manifest]) -> None:
    fleet = PrivateFleet()
    refused(fleet.tell("d001", lie(fleet.manifest)), FrameError, "Expected `(float|int)`")
    assert fleet.devices[DeviceId("d001")].round is None


@pytest.mark.parametrize(
    ("change", "gist"),
    [
        (lambda m: with_noise(m, scale=1e300), r"a clip bound of 1e\+301 levels"),
        (lambda m: with_masking(m, clip=math.inf), "a clip bound of inf levels"),
    ],
)
def test_a_scale_that_no_integer_holds_is_declined(change: Callable[[Manifest], Manifest], gist: str) -> None:
    fleet = PrivateFleet()
    refused(fleet.tell("d001", change(fleet.manifest)), QuantizationError, gist)
    assert fleet.has_said("d001", Decline)


# Less than the device asks for.


def test_noise_by_the_coordinator_is_not_enough_where_devices_ask_for_their_own() -> None:
    fleet = PrivateFleet(privacy=CENTRAL, stance=PrivacyStance(weakest="distributed"))
    declined(fleet, fleet.manifest, "privacy is central; this device asks for distributed")


@pytest.mark.parametrize("weakest", ["central", "distributed"])
def test_no_noise_is_not_enough_where_devices_ask_for_some(weakest: str) -> None:
    fleet = PrivateFleet(stance=PrivacyStance(weakest=weakest))  # type: ignore[arg-type]
    declined(fleet, replace(fleet.manifest, noise=None), f"privacy is none; this device asks for {weakest}")


def test_a_round_that_the_device_cannot_afford_is_declined_and_costs_nothing() -> None:
    cost = promised_cost(PrivateFleet().manifest)
    nearly = PrivacyStance("distributed", budget=epsilon(2 * cost, 1e-6), delta=1e-6, spent=1.01 * cost)
    fleet = PrivateFleet(stance=nearly)
    declined(fleet, fleet.manifest, "the privacy budget of this device is spent")
    enough = changed(nearly, spent=0.99 * cost)
    assert privacy_objection(fleet.manifest, enough) == ""


def test_a_label_at_a_lenient_delta_does_not_stretch_the_devices_own_budget() -> None:
    """The plan reads its epsilon at its delta, the device at its own."""
    manifest = noisy(privacy=replace(DISTRIBUTED, delta=1e-2))
    strict = PrivacyStance("distributed", budget=noise_in(manifest).epsilon, delta=1e-9)
    assert privacy_objection(manifest, strict) == "the privacy budget of this device is spent"


def test_a_round_before_the_plans_spacing_is_over_is_declined() -> None:
    fleet = PrivateFleet(
        privacy=replace(DISTRIBUTED, spacing=3),
        rounds=9,
        order=Order(1, 1, 7),
        stance=PrivacyStance(last=Order(1, 1, 5)),
    )
    declined(fleet, fleet.manifest, "this device rests: it takes part once in 3 rounds")


def test_a_new_epoch_ends_the_rest_but_not_the_budget() -> None:
    manifest = noisy(privacy=replace(DISTRIBUTED, spacing=3), rounds=9, order=Order(1, 2, 1))
    cost = promised_cost(manifest)
    rested = PrivacyStance("distributed", epsilon(1.5 * cost, 1e-6), spent=cost, last=Order(1, 1, 9))
    assert privacy_objection(manifest, changed(rested, budget=None)) == ""
    assert privacy_objection(manifest, rested) == "the privacy budget of this device is spent"


# Rounds again, to average the noise away.


def test_a_round_is_not_played_twice_even_after_a_restart(tmp_path: Path) -> None:
    manifest = noisy()
    memory = AgentMemory(tmp_path)
    memory.remember(manifest.order, 0.0)
    pay(memory, manifest)
    for again in (memory, AgentMemory(tmp_path)):
        with pytest.raises(OrderError, match=r"round 1\.1\.1 is not newer than 1\.1\.1"):
            check_order(manifest.order, again.seen)
    assert len(AgentMemory(tmp_path).ledger.charges) == 1


def test_averaging_over_new_rounds_is_paid_for_until_the_budget_is_spent(tmp_path: Path) -> None:
    """Each says that it is the only one of its run: the label promises nothing of them together."""
    memory, budget = AgentMemory(tmp_path), 20.0
    for number in range(1, 100):
        manifest = noisy(order=Order(1, 1, number))
        check_order(manifest.order, memory.seen)
        spent = PrivacyStance("distributed", budget, 1e-6, memory.ledger.spent)
        if privacy_objection(manifest, spent):
            break
        memory.remember(manifest.order, 0.0)
        pay(memory, manifest)
    taken = len(memory.ledger.charges)
    cost = promised_cost(noisy())
    assert epsilon(compose([cost] * taken), 1e-6) <= budget < epsilon(compose([cost] * (taken + 1)), 1e-6)


def pay(memory: AgentMemory, manifest: Manifest) -> None:
    (charge,) = charge_for(manifest)
    memory.charge(charge.order, charge.mode, charge.rho, 0.0)


def test_a_second_manifest_with_other_noise_is_refused() -> None:
    fleet = PrivateFleet()
    fleet.invite()
    less = with_noise(fleet.manifest, sigma_parts=1, epsilon=1e9)
    refused(fleet.tell("d001", less), SecondDecisionError, "second manifest for round 1.1.1")


def test_devices_told_of_different_noise_share_no_sum() -> None:
    """The victim adds all the noise that its manifest says; nobody's masks fit those of the others."""
    fleet = PrivateFleet()
    bare = replace(fleet.manifest, noise=None)
    assert fleet.tell("d001", fleet.manifest) == []
    for name in list(fleet.devices)[1:]:
        assert fleet.tell(name, bare) == []
    refused(fleet.tell("d001", fleet.cohort()), TranscriptError, "d002's keys were signed for another")
    assert not fleet.has_said("d001", SealedShares)


# The order of things: what is not paid for does not leave.


def test_every_device_pays_once_before_its_update_is_offered_and_sent() -> None:
    fleet = PrivateFleet()
    t2 = fleet.bring_to_uploads()
    share_set = fleet.share_set(fleet.view(fleet.cohort()).transcript)
    for name in fleet.devices:
        offer = fleet.said(name, UploadOffer)
        assert fleet.tell(name, fleet.delivery(name, share_set)) == []  # said again, not paid again
        assert fleet.tell(name, Grant(fleet.manifest.order, offer.blob.sha256, (0,))) == []
        assert fleet.tell(name, fleet.survivor_set(t2)) == []
        (paid,) = fleet.asked_for(name, fx.Charge)
        asked = fleet.asked[name]
        offered = [index for index, effect in enumerate(asked) if effect == fx.Say(offer)]
        assert paid < min(*offered, *fleet.asked_for(name, fx.Upload), *fleet.asked_for(name, fx.SendChunks))
        assert len(offered) == 2
        assert asked[paid] == fx.Charge(fleet.manifest.order, "distributed", promised_cost(fleet.manifest))


def test_chunks_granted_before_the_offer_are_not_sent() -> None:
    fleet = PrivateFleet()
    share_set = fleet.share_set(fleet.bring_to_shares().transcript)
    fleet.tell_all(share_set)
    early = Grant(fleet.manifest.order, bytes(32), (0,))
    refused(fleet.tell("d001", early), ProtocolError, "grant for an upload that was not offered")
    assert fleet.tell("d001", fleet.delivery("d001", share_set)) == []
    refused(fleet.tell("d001", early), ProtocolError, "grant for an upload that was not offered")
    assert fleet.asked_for("d001", fx.SendChunks) == []


def test_a_round_without_noise_is_not_in_the_ledger() -> None:
    fleet = PrivateFleet(privacy=Privacy())
    fleet.bring_to_uploads()
    assert fleet.asked_for("d001", fx.Charge) == []


# Sets that would leave too few noises.

TWENTY: dict[str, object] = {"min_cohort": 15, "corrupt_fraction": 0.1}
"""Of 15 at least 14 are honest. Two of 20 may be corrupt, so it takes 16 to have 14; threshold is 11."""


def test_a_large_cohort_cannot_be_shrunk_to_the_minimum() -> None:
    fleet = PrivateFleet(20, 64, **TWENTY)
    names = list(fleet.devices)
    t1 = fleet.bring_to_shares().transcript
    refused(fleet.tell("d001", fleet.share_set(t1, *names[:15])), SetError, "15 members; at least 16 are")
    smallest = fleet.share_set(t1, *names[:16])
    assert fleet.tell("d002", smallest) == []
    assert fleet.tell("d002", fleet.delivery("d002", smallest)) == []
    assert fleet.has_said("d002", UploadOffer)
    assert not fleet.has_said("d001", UploadOffer)


def test_survivors_of_a_large_cohort_cannot_be_shrunk_to_the_minimum() -> None:
    fleet = PrivateFleet(20, 64, **TWENTY)
    names = list(fleet.devices)
    t2 = fleet.bring_to_uploads()
    refused(fleet.tell("d001", fleet.survivor_set(t2, *names[:15])), SetError, "15 members; at least 16 are")
    assert not fleet.has_said("d001", Confirmation)
    assert fleet.tell("d002", fleet.survivor_set(t2, *names[:16])) == []
    assert fleet.has_said("d002", Confirmation)


@pytest.mark.parametrize("gamma", [0.05, 0.1, 0.25, 0.3, 1 / 3, 0.49])
@pytest.mark.parametrize("min_cohort", [3, 5, 17, 100])
def test_the_smallest_set_that_devices_confirm_holds_the_promised_noise(
    gamma: float, min_cohort: int
) -> None:
    manifest = manifest_for(
        10, members=200, min_cohort=min_cohort, corrupt_fraction=gamma, bits=32, privacy=DISTRIBUTED
    )
    promised, bounds = promised_cost(manifest), bounds_of(manifest)
    for members in range(min_cohort, 201):
        fewest = survivors_needed(manifest, members)
        assert fewest <= members
        assert fewest - math.floor(Fraction(repr(gamma)) * members) >= bounds.honest
        assert actual_cost(manifest, fewest, members) <= promised


# Devices that save their noise.


class MeanFleet(WatchedFleet):
    """Updates are zero, so that the sum is the noise; some add none."""

    def __init__(self, devices: int, liars: Sequence[str], **more: object) -> None:
        super().__init__(devices, 4096, privacy=DISTRIBUTED, bits=20, **more)
        self._liars = liars
        for device in self.devices.values():
            device.delta = np.zeros(4096, np.float32)

    def _perform_on_device(self, name: DeviceId, device: Device, effect: fx.Effect) -> None:
        match effect:
            case fx.Compute(EncodeUpdate(encoding=NoisedEncoding() as encoding) as work) if (
                name in self._liars
            ):
                bare = changed(work, encoding=changed(encoding, mode="central"))
                super()._perform_on_device(name, device, fx.Compute(bare))
            case _:
                super()._perform_on_device(name, device, effect)

    def noises(self) -> float:
        """The sum's variance in devices' noises."""
        assert self.mean is not None
        noise = noise_in(self.manifest)
        levels = self.mean.mean.astype(np.float64) * len(self.survivors) * noise.scale
        return float(np.mean(levels**2)) / (noise.sigma_parts / SIGMA_PARTS) ** 2


def test_as_many_liars_as_assumed_leave_the_promised_noise() -> None:
    fleet = MeanFleet(10, ["d001", "d002", "d003"], min_cohort=10, corrupt_fraction=0.3)
    assert fleet.run() is Phase.COMMITTED
    assert bounds_of(fleet.manifest).honest == 7
    assert fleet.noises() == pytest.approx(7, rel=0.1)


def test_so_they_do_in_the_smallest_set_that_is_left_of_a_larger_cohort() -> None:
    fleet = MeanFleet(20, ["d001", "d002"], **TWENTY)
    fleet.lose("d017", "d018", "d019", "d020", phase=Phase.COLLECTING)
    assert fleet.run() is Phase.COMMITTED
    assert len(fleet.survivors) == survivors_needed(fleet.manifest, 20) == 16
    assert bounds_of(fleet.manifest).honest == 14
    assert fleet.noises() == pytest.approx(14, rel=0.1)


def test_one_lost_more_and_there_is_no_sum() -> None:
    lost = [f"d{number:03}" for number in range(16, 21)]
    fleet = MeanFleet(20, [], **TWENTY).lose(*lost, phase=Phase.COLLECTING)
    assert fleet.run() is Phase.ABORTED
    assert fleet.round.reason == "15 devices uploaded; 16 are needed"


# Longer vectors than the accountant was told of.


def unnoised(manifest: Manifest) -> NoisedEncoding:
    """The encoding, its noise left out: what a device's own integers are."""
    return changed(noised_encoding(manifest, noise_in(manifest)), mode="central")


def within_sensitivity(encoding: NoisedEncoding, delta: NDArray[np.float32], local: LocalMetrics) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):
        encoded = encoding.encode(delta, local, Keystream(Secret(bytes(32))).read)
    short = squared_length(encoded.update.astype(np.int32)) <= encoding.block.norm_squared
    return short and bool(np.all(np.abs(encoded.metrics) <= encoding.metrics_half))


METRICS = LocalMetrics(examples=10, evaluated=4, loss_sum=4.0, correct=3)

UPDATES = [
    np.full(64, 1e30, np.float32),
    np.full(64, np.finfo(np.float32).max, np.float32),
    np.full(64, 1e-45, np.float32),
    np.where(np.arange(64) == 5, 3e38, 0).astype(np.float32),
    np.random.default_rng(1).normal(size=64).astype(np.float32),
]


@pytest.mark.parametrize("update", UPDATES, ids=["long", "longest", "tiny", "one coordinate", "usual"])
@pytest.mark.parametrize("public", [b"\0", b"\xff", b"\xaa", b"\1\0"])
@pytest.mark.parametrize("sketch", [1.0, 0.3])
def test_a_rotation_of_the_coordinators_choice_lengthens_nothing(
    update: NDArray[np.float32], public: bytes, sketch: float
) -> None:
    """It can grind T0 until it likes the signs. They decide how evenly the update is spread, no more."""
    encoding = unnoised(noisy(sketch=sketch))
    ground = changed(encoding.block, public_bytes=lambda count: (public * count)[:count])
    assert within_sensitivity(changed(encoding, block=ground), update, METRICS)


@pytest.mark.parametrize("update", UPDATES, ids=["long", "longest", "tiny", "one coordinate", "usual"])
@pytest.mark.parametrize(
    ("clip", "product"), [(1e300, 1e3), (1e-300, 1e3), (1e-40, 1e9), (1e38, 2e9), (1e9, 1)]
)
def test_extreme_scales_lengthen_nothing(update: NDArray[np.float32], clip: float, product: float) -> None:
    manifest = with_noise(with_masking(noisy(), clip=clip), scale=product / clip)
    assert within_sensitivity(unnoised(manifest), update, METRICS)


@pytest.mark.parametrize("ceiling", [1e-308, 1e308, math.inf])
@pytest.mark.parametrize("loss", [0.0, 1e-320, 1e308, -5.0])
def test_extreme_losses_lengthen_nothing(ceiling: float, loss: float) -> None:
    manifest = replace(noisy(), training=replace(noisy().training, loss_ceiling=ceiling))
    local = changed(METRICS, loss_sum=loss, correct=400)
    assert within_sensitivity(unnoised(manifest), np.ones(64, np.float32), local)


# Who has paid when a round comes to nothing.


def charged_devices(fleet: PrivateFleet) -> set[str]:
    return {name for name in fleet.devices if fleet.asked_for(name, fx.Charge)}


def released(fleet: VirtualFleet) -> Release | None:
    return release_of(fleet.manifest, fleet.announced, unmasked=fleet.round.revealed)


def test_an_aborted_round_is_paid_for_by_devices_but_not_where_nothing_was_revealed() -> None:
    fleet = PrivateFleet()
    fleet.lose("d001", "d002", "d003", phase=Phase.CONFIRMING)
    assert fleet.run() is Phase.ABORTED
    assert not fleet.round.revealed
    assert charged_devices(fleet) == set(fleet.devices)
    release = released(fleet)
    assert release is not None
    assert (release.survivors, release.rho) == ((), 0.0)
    assert set(release.others) == set(fleet.devices)  # who has paid rests


class SpoiledFleet(PrivateFleet):
    """One device sends garbage instead of its masked update."""

    def _perform_on_device(self, name: DeviceId, device: Device, effect: fx.Effect) -> None:
        match effect:
            case fx.Upload(data=data) if name == "d003":
                effect = fx.Upload(describe(data[::-1]), data[::-1])
                self.garbage = effect.ref
            case fx.Say(UploadOffer() as offer) if name == "d003":
                effect = fx.Say(replace(offer, blob=self.garbage))
        super()._perform_on_device(name, device, effect)


def test_an_aborted_round_whose_sum_was_unmasked_is_paid_for_by_all() -> None:
    fleet = SpoiledFleet()
    assert fleet.run() is Phase.ABORTED
    assert fleet.mean is None
    assert any(isinstance(error, MaskMismatchError) for error in fleet.refused)
    release = released(fleet)
    assert release is not None
    assert set(release.survivors) == charged_devices(fleet) == set(fleet.devices)
    assert 0 < release.rho <= promised_cost(fleet.manifest)


def test_devices_that_nobody_asked_to_upload_have_paid_nothing() -> None:
    fleet = PrivateFleet()
    fleet.lose("d001", "d002", phase=Phase.SHARING)
    assert fleet.run() is Phase.ABORTED
    assert charged_devices(fleet) == set()
    assert released(fleet) is None


# A ledger that was turned back.


def test_a_ledger_turned_back_alone_keeps_the_agent_from_starting(tmp_path: Path) -> None:
    memory = AgentMemory(tmp_path)
    memory.remember(Order(1, 1, 1), 0.0)
    memory.charge(Order(1, 1, 1), "distributed", 0.5, 0.0)
    before = (tmp_path / FILE).read_bytes()
    memory.remember(Order(1, 1, 2), 0.0)
    memory.charge(Order(1, 1, 2), "distributed", 0.5, 0.0)
    (tmp_path / FILE).write_bytes(before)
    with pytest.raises(DamagedStateError, match="it holds 1 charges, and 2 charges are on record"):
        AgentMemory(tmp_path)
