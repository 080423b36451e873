"""Worlds: where the seeds, exams, general text, teachers and checkpoints of a run come from and, if it is known, the
truth.

A world is any object with the attributes of `World`; `open_run(world=...)` takes one. `world_of` makes the world of a
profile: the embedded textbook, which needs no key, GPU or download, or the sources that the profile names (`OwnWorld`).
Only this module and the command line import the textbook."""

import os
import shlex
import shutil
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import pandas as pd

from qatoolkit.core.files import digest
from qatoolkit.evaluation.exams import Exam
from qatoolkit.evaluation.settings import MMLU_REDUX, TEXTBOOK, ExamSettings
from qatoolkit.evaluation.suites import paper12
from qatoolkit.evaluation.tasks import METRIC_LIST
from qatoolkit.scaling.settings import LadderSettings
from qatoolkit.seeds.files import READERS
from qatoolkit.seeds.read import read_seeds
from qatoolkit.seeds.subjects import rows, with_disciplines
from qatoolkit.teacher.client import Endpoint
from qatoolkit.teacher.settings import OFFLINE
from qatoolkit.training.defaults import check_rate
from qatoolkit.training.flops import architecture
from qatoolkit.training.hub import check_checkpoint
from qatoolkit.training.launch import LIST
from qatoolkit.training.tokens import TOKEN_FILE, text_documents

PYTHON = "python"  # general text: the help pages that come with Python
HELD_OUT = 20  # one document in this many is held out if the profile names no held-out text
MOST_HELD_OUT = 200_000  # characters of held-out text that are scored


class Truth(Protocol):
    """What a world knows about its questions beyond what a teacher says."""

    teachers: dict[str, float]
    """By model of the world's endpoint, the share of wrong answers that it is built to give."""

    def is_correct(self, question: str, answer: str) -> bool | None:
        """Whether an answer is right; None for a question the world does not know."""

    def labels(self, question: str) -> dict[str, str | None]:
        """Discipline, difficulty and grade by construction."""

    def translation(self, question: str) -> dict[str, str] | None:
        """The same `question` in another language and its `answer`; None if the world has none."""


class World(Protocol):
    """Where a run's seeds, exams, general text, teachers and checkpoints come from."""

    @property
    def settings(self) -> dict:
        """What the world's content depends on, by part (seeds, exams, general) or as a whole: part of the key of every
        stage that reads it."""

    def check(self, *, ask_hub: bool = True) -> None:
        """ValueError or OSError for a part that is missing or can't be used, before anything is spent. Without
        `ask_hub` only parts on this machine are opened."""

    def seeds(self, folder: Path, seed: int) -> list[str | Path]:
        """Seed questions as `read_seeds` takes them; files that the world writes itself go below `folder`."""

    def exams(self, seed: int) -> dict[str, pd.DataFrame | Exam]:
        """Exams by name, as QA tables or lm-eval tasks; all of them are decontaminated against."""

    def general_text(self, tokens: int, seed: int) -> Iterator[str] | Path:
        """Documents of general text, one at a time, with at least `tokens` tokens in all if there is that much; or a
        token folder."""

    def held_out(self) -> list[str]:
        """Documents of general text that nothing trains on, for bits per byte; empty to leave that measurement out."""

    def vocabulary(self) -> list[str]:
        """Texts to train a tokenizer on beside general text, for a student trained from scratch."""

    def endpoint(self) -> AbstractContextManager[Endpoint]:
        """The teachers' endpoint if neither the profile nor OPENAI_BASE_URL names one."""

    def ladder(self) -> tuple[LadderSettings, ...]:
        """Checkpoints for the axes of model size and initial FLOPs; empty if sizes are trained from scratch."""

    def truth(self) -> Truth | None:
        """The truth about the world's questions, or None if it is unknown."""


