"""Frozen settings of every stage, each validated where it is made; `profiles` holds the built-in ones and reads others."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from qatoolkit.kps import check_parting
from qatoolkit.ladder import SIZES
from qatoolkit.recipe import SCHEDULES
from qatoolkit.taxonomy import DIFFICULTIES, DISCIPLINES

LINKED = DIFFICULTIES[2:]  # what a joined question can reach: joining two seeds takes two hops


def _require(ok: bool, name: str, value, allowed: str) -> None:
    if not ok:
        raise ValueError(f"{name} is {value!r}; it must be {allowed}")


def _positive(settings, *names: str) -> None:
    for name in names:
        _require(0 < getattr(settings, name) < math.inf, name, getattr(settings, name), "above 0, and finite")


def _not_negative(settings, *names: str) -> None:
    for name in names:
        _require(
            0 <= getattr(settings, name) < math.inf, name, getattr(settings, name), "0 or more, and finite"
        )


def _shares(settings, *names: str) -> None:
    for name in names:
        _require(0 <= getattr(settings, name) <= 1, name, getattr(settings, name), "between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class TextbookSettings:
    """How much of the textbook the world holds: rows per discipline, columns per table and kinds of formula problem in all (None: all),
    questions per cell in seeds and exams, and the share of questions that the general corpus covers by kind of cell."""

    entities: int | None = None
    entities_zh: int | None = None
    relations: int | None = None
    families: int | None = None
    seeds: int = 40
    exam: int = 20
    plain: float = 1.0
    stem: float = 0.12
    high: float = 0.06
    stem_high: float = 0.04
    review: float = 0.5

    def __post_init__(self):
        _positive(self, "seeds", "exam")
        for name in ("entities", "entities_zh", "relations", "families"):
            value = getattr(self, name)
            _require(value is None or value > 0, name, value, "above 0, or null for all")
        _shares(self, "plain", "stem", "high", "stem_high", "review")


@dataclass(frozen=True, kw_only=True)
class TeacherSettings:
    """The models behind the endpoint and the client's limits. The reasoning model synthesises, the refiner answers again,
    the annotator labels. `budget` is in US dollars for each model and stage, None for no limit; `base_url` None means OPENAI_BASE_URL, and without
    that the offline teacher. `batch` asks through the endpoint's Batch API: half the price, answers within a day."""

    base_url: str | None = None
    synthesiser: str = "textbook-err15"
    refiner: str = "textbook-err05"
    annotator: str = "textbook-err05"
    in_flight: int = 64
    timeout: float = 120.0
    attempts: int = 6
    max_tokens: int = 4096
    temperature: float = 0.6
    budget: float | None = None
    batch: bool = False

    def __post_init__(self):
        _positive(self, "in_flight", "timeout", "attempts", "max_tokens")
        _not_negative(self, "temperature")
        _require(self.budget is None or self.budget >= 0, "budget", self.budget, "0 or more dollars, or null")


@dataclass(frozen=True, kw_only=True)
class AnnotateSettings:
    """Answers of the annotator for each seed; with more than one their consensus is the label. `knowledge_points` says which seeds
    it names the knowledge points of: those whose source carries none ("missing"), or "all". What a source carries is parted by
    `separator`, `levels` and `under`, as `kps.kps_from_column` does."""

    samples: int = 1
    knowledge_points: str = "missing"
    separator: str | None = None
    levels: str | int | None = None
    under: tuple[str, ...] = ()

    def __post_init__(self):
        _positive(self, "samples")
        _require(
            self.knowledge_points in ("missing", "all"),
            "knowledge_points",
            self.knowledge_points,
            "missing or all",
        )
        check_parting(self.separator, self.levels, under=self.under)


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """How probe results become a budget: `questions` in all; a cell is weak below `target` accuracy and gets a share
    proportional to the root of its deficit, H4 and H5 together at most the share `high`."""

    questions: int = 2000
    target: float = 0.75
    high: float = 0.5
    low_n: int = 5

    def __post_init__(self):
        _positive(self, "questions", "low_n")
        _shares(self, "target", "high")


