"""Settings of an engine, and what one can do: start workers and say how many there are."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Literal

from dapg.core.ranges import Count, CountOrZero, Positive, Processes, Range
from dapg.core.shards import Job


@dataclass(frozen=True)
class EngineSettings:
    """Who does the work: shards are claimed, so nothing here changes what comes out."""

    name: Literal["local", "slurm", "ray"] = "local"
    """local: processes; slurm: a job array (extra slurm); ray: actors (extra ray; RAY_ADDRESS names a cluster)."""
    workers: Processes = 1
    """How many; 0: one for each GPU of this machine or, without any, each processor. 1 and local: this very process."""
    tries: Count = 3
    """Attempts that may fail before a shard is listed as failed."""
    stale: Positive = 120.0
    """Seconds without a sign of life after which a shard is taken over; at once where its worker is seen to be gone."""
    cpus: Count = 1
    """Processors of a worker (slurm, ray)."""
    gpus: Annotated[float, Range(0, 16)] = 0.0
    """GPUs of a worker (slurm, ray); several workers of Ray share one with 0.5 or less."""
    memory: CountOrZero = 0
    """Gigabytes of a worker (slurm); 0: what the cluster gives."""
    partition: str = ""
    """Of the cluster (slurm)."""
    minutes: Count = 240
    """Time limit of a job (slurm), which is then put into the queue again."""
    cluster: Literal["slurm", "local"] = "slurm"
    """local runs what slurm would as processes of this machine, to try it out."""


class Engine(ABC):
    """Workers of one job. A new engine is a file in this folder with one public subclass."""

    def __init__(self, job: Job, settings: EngineSettings, workers: int) -> None:
        """Get ready; nothing runs yet.

        Raises:
            UsageError: the engine's package or program is missing; says how to get it.
        """
        self.job, self.settings, self.workers = job, settings, workers

    @abstractmethod
    def start(self, count: int) -> None:
        """Start so many workers, each of which calls ``shards.work``."""

    @abstractmethod
    def alive(self) -> int:
        """Workers that run, or wait to run."""

    @abstractmethod
    def close(self) -> None:
        """Give everything back, also after an error: every shard is done, or the user wants to stop."""
