"""Second devices as members of a virtual fleet, and manifests as a second device reads them."""

from datetime import UTC, datetime
from functools import partial

import msgpack  # type: ignore[import-untyped]
from cryptography import x509
from second_device import MESSAGES, SecondDevice
from second_vector import Message, Trained
from virtual_fleet import NOW, VirtualFleet

from protocol.ids import DeviceId
from protocol.messages import Manifest, encode


def with_second(fleet: VirtualFleet, *names: str) -> VirtualFleet:
    """Replace these members by the second implementation; their identity and their update stay."""
    for name in map(DeviceId, names):
        device = fleet.devices[name]
        metrics = device.metrics
        trained = Trained(
            device.delta, metrics.examples, metrics.evaluated, metrics.loss_sum, metrics.correct
        )
        device.foreign = SecondDevice(
            name=name,
            key=device.identity.private_key,
            certificate=device.identity.certificate,
            root=x509.load_der_x509_certificate(device.identity.root),
            now=datetime.fromtimestamp(NOW, UTC),
            train=partial(lambda result: result, trained),
            floor=fleet.floor,
            gamma_floor=fleet.gamma_floor,
            entropy=fleet.entropy.bytes,
        )
    return fleet


def second(fleet: VirtualFleet, name: str) -> SecondDevice:
    """One of them."""
    device = fleet.devices[DeviceId(name)].foreign
    assert isinstance(device, SecondDevice)
    return device


def as_second(manifest: Manifest) -> Message:
    """A manifest as the second implementation reads it."""
    return read_body(encode(manifest))


def read_body(body: bytes) -> Message:
    """A message from its bytes."""
    tag, *values = msgpack.unpackb(body)
    return {"tag": tag, **dict(zip(MESSAGES[tag], values, strict=True))}
