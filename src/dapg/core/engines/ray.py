"""Actors of Ray: on this machine or, with RAY_ADDRESS, on a cluster. An actor keeps its model for all its shards."""

import os
import sys

from dapg.core import plugins
from dapg.core.engines.base import Engine, EngineSettings
from dapg.core.errors import UsageError
from dapg.core.shards import Job, work


class Ray(Engine):
    """Ray carries the workers and knows the GPUs; what is claimed is on the disk, as with every engine."""

    def __init__(self, job: Job, settings: EngineSettings, workers: int) -> None:
        super().__init__(job, settings, workers)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # or it would send them over the network
        try:
            import ray
        except ImportError:
            raise UsageError("--engine ray needs Ray: pip install 'dapg[ray]'") from None
        self._ray = ray
        address = os.environ.get("RAY_ADDRESS")
        own = {} if address else {"num_cpus": workers * settings.cpus, "include_dashboard": False}
        variables = {name: os.environ[name] for name in (plugins.VARIABLE,) if name in os.environ}
        if not address:
            variables["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        self._mine = not ray.is_initialized()
        if self._mine:
            ray.init(address, logging_level="warning", runtime_env={"env_vars": variables}, **own)
        self._actor = ray.remote(num_cpus=settings.cpus, num_gpus=settings.gpus)(Worker)
        self._job = ray.put(job)
        self._running: dict[object, object] = {}  # call -> actor

    def start(self, count: int) -> None:
        """An actor each."""
        for _ in range(count):
            actor = self._actor.remote()
            self._running[actor.work.remote(self._job)] = actor

    def alive(self) -> int:
        """Those whose call has not ended; it also ends when the actor's process dies."""
        if self._running:
            ended, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
            for call in ended:
                self._ray.kill(self._running.pop(call))
        return len(self._running)

    def close(self) -> None:
        """End the actors and, where it was started here, Ray."""
        for actor in self._running.values():
            self._ray.kill(actor)
        if self._mine:
            self._ray.shutdown()


class Worker:
    """What an actor is made from."""

    def work(self, job: Job) -> int:
        """Returns the process number."""
        work(job)
        return os.getpid()
