"""Bugs in what privacy costs: ledgers, accounts, budgets, rest, noise, and the clip that follows updates."""

from dataclasses import replace
from typing import Any

import coordinator.run
import device_agent.ledger
import device_agent.memory
import protocol.cohort
import protocol.coordinator_round
import protocol.device_privacy
import protocol.device_round
from coordinator.ledger import Limits, Release
from coordinator.state import CoordinatorState
from device_agent.ledger import Ledger
from device_agent.memory import AgentMemory
from device_agent.participation import Participation
from planted.bugs import Plant, bug, nothing
from privacy.noise import SIGMA_PARTS
from privacy.noised_update import NoisedEncoding
from protocol.device_round import DeviceRound
from protocol.effects import Charge
from protocol.ids import Seconds
from runtime.journal import Journal

# A device's ledger.


@bug("P1", "A device offers its update, and is charged after that.")
def charged_after_the_offer(plant: Plant) -> None:
    def handle(real: Any, self: DeviceRound, event: Any, now: Seconds) -> list[Any]:
        return sorted(real(self, event, now), key=lambda effect: isinstance(effect, Charge))

    plant.instead(DeviceRound, "handle", handle)


@bug("P1", "A charge is written, and nobody waits until it is on the disk.")
def charge_not_synced(plant: Plant) -> None:
    def append(_real: Any, path: Any, size: int, data: bytes) -> None:
        with path.open("ab") as file:
            file.truncate(size)
            file.write(data)

    plant.instead(device_agent.ledger, "append_synced", append)


@bug("P1", "An update is offered although the disk refused its charge.")
def charge_refused_by_the_disk(plant: Plant) -> None:
    async def charge(_real: Any, self: Participation, order: Any, mode: Any, rho: float) -> None:
        try:
            self._with.memory.charge(order, mode, rho, self._with.clock.unix())
        except OSError:
            self._log.warning("round_not_charged")

    plant.instead(Participation, "_charge", charge)


@bug("P1", "A round is charged twice.")
def charged_twice(plant: Plant) -> None:
    def append(real: Any, self: Ledger, *charge: Any) -> Ledger:
        once: Ledger = real(self, *charge)
        twice: Ledger = real(replace(once, charges=()), *charge)
        return replace(twice, charges=(*once.charges, *twice.charges))

    plant.instead(Ledger, "append", append)


@bug("P2", "A restarted device has lost its ledger.")
def ledger_lost_at_the_restart(plant: Plant) -> None:
    plant.instead(device_agent.memory, "open_ledger", lambda _real, file, _known: Ledger(file))


@bug("P2", "Where a restarted device's ledger is longer than its record says, the last charge is dropped.")
def charge_ahead_of_its_record_dropped(plant: Plant) -> None:
    def opened(real: Any, file: Any, known: Any) -> Ledger:
        ledger: Ledger = real(file, known)
        if len(ledger.charges) == known.charges:
            return ledger
        size = len(b"".join(file.read_bytes().splitlines(keepends=True)[: known.charges]))
        return Ledger(file, ledger.charges[: known.charges], known, size)

    def charge(_real: Any, self: AgentMemory, order: Any, mode: Any, rho: float, unix: float) -> None:
        self._write(self._record)
        self._ledger = self._ledger.append(order, mode, rho, unix)

    plant.instead(device_agent.memory, "open_ledger", opened)
    plant.instead(AgentMemory, "charge", charge)


@bug("P4", "A device pays half of what a round costs.")
def half_of_the_price(plant: Plant) -> None:
    def charges(real: Any, manifest: Any) -> Any:
        return [Charge(one.order, one.mode, one.rho / 2) for one in real(manifest)]

    plant.instead(protocol.device_round, "charge_for", charges)


# The coordinator's accounts.


def _released(plant: Plant, ending: str, change: Any) -> None:
    async def close(real: Any, self: CoordinatorState, *given: Any, release: Any, **others: Any) -> None:
        await real(self, *given, release=release and change(release), **others)

    plant.instead(CoordinatorState, ending, close)


@bug("P3", "A committed round costs nobody anything.")
def committed_round_not_charged(plant: Plant) -> None:
    _released(plant, "commit", lambda release: Release((), 0.0, (*release.survivors, *release.others)))


@bug("P3", "An aborted round whose sum was unmasked costs nobody anything.")
def revealed_round_not_charged(plant: Plant) -> None:
    _released(plant, "abort", lambda release: Release((), 0.0, (*release.survivors, *release.others)))


