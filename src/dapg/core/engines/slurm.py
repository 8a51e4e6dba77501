"""A SLURM job array by submitit: logs and the script in ``.shards/slurm``; preempted tasks are queued again."""

import math
import shutil
from typing import Any

from dapg.core.engines.base import Engine, EngineSettings
from dapg.core.errors import UsageError
from dapg.core.shards import STATE, Job, work


class Slurm(Engine):
    """One task of the array for each worker. They go on when the launcher ends; the same command merges later."""

    def __init__(self, job: Job, settings: EngineSettings, workers: int) -> None:
        super().__init__(job, settings, workers)
        try:
            import submitit
        except ImportError:
            raise UsageError("--engine slurm needs submitit: pip install 'dapg[slurm]'") from None
        if settings.cluster == "slurm" and shutil.which("sbatch") is None:
            raise UsageError("--engine slurm needs sbatch, which is not here: run this on a machine of the cluster")
        self._executor = submitit.AutoExecutor(job.folder / STATE / "slurm", cluster=settings.cluster)
        given = {"slurm_partition": settings.partition, "mem_gb": settings.memory}
        self._executor.update_parameters(
            name=f"dapg-{job.kind.replace(' ', '-')}",
            timeout_min=settings.minutes,
            cpus_per_task=settings.cpus,
            gpus_per_node=math.ceil(settings.gpus),
            slurm_array_parallelism=workers,
            slurm_additional_parameters={"requeue": True},
            **{name: value for name, value in given.items() if value},
        )
        self._jobs: list[Any] = []

    def start(self, count: int) -> None:
        """One array of so many tasks."""
        self._jobs += self._executor.map_array(Task(), [self.job] * count)

    def alive(self) -> int:
        """By the queue, which submitit asks now and then, and by the results that tasks leave."""
        self._jobs = [job for job in self._jobs if not job.done()]
        return len(self._jobs)

    def close(self) -> None:
        """The tasks end by themselves, when nothing is left to claim; ``scancel`` stops them before."""


class Task:
    """What a task of the array runs."""

    def __call__(self, job: Job) -> None:
        """Claim and run shards."""
        work(job)

    def checkpoint(self, job: Job) -> object:
        """Called before the time limit or a preemption: the task is queued again, and its shard begun anew."""
        import submitit

        return submitit.helpers.DelayedSubmission(self, job)
