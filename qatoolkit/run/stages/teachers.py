"""The teachers of a run: its models behind one endpoint, sharing one ledger."""

import os
from contextlib import contextmanager
from types import SimpleNamespace

from qatoolkit.run.store import Run
from qatoolkit.teacher.batch_client import BatchTeacher
from qatoolkit.teacher.client import Endpoint, Teacher
from qatoolkit.teacher.ledger import Ledger


def ledger_path(run: Run):
    """The ledger of all runs in the run's results folder."""
    return run.root / "ledger.sqlite"


@contextmanager
def teachers(run: Run, stage: str):
    """The run's synthesiser, refiner and annotator, and `named(model)` for any other, sharing one ledger; the world's
    own endpoint is started where no other is set, and stopped afterwards."""
    settings = run.profile.teacher
    kind = BatchTeacher if settings.batch else Teacher
    with endpoint_of(run) as endpoint, Ledger(ledger_path(run)) as ledger:

        def named(model: str) -> Teacher:
            return kind(
                model,
                endpoint=endpoint,
                ledger=ledger,
                run=run.billed_to,
                stage=stage if run.billed_to == run.name else f"variants/{stage}",
                in_flight=settings.in_flight,
                requests_per_minute=settings.requests_per_minute,
                tokens_per_minute=settings.tokens_per_minute,
                timeout=settings.timeout,
                attempts=settings.attempts,
                max_tokens=settings.max_tokens,
                temperature=settings.temperature,
                budget=settings.budget,
                progress=True,
            )

        roles = {role: named(getattr(settings, role)) for role in ("synthesiser", "refiner", "annotator")}
        yield SimpleNamespace(**roles, named=named)


@contextmanager
def endpoint_of(run: Run):
    """The endpoint of the profile or of OPENAI_BASE_URL, else that of the run's world."""
    settings, above = run.profile.teacher, run.parent
    if above and above.endpoint and settings.base_url == above.profile.teacher.base_url:
        yield above.endpoint
    elif settings.base_url:
        yield Endpoint(base_url=settings.base_url)
    elif os.environ.get("OPENAI_BASE_URL"):
        yield Endpoint.from_env()
    else:
        with run.world.endpoint() as endpoint:
            yield endpoint


@contextmanager
def keep_endpoint(run: Run):
    """Keep one endpoint open for all variants of a run that are made meanwhile and name no other."""
    with endpoint_of(run) as run.endpoint:
        try:
            yield
        finally:
            run.endpoint = None


def is_offline(run: Run) -> bool:
    """Whether the teachers of a run are its world's: neither the profile nor OPENAI_BASE_URL names an endpoint."""
    return not (run.profile.teacher.base_url or os.environ.get("OPENAI_BASE_URL"))