@dataclass(frozen=True, kw_only=True)
class BoostQASettings:
    """BoostQA's parts, each of which an ablation can switch off; `samples` fresh answers decide a disagreement; `trial`
    questions are written at each of the offline teacher's error rates to see what refinement is worth."""

    multi_grade: bool = True
    high_difficulty: bool = True
    refine: bool = True
    samples: int = 5
    trial: int = 600

    def __post_init__(self):
        _positive(self, "samples", "trial")


@dataclass(frozen=True, kw_only=True)
class LinkQASettings:
    """LinkSyn's dials: path length in knowledge points, popularity and coverage exponents, `most_seeds`, how many seeds of a path
    the teacher is shown at the most (our reading: 2 to 4), questions asked for a path, `adjust`, the shares of difficulty to ask for within chosen disciplines, from H3 up: {physics: {H4: 0.5, H5: 0.5}}, and `merges`, a CSV file
    with the near-identical knowledge points that you decided to merge (None: only two spellings of a name; `kp_merges`)."""

    length: int = 4
    alpha: float = 0.5
    beta: float = 1.0
    min_count: int = 1
    most_seeds: int = 4
    questions_per_path: int = 3
    adjust: dict | None = None
    merges: str | None = None

    def __post_init__(self):
        for discipline, shares in (self.adjust or {}).items():
            _require(discipline in DISCIPLINES, "adjust", discipline, f"one of {', '.join(DISCIPLINES)}")
            fits = isinstance(shares, dict) and set(shares) <= set(LINKED)
            fits = fits and all(isinstance(s, int | float) and 0 <= s < math.inf for s in shares.values())
            allowed = f"shares of {', '.join(LINKED)}, not all 0: joining two seeds takes two hops"
            _require(fits and sum(shares.values()) > 0, f"adjust.{discipline}", shares, allowed)
        found = self.merges is None or Path(self.merges).is_file()
        _require(
            found, "merges", self.merges, "a CSV file that exists, with the columns kept and merged, or null"
        )
        _positive(self, "questions_per_path", "min_count")
        _require(2 <= self.most_seeds <= 4, "most_seeds", self.most_seeds, "2 to 4: fewer join nothing")
        _require(
            self.length >= 3, "length", self.length, "3 or more knowledge points: two seeds are two steps"
        )
        _not_negative(self, "alpha", "beta")


@dataclass(frozen=True, kw_only=True)
class CurateSettings:
    """Every dial of `curate`: lengths in characters, n-grams in tokens (a word or one CJK character)."""

    max_question: int = 20_000
    max_answer: int = 20_000
    near_threshold: float = 0.8
    shingle: int = 2
    on: tuple[str, ...] = ("question", "answer")
    exam_n: int = 8
    exam_n_cjk: int = 13
    exam_overlap: float = 0.5
    conflicts: bool = True
    seed: int = 0

    def __post_init__(self):
        _positive(
            self,
            "max_question",
            "max_answer",
            "shingle",
            "exam_n",
            "exam_n_cjk",
            "near_threshold",
            "exam_overlap",
        )
        _shares(self, "near_threshold", "exam_overlap")
        _require(
            bool(self.on) and not isinstance(self.on, str),
            "on",
            self.on,
            "a list of column names, the compared text first",
        )


@dataclass(frozen=True, kw_only=True)
class StudentSettings:
    """The model that is mid-trained: a size of `ladder.SIZES` trained from scratch here, or a Hugging Face directory or
    name in `checkpoint`. `tokens` is the pre-training budget of the own trunk, `vocabulary` its tokenizer's size. `block`,
    `batch`, `micro_batch`, `memory`, `checkpointing`, `compile` and `save_every` are those of `recipe.Job`, for every training
    of a run."""

    size: str = "xs"
    checkpoint: str | None = None
    vocabulary: int = 2048
    tokens: int = 1_000_000
    block: int = 128
    batch: int = 8
    micro_batch: int | None = None
    learning_rate: float = 4e-3
    warmup: float = 0.05
    weight_decay: float = 0.1
    memory: str = "standard"
    checkpointing: bool = False
    compile: bool = False
    save_every: int = 0

    def __post_init__(self):
        _positive(self, "vocabulary", "tokens", "batch", "learning_rate")
        _not_negative(self, "weight_decay", "save_every")
        _shares(self, "warmup")
        _require(self.size in SIZES, "size", self.size, f"one of {', '.join(SIZES)}")
        _require(self.block >= 2, "block", self.block, "2 or more")
        micro = self.micro_batch
        _require(micro is None or micro > 0, "micro_batch", micro, "above 0, or null")
        _require(self.memory in ("standard", "low"), "memory", self.memory, "standard or low")


