"""Masks that cancel, cannot cancel across transcripts, and are removed in parts."""

import pickle

import numpy as np
import pytest

from secagg.errors import LowOrderPointError
from secagg.keys import RoundSecrets, Secret
from secagg.pairwise import (
    Expansion,
    PairGroup,
    SelfGroup,
    Work,
    apply,
    expand_into,
    expand_sum,
    pair_expansion,
    self_expansion,
    share_out,
)
from secagg.ring import RingLayout, RingVector

LAYOUT = RingLayout(1000, 20, 4)
SECRETS = {name: RoundSecrets.from_master(Secret(name.encode() * 32)) for name in "abcdefgh"}
T2, OTHER_T2 = b"\x02" * 32, b"\x03" * 32


def pair(own: str, peer: str, transcript: bytes = T2) -> Expansion:
    return pair_expansion(
        SECRETS[own].mask_private, SECRETS[peer].mask_public, transcript=transcript, own=own, peer=peer
    )


def group(own: str, transcript: bytes = T2) -> PairGroup:
    peers = tuple((peer, SECRETS[peer].mask_public) for peer in SECRETS if peer != own)
    return PairGroup(SECRETS[own].mask_private, own, peers, transcript)


def summed(*expansions: Expansion) -> bytes:
    vector = RingVector.zeros(LAYOUT)
    apply(vector, expansions)
    return vector.pack()


ZERO = bytes(LAYOUT.packed_size)


def test_the_masks_of_a_pair_cancel() -> None:
    assert summed(pair("a", "b")) != ZERO
    assert summed(pair("a", "b"), pair("b", "a")) == ZERO
    assert pair("a", "b").sign == 1


@pytest.mark.parametrize("seen", [pair("b", "a", OTHER_T2), pair("b", "c"), pair("c", "a")])
def test_masks_of_other_views_do_not_cancel(seen: Expansion) -> None:
    assert summed(pair("a", "b"), seen) != ZERO


def test_a_group_yields_each_pair_in_turn() -> None:
    assert list(group("c")) == [pair("c", peer) for peer in SECRETS if peer != "c"]


def test_names_that_run_together_give_different_keys() -> None:
    private, public = SECRETS["a"].mask_private, SECRETS["b"].mask_public
    one = pair_expansion(private, public, transcript=T2, own="ab", peer="c")
    two = pair_expansion(private, public, transcript=T2, own="a", peer="bc")
    assert one.key != two.key


def test_own_masks_differ_by_device_and_transcript() -> None:
    seed = Secret(bytes(32))
    keys = [
        self_expansion(seed, transcript=transcript, device=device).key.reveal()
        for transcript in (T2, OTHER_T2)
        for device in "ab"
    ]
    assert len(set(keys)) == 4


def test_removing_undoes_applying() -> None:
    vector = RingVector.from_signed(LAYOUT, np.arange(4), np.arange(1000) - 500)
    before = vector.pack()
    masks = [self_expansion(SECRETS["a"].self_seed, transcript=T2, device="a"), *group("a")]
    apply(vector, masks)
    assert vector.pack() != before
    apply(vector, masks, remove=True)
    assert vector.pack() == before
    apply(vector, [masks[0], masks[0].inverse()])
    assert vector.pack() == before


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 100])
def test_work_shared_out_among_workers_sums_to_the_same(size: int) -> None:
    own = [self_expansion(SECRETS[name].self_seed, transcript=T2, device=name).inverse() for name in "abc"]
    removals = SelfGroup(tuple((name, SECRETS[name].self_seed) for name in "fgh"), T2)
    work: list[Work] = [own[0], group("d"), own[1], removals, own[2], group("e")]
    total = RingVector.zeros(LAYOUT)
    for part in share_out(work, size):
        masks = sum(1 if isinstance(item, Expansion) else len(item) for item in part)
        assert 1 <= masks <= size
        total.add(expand_sum(LAYOUT, pickle.loads(pickle.dumps(part))))  # noqa: S301 (our own bytes)
    assert total.pack() == expand_sum(LAYOUT, work).pack()
    assert list(share_out([], size)) == []


def test_a_self_group_removes_own_masks() -> None:
    seeds = tuple((name, SECRETS[name].self_seed) for name in "abc")
    own = [self_expansion(seed, transcript=T2, device=name) for name, seed in seeds]
    assert expand_sum(LAYOUT, [*own, SelfGroup(seeds, T2)]).pack() == ZERO


def test_masks_add_to_what_is_there() -> None:
    total = RingVector.zeros(LAYOUT)
    expand_into(total, [group("a")])
    expand_into(total, [expansion.inverse() for expansion in group("a")])
    assert total.pack() == ZERO


def test_work_shows_no_key() -> None:
    shown = repr([pair("a", "b"), group("a")])
    assert pair("a", "b").key.reveal().hex() not in shown
    assert "Secret(16 bytes)" in shown
    assert repr(SECRETS["a"].mask_private.reveal()) not in shown


def test_a_low_order_key_in_a_group_is_refused() -> None:
    with pytest.raises(LowOrderPointError):
        expand_sum(LAYOUT, [PairGroup(SECRETS["a"].mask_private, "a", (("b", bytes(32)),), T2)])
