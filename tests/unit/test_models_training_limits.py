"""The limits of a training process, each seen in a process of its own."""

import subprocess
import sys

import pytest

from models.bounds import MAX_GRAPH_BYTES
from models.training_limits import OPEN_FILES

SHOW = """
import resource, time
from models.training_limits import allow_processor_time, limit_this_process
show = lambda name: print(*resource.getrlimit(getattr(resource, name)))
"""


def run(program: str) -> list[str]:
    """The lines that a program of these limits prints."""
    answer = subprocess.run(
        [sys.executable, "-P", "-c", SHOW + program], capture_output=True, text=True, check=True
    )
    return answer.stdout.splitlines()


def test_memory_files_and_core_dumps_are_limited_for_good() -> None:
    lines = run("""
limit_this_process(300)
for name in ("RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_NOFILE", "RLIMIT_FSIZE"): show(name)
""")

    expected = [300 * 2**20, 0, OPEN_FILES, MAX_GRAPH_BYTES]
    assert lines == [f"{limit} {limit}" for limit in expected]


def test_less_that_a_service_manager_set_stays() -> None:
    lines = run("""
resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
limit_this_process(300)
show("RLIMIT_NOFILE")
""")

    assert lines == ["20 20"]


def test_each_call_has_its_processor_time_whatever_came_before() -> None:
    first, second = run("""
allow_processor_time(5)
print(resource.getrlimit(resource.RLIMIT_CPU)[0])
while time.process_time() < 2.2: pass
allow_processor_time(5)
print(resource.getrlimit(resource.RLIMIT_CPU)[0])
""")

    assert 6 <= int(first) <= 7
    assert int(second) == 3 + 5


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux")
def test_when_the_machine_has_no_memory_this_process_goes_first() -> None:
    lines = run("limit_this_process(300)\nprint(open('/proc/self/oom_score_adj').read().strip())")

    assert lines == ["1000"]


def test_a_log_file_that_is_longer_than_the_limit_ends_nobody() -> None:
    lines = run("""
import tempfile
limit_this_process(300)
with tempfile.TemporaryFile() as log:
    try:
        log.truncate(2**30)
    except OSError as error:
        print(error.strerror)
""")

    assert lines == ["File too large"]
