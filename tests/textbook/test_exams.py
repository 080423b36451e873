"""The proof that no exam item occurs in a training text: neither its wording, nor its numbers and candidates,
nor its set of wrong answers."""

import hashlib
import random
import re
from collections import Counter

import pandas as pd
import pytest

from qatoolkit.core.taxonomy import DIFFICULTIES, DISCIPLINES, GRADES, HIGH, LABELS, STEM
from qatoolkit.core.text import normalise
from qatoolkit.run.profiles import PROFILES
from qatoolkit.run.world import TextbookWorld
from qatoolkit.textbook import corpus, exams, knowledge, problems
from qatoolkit.textbook.frames import FRAMES
from qatoolkit.textbook.questions import answer, questions, split, state, variants, write
from qatoolkit.textbook.reading import Reader
from qatoolkit.textbook.server import parts
from qatoolkit.textbook.settings import TextbookSettings
from qatoolkit.textbook.tutor import Tutor

LANGUAGES = ("en", "zh")
WORLDS = {"full": TextbookSettings(exam=3, seeds=6), "demo": PROFILES["demo"].textbook}


class World:
    """Every exam of a world, and the training texts that could hold them."""

    def __init__(self, settings):
        self.settings, self.books = settings, parts(settings)
        self.exams = {
            name: exams.exam(self.books[e.language], name, settings.exam, seeds=settings.seeds)
            for name, e in exams.EXAMS.items()
        }
        self.seeds = {
            language: exams.seed_questions(book, language, settings.seeds) for language, book in self.books.items()
        }
        covered = {id(b): corpus.covered(b, settings) for b in {id(b): b for b in self.books.values()}.values()}
        self.covered = {language: covered[id(book)] for language, book in self.books.items()}

    def items(self):
        """(exam, row) of every item."""
        for name, table in self.exams.items():
            for row in table.itertuples():
                yield exams.EXAMS[name], row

    def training_texts(self, language):
        """Every wording and statement of questions about facts (full book: of 1,000) and of the corpus'
        questions with parameters, the seeds, the vocabulary, and a draw of the corpus itself."""
        book = self.books[language]
        facts = list(questions(book))
        facts = random.Random(0).sample(facts, min(len(facts), 1000))
        for q in (*facts, *(q for q in self.covered[language] if split(q) != "both")):
            for variant in range(variants(q, language, "train")):
                yield write(book, q, language, "train", variant)
            for variant in range(2):
                yield state(book, q, language, variant)
        yield from self.seeds[language]["question"]
        yield from corpus.documents({language: book}, 500, self.settings)["text"]
        yield from corpus.vocabulary({language: book})


@pytest.fixture(scope="module", params=list(WORLDS))
def world(request):
    return World(WORLDS[request.param])


@pytest.fixture(scope="module")
def reader():
    return Reader(knowledge.load())


def literal(template, mark="\n"):
    """A template with its slots cut out."""
    return re.sub(r"\{\w+\}", mark, template)


def grams(template, language):
    """Runs of eight words (en) or twelve characters (zh) of a template without slots; a short one is one run."""
    if language == "en":
        units, n = re.findall(r"[a-z']+", literal(template, " ").lower()), 8
    else:
        units, n = list(re.sub(r"\s|\W", "", literal(template, ""))), 12
    n = min(n, len(units))
    return {tuple(units[i : i + n]) for i in range(len(units) - n + 1)}


def wordings(language, *splits):
    """All templates of a language: frames about facts, and problem families."""
    for form in FRAMES.values():
        for name in splits:
            yield from form[language][name]
    for family in problems.FAMILIES.values():
        for name in splits:
            if name == "statement":
                yield family.solution(language)
            else:
                yield from family.wordings(language, name)


# --- wording -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_exam_frames_share_no_run_of_words_with_training_frames(language):
    trained = set().union(*(grams(t, language) for t in wordings(language, "train", "statement")))
    for template in wordings(language, "exam"):
        assert grams(template, language).isdisjoint(trained), template


@pytest.fixture(scope="module")
def heaps(world):
    """All training texts of a language as one."""
    return {language: "\n".join({normalise(t) for t in world.training_texts(language)}) for language in LANGUAGES}


