"""What holds for every test."""

import pytest
import structlog


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Logs as they are by themselves: a test that ran before in this process may have configured them."""
    structlog.reset_defaults()
