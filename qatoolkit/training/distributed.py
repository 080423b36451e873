"""The processes of a distributed training, one per device, and their shares of a step."""

import os
from dataclasses import dataclass
from datetime import timedelta

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Processes:
    """The group of processes that train together, seen from one: its `rank` and `device`, and their `count`."""

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

        result = torch.tensor(value, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(result)
        return result.item()

    def highest(self, value: int) -> int:
        """The maximum of a number over all processes; also a barrier."""
        if self.count == 1:
            return value
        import torch

        result = torch.tensor(value, device=self.device)
        torch.distributed.all_reduce(result, op=torch.distributed.ReduceOp.MAX)
        return int(result.item())


def processes() -> Processes:
    """The processes started by `accelerate launch` or `torchrun`, read from the environment; else this one alone."""
    import torch

    device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
    return Processes(rank=int(os.environ.get("RANK", 0)), count=int(os.environ.get("WORLD_SIZE", 1)), device=device)


def join(threads: int) -> Processes:
    """Select this process's device, or set `threads` on a CPU, and join the process group; `leave` leaves it."""
    import torch

    group = processes()
    if group.device == "cpu":
        torch.set_num_threads(threads)
    else:
        torch.cuda.set_device(group.device)
    if group.count > 1 and not torch.distributed.is_initialized():
        backend = "gloo" if group.device == "cpu" else "nccl"
        # long enough for the others to wait while the leader writes
        torch.distributed.init_process_group(backend, timeout=timedelta(hours=2))
    return group


def leave() -> None:
    """Leave the process group."""
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def split_places(places: np.ndarray, micro_batch: int | None, group: Processes) -> list[np.ndarray]:
    """This process's places in micro-batches, padded with -1 so that number and sizes are the same in every process."""
    each = -(-len(places) // group.count)
    padded = np.full(each * group.count, -1, dtype=places.dtype)
    padded[: len(places)] = places
    share = padded[group.rank :: group.count]
    return np.split(share, range(micro_batch, each, micro_batch)) if micro_batch else [share]


def on_device(batch, device: str) -> list:
    """A batch's arrays as tensors on a device, and its `Documents`."""
    import torch

    from qatoolkit.training.attention import documents_of

    parts = [torch.from_numpy(a) for a in (batch.ids, batch.positions, batch.where, batch.targets)]
    if device != "cpu":
        parts = [part.pin_memory().to(device, non_blocking=True) for part in parts]
    return [*parts, documents_of(batch.positions, device)]
