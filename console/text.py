"""Numbers and statuses as people read them."""

from console.fleet_view import News, accuracy, loss
from protocol.status import CoordinatorStatus, DeviceStatus, RoundResult

UNKNOWN = "–"  # noqa: RUF001 (an en dash is what a table leaves out)


def percent(value: float | None) -> str:
    """0.897 is "89.7 %"."""
    return UNKNOWN if value is None else f"{100 * value:.1f} %"


def decimal(value: float | None) -> str:
    """Three decimals."""
    return UNKNOWN if value is None else f"{value:.3f}"


def size(count: float) -> str:
    """Bytes in decimal units: 12,868 is "12.9 kB"."""
    if count < 1000:  # noqa: PLR2004 (the unit)
        return f"{count:.0f} B"
    for unit in ("kB", "MB"):
        count /= 1000
        if count < 1000:  # noqa: PLR2004 (the unit)
            return f"{count:.1f} {unit}"
    return f"{count / 1000:.1f} GB"


def duration(seconds: float) -> str:
    """Minutes and seconds: "01:05"."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes:02}:{rest:02}"


def line(news: News) -> str | None:
    """One line of a plain log; None for what would only fill it."""
    match news.status:
        case CoordinatorStatus(state=state, devices=devices, why=why):
            return f"coordinator {state}, {devices} devices on offer{_because(why)}"
        case RoundResult() as result:
            return _result(result)
        case DeviceStatus(state="lost"):
            return f"device {news.device} lost"
        case _:
            return None


def _result(result: RoundResult) -> str:
    if result.result == "aborted":
        return f"round {result.round} aborted after {result.seconds:.1f} s{_because(result.reason)}"
    return (
        f"round {result.round} committed in {result.seconds:.1f} s: {result.survivors} in the sum, "
        f"{result.dropouts} recovered, loss {decimal(loss(result))}, accuracy {percent(accuracy(result))}"
    )


def _because(why: str) -> str:
    return f": {why}" if why else ""