@dataclass(frozen=True, kw_only=True)
class MidtrainSettings:
    """Mid-training: tokens in all, the share of them that is general replay, the peak learning rate; `rate`, `schedule`,
    `loss_on` and `z_loss` are those of `recipe.Job`."""

    tokens: int = 400_000
    replay: float = 0.35
    learning_rate: float = 3e-3
    warmup: float = 0.02
    rate: str = "rewarm"
    schedule: str = "linear"
    loss_on: str = "all"
    z_loss: float = 0.0

    def __post_init__(self):
        _positive(self, "tokens", "learning_rate")
        _not_negative(self, "z_loss")
        _shares(self, "replay", "warmup")
        for name, allowed in (
            ("rate", ("rewarm", "inherit")),
            ("schedule", SCHEDULES),
            ("loss_on", ("all", "answer")),
        ):
            _require(
                getattr(self, name) in allowed, name, getattr(self, name), f"one of {', '.join(allowed)}"
            )


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """lm-eval's batch size and the number of bootstrap resamples for paired differences."""

    batch: int = 64
    bootstrap: int = 2000

    def __post_init__(self):
        _positive(self, "batch", "bootstrap")


@dataclass(frozen=True, kw_only=True)
class ScalingSettings:
    """Points on the three axes: sizes of `ladder.SIZES`, shares of the mid-training tokens, shares of the pre-training
    tokens at which a checkpoint is kept."""

    sizes: tuple[str, ...] = ("xxs", "xs")
    tokens: tuple[float, ...] = (0.25, 1.0)
    initial: tuple[float, ...] = (0.25, 1.0)

    def __post_init__(self):
        _require(set(self.sizes) <= {*SIZES}, "sizes", self.sizes, f"among {', '.join(SIZES)}")
        for name in ("tokens", "initial"):
            points = getattr(self, name)
            _require(all(0 < p <= 1 for p in points), name, points, "shares above 0, at most 1")


@dataclass(frozen=True, kw_only=True)
class SeedSettings:
    """Files, folders or `hf:` names to read seed questions from (none means the textbook's own seed files); `mapping` from field
    to column and `licence` as in `seeds.read_seeds`."""

    sources: tuple[str, ...] = ()
    mapping: dict | None = None
    licence: str | None = None


@dataclass(frozen=True, kw_only=True)
class AblationSettings:
    """Tokens of an ablation run as a share of the mid-training tokens, and the replay shares, lengths of paths and seeds of a path
    to try; each length and number of seeds is a synthesis of its own."""

    tokens: float = 0.25
    replay: tuple[float, ...] = (0.0, 0.7)
    lengths: tuple[int, ...] = (3, 6)
    most_seeds: tuple[int, ...] = (2,)

    def __post_init__(self):
        _require(0 < self.tokens <= 1, "tokens", self.tokens, "a share above 0, at most 1")
        _require(
            all(0 <= r < 1 for r in self.replay), "replay", self.replay, "shares of at least 0 and below 1"
        )
        _require(
            all(n >= 3 for n in self.lengths), "lengths", self.lengths, "3 or more knowledge points each"
        )
        _require(all(2 <= n <= 4 for n in self.most_seeds), "most_seeds", self.most_seeds, "2 to 4 each")


@dataclass(frozen=True, kw_only=True)
class Profile:
    """All settings of a run."""

    name: str
    textbook: TextbookSettings = field(default_factory=TextbookSettings)
    seeds: SeedSettings = field(default_factory=SeedSettings)
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    annotate: AnnotateSettings = field(default_factory=AnnotateSettings)
    plan: PlanSettings = field(default_factory=PlanSettings)
    boostqa: BoostQASettings = field(default_factory=BoostQASettings)
    linkqa: LinkQASettings = field(default_factory=LinkQASettings)
    curate: CurateSettings = field(default_factory=CurateSettings)
    student: StudentSettings = field(default_factory=StudentSettings)
    midtrain: MidtrainSettings = field(default_factory=MidtrainSettings)
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)
    scaling: ScalingSettings = field(default_factory=ScalingSettings)
    ablations: AblationSettings = field(default_factory=AblationSettings)