class TextbookWorld:
    """The embedded world: facts and formula problems, an offline teacher that knows them, a general corpus thin in
    STEM."""

    EDITION = 3  # raised when facts or wording change, so that stages are made again
    TOKENS_PER_DOCUMENT = 16  # a lower bound, so that enough documents are drawn for a token budget

    def __init__(self, settings, log: Path):
        self._settings, self._log = settings, log

    @property
    def settings(self) -> dict:
        return {"textbook": self._settings, "edition": self.EDITION}

    @property
    def _books(self):
        from qatoolkit.textbook.server import parts

        return parts(self._settings)

    def check(self, *, ask_hub: bool = True) -> None:
        pass

    def seeds(self, folder: Path, seed: int) -> list[str | Path]:
        from qatoolkit.textbook.sources import write_sources

        return write_sources(self._books, folder, self._settings.seeds, seed)

    def exams(self, seed: int) -> dict[str, pd.DataFrame]:
        from qatoolkit.textbook.exams import EXAMS, exam

        books, n, seeds = self._books, self._settings.exam, self._settings.seeds
        return {name: exam(books[about.language], name, n, seed, seeds=seeds) for name, about in EXAMS.items()}

    def general_text(self, tokens: int, seed: int) -> Iterator[str]:
        from qatoolkit.textbook.corpus import documents

        n = tokens // self.TOKENS_PER_DOCUMENT + 1
        return iter(documents(self._books, n, self._settings, seed)["text"])

    def held_out(self) -> list[str]:
        return []

    def vocabulary(self) -> list[str]:
        from qatoolkit.textbook.corpus import vocabulary

        return vocabulary(self._books)

    @contextmanager
    def endpoint(self):
        from qatoolkit.textbook.server import kept_teacher, local_teacher

        teacher = kept_teacher if self._log else local_teacher  # a run keeps it for its next stage
        with teacher(self._settings, log=self._log) as url:
            yield Endpoint(base_url=url, name=f"offline-textbook-{self.EDITION}")

    def ladder(self) -> tuple[LadderSettings, ...]:
        return ()

    def truth(self) -> Truth:
        from qatoolkit.textbook.server import tutor_of

        return tutor_of(self._settings)


