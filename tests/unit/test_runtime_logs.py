import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runtime.config import LogSettings
from runtime.logs import configure
from runtime.secret import SecretStr


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []  # `configure` closes what it replaces; pytest's own must survive
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_a_container_gets_one_json_object_a_line() -> None:
    stream = io.StringIO()
    configure(LogSettings(), stream)

    structlog.get_logger("rounds").info("committed", round=4, survivors=9)

    line = json.loads(stream.getvalue())
    assert line["event"] == "committed"
    assert (line["round"], line["survivors"], line["level"], line["logger"]) == (4, 9, "info", "rounds")


def test_the_standard_library_speaks_the_same_form() -> None:
    stream = io.StringIO()
    configure(LogSettings(), stream)

    logging.getLogger("paho").warning("lost %s", "connection")

    line = json.loads(stream.getvalue())
    assert (line["event"], line["level"], line["logger"]) == ("lost connection", "warning", "paho")


def test_an_exception_is_part_of_its_line() -> None:
    stream = io.StringIO()
    configure(LogSettings(), stream)

    try:
        raise ValueError("odd")  # noqa: TRY301 (the exception is the test's data)
    except ValueError:
        structlog.get_logger().exception("failed")

    assert "ValueError: odd" in json.loads(stream.getvalue())["exception"]


def test_a_terminal_gets_text() -> None:
    stream = Terminal()
    configure(LogSettings(), stream)

    structlog.get_logger().info("committed", round=4)

    assert "committed" in stream.getvalue()
    with pytest.raises(json.JSONDecodeError):
        json.loads(stream.getvalue())


def test_less_important_lines_are_left_out() -> None:
    stream = io.StringIO()
    configure(LogSettings(level="warning", format="console"), stream)

    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("loud")

    assert "quiet" not in stream.getvalue()
    assert "loud" in stream.getvalue()


def test_secrets_are_hidden_by_type_and_by_name() -> None:
    stream = io.StringIO()
    configure(LogSettings(), stream)

    structlog.get_logger().info(
        "connected",
        credentials=SecretStr("hunter2"),
        broker_password="hunter3",
        key=Ed25519PrivateKey.from_private_bytes(bytes(32)),
        mask_seed=b"hunter4",
        shares=9,
    )

    line = json.loads(stream.getvalue())
    assert "hunter" not in stream.getvalue()
    assert {line[k] for k in ("credentials", "broker_password", "key", "mask_seed")} == {"(hidden)"}
    assert line["shares"] == 9
