"""What holds for every cohort, every dropout, every width and every subset."""

from hashlib import sha256

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg import graph, shamir
from secagg.keys import RoundSecrets, Secret, seed_commitment
from secagg.pairwise import PairGroup, SelfGroup, apply, expand_sum, self_expansion, share_out
from secagg.ring import MAX_BITS, MIN_BITS, RingLayout, RingVector

layouts = st.builds(
    RingLayout, st.integers(0, 200), st.integers(MIN_BITS, MAX_BITS), metrics_size=st.integers(0, 5)
)
secrets = st.binary(min_size=32, max_size=32).map(Secret)
T1, T2 = b"\x01" * 32, b"\x02" * 32


class Fleet:
    """Devices that mask random updates, and a coordinator that recovers the sum of those it hears from."""

    def __init__(self, n: int, degree: int, layout: RingLayout, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.layout = layout
        self.secrets = {f"d{i}": RoundSecrets.from_master(Secret(rng.bytes(32))) for i in range(n)}
        self.near = graph.neighbours(list(self.secrets), degree, T1)
        half = 1 << layout.bits - 1
        shape = layout.update_size
        self.plain = {
            name: RingVector.from_signed(
                layout,
                rng.integers(-1000, 1000, layout.metrics_size),
                rng.integers(-half // n, half // n + 1, shape),
            )
            for name in self.secrets
        }

    def pairs(self, name: str, peers: frozenset[str]) -> PairGroup:
        publics = tuple((peer, self.secrets[peer].mask_public) for peer in sorted(peers))
        return PairGroup(self.secrets[name].mask_private, name, publics, T2)

    def upload(self, name: str) -> bytes:
        vector = RingVector.unpack(self.layout, memoryview(bytearray(self.plain[name].pack())))
        own = self_expansion(self.secrets[name].self_seed, transcript=T2, device=name)
        apply(vector, [own, *self.pairs(name, self.near[name])])
        return vector.pack()

    def recover(self, survivors: set[str]) -> bytes:
        total = RingVector.zeros(self.layout)
        for name in survivors:
            total.add(RingVector.unpack(self.layout, self.upload(name)))
        own = SelfGroup(tuple((name, self.secrets[name].self_seed) for name in survivors), T2)
        vanished = [self.pairs(name, self.near[name] & survivors) for name in self.secrets.keys() - survivors]
        for part in share_out([own, *vanished], 4):
            total.add(expand_sum(self.layout, part))
        return total.pack()

    def plain_sum(self, survivors: set[str]) -> bytes:
        total = RingVector.zeros(self.layout)
        for name in survivors:
            total.add(self.plain[name])
        return total.pack()


@given(st.data(), layouts, st.integers(2, 9), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_the_sum_of_survivors_is_exact_whoever_vanishes(
    data: st.DataObject, layout: RingLayout, n: int, seed: int
) -> None:
    degree = data.draw(st.sampled_from([n - 1, *range(2, n - 1, 2)]))
    fleet = Fleet(n, degree, layout, seed)
    survivors = data.draw(st.sets(st.sampled_from(sorted(fleet.secrets)), min_size=1))
    assert fleet.recover(survivors) == fleet.plain_sum(survivors)


@given(layouts, st.integers(0, 2**32))
def test_packing_keeps_every_residue_and_only_those(layout: RingLayout, seed: int) -> None:
    rng = np.random.default_rng(seed)
    half = 1 << layout.bits - 1
    metrics = rng.integers(-(2**31), 2**31, layout.metrics_size)
    update = rng.integers(-half, half, layout.update_size)
    packed = RingVector.from_signed(layout, metrics, update).pack()
    unpacked = RingVector.unpack(layout, packed)
    assert len(packed) == layout.packed_size
    assert np.array_equal(unpacked.signed_metrics(), metrics)
    assert np.array_equal(unpacked.signed_update(), update)
    assert unpacked.pack() == packed


@given(secrets, secrets, st.data(), st.integers(1, 12), st.integers(0, 12))
@settings(deadline=None)
def test_any_threshold_of_shares_gives_the_secret(
    secret: Secret, stream_key: Secret, data: st.DataObject, threshold: int, spare: int
) -> None:
    count = threshold + spare
    points = data.draw(
        st.lists(st.integers(1, shamir.PRIME - 1), min_size=count, max_size=count, unique=True)
    )
    shares = shamir.split(secret, threshold=threshold, points=points, stream_key=stream_key)
    chosen = data.draw(st.permutations(points))[:threshold]
    given_shares = {point: shares[point] for point in chosen}
    assert shamir.combine(given_shares, threshold) == secret
    assert all(shamir.evaluate(given_shares, threshold, point) == shares[point] for point in points)


@given(st.lists(st.tuples(secrets, secrets), min_size=1, max_size=4), st.integers(1, 12), st.integers(0, 12))
@settings(deadline=None)
def test_secrets_split_together_have_the_shares_of_each(
    pairs: list[tuple[Secret, Secret]], threshold: int, spare: int
) -> None:
    points = range(1, threshold + spare + 1)
    alone = [shamir.split(each, threshold=threshold, points=points, stream_key=key) for each, key in pairs]
    together = shamir.split_many(pairs, threshold=threshold, points=points)
    assert together == {point: b"".join(shares[point] for shares in alone) for point in points}


@given(secrets, st.data(), st.integers(2, 6), st.integers(1, 4))
@settings(deadline=None, max_examples=50)
def test_liars_never_change_the_secret(
    secret: Secret, data: st.DataObject, threshold: int, spare: int
) -> None:
    points = range(1, threshold + spare + 1)
    shares = shamir.split(
        secret, threshold=threshold, points=points, stream_key=Secret(sha256(secret.reveal()).digest())
    )
    liars = data.draw(st.sets(st.sampled_from(points), max_size=spare))
    lies = {point: data.draw(st.binary(min_size=30, max_size=36)) for point in liars}
    commitment = seed_commitment(T1, "ant", secret)
    found, caught = shamir.recover(
        shares | lies, threshold, lambda candidate: seed_commitment(T1, "ant", candidate) == commitment
    )
    assert found == secret
    assert caught == {point for point in liars if lies[point] != shares[point]}


@given(st.integers(3, 40), st.binary(min_size=32, max_size=32), st.data())
def test_a_ring_is_regular_and_mutual(n: int, transcript: bytes, data: st.DataObject) -> None:
    degree = data.draw(st.sampled_from([n - 1, *range(2, n, 2)]))
    near = graph.neighbours([f"d{index}" for index in range(n)], degree, transcript)
    assert {len(each) for each in near.values()} == {degree}
    assert all(member in near[other] for member, others in near.items() for other in others)


@given(st.integers(65, 400), st.floats(0, 0.3), st.floats(0, 0.3))
@settings(deadline=None, max_examples=60)
def test_parameters_leave_no_room_for_two_views(n: int, corrupt: float, dropout: float) -> None:
    found = graph.parameters(n, corrupt, dropout)
    assert found.degree / 2 < found.threshold <= found.degree < n
