"""The topic tree: one place that knows how a topic is spelt.

Two roots. `fl/1/<fleet>/…` carries retained UTF-8 JSON for people and tools; `flw/1/<fleet>/…` carries
MessagePack for machines. At most 7 slashes and `[a-z0-9_-]` in every level, so that one access pattern
per device suffices and every broker can carry them.
"""

from protocol.ids import DeviceId, Order

PEOPLE = "fl/1"
MACHINES = "flw/1"


class Topics:
    """The topics of one fleet.

    Args:
        fleet: the fleet's name, 1 to 64 of `[a-z0-9_-]`.
    """

    def __init__(self, fleet: str) -> None:
        self.fleet = fleet
        self._people = f"{PEOPLE}/{fleet}"
        self._machines = f"{MACHINES}/{fleet}"

    # For people: retained JSON.

    @property
    def everything_for_people(self) -> str:
        """Filter of all status topics."""
        return f"{self._people}/#"

    @property
    def coordinator_status(self) -> str:
        """The coordinator's presence."""
        return f"{self._people}/coordinator"

    @property
    def round_status(self) -> str:
        """The round that is open now."""
        return f"{self._people}/round"

    def round_result(self, order: Order) -> str:
        """How one round ended."""
        return f"{self._people}/rounds/{order.round}"

    @property
    def every_round_result(self) -> str:
        """Filter of all rounds' ends."""
        return f"{self._people}/rounds/+"

    @property
    def model_status(self) -> str:
        """The newest model."""
        return f"{self._people}/model"

    @property
    def broker_status(self) -> str:
        """What a broker's guard says of it."""
        return f"{self._people}/broker"

    def device_status(self, device: DeviceId) -> str:
        """One device's presence."""
        return f"{self._people}/devices/{device}"

    @property
    def every_device_status(self) -> str:
        """Filter of all devices' presence."""
        return f"{self._people}/devices/+"

    # For machines: MessagePack.

    def offer(self, device: DeviceId) -> str:
        """Availability, device to coordinator."""
        return f"{self._machines}/devices/{device}/offer"

    def inbox(self, device: DeviceId) -> str:
        """Frames for one device."""
        return f"{self._machines}/devices/{device}/inbox"

    def outbox(self, device: DeviceId) -> str:
        """Frames from one device to the coordinator."""
        return f"{self._machines}/devices/{device}/outbox"

    def wants(self, device: DeviceId) -> str:
        """Chunks that the broker did not deliver, device to coordinator."""
        return f"{self._machines}/devices/{device}/wants"

    @property
    def every_want(self) -> str:
        """Filter of all chunks that devices miss."""
        return f"{self._machines}/devices/+/wants"

    @property
    def every_offer(self) -> str:
        """Filter of all offers."""
        return f"{self._machines}/devices/+/offer"

    @property
    def every_outbox(self) -> str:
        """Filter of all outboxes."""
        return f"{self._machines}/devices/+/outbox"

    def decision(self, order: Order, name: str) -> str:
        """One announced decision of a round (cohort, share-set, …), retained while the round is open."""
        return f"{self._machines}/rounds/{order.epoch}-{order.round}/{name}"

    def decisions(self, order: Order) -> str:
        """Filter of one round's decisions."""
        return self.decision(order, "+")

    @property
    def every_decision(self) -> str:
        """Filter of all rounds' decisions."""
        return f"{self._machines}/rounds/+/+"

    @property
    def high_water(self) -> str:
        """How far the coordinator has come, for a later one; retained."""
        return f"{self._machines}/coordinator/high-water"

    @property
    def pace(self) -> str:
        """How often devices offer themselves; retained."""
        return f"{self._machines}/coordinator/pace"

    @property
    def revocations(self) -> str:
        """The registrar's newest revocation list; retained."""
        return f"{self._machines}/registrar/revocations"

    def enrolment_request(self, applicant: str) -> str:
        """A certificate is asked for, by a device or by the id of a claim."""
        return f"{self._machines}/enrolment/{applicant}/request"

    def enrolment_answer(self, applicant: str) -> str:
        """What the registrar answered."""
        return f"{self._machines}/enrolment/{applicant}/answer"

    @property
    def every_enrolment_request(self) -> str:
        """Filter of all requests."""
        return self.enrolment_request("+")

    def probe(self, name: str) -> str:
        """Where a client tells itself something, to see what its broker does with it."""
        return f"{self._machines}/probe/{name}"

    def upload(self, shard: str, device: DeviceId) -> str:
        """Chunks of a device's masked update, device to aggregator."""
        return f"{self._machines}/uploads/{shard}/{device}"

    def every_upload(self, shard: str) -> str:
        """Filter of a shard's uploads."""
        return f"{self._machines}/uploads/{shard}/+"

    def blob_chunk(self, sha256: bytes, index: int) -> str:
        """One retained chunk of a content-addressed blob."""
        return f"{self._machines}/blobs/{sha256.hex()}/{index}"

    @property
    def every_blob_chunk(self) -> str:
        """Filter of all blobs' chunks."""
        return f"{self._machines}/blobs/+/+"
