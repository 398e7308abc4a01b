"""What is written down of a round, and which spooled updates it still needs."""

import pytest

from coordinator.round_entries import (
    DoneEntry,
    Entry,
    FailedEntry,
    FrameEntry,
    GoneEntry,
    ResumedEntry,
    Spooled,
    SumEntry,
    UnknownEntryError,
    UploadedEntry,
    decode_entry,
    encode_entry,
    newest_sum,
)
from protocol.chunks import BlobRef, describe


def ref(content: bytes) -> BlobRef:
    return describe(content)


def follow(spooled: Spooled, *entries: Entry) -> set[bytes]:
    for entry in entries:
        spooled.follow(entry)
    return spooled.take_obsolete()


@pytest.mark.parametrize(
    "entry",
    [
        FrameEntry(b"frame"),
        GoneEntry("d1"),
        UploadedEntry("d1", ref(b"x")),
        SumEntry(b"s" * 32),
        ResumedEntry(2.5),
    ],
)
def test_an_entry_comes_back_as_it_was(entry: Entry) -> None:
    assert decode_entry(encode_entry(entry)) == entry


@pytest.mark.parametrize("data", [b"", b"\xc1", encode_entry(GoneEntry("d1"))[:-1], b"\x91\xa5later"])
def test_what_is_no_entry_is_an_error(data: bytes) -> None:
    with pytest.raises(UnknownEntryError):
        decode_entry(data)


def test_what_a_stored_sum_holds_is_needed_no_more_nor_the_sum_before_it() -> None:
    spooled, first, second = Spooled(), ref(b"first"), ref(b"second")
    assert follow(spooled, UploadedEntry("d1", first), DoneEntry("AddUpdate/d1")) == set()
    assert follow(spooled, UploadedEntry("d2", second)) == set()
    assert follow(spooled, SumEntry(b"s" * 32)) == {first.sha256}
    assert follow(spooled, DoneEntry("AddUpdate/d2")) == set()
    assert follow(spooled, SumEntry(b"t" * 32)) == {second.sha256, b"s" * 32}


def test_bytes_that_two_devices_sent_stay_while_one_of_them_needs_them() -> None:
    spooled, same = Spooled(), ref(b"same")
    entries = [UploadedEntry("d1", same), UploadedEntry("d2", same), DoneEntry("AddUpdate/d1")]
    assert follow(spooled, *entries, SumEntry(b"s" * 32)) == set()


def test_an_update_that_never_came_cannot_have_been_added() -> None:
    with pytest.raises(UnknownEntryError, match="never came"):
        follow(Spooled(), DoneEntry("AddUpdate/d1"))


def test_the_newest_sum_holds_what_was_added_before_it() -> None:
    entries: list[Entry] = [
        DoneEntry("FormCohort"),
        DoneEntry("AddUpdate/d1"),
        FailedEntry("AddUpdate/d2", "too long"),
        SumEntry(b"s" * 32),
        DoneEntry("AddUpdate/d3"),
    ]
    assert newest_sum(entries) == (b"s" * 32, frozenset({"d1"}))
    assert newest_sum(entries[:3]) == (None, frozenset())
