"""The teachers of a run: its models behind one endpoint, sharing one ledger."""

import os
from contextlib import contextmanager
from types import SimpleNamespace

from qatoolkit.run.store import Run
from qatoolkit.teacher.batch_client import BatchTeacher
from qatoolkit.teacher.client import Endpoint, Teacher
from qatoolkit.teacher.prices import price_of
from qatoolkit.teacher.settings import OFFLINE


@contextmanager
def teachers(run: Run, stage: str):
    """The run's synthesiser, refiner and annotator, and `named(model)` for any other, sharing one ledger. The world's
    own endpoint is started if no other is set, and stopped afterwards. `run.answer_counts` counts the answers."""
    settings = run.profile.teacher
    kind = BatchTeacher if settings.batch else Teacher
    with endpoint_of(run) as endpoint, run.ledger() as ledger:

        def named(model: str) -> Teacher:
            teacher = kind(
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
                extra=settings.extra,
                price=price_of(model, own=settings.price),
                budget=settings.budget,
                progress=True,
            )
            return run.answer_counts.watch(teacher)

        roles = {role: named(getattr(settings, role)) for role in ("synthesiser", "refiner", "annotator")}
        yield SimpleNamespace(**roles, named=named)


@contextmanager
def endpoint_of(run: Run):
    """The endpoint of the profile or of OPENAI_BASE_URL, else that of the run's world."""
    if is_offline(run):
        with run.world.endpoint() as endpoint:
            yield endpoint
    else:
        yield Endpoint(**_endpoint_options(run))


def _endpoint_options(run: Run) -> dict:
    """The endpoint of the profile or of OPENAI_BASE_URL, as arguments of `Endpoint`."""
    settings = run.profile.teacher
    url = settings.base_url or os.environ.get("OPENAI_BASE_URL") or OFFLINE
    return {
        "base_url": url, "name": settings.endpoint_name, "key_env": settings.key_env, "headers": settings.headers
    }  # fmt: skip


def is_offline(run: Run) -> bool:
    """Whether a run uses the endpoint of its world: the profile says so, or neither it nor OPENAI_BASE_URL names
    one."""
    return _endpoint_options(run)["base_url"] == OFFLINE