@bug("P3", "An aborted round is charged although nothing of it was unmasked.")
def unrevealed_round_charged(plant: Plant) -> None:
    plant.instead(
        coordinator.run, "release_of", lambda real, manifest, said, **_: real(manifest, said, unmasked=True)
    )


@bug("P3", "Members whose updates are not in the sum are charged with it.")
def dropouts_charged(plant: Plant) -> None:
    _released(plant, "commit", lambda release: Release((*release.survivors, *release.others), release.rho))


@bug("P3", "The accounts are charged in a transaction after the one that ends the round.")
def charged_in_another_transaction(plant: Plant) -> None:
    def append(real: Any, self: Journal, *statements: Any) -> None:
        charges = [one for one in statements if one[0] == "charge"]
        real(self, *(one for one in statements if one[0] != "charge"))
        if charges:
            self._writer.get_loop().call_later(0.05, real, self, *charges)  # type: ignore[union-attr]

    plant.instead(Journal, "append", append)


@bug("P3", "A restarted coordinator begins with empty accounts.")
def accounts_forgotten(plant: Plant) -> None:
    plant.instead(CoordinatorState, "_read_accounts", nothing)


@bug("P3", "Devices are invited whose budget is spent.")
def budget_ignored(plant: Plant) -> None:
    plant.value(Limits, "affords", lambda *_: True)


# Rest.


@bug("P7", "The coordinator invites devices that rest.")
def rest_ignored_by_the_coordinator(plant: Plant) -> None:
    plant.value(Limits, "rests", lambda *_: False)


@bug("P7", "The coordinator invites devices that rest, and they take part.")
def rest_ignored_by_all(plant: Plant) -> None:
    rest_ignored_by_the_coordinator(plant)
    plant.value(protocol.device_privacy, "_rests", lambda *_: False)


@bug("P7", "The coordinator forgets that members which vanished have paid, and so rest.")
def rest_of_dropouts_forgotten(plant: Plant) -> None:
    for ending in ("commit", "abort"):
        _released(plant, ending, lambda release: replace(release, others=()))


# Noise.


@bug("P5", "A device goes on with as many as recover a secret, though their noise is too little.")
def certain_noise_not_checked_by_devices(plant: Plant) -> None:
    def check(real: Any, names: Any, of: Any, membership: Any, *others: Any) -> Any:
        view = replace(membership.view, fewest=membership.view.threshold)
        return real(names, of, replace(membership, view=view), *others)

    plant.instead(protocol.device_round, "check_set", check)


@bug("P5", "Both sides go on with as many as recover a secret, though their noise is too little.")
def certain_noise_not_checked(plant: Plant) -> None:
    for module in (protocol.cohort, protocol.coordinator_round):
        plant.instead(module, "survivors_needed", lambda _real, manifest, _members: manifest.min_cohort)


@bug("sum", "Devices add no noise.")
def noise_forgotten_by_devices(plant: Plant) -> None:
    plant.instead(
        NoisedEncoding, "encode", lambda real, self, *given: real(replace(self, mode="central"), *given)
    )


@bug("sum", "Devices add a tenth of the noise.")
def tenth_of_the_noise(plant: Plant) -> None:
    def encode(real: Any, self: NoisedEncoding, *given: Any) -> Any:
        parts = max(self.sigma_parts // 10, SIGMA_PARTS // 2)
        return real(replace(self, sigma_parts=parts), *given)

    plant.instead(NoisedEncoding, "encode", encode)


@bug("sum", "The coordinator adds no noise in central mode.")
def noise_forgotten_by_the_coordinator(plant: Plant) -> None:
    plant.instead(
        NoisedEncoding, "decode", lambda real, self, *given: real(replace(self, mode="distributed"), *given)
    )


# The clip.


@bug("P6", "The clip stays what it was.")
def clip_stays(plant: Plant) -> None:
    plant.instead(
        coordinator.run, "next_clip", lambda real, plan, clip, rate: real(plan, clip, rate) and clip
    )


@bug("P6", "The next clip is not stored with the model.")
def clip_not_stored(plant: Plant) -> None:
    async def commit(real: Any, self: CoordinatorState, *given: Any, clip: Any, **others: Any) -> None:
        await real(self, *given, clip=None, **others)
        self.clip = clip

    plant.instead(CoordinatorState, "commit", commit)