class OwnWorld:
    """The seeds, exams, general text, checkpoints and endpoint that a profile names. The source `textbook` for seeds,
    exams or general text and the `base_url` `offline` take that part from the textbook; so does a part without a
    source, unless the profile has `world: own`."""

    def __init__(self, profile, textbook: TextbookWorld):
        self._profile, self._textbook = profile, textbook
        is_own = profile.world == "own"
        self._sources = profile.seeds.sources or (() if is_own else (TEXTBOOK,))
        self._exams = profile.exams or ({} if is_own else {TEXTBOOK: ExamSettings(source=TEXTBOOK)})
        self._general = profile.general.sources or (() if is_own else (TEXTBOOK,))
        folder = Path(self._general[0]) if len(self._general) == 1 else None
        self._token_folder = folder if folder and (folder / TOKEN_FILE).is_file() else None

    @property
    def settings(self) -> dict:
        exams = {name: [one, _source_key(one.source, self._textbook)] for name, one in self._exams.items()}
        general, held_out = self._profile.general, self._profile.general.held_out
        return {
            "seeds": [_source_key(source, self._textbook) for source in self._sources],
            "exams": exams,
            "general": [general.column, *(_source_key(s, self._textbook) for s in (*self._general, "|", *held_out))],
        }

    def _require(self) -> None:
        """ValueError names every part that the profile does not name, or whose files do not exist."""
        profile, missing = self._profile, []
        if not self._sources:
            missing.append("seeds.sources (files or folders of questions, hf: names)")
        if not self._exams:
            missing.append("exams (by name: a QA file, an lm-eval task or group, paper12)")
        if not self._general:
            missing.append("general.sources (text files, a token folder, hf: names, or the word python)")
        if profile.world == "own" and not profile.student.checkpoint:
            missing.append("student.checkpoint (a Hugging Face directory or name, or a GGUF file)")
        if profile.world == "own" and not (profile.teacher.base_url or os.environ.get("OPENAI_BASE_URL")):
            missing.append("teacher.base_url (an OpenAI-compatible endpoint; or OPENAI_BASE_URL)")
        if missing:
            raise ValueError(f"profile {profile.name!r} does not set: {'; '.join(missing)}")
        places = {"seeds.sources": self._sources, "general.sources": self._general}
        places |= {"general.held_out": profile.general.held_out}
        places |= {
            f"exams.{name}": (one.source,)
            for name, one in self._exams.items()
            if Path(one.source).suffix in READERS and not one.optional
        }
        for dial, named in places.items():
            for source in named:
                if source not in (TEXTBOOK, PYTHON) and not source.startswith("hf:") and not Path(source).exists():
                    raise ValueError(f"profile {profile.name!r}: {dial} names {source}, which does not exist")
        places |= {f"exams.{name}": (one.source,) for name, one in self._exams.items()}
        places |= {"checkpoint": [one.checkpoint for one in (profile.student, *profile.ladder) if one.checkpoint]}
        for dial, named in places.items():
            for source in named:
                if (path := Path(source)).exists() and not (path.is_file() or path.is_dir()):
                    raise ValueError(f"profile {profile.name!r}: {dial} names {source}, which is not a file or folder")

    def check(self, *, ask_hub: bool = True) -> None:
        """Errors as in `World.check`, also for a part that would stop the run after others were paid for: a checkpoint
        that no training can start from, a learning rate far above what is usual for its size, general text without a
        text, a launch command that is not there."""
        self._require()
        profile = self._profile
        for entry in (profile.student, *profile.ladder):
            if entry.checkpoint and (ask_hub or Path(entry.checkpoint).exists()):
                config = check_checkpoint(entry.checkpoint, entry.revision)
                if rate := profile.midtrain.learning_rate:
                    size, where = architecture(config).parameters, "midtrain.learning_rate"
                    check_rate(rate, size, accepted=profile.midtrain.accept_rate, where=where)
        for dial, sources in (("sources", self._general), ("held_out", profile.general.held_out)):
            for source in sources if not self._token_folder else ():
                if source in (TEXTBOOK, PYTHON) or not Path(source).exists():
                    continue
                try:
                    if next(text_documents([source], profile.general.column), None) is None:
                        raise ValueError(f"{source} has no text; name another file or folder")
                except ValueError as error:
                    raise ValueError(f"general.{dial}: {error}") from None
        launch = profile.student.launch
        if launch and launch != LIST and not shutil.which(command := shlex.split(launch)[0]):
            raise ValueError(
                f"student.launch: {command} is not a command of this machine; install it, or name its path"
            )

    def seeds(self, folder: Path, seed: int) -> list[str | Path]:
        found = []
        for source in self._sources:
            found += self._textbook.seeds(folder, seed) if source == TEXTBOOK else [source]
        return found

    def exams(self, seed: int) -> dict[str, pd.DataFrame | Exam]:
        found = {}
        for name, about in self._exams.items():
            if about.source == TEXTBOOK:
                embedded = {n: _sample_rows(t, about.limit, seed) for n, t in self._textbook.exams(seed).items()}
                found |= {name: embedded[name]} if name in embedded else embedded
            elif about.source == "paper12":
                for entry in paper12():
                    shots = entry.fewshot if about.fewshot is None else about.fewshot
                    options = {"metric": entry.metric, "filter": entry.filter, "fewshot": shots, "limit": about.limit}
                    found[entry.task] = Exam(name=entry.task, suite=entry.task, **options)
            else:
                try:
                    found[name] = _read_exam(name, about, seed)
                except (ValueError, OSError) as error:
                    if not about.optional:
                        raise
                    print(f"exams.{name} is left out: {error}")
        return found

    def general_text(self, tokens: int, seed: int) -> Iterator[str] | Path:
        if self._token_folder:
            return self._token_folder
        documents = self._documents(self._general, tokens, seed)
        return (text for i, text in enumerate(documents) if (i + 1) % HELD_OUT) if self._holds_out else documents

    @property
    def _holds_out(self) -> bool:
        """Whether one document in `HELD_OUT` is held out, because the profile names no held-out text."""
        return not self._profile.general.held_out and self._general != (TEXTBOOK,) and not self._token_folder

    def held_out(self) -> list[str]:
        general, found, length = self._profile.general, [], 0
        if general.held_out:
            documents = text_documents(general.held_out, general.column)
        elif not self._holds_out:
            return []
        else:
            documents = self._documents(self._general, MOST_HELD_OUT, 0)
            documents = (text for i, text in enumerate(documents) if not (i + 1) % HELD_OUT)
        for text in documents:
            found.append(text)
            length += len(text)
            if length > MOST_HELD_OUT:
                break
        return found

    def _documents(self, sources: Iterable[str], tokens: int, seed: int) -> Iterator[str]:
        for source in sources:
            if source == TEXTBOOK:
                yield from self._textbook.general_text(tokens, seed)
            elif source == PYTHON:
                from pydoc_data.topics import topics

                yield from topics.values()
            else:
                yield from text_documents([source], self._profile.general.column)

    def vocabulary(self) -> list[str]:
        return self._textbook.vocabulary() if TEXTBOOK in (*self._sources, *self._general) else []

    def endpoint(self) -> AbstractContextManager[Endpoint]:
        if self._profile.world == "own" and self._profile.teacher.base_url != OFFLINE:
            raise ValueError(
                f"profile {self._profile.name!r} names no teacher: set teacher.base_url to an OpenAI-compatible "
                f"endpoint (or OPENAI_BASE_URL), or to {OFFLINE!r} for the embedded teacher"
            )
        return self._textbook.endpoint()

    def ladder(self) -> tuple[LadderSettings, ...]:
        return self._profile.ladder

    def truth(self) -> Truth | None:
        return self._textbook.truth() if TEXTBOOK in self._sources else None


