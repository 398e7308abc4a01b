"""Whatever bytes come: an answer, or an error that has a name."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from registry import NOW, Registry, claimant, key

from protocol.enrolment import (
    EnrolmentRequest,
    decode_from_registrar,
    decode_request,
    decode_token,
    encode_token,
    read_csr,
    write_csr,
)
from protocol.errors import PeerError, RequestError
from protocol.frames import open_enrolment_request, open_registrar_frame, seal_frame

CSR = write_csr("d1", key(1))
Damage = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=3)


def damaged(data: bytes, changes: list[tuple[int, int]]) -> bytes:
    made = bytearray(data)
    for place, value in changes:
        made[place % len(made)] = value
    return bytes(made)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    made = Registry(Path(tmp_path_factory.mktemp("state")))
    yield made
    made.store.close()


@given(st.binary(max_size=3000))
@example(b"")
def test_noise_is_no_message(data: bytes) -> None:
    for decode in (decode_request, decode_from_registrar, read_csr):
        with contextlib.suppress(PeerError):
            decode(data)


@given(Damage)
def test_a_damaged_request_is_refused_or_the_same(changes: list[tuple[int, int]]) -> None:
    data = damaged(CSR, changes)
    try:
        applicant = read_csr(data)
    except RequestError as error:
        assert len(str(error)) <= 200  # noqa: PT017 (either is right)
    else:
        assert (applicant.name, applicant.key) == ("d1", key(1).public_key())


@given(st.text(max_size=2000))
def test_text_is_no_token(text: str) -> None:
    with contextlib.suppress(RequestError):
        decode_token(text)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=Damage)
def test_a_damaged_frame_is_refused(registry: Registry, changes: list[tuple[int, int]]) -> None:
    claim = registry.office.give_claim(NOW, 600)
    frame = seal_frame(claimant(claim), EnrolmentRequest(CSR))
    data = damaged(frame, changes)
    if data == frame:
        return
    for read in (open_enrolment_request, open_registrar_frame):
        with pytest.raises(PeerError):
            read(data, registry.office.trust, NOW)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.none() | st.from_regex(r"[a-z0-9]{1,20}", fullmatch=True), lifetime=st.integers(10, 10**6))
def test_a_token_is_read_as_it_was_written(registry: Registry, name: str | None, lifetime: int) -> None:
    claim = registry.office.give_claim(NOW, lifetime, name)
    token = encode_token(claim)
    assert decode_token(token) == claim
    for cut in (token[:-1], token[1:], token + "A"):
        with pytest.raises(RequestError):
            decode_token(cut)
