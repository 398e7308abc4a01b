"""One round of Flower's SecAgg+ in one process: its own workflow and its own client mod, without a network.

Executed by the interpreter of an environment that has `flwr`; prints one line of JSON.
"""
# mypy: disable-error-code="import-not-found,misc,no-any-unimported"

import json
import logging
import sys
import time
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.common import Code, FitIns, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.compat.common import recorddict_compat as compat
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD
from flwr.server.workflow.constant import Key as WorkflowKey
from flwr.supercore.task_identity import TaskIdentity

EXAMPLES = 100
CLIP = 8.0


class Clients:
    """Stands for the grid: hands each message to the mod of its client, and loses those that dropped."""

    def __init__(self, updates: dict[int, np.ndarray], dropped: set[int]) -> None:
        self.updates, self.dropped = updates, dropped
        self.contexts = {node: new_context(node) for node in updates}

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Answer each message in turn; a dropped client vanishes before it uploads."""
        del timeout  # nothing here waits
        return [self._answer(message) for message in messages if not self._is_lost(message)]

    def _is_lost(self, message: Message) -> bool:
        stage = message.content.config_records[RECORD_KEY_CONFIGS][Key.STAGE]
        return stage == Stage.COLLECT_MASKED_VECTORS and message.metadata.dst_node_id in self.dropped

    def _answer(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        # A message from the wire is the receiver's own; the workflow's is shared, and the mod empties it.
        own = RecordDict(dict(message.content))
        own[RECORD_KEY_CONFIGS] = ConfigRecord(dict(own[RECORD_KEY_CONFIGS]))
        message.content = own
        return secaggplus_mod(message, self.contexts[node], self._train)

    def _train(self, message: Message, _: Context) -> Message:
        parameters = ndarrays_to_parameters([self.updates[message.metadata.dst_node_id]])
        result = FitRes(Status(Code.OK, ""), parameters, EXAMPLES, {})
        return Message(compat.fitres_to_recorddict(result, keep_input=True), reply_to=message)


class Sum:
    """Stands for the strategy: all clients in, the mean out."""

    def __init__(self, nodes: Iterable[int]) -> None:
        self.nodes = list(nodes)
        self.mean: np.ndarray | None = None

    def configure_fit(self, _round: int, parameters: Any, _manager: Any) -> list[tuple[Any, FitIns]]:
        """Ask every client."""
        return [(SimpleNamespace(node_id=node), FitIns(parameters, {})) for node in self.nodes]

    def aggregate_fit(self, _round: int, results: Any, _failures: Any) -> tuple[Any, dict[str, Any]]:
        """Take what the workflow unmasked."""
        parameters = results[0][1].parameters
        [self.mean] = parameters_to_ndarrays(parameters)
        return parameters, {}


def new_context(node: int) -> Context:
    """Return a context without configuration."""
    return Context(run_id=1, node_id=node, node_config={}, state=RecordDict(), run_config={})


def run(n: int, d: int, dropped: int, threshold: int) -> dict[str, Any]:
    """Run one round and measure all its CPU time."""
    rng = np.random.default_rng(1)
    updates = {node: rng.uniform(-1, 1, d).astype(np.float32) for node in range(1, n + 1)}
    lost = set(range(1, dropped + 1))
    clients, strategy = Clients(updates, lost), Sum(updates)
    manager = SimpleNamespace(num_available=lambda: n)
    context = LegacyContext(new_context(0), strategy=strategy, client_manager=manager)
    context.state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({WorkflowKey.CURRENT_ROUND: 1})
    start = ndarrays_to_parameters([np.zeros(1, np.float32)])
    context.state.array_records[MAIN_PARAMS_RECORD] = compat.parameters_to_arrayrecord(start, keep_input=True)
    workflow = SecAggPlusWorkflow(n, threshold, clipping_range=CLIP, max_weight=EXAMPLES)
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 0
    cpu, wall = time.process_time(), time.perf_counter()
    workflow(clients, context)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    expected = np.mean([update for node, update in updates.items() if node not in lost], axis=0)
    error = float("inf") if strategy.mean is None else float(np.abs(strategy.mean - expected).max())
    return {"cpu_seconds": cpu, "wall_seconds": wall, "largest_error": error}


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    print(json.dumps(run(*map(int, sys.argv[1:]))))