def test_no_exam_question_occurs_in_a_training_text(world, heaps):
    for language, heap in heaps.items():
        asked = {normalise(row.question) for e, row in world.items() if e.language == language}
        assert len(asked) > 50
        assert not [q for q in random.Random(0).sample(sorted(asked), min(len(asked), 150)) if q in heap]


def test_every_exam_wording_has_a_piece_that_no_training_text_contains(world, heaps):
    """So no question in that wording occurs in any of them, whatever fills its slots."""
    for language, heap in heaps.items():
        for template in wordings(language, "exam"):
            pieces = [piece for part in literal(template).split("\n") if (piece := normalise(part))]
            assert any(piece not in heap for piece in pieces), template


def test_no_training_wording_can_produce_an_exam_question(world, reader):
    """The teacher writes by filling training frames, and none of them matches an exam question."""
    training = [wording for wording in reader.wordings if wording.split == "train"]
    for _, row in world.items():
        assert reader.read(row.question)[2] == "exam", row.question
        assert not any(wording.match(row.question.casefold()) for wording in training), row.question


def test_all_that_the_teacher_writes_reads_as_training(world, reader):
    tutor = Tutor(knowledge.load(), world.books)
    asked = {normalise(row.question) for _, row in world.items()}
    rng = random.Random(0)
    for language in LANGUAGES:
        for seed in rng.sample(world.seeds[language].to_dict("records"), 8):
            payload = {"question": seed["question"], "answer": seed["answer"]}
            for difficulty in DIFFICULTIES:
                wanted = [{"grade": g, "difficulty": difficulty} for g in GRADES]
                hard = {"seed": payload, "count": 3, "difficulty": difficulty}
                other = rng.choice(world.seeds[language].to_dict("records"))
                pair = [payload, {"question": other["question"], "answer": other["answer"]}]
                link = {"seeds": pair, "path": ["a", "b"], "count": 3, "difficulty": difficulty}
                for value, _ in (
                    tutor.multi_grade({"seed": payload, "wanted": wanted}, rng, 0.3),
                    tutor.high_difficulty(hard, rng, 0.3),
                    tutor.link(link, rng, 0.3),
                ):
                    for made in value["questions"]:
                        q, _, part = reader.read(made["question"])
                        assert part == "train", made["question"]
                        assert split(q) in ("train", "both"), made["question"]
                        assert normalise(made["question"]) not in asked


# --- parameters --------------------------------------------------------------------------------------------


def test_parameters_of_exam_items_are_in_the_exam_split_and_those_of_training_in_train(world, reader):
    seen = Counter()
    for _, row in world.items():
        q = reader.read(row.question)[0]
        assert split(q) in ("exam", "both"), row.question
        seen[split(q)] += 1
    for language in LANGUAGES:
        for question in world.seeds[language]["question"]:
            q, read_language, part = reader.read(question)
            assert (read_language, part) == (language, "train")
            assert split(q) in ("train", "both"), question
        for q in world.covered[language]:
            assert split(q) in ("train", "both"), q.key()
    assert min(seen.values()) > 50


def test_the_split_of_parameters_does_not_depend_on_order(world, reader):
    for _, row in list(world.items())[::17]:
        q = reader.read(row.question)[0]
        if q.others:
            turned = type(q)(**{**vars(q), "others": q.others[::-1], "top": 1 - q.top})
            assert split(turned) == split(q)


# --- wrong answers -----------------------------------------------------------------------------------------


def test_no_seed_offers_the_wrong_answers_of_an_exam_item(world):
    offered = {
        frozenset(choices) - {truth}
        for table in world.seeds.values()
        for choices, truth in zip(table["choices"], table["answer"], strict=True)
    }
    for exam, row in world.items():
        if exam.choices:
            assert frozenset(row.choices) - {row.answer} not in offered, row.question


def synthesised_answers(world, language):
    """How often each text is the answer of a question that the offline teacher makes of the seeds."""
    tutor, rng, counts = Tutor(knowledge.load(), world.books), random.Random(0), Counter()
    for row in world.seeds[language].itertuples():
        seed, kind = {"question": row.question, "answer": row.answer}, {"rate": 0.0, "rng": rng}
        asked = [{"difficulty": level, "grade": grade} for level in DIFFICULTIES[:3] for grade in GRADES]
        replies = [tutor.multi_grade({"seed": seed, "wanted": asked}, **kind)[0]]
        replies += [tutor.high_difficulty({"seed": seed, "difficulty": h, "count": 8}, **kind)[0] for h in HIGH]
        counts.update(made["answer"] for reply in replies for made in reply["questions"])
    return counts


