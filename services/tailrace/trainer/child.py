"""What runs in the training process. The service imports this name only, and none of the trainers."""

from __future__ import annotations


def run_encoded(settings_json: str, job_json: bytes) -> bytes:
    """Runs a training: settings and job as JSON in, the answer as JSON out."""
    import msgspec

    from tailrace.backends.settings import Settings
    from tailrace.contracts.records import RetrainRequested, Variant
    from tailrace.trainer.job import Job, run_job

    settings = Settings.model_validate_json(settings_json)
    request, champion, offsets = msgspec.json.decode(
        job_json, type=tuple[RetrainRequested, Variant | None, dict[str, str]]
    )
    return msgspec.json.encode(run_job(settings, Job(request=request, champion=champion, offsets=offsets)))
