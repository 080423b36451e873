"""The processes that train together, one per device, and their shares of a step."""

import os
from dataclasses import dataclass
from datetime import timedelta

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Processes:
    """This process among those that train together: its `rank`, the `count` of processes, and its device."""

    rank: int
    count: int
    device: str

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def total(self, value: float) -> float:
        """The sum of a number over all processes."""
        if self.count == 1:
            return value
        import torch

        found = torch.tensor(value, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(found)
        return found.item()

    def highest(self, value: int) -> int:
        """The highest of a number over all processes, which wait for each other here."""
        if self.count == 1:
            return value
        import torch

        found = torch.tensor(value, device=self.device)
        torch.distributed.all_reduce(found, op=torch.distributed.ReduceOp.MAX)
        return int(found.item())


def processes() -> Processes:
    """The processes that `accelerate launch` or `torchrun` started, from the environment; else this one alone."""
    import torch

    device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
    return Processes(rank=int(os.environ.get("RANK", 0)), count=int(os.environ.get("WORLD_SIZE", 1)), device=device)


def join(threads: int) -> Processes:
    """Select this process's device, or `threads` of the CPU, and join the process group; `leave` ends it."""
    import torch

    ours = processes()
    if ours.device == "cpu":
        torch.set_num_threads(threads)
    else:
        torch.cuda.set_device(ours.device)
    if ours.count > 1 and not torch.distributed.is_initialized():
        backend = "gloo" if ours.device == "cpu" else "nccl"
        # others wait while the leader writes
        torch.distributed.init_process_group(backend, timeout=timedelta(hours=2))
    return ours


def leave() -> None:
    """Leave the process group."""
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def shares_of(places: np.ndarray, micro_batch: int | None, ours: Processes) -> list[np.ndarray]:
    """This process's places in micro-batches: of the same number and size in every process, padded with -1."""
    own = -(-len(places) // ours.count)
    filled = np.full(own * ours.count, -1, dtype=places.dtype)
    filled[: len(places)] = places
    own_places = filled[ours.rank :: ours.count]
    return np.split(own_places, range(micro_batch, own, micro_batch)) if micro_batch else [own_places]


def on_device(batch, device: str) -> list:
    """A batch's arrays as tensors on a device, and its `Documents`."""
    import torch

    from qatoolkit.training.attention import documents_of

    parts = [torch.from_numpy(a) for a in (batch.ids, batch.positions, batch.where, batch.targets)]
    if device != "cpu":
        parts = [part.pin_memory().to(device, non_blocking=True) for part in parts]
    return [*parts, documents_of(batch.positions, device)]
