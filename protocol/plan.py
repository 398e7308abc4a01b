"""The plan: what to train and how, as data and never code.

One struct per table of `plan.toml`; the types carry the limits. `runtime.plan_file` reads the file and
turns a wrong value into an error that names file, key, value and fix. `plan.toml` in the top folder is
the commented example of every key.
"""

import hashlib
from typing import Annotated, Literal

from msgspec import Meta, Struct, field, msgpack

from protocol.ids import Name

MAX_COHORT = 1024
"""Most members of one round: a cohort frame of so many still fits one MQTT packet."""

MAX_SPACING = 100_000
"""Longest rest, in rounds: where all rest so many numbers are left out, and devices refuse a jump of 2^20."""

MAX_RECENT = 1_000_000_000
"""Longest rest that can be asked for, in seconds: longer than any fleet has existed."""

MAX_TAGS = 16
"""Tags of one device: they travel with every offer."""

Fraction = Annotated[float, Meta(gt=0.0, lt=1.0)]
PositiveFloat = Annotated[float, Meta(gt=0.0)]
NonNegativeFloat = Annotated[float, Meta(ge=0.0)]
Delta = Annotated[float, Meta(ge=1e-100, le=1e-2)]
"""Of (epsilon, delta): the chance that is left for worse than epsilon says."""
Duration = Annotated[float, Meta(gt=0.0, le=86_400.0)]
"""Seconds, at most a day."""

Pattern = Annotated[str, Meta(min_length=1, max_length=256)]
"""Of names, as in a shell: `*`, `?`, `[abc]`."""
Percent = Annotated[int, Meta(ge=0, le=100)]
Celsius = Annotated[int, Meta(ge=0, le=125)]
"""What can be asked of a temperature: silicon that is hotter has failed."""
MegabytesAsked = Annotated[int, Meta(ge=1, le=1_000_000_000)]
Tags = Annotated[tuple[Name, ...], Meta(max_length=MAX_TAGS)]

PrivacyMode = Literal["none", "central", "distributed"]
"""Who adds noise to a sum: nobody, the coordinator, or each device its part."""
Loss = Literal["cross_entropy", "mse", "bce", "l1", "huber"]
Optimizer = Literal["sgd", "adamw"]


class Lora(Struct, frozen=True, forbid_unknown_fields=True):
    """Low-rank adapters beside dense layers, whose weights are frozen (Hu et al. 2021, arXiv 2106.09685).

    Attributes:
        rank: of an adapter; 0 adds none.
        scale: of what an adapter adds; the paper's alpha / r.
        layers: which dense layers, by patterns of their weights' names.
    """

    rank: Annotated[int, Meta(ge=0, le=1024)] = 0
    scale: PositiveFloat = 1.0
    layers: Annotated[tuple[Pattern, ...], Meta(min_length=1, max_length=256)] = ("*",)


class Model(Struct, frozen=True, forbid_unknown_fields=True):
    """Which forward graph to train.

    Exactly one of `catalog` and `onnx` is given.

    Attributes:
        catalog: name of a model in `models.catalog`.
        parameters: its sizes, for example {"channels": 6, "window": 128, "classes": 7}.
        onnx: path of a forward ONNX model, relative to the plan's folder.
        output: which of that model's outputs is trained; None takes the only one that can be.
        frozen: parameters that nobody trains, by patterns of their names ("conv1.*"); fetched once.
        private: parameters that each device trains for itself and never sends, likewise.
        lora: adapters; they are shared and trained, whatever `frozen` says.
    """

    catalog: Annotated[str, Meta(max_length=64)] | None = None
    parameters: dict[str, int] = field(default_factory=dict)
    onnx: str | None = None
    output: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    frozen: Annotated[tuple[Pattern, ...], Meta(max_length=256)] = ()
    private: Annotated[tuple[Pattern, ...], Meta(max_length=256)] = ()
    lora: Lora = Lora()


class Training(Struct, frozen=True, forbid_unknown_fields=True):
    """What a device does with the weights it receives.

    Attributes:
        loss: minimised on the device.
        optimizer: the local optimizer; its state starts anew every round.
        local_epochs: passes over the device's examples, 1 to 1000.
        batch_size: examples a step, 1 to 65,536.
        learning_rate: local, > 0.
        momentum: of "sgd" (Sutskever et al. 2013), in [0, 1); 0 is off.
        weight_decay: decoupled (Loshchilov and Hutter 2019, arXiv 1711.05101); 0 is off.
        gradient_clip: L2 bound of a step's whole gradient; None is off.
        proximal: FedProx's mu (Li et al. 2020, MLSys, section 3): adds mu/2 * ||w - w0||^2; 0 is off.
        max_examples: the most examples a device uses and is weighted by, 1 to 10^7.
        examples: which of them, where a device has more: "random" draws them anew every round, "newest" takes
            the last.
        loss_ceiling: the highest loss an example can report; fixes the metrics' fixed point.
    """

    loss: Loss = "cross_entropy"
    optimizer: Optimizer = "sgd"
    local_epochs: Annotated[int, Meta(ge=1, le=1000)] = 2
    batch_size: Annotated[int, Meta(ge=1, le=65_536)] = 16
    learning_rate: PositiveFloat = 0.1
    momentum: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.0
    weight_decay: NonNegativeFloat = 0.0
    gradient_clip: PositiveFloat | None = None
    proximal: NonNegativeFloat = 0.0
    max_examples: Annotated[int, Meta(ge=1, le=10_000_000)] = 10_000
    examples: Literal["random", "newest"] = "random"
    loss_ceiling: PositiveFloat = 10.0


