"""`fedfleet agent ledger`: what rounds have cost the privacy of this device's data."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct
from rich.table import Table

from device_agent.ledger import Ledger
from device_agent.memory import AgentMemory
from device_agent.settings import AgentSettings, PrivacySettings
from privacy.accounting import compose, epsilon, rho_for
from privacy.mode import Mode
from protocol.ids import Order
from runtime.config import SettingsError, load_settings

_STATE = "FEDFLEET_STATE"
_OURS = (_STATE, "FEDFLEET_PRIVACY__")


class LedgerSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What a reader of the ledger is told.

    Attributes:
        state: the agent's folder.
        privacy: the agent's own limits.
    """

    state: Path
    privacy: PrivacySettings = PrivacySettings()


class Entry(Struct, frozen=True):
    """One round. Costs are zCDP (rho) and epsilon at the statement's delta.

    Attributes:
        order: the round.
        mode: who added the noise.
        rho: of this round.
        epsilon: of this round alone.
        rho_so_far: of all rounds up to it.
        epsilon_so_far: of all rounds up to it.
        unix: when it was charged, in seconds since 1970.
    """

    order: Order
    mode: Mode
    rho: float
    epsilon: float
    rho_so_far: float
    epsilon_so_far: float
    unix: float


class Left(Struct, frozen=True):
    """What remains of a budget.

    Attributes:
        budget: epsilon of the device's whole life.
        rho: zCDP that may still be spent, >= 0.
        rounds: like the last one that fit in; None before the first.
    """

    budget: float
    rho: float
    rounds: int | None


class Statement(Struct, frozen=True):
    """A whole ledger in figures.

    Attributes:
        file: the ledger.
        delta: at which every epsilon is read.
        entries: oldest first.
        rho: of all.
        epsilon: of all.
        left: None without a budget.
    """

    file: str
    delta: float
    entries: list[Entry]
    rho: float
    epsilon: float
    left: Left | None


def read_settings(
    *, config: Path | None, state: Path | None, environment: Mapping[str, str]
) -> LedgerSettings:
    """The agent's own settings when their file is given; otherwise a folder is enough.

    Raises:
        SettingsError: see `load_settings`.
    """
    given = {"state": state}
    if config is not None:
        settings = load_settings(AgentSettings, file=config, environment=environment, overrides=given)
        return LedgerSettings(settings.state, settings.privacy)
    if state is None and _STATE not in environment:
        raise SettingsError("say whose ledger: --state DIR, or --config FILE with the agent's settings")
    ours = {name: value for name, value in environment.items() if name.startswith(_OURS)}
    return load_settings(LedgerSettings, file=None, environment=ours, overrides=given)


def read_statement(settings: LedgerSettings) -> Statement:
    """Read a ledger, also of an agent that runs; nothing is written.

    Raises:
        DamagedStateError: see there.
    """
    return statement(AgentMemory(settings.state).ledger, settings.privacy)


def statement(ledger: Ledger, privacy: PrivacySettings) -> Statement:
    """Work out a ledger's figures."""
    delta = privacy.delta
    return Statement(
        file=str(ledger.file),
        delta=delta,
        entries=_entries(ledger, delta),
        rho=ledger.spent,
        epsilon=epsilon(ledger.spent, delta),
        left=None if privacy.epsilon is None else _left(ledger, privacy.epsilon, delta),
    )


def _entries(ledger: Ledger, delta: float) -> list[Entry]:
    costs = [charge.rho for charge in ledger.charges]
    entries = []
    for number, charge in enumerate(ledger.charges, start=1):
        so_far = compose(costs[:number])
        entries.append(
            Entry(
                order=charge.order,
                mode=charge.mode,
                rho=charge.rho,
                epsilon=epsilon(charge.rho, delta),
                rho_so_far=so_far,
                epsilon_so_far=epsilon(so_far, delta),
                unix=charge.unix,
            )
        )
    return entries


def _left(ledger: Ledger, budget: float, delta: float) -> Left:
    rho = max(0.0, rho_for(budget, delta) - ledger.spent)
    return Left(budget, rho, None if ledger.last is None else int(rho / ledger.last.rho))


def table(made: Statement) -> Table:
    """The rounds, for people."""
    columns = ("round", "noise", "epsilon", "so far", "zCDP", "so far", "when (UTC)")
    drawn = Table(box=None)
    for name in columns:
        drawn.add_column(name, justify="right" if name in columns[2:6] else "left")
    for one in made.entries:
        drawn.add_row(
            str(one.order),
            one.mode,
            f"{one.epsilon:.3g}",
            f"{one.epsilon_so_far:.4g}",
            f"{one.rho:.3g}",
            f"{one.rho_so_far:.4g}",
            f"{datetime.fromtimestamp(one.unix, UTC):%Y-%m-%d %H:%M:%S}",
        )
    return drawn


def summary(made: Statement) -> str:
    """What is spent, and what is left of a budget, in a line."""
    count = len(made.entries)
    charged = (
        f"{count} round{'' if count == 1 else 's'} charged" if count else f"no round charged in {made.file}"
    )
    of, rest = "", "no budget given"
    if made.left is not None:
        of, rest = f" of {made.left.budget:g}", f"left: zCDP {made.left.rho:.4g}"
        if made.left.rounds is not None:
            rest += f", {made.left.rounds} rounds like the last one"
    costs = f"epsilon {made.epsilon:.4g}{of} at delta {made.delta:g}, zCDP {made.rho:.4g}"
    return f"{charged}; {costs}; {rest}"
