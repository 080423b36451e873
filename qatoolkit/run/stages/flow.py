"""The stages of a run in order, and running them up to one of them."""

from qatoolkit.run.outputs import Outputs
from qatoolkit.run.stages import data, evaluation, results, students, synthesis, training, weakness
from qatoolkit.run.store import Run

FLOW = (
    ("exams", data.exams),
    ("seeds", data.seeds),
    ("annotate", data.annotate),
    ("base", training.base),
    ("probe", weakness.probe),
    ("plan", weakness.plan),
    ("synthesis", synthesis.synthesise_all),
    ("curate", data.curate),
    ("midtrain", training.midtrain),
    ("evaluate", evaluation.evaluate),
    ("scaling", students.scaling),
    ("summary", results.summary),
)


def log_changes(line: str) -> None:
    """Print log lines, except for stages that were done before."""
    if "done before" not in line:
        print(line)


def run_to(run: Run, last: str, *, log=log_changes) -> Outputs | list[Outputs]:
    """Run every stage of the flow up to `last` that is not done yet, and return the outputs of the last one.
    "synthesis" stands for all data sets that arms train on. ValueError, with the names of the stages, for an unknown
    one."""
    names = [name for name, _ in FLOW]
    if last not in names:
        raise ValueError(f"no stage of the flow is called {last!r}; there are {', '.join(names)}")
    for _, make in FLOW[: names.index(last) + 1]:
        found = make(run, log=log)
    return found
