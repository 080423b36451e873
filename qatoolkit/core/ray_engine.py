"""The Ray engine of `shards.each`: actors take one item at a time; a killed actor is restarted and retries its item.

Only items and records go through Ray; each actor reads and writes its own tables. So Ray's object store stays small,
and a shard has the same bytes as from the local engine.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import numpy as np

from qatoolkit.core.shards import enter

STORE = 128 << 20  # bytes of Ray's object store on this machine; it holds no tables


def each_on_ray(step, items: Sequence, workers: int) -> Iterator:
    """`shards.each` in `workers` actors of Ray Data, on the cluster that `ray.init` has joined, else on this machine.
    ModuleNotFoundError with the install command if Ray is missing."""
    ray = start()
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True  # must be set before the data set exists
    context.enable_progress_bars = False
    share = min(1.0, ray.cluster_resources().get("CPU", 1) / (2 * workers))  # if actors hold whole CPUs, tasks starve
    placement = {"num_cpus": share}
    if getattr(step, "here", False):
        placement["label_selector"] = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
    numbers = ray.data.from_items([{"item": i} for i in range(len(items))], override_num_blocks=len(items))
    results = numbers.map_batches(
        _Actor,
        fn_constructor_args=(step, list(items)),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(workers, len(items))),
        **placement,
    )
    for row in results.iter_rows():
        if isinstance(row["result"], Exception):
            raise row["result"]
        yield row["result"]


def start():
    """The module `ray`, connected to the cluster that the caller or RAY_ADDRESS has joined, else to Ray on this
    machine, which then runs until this process ends, because a start takes 5 to 30 seconds."""
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('engine="ray" needs Ray: pip install "qatoolkit[ray]"', name=error.name) from None
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    if not ray.is_initialized():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options = {"logging_level": "ERROR", "log_to_driver": False}
        if not os.environ.get("RAY_ADDRESS"):  # as `ray job submit` sets it
            options |= {"num_cpus": os.cpu_count(), "object_store_memory": STORE, "include_dashboard": False}
        environment = {"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}}  # same imports as here
        sigterm = signal.getsignal(signal.SIGTERM)
        ray.init(runtime_env=environment, **options)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, sigterm)  # Ray replaces it, but this process is not Ray's alone
    return ray


class _Actor:
    """One worker: enters the step once, then runs it on each item."""

    def __init__(self, step, items: list):
        self._items = items
        self._function = enter(step, ExitStack())  # closed when the process ends

    def __call__(self, batch: dict) -> dict:
        results = np.empty(len(batch["item"]), dtype=object)
        for position, number in enumerate(batch["item"]):
            try:
                results[position] = self._function(self._items[number])
            except Exception as error:  # returned as a value: Ray would wrap a raised one and print it at length
                results[position] = error
        return {"result": results}
