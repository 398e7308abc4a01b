"""What a sealed message hides and how long it is; `vectors/secagg.json` holds what is refused."""

import pytest

from secagg.errors import LowOrderPointError, SealError
from secagg.keys import RoundSecrets, Secret
from secagg.sealing import SEAL_OVERHEAD, open_channel, open_sealed, seal

ANT, BEE = (RoundSecrets.from_master(Secret(bytes([number]) * 32)) for number in (1, 2))
T1 = b"\x01" * 32


def seal_from_ant(plaintext: bytes, transcript: bytes = T1) -> bytes:
    return seal(
        plaintext,
        private=ANT.seal_private,
        peer_public=BEE.seal_public,
        transcript=transcript,
        sender="ant",
        receiver="bee",
    )


def test_a_message_arrives() -> None:
    sealed = seal_from_ant(b"x" * 73)
    assert len(sealed) == 73 + SEAL_OVERHEAD
    opened = open_sealed(
        sealed,
        private=BEE.seal_private,
        peer_public=ANT.seal_public,
        transcript=T1,
        sender="ant",
        receiver="bee",
    )
    assert opened == b"x" * 73


def test_a_channel_serves_both_directions_and_shows_no_key() -> None:
    ant = open_channel(ANT.seal_private, BEE.seal_public, transcript=T1, own="ant", peer="bee")
    bee = open_channel(BEE.seal_private, ANT.seal_public, transcript=T1, own="bee", peer="ant")
    assert ant.seal(b"shares") == seal_from_ant(b"shares")
    assert bee.open_sealed(ant.seal(b"there")) == b"there"
    assert ant.open_sealed(bee.seal(b"back")) == b"back"
    with pytest.raises(SealError):
        ant.open_sealed(ant.seal(b"echo"))
    assert "Secret(32 bytes)" in repr(ant)


def test_both_directions_and_two_transcripts_have_different_keys() -> None:
    zeros = bytes(32)
    back = seal(
        zeros,
        private=BEE.seal_private,
        peer_public=ANT.seal_public,
        transcript=T1,
        sender="bee",
        receiver="ant",
    )
    sealed = {seal_from_ant(zeros), seal_from_ant(zeros, b"\x02" * 32), back}
    assert len({message[:32] for message in sealed}) == 3


def test_a_stranger_cannot_open_it() -> None:
    stranger = RoundSecrets.from_master(Secret(b"\x03" * 32))
    with pytest.raises(SealError, match="ant to bee"):
        open_sealed(
            seal_from_ant(b"shares"),
            private=stranger.seal_private,
            peer_public=ANT.seal_public,
            transcript=T1,
            sender="ant",
            receiver="bee",
        )


def test_a_low_order_key_is_refused() -> None:
    with pytest.raises(LowOrderPointError):
        seal(
            b"", private=ANT.seal_private, peer_public=bytes(32), transcript=T1, sender="ant", receiver="bee"
        )
