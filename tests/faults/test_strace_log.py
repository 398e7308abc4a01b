"""What is read from a log of strace."""

from pathlib import Path

from faults.strace import Target, command, counted, disk_full, killed_at, place_of

STATE = Path("/srv/state")
LOG = """\
10 openat(AT_FDCWD</srv>, "/srv/state/results.jsonl", O_WRONLY|O_CREAT) = 5</srv/state/results.jsonl>
10 fdatasync(8</srv/state/coordinator.db-wal>) = 0
12 fdatasync(8</srv/state/coordinator.db-wal> <unfinished ...>
10 openat(AT_FDCWD</srv>, "/srv/other", O_RDONLY|O_CLOEXEC) = 5</srv/other>
12 <... fdatasync resumed>) = 0
12 fdatasync(8</srv/state/coordinator.db-wal>) = 0
12 rename("/srv/state/spool/.new-abcd1234", "/srv/state/spool/12" <unfinished ...>
10 --- SIGCHLD {si_signo=SIGCHLD} ---
12 <... rename resumed>)          = ?
10 +++ killed by SIGKILL +++
"""


def test_the_calls_of_the_busiest_thread_count() -> None:
    assert counted(LOG, STATE, Target("fdatasync")) == 2
    assert counted(LOG, STATE, Target("openat", ("results.jsonl",))) == 1
    assert counted(LOG, STATE, Target("unlink")) == 0


def test_the_place_is_the_last_call_of_the_thread_that_was_killed() -> None:
    assert place_of(LOG, STATE) == "rename spool/.new-…"


def test_a_program_that_was_not_killed_has_no_place() -> None:
    assert place_of("10 +++ exited with 0 +++\n", STATE) == ""


def test_only_the_named_files_are_watched() -> None:
    words = command(Path("log"), STATE, [killed_at(Target("fsync", ("spool", "models")), 3)])
    assert " ".join(words).endswith(
        "-e trace=/^(fsync) -P /srv/state/models -P /srv/state/spool -e inject=/^fsync:signal=SIGKILL:when=3"
    )


def test_a_full_disk_is_an_error_of_some_calls() -> None:
    words = command(Path("log"), STATE, [disk_full(Target("pwrite64"), "3..5")])
    assert words[-1] == "inject=/^pwrite64:error=ENOSPC:when=3..5"