class Eligibility(Struct, frozen=True, forbid_unknown_fields=True):
    """What a device must be to take part. Devices check it again for themselves; see `protocol.eligibility`.

    Attributes:
        idle: its load is below its own limit.
        charging: it is on mains power or charging.
        unmetered: its network costs nothing per byte.
        unknown_network: what a network counts as of which the device does not know.
        min_battery: percent of charge that it has left at least, unless it is charging.
        max_temperature: of its hottest part, in degrees Celsius.
        min_free_memory_mb: memory that programs could take, in MiB.
        min_free_disk_mb: room where its state is, in MiB.
        min_examples: fewer local examples than this and it declines.
        min_rest: seconds since it entered a round, at least.
        tags: that its owner must have given it, all of them.
        min_version: of the agent: its numbers, at least.
    """

    idle: bool = False
    charging: bool = False
    unmetered: bool = False
    unknown_network: Literal["metered", "unmetered"] = "metered"
    min_battery: Percent | None = None
    max_temperature: Celsius | None = None
    min_free_memory_mb: MegabytesAsked | None = None
    min_free_disk_mb: MegabytesAsked | None = None
    min_examples: Annotated[int, Meta(ge=1)] = 1
    min_rest: Annotated[int, Meta(ge=0, le=MAX_RECENT)] = 0
    tags: Tags = ()
    min_version: (
        Annotated[
            str, Meta(pattern=r"^[0-9]{1,6}(\.[0-9]{1,6}){0,3}$", description='a version such as "0.2"')
        ]
        | None
    ) = None


class Selection(Struct, frozen=True, forbid_unknown_fields=True):
    """How many devices take part in a round.

    Attributes:
        count: wanted cohort size; exclusive with `fraction`.
        fraction: wanted cohort as a part of the devices on offer, in (0, 1]; 1 when neither is given.
        over_selection: invited = ceil(wanted * over_selection), 1 to 3 (Bonawitz et al. 2019 use 1.3).
        min_cohort: a round with fewer members than this is aborted, at least 3.
        eligibility: conditions.
        min_enrolled_age: seconds for which a device must have been enrolled; as large as the largest floor of
            the devices, which leave a cohort that holds a younger one.
    """

    count: Annotated[int, Meta(ge=3, le=MAX_COHORT)] | None = None
    fraction: Annotated[float, Meta(gt=0.0, le=1.0)] | None = None
    over_selection: Annotated[float, Meta(ge=1.0, le=3.0)] = 1.3
    min_cohort: Annotated[int, Meta(ge=3, le=MAX_COHORT)] = 5
    eligibility: Eligibility = Eligibility()
    min_enrolled_age: Annotated[float, Meta(ge=0.0, le=1e9)] = 0.0


