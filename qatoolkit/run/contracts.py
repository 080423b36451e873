"""What a stage is: what it reads, the settings and prompts it depends on, the version of its contract, and the notebook
that makes it."""

import functools
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass

from qatoolkit.core.artifacts import as_json, key_of
from qatoolkit.run.outputs import Outputs
from qatoolkit.synthesis.strategies import PACKAGED
from qatoolkit.teacher import prompts

NOTEBOOKS = {  # the stages of every run, in order, and the notebook that makes each; data sets come after the plan
    "exams": "01_seeds",
    "seeds": "01_seeds",
    "annotate": "02_annotate",
    "base": "03_probe",
    "probe": "03_probe",
    "plan": "03_probe",
    "error_rates": "04_boostqa",
    "curate": "06_curate",
    "midtrain": "07_midtrain",
    "evaluate": "08_evaluate",
    "scaling": "09_scaling",
    "ablations": "10_ablations",
    "summary": "11_figures",
}

BESIDE = {
    "rounds": "13_rounds",
    "attribution-discipline-without": "14_attribution",
}  # stages beside the flow, made only on request

LISTS = {  # lists of the profile that some stages depend on too, by the name under which a change is reported
    "curate": lambda profile: {"sets": profile.used_sets},
    "midtrain": lambda profile: {"arms": profile.arms},
    "evaluate": lambda profile: {"compare": profile.compare},
    "ablations": lambda profile: {
        "ablations": profile.ablations,
        "tokens": profile.ablation_tokens,
        "seeds": profile.ablation_seeds,
        "arms": profile.arms,
    },
    "rounds": lambda profile: {"arms": profile.arms},  # one of them is the one-pass arm, one the control
}


def lists_of(kind: str, profile) -> dict:
    """The lists of a profile that a kind of stage depends on (`LISTS`)."""
    return LISTS[kind](profile) if kind in LISTS else {}


def prompt_version(name: str) -> str:
    """The version of a prompt with a digest of its text as it is sent, in both languages: "annotate.v4 1f0c9a32"."""
    texts = []
    for language in ("en", "zh"):
        with suppress(ValueError):
            texts.append(prompts.template(name, language))
    return f"{prompts.version(name)} {key_of(texts)[:8]}"


# The version of each stage's contract; raised when the same inputs would give another result.
VERSIONS = dict.fromkeys([*NOTEBOOKS, *BESIDE], 1) | dict.fromkeys(PACKAGED, 9) | {
    "exams": 3, "seeds": 6, "probe": 8, "plan": 3, "error_rates": 6, "curate": 10, "evaluate": 10, "scaling": 6,
    "ablations": 4, "adjustment": 2, "rounds": 2,
}  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """The declaration of a stage: the kind of its artifacts, the stages it reads, the parts of the profile it depends
    on ("world" for the world's settings), the dials that name files whose content it depends on, the prompts it sends,
    and the version of its contract (default: that of `VERSIONS`)."""

    kind: str
    _: KW_ONLY
    reads: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    version: int = 0

    def __post_init__(self):
        object.__setattr__(self, "version", self.version or VERSIONS.get(self.kind, 1))
        VERSIONS[self.kind] = self.version


def stage(kind: str, **declared):
    """Make `function(run, folder, **asked) -> {output: table, value or None}` a stage, skipped if nothing has changed.

    `declared` as for `Stage`. Keyword arguments of the function are part of the key."""
    spec = Stage(kind, **declared)

    def wrap(function):
        @functools.wraps(function)
        def staged(run, *, log=print, **asked) -> Outputs:
            name = "-".join([kind, key_of(as_json(asked))[:8]]) if asked else kind
            return run.complete(name, spec, lambda folder: function(run, folder, **asked), asked=asked, log=log)

        staged.spec = spec
        return staged

    return wrap
