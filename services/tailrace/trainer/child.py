"""What runs in the training process. The service imports these names only, and none of the trainers."""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing.process import BaseProcess


def begin() -> None:
    """Prepares this process, and lets it end when the service does, even by SIGKILL.

    The pool's queue does not tell of that end: the child holds both of its ends, so that it would wait for ever.
    """
    # Before any trainer is loaded: on cores shared with the services, threads of OpenMP that spin while they wait
    # for one another keep each other from the work, and a training takes a hundred times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_wait_and_exit, args=(parent,), name="parent", daemon=True).start()


def _wait_and_exit(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def run_encoded(settings_json: str, job_json: bytes) -> bytes:
    """Runs a training: settings and job as JSON in, the answer as JSON out."""
    import msgspec

    from tailrace.backends.settings import Settings
    from tailrace.contracts.records import Variant
    from tailrace.contracts.retraining import CandidateRegistered, RetrainRequested
    from tailrace.trainer.job import Job, run_job

    settings = Settings.model_validate_json(settings_json)
    request, champion, offsets, former = msgspec.json.decode(
        job_json, type=tuple[RetrainRequested, Variant | None, dict[str, str], list[CandidateRegistered]]
    )
    job = Job(request=request, champion=champion, offsets=offsets, former=former)
    return msgspec.json.encode(run_job(settings, job))