def blind_excess(table, counts):
    """Points above guessing of always choosing what is most often an answer (ties shared), by row."""
    excess = []
    for row in table.itertuples():
        best = [counts[c] == max(counts[x] for x in row.choices) for c in row.choices]
        excess.append(best[int(row.answer_index)] / sum(best) - 1 / len(best))
    return pd.Series(excess, index=table.index)


@pytest.mark.parametrize("world", ["demo", pytest.param("full", marks=pytest.mark.slow)], indirect=True)
def test_who_reads_no_question_scores_no_better_than_by_guessing(world):
    counts = {language: synthesised_answers(world, language) for language in LANGUAGES}
    for name, exam in exams.EXAMS.items():
        if exam.choices:
            book, n, seeds = world.books[exam.language], max(world.settings.exam, 8), world.settings.seeds
            tables = [exams.exam(book, name, n, seed, seeds=seeds) for seed in range(3)]
            table = pd.concat(tables, ignore_index=True)
            excess = blind_excess(table, counts[exam.language])
            weak = table["discipline"].isin(STEM) | table["difficulty"].isin(HIGH)
            found = {part: float(rows.mean()) for part, rows in (("all", excess), ("weak", excess[weak]))}
            assert all(-0.1 <= points <= 0.05 for points in found.values()), (name, found)


@pytest.mark.parametrize("name", ["textbook_en", "textbook_zh", "textbook_pro"])
def test_the_kind_of_question_does_not_give_the_answer_away(name, reader):
    """Of the choices of "the capital of the country of painting X", the most frequent one among paintings' countries
    is no more often right than chance: no choice belongs to countries of which there is no painting."""
    settings, language = WORLDS["demo"], exams.EXAMS[name].language
    book, counts = parts(settings)[language], {}
    for q in questions(book):
        counts.setdefault((q.form, q.relations), Counter())[answer(book, q, language)] += 1
    tables = [exams.exam(book, name, settings.exam, seed, seeds=settings.seeds) for seed in range(3)]
    excess = []
    for _, row in pd.concat(tables).iterrows():
        q = reader.read(row["question"])[0]
        if kind := counts.get((q.form, q.relations)):
            assert all(kind[choice] for choice in row["choices"]) or q.form in ("recall", "reverse", "hop")
            excess.append(blind_excess(row.to_frame().T, kind))
    assert len(excess) > 50
    assert abs(float(pd.concat(excess).mean())) <= 0.06


@pytest.mark.parametrize("name", ["textbook_en", "textbook_zh", "textbook_pro"])
def test_who_has_read_the_answers_of_the_seeds_alone_scores_no_better_either(name):
    settings, language = WORLDS["demo"], exams.EXAMS[name].language
    book, excess = parts(settings)[language], []
    for seed in range(3):
        table = exams.exam(book, name, settings.exam, seed, seeds=settings.seeds)
        read = Counter(exams.seed_questions(book, language, settings.seeds, seed)["answer"])
        excess.append(blind_excess(table, read))
    assert -0.08 <= float(pd.concat(excess).mean()) <= 0.05


# --- items -------------------------------------------------------------------------------------------------


def test_every_item_carries_all_labels(world):
    for exam, row in world.items():
        assert row.discipline in DISCIPLINES
        assert row.difficulty in exam.difficulties
        assert row.grade in GRADES
        assert row.language == exam.language
        assert row.knowledge_points
        assert all(isinstance(point, str) and point.strip() for point in row.knowledge_points)


def test_labels_and_answer_are_those_of_the_question(world, reader):
    for exam, row in world.items():
        q = reader.read(row.question)[0]
        assert row.answer == answer(reader.book, q, exam.language), row.question
        assert (row.discipline, row.difficulty, row.grade) == (q.discipline, q.difficulty, q.grade)