class SecureAggregation(Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters of masking, sharing and quantising.

    Attributes:
        bits: ring width b of the update block; values travel mod 2^b. None is 16 with privacy, else 32.
            Below 32, and with privacy, the update is rotated.
        clip: L2 bound of a device's update, in units of the weights.
        coordinate_limit: bound of one coordinate after the clip, where nothing is rotated; None is `clip`
            (nothing saturates).
        sketch: part of the rotated coordinates that travels, drawn anew every round; below 1 the mean is as
            right on average, but noisier.
        corrupt_fraction: gamma, the part of a cohort that may work against the others.
        dropout_fraction: delta, the part expected to vanish; sizes the sparse graph only.
        threshold: raises the derived threshold; never lowers it. 0 leaves it alone.
    """

    bits: Literal[8, 10, 12, 16, 20, 24, 32] | None = None
    clip: PositiveFloat = 10.0
    coordinate_limit: PositiveFloat | None = None
    sketch: Annotated[float, Meta(gt=0.0, le=1.0)] = 1.0
    corrupt_fraction: Annotated[float, Meta(gt=0.0, lt=0.5)] = 1 / 3
    dropout_fraction: Annotated[float, Meta(gt=0.0, lt=0.5)] = 0.05
    threshold: Annotated[int, Meta(ge=0, le=MAX_COHORT)] = 0


class AdaptiveClipping(Struct, frozen=True, forbid_unknown_fields=True):
    """The clip follows the updates (Andrew et al. 2021, arXiv 1905.03871); `secure_aggregation.clip` begins.

    Attributes:
        quantile: part of the updates that should not be clipped; None keeps the clip.
        learning_rate: how fast the clip moves; a round changes it by exp(learning_rate) at most.
    """

    quantile: Fraction | None = None
    learning_rate: Annotated[float, Meta(gt=0.0, le=2.0)] = 0.2


class Privacy(Struct, frozen=True, forbid_unknown_fields=True):
    """Differential privacy of a device with all its data: its contribution could as well have been zero.

    With a mode, exactly one of `target_epsilon` and `noise_multiplier` is given; devices weigh 1 each.

    Attributes:
        mode: "distributed": each device adds its part of the noise before masking. "central": the coordinator
            adds it to the sum, and has to be trusted to.
        target_epsilon: of the whole run, for a device that takes part as often as it may.
        noise_multiplier: certain noise over sensitivity; one round costs 1 / (2 z^2) of zCDP.
        delta: of the whole run.
        metrics_share: part of the cost that accuracy, loss and the clipped rate take; None is as much as
            brings their noise to 0.05, and 0.1 at most.
        spacing: a device takes part at most once in so many rounds of the run, and holds to that itself.
        adaptive_clipping: off unless its quantile is given.
    """

    mode: PrivacyMode = "none"
    target_epsilon: Annotated[float, Meta(gt=0.0, le=1e6)] | None = None
    noise_multiplier: Annotated[float, Meta(gt=0.0, le=1e6)] | None = None
    delta: Delta = 1e-6
    metrics_share: Annotated[float, Meta(gt=0.0, le=0.5)] | None = None
    spacing: Annotated[int, Meta(ge=1, le=MAX_SPACING)] = 1
    adaptive_clipping: AdaptiveClipping = AdaptiveClipping()


class Server(Struct, frozen=True, forbid_unknown_fields=True):
    """What the coordinator does with the mean update (Reddi et al. 2021, Algorithm 2).

    Attributes:
        optimizer: the server optimizer.
        learning_rate: eta; 1.0 makes `fedavg` plain averaging.
        momentum: beta_1 of all but fedavg and fedadagrad.
        second_momentum: beta_2 of fedadam and fedyogi.
        adaptivity: tau, the floor under the adaptive denominators.
    """

    optimizer: Literal["fedavg", "fedavgm", "fedadam", "fedyogi", "fedadagrad"] = "fedavg"
    learning_rate: PositiveFloat = 1.0
    momentum: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.9
    second_momentum: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.99
    adaptivity: PositiveFloat = 1e-3


class Deadlines(Struct, frozen=True, forbid_unknown_fields=True):
    """How long each phase may last, in seconds; a phase ends sooner when everybody has answered.

    Attributes:
        inviting: from the invitation to the last accept or decline.
        keying: fetching, training and publishing round keys.
        sharing: publishing sealed shares.
        collecting: masking and uploading.
        confirming: signing the survivor set.
        recovering: revealing shares.
        max_lifetime: after this long a device erases the round's secrets, whatever happened.
    """

    inviting: Duration = 10.0
    keying: Duration = 300.0
    sharing: Duration = 30.0
    collecting: Duration = 120.0
    confirming: Duration = 30.0
    recovering: Duration = 30.0
    max_lifetime: Duration = 3600.0


class Stopping(Struct, frozen=True, forbid_unknown_fields=True):
    """When the run ends: whichever comes first.

    Attributes:
        rounds: committed rounds.
        metric: what `target` and `patience` look at.
        target: stop once the metric is at least (accuracy) or at most (loss) this.
        patience: stop after this many committed rounds without improvement.
        wall_clock: seconds since the run began.
        aborted_in_a_row: give up after this many aborted rounds without a committed one.
    """

    rounds: Annotated[int, Meta(ge=1)] = 100
    metric: Literal["accuracy", "loss"] = "accuracy"
    target: float | None = None
    patience: Annotated[int, Meta(ge=1)] | None = None
    wall_clock: PositiveFloat | None = None
    aborted_in_a_row: Annotated[int, Meta(ge=1)] = 10


class Plan(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything a run is, one attribute per table of `plan.toml`."""

    model: Model
    training: Training = Training()
    selection: Selection = Selection()
    secure_aggregation: SecureAggregation = SecureAggregation()
    privacy: Privacy = Privacy()
    server: Server = Server()
    deadlines: Deadlines = Deadlines()
    stopping: Stopping = Stopping()


def plan_hash(plan: Plan) -> bytes:
    """What a manifest calls this plan: 32 bytes of SHA-256 over a label and the plan as MessagePack.

    Every key is written, defaults included, in the order of the structs; the keys of `model.parameters` are
    sorted, and a number written without a decimal point equals the same number with one.
    """
    normal = msgpack.decode(msgpack.encode(plan), type=Plan)
    return hashlib.sha256(b"fedfleet/1/plan" + msgpack.encode(normal, order="deterministic")).digest()