def world_of(profile, log: Path) -> World:
    """The world of a profile: the textbook, unless the profile names sources of its own. `log` is the offline teacher's
    log file."""
    textbook = TextbookWorld(profile.textbook, log)
    named = (profile.seeds.sources, profile.exams, profile.general.sources, profile.ladder, profile.student.checkpoint)
    return OwnWorld(profile, textbook) if any(named) or profile.world == "own" else textbook


def _source_key(source: str, textbook: TextbookWorld):
    """What represents a source in a stage's key: the textbook's settings, the digest of a file or folder, else the
    name."""
    if source == TEXTBOOK:
        return textbook.settings
    if source == MMLU_REDUX:
        source = str(_find_mmlu_redux())
    return digest(Path(source)) if source != PYTHON and Path(source).exists() else source


def _read_exam(name: str, about: ExamSettings, seed: int) -> pd.DataFrame | Exam:
    """An exam of a profile: the QA table of a file, folder or `hf:` name, else lm-eval tasks."""
    options = {"name": name, "form": about.form, "metric": about.metric, "fewshot": about.fewshot}
    source = _find_mmlu_redux() if about.source == MMLU_REDUX else about.source
    place = Path(about.source)
    has_tasks = place.is_dir() and any(place.glob("*.yaml"))
    is_table = source != about.source or about.source.startswith("hf:") or place.exists() or place.suffix in READERS
    if has_tasks or not is_table:
        return Exam(**options, suite=about.source, limit=about.limit)
    try:
        table, rejects = read_seeds(source)
    except (ValueError, OSError) as error:
        raise ValueError(f"exams.{name}: {error}") from None
    if table.empty:
        raise ValueError(f"exams.{name}: no question could be read from {about.source} ({len(rejects)} rejects)")
    known = {metric["metric"] for metric in METRIC_LIST} | {"exact_match"}
    if about.metric not in (None, *known):
        raise ValueError(
            f"exams.{name}: metric is {about.metric!r}; a file's questions have {', '.join(sorted(known))}"
        )
    if (about.fewshot or 0) >= len(table):
        raise ValueError(
            f"exams.{name}: fewshot is {about.fewshot}, but {about.source} has {len(table)} question(s), of which one "
            "is asked; give fewer examples"
        )
    if about.subjects:
        table = with_disciplines(table, about.subjects)
    return Exam(**options, table=_sample_rows(table, about.limit, seed))


def _sample_rows(table: pd.DataFrame, limit: int | None, seed: int) -> pd.DataFrame:
    """At most `limit` rows, drawn at random, in the table's order."""
    if limit and limit < len(table):
        table = table.sample(limit, random_state=seed).sort_index()
    return table.reset_index(drop=True)


def _find_mmlu_redux() -> Path | list[str]:
    """MMLU-Redux 2.0: the file in $QATOOLKIT_REAL_DATA if there is one, else its 57 parts on the hub."""
    local = Path(os.environ.get("QATOOLKIT_REAL_DATA", "")) / "mmlu_redux.jsonl"
    if local.is_file():
        return local
    subjects = [row["task"].removeprefix("mmlu_") for row in rows("mmlu")]
    return [f"hf:edinburgh-dawg/mmlu-redux-2.0:{subject}:test" for subject in subjects]