def test_the_answer_is_one_of_the_choices_and_the_others_differ(world):
    for exam, row in world.items():
        if exam.choices:
            assert exams.FEWEST <= len(row.choices) <= exam.choices
            assert len({normalise(choice) for choice in row.choices}) == len(row.choices), row.choices
            assert row.choices[int(row.answer_index)] == row.answer
        else:
            assert row.choices is None
            assert re.fullmatch(r"-?\d+(/\d+)?", row.answer), row.answer


def test_the_right_choice_stands_anywhere(world):
    for name, table in world.exams.items():
        if n := exams.EXAMS[name].choices:
            for many, items in table.groupby(table["choices"].str.len()):
                shares = items["answer_index"].value_counts(normalize=True)
                assert set(shares.index) <= set(range(many))
                assert many <= n
                assert len(items) < 150 or (len(shares) == many and shares.max() < 1.9 / many), (name, many)


def test_exams_hold_every_discipline_and_no_question_twice(world):
    disciplines = {t.discipline for t in world.books["en"].tables.values()}
    for name in ("textbook_en", "textbook_zh", "textbook_pro"):
        table = world.exams[name]
        assert table["question"].map(normalise).is_unique
        whole = world.settings.entities is None or name == "textbook_en"
        assert set(table["discipline"]) == disciplines if whole else set(table["discipline"]) <= disciplines
        assert table.groupby(["discipline", "difficulty"]).size().max() <= world.settings.exam
    assert set(world.exams["textbook_pro"]["difficulty"]) == set(HIGH)


def test_the_full_exams_fill_every_cell(world):
    if world.settings.entities is None:
        for name in ("textbook_en", "textbook_zh"):
            sizes = world.exams[name].groupby(["discipline", "difficulty"]).size()
            assert len(sizes) == 5 * world.exams[name]["discipline"].nunique()
            assert (sizes == world.settings.exam).all()


def fingerprint(table):
    return hashlib.sha256(table.to_json(force_ascii=False).encode()).hexdigest()


def test_same_seed_gives_same_exam_and_another_seed_another():
    book = parts(PROFILES["smoke"].textbook)["en"]
    for name in ("textbook_en", "textbook_pro", "textbook_math"):
        first, again, other = (exams.exam(book, name, 2, seed) for seed in (0, 0, 1))
        pd.testing.assert_frame_equal(first, again)
        assert fingerprint(first) != fingerprint(other)


@pytest.mark.parametrize(("name", "n", "message"), [("toefl", 4, "textbook_en"), ("textbook_en", 0, "n is 0")])
def test_wrong_requests_are_refused_by_name(name, n, message):
    with pytest.raises(ValueError, match=message):
        exams.exam(parts(WORLDS["demo"])["en"], name, n)


def test_the_corpus_is_thin_in_stem_and_in_hard_material(world):
    held = Counter((q.discipline, q.difficulty) for q in world.covered["en"])
    whole = exams.pools(world.books["en"], random.Random("corpus/0"), "train", 3, 40)
    shares = {weak: [] for weak in (True, False)}
    for cell, pool in whole.items():
        shares[cell[0] in STEM or cell[1] in HIGH].append(held[cell] / len(pool))
    assert min(shares[False]) > 0.5
    stated, reversed_, linked = (
        [held[c] / len(pool) for c, pool in whole.items() if c[1] == level and c[0] not in STEM]
        for level in ("H1", "H2", "H3")
    )
    assert min(stated) == 1.0
    assert sum(stated) / len(stated) > sum(reversed_) / len(reversed_) > sum(linked) / len(linked)
    assert sum(shares[True]) / len(shares[True]) < 0.2


def test_a_world_with_other_content_is_a_new_edition():
    """Results are kept under keys that hold the edition, so a changed world would be taken for the old one."""
    world = World(TextbookSettings(entities=4, entities_zh=3, relations=3, families=8, seeds=3, exam=2))
    texts = []
    for table in (*world.exams.values(), *world.seeds.values()):
        texts += [
            table[[*table.columns.intersection(("question", "answer", *LABELS))]].to_csv(),
            str(list(table["choices"])),
        ]
    texts += list(corpus.documents(world.books, 400, world.settings)["text"])
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
    assert (TextbookWorld.EDITION, digest) == (3, "030245619f775601"), (
        "raise TextbookWorld.EDITION, and write its digest here"
    )
