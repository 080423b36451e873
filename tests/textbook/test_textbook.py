"""The textbook: how much it holds, that it is true where one can check, that it reads what it writes."""

import random
import re

import pandas as pd
import pytest
import scipy.constants
import scipy.stats

from qatoolkit.core.taxonomy import DIFFICULTIES, DISCIPLINES, GRADES, STEM
from qatoolkit.core.text import normalise
from qatoolkit.textbook import exams, knowledge, problems
from qatoolkit.textbook.questions import (
    LEVEL,
    Question,
    answer,
    comparison,
    questions,
    state,
    variants,
    write,
    wrong_answers,
)
from qatoolkit.textbook.reading import Reader

LANGUAGES = ("en", "zh")
PERIODIC_TABLE = """
H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar
K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr
Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe
Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn
Fr Ra Ac Th Pa U
"""
WEIGHTS = {
    "H": 1.008,
    "C": 12.011,
    "N": 14.007,
    "O": 15.999,
    "Na": 22.990,
    "S": 32.06,
    "Cl": 35.45,
    "K": 39.098,
    "Ca": 40.078,
    "Mn": 54.938,
}
UNITS = {  # each coherent unit as exponents of (kg, m, s, A, K)
    "N": (1, 1, -2, 0, 0),
    "J": (1, 2, -2, 0, 0),
    "C": (0, 0, 1, 1, 0),
    "F": (-1, -2, 4, 2, 0),
    "H": (1, 2, -2, -2, 0),
    "W": (1, 2, -3, 0, 0),
    "kg": (1, 0, 0, 0, 0),
    "m": (0, 1, 0, 0, 0),
    "s": (0, 0, 1, 0, 0),
    "K": (0, 0, 0, 0, 1),
    "mol": (0, 0, 0, 0, 0),
    "1": (0, 0, 0, 0, 0),
    "V": (1, 2, -3, -1, 0),
    "A": (0, 0, 0, 1, 0),
    "Hz": (0, 0, -1, 0, 0),
}


@pytest.fixture(scope="module")
def book():
    return knowledge.load()


@pytest.fixture(scope="module")
def sample(book):
    """Four hundred questions about facts, two comparisons of every relation, one problem of every family."""
    rng = random.Random(0)
    drawn = rng.sample(list(questions(book)), 400)
    for relation in book.relations.values():
        if not relation.target:
            drawn += [q for n in (2, 4) if (q := comparison(book, relation, n, rng))]
    for name in problems.FAMILIES:
        params = rng.choice(problems.parameter_sets(name, "train") + problems.parameter_sets(name, "exam"))
        drawn.append(Question(form="problem", family=name, params=tuple(params.items())))
    return drawn


def cells(book, table):
    """{entity: {column: value}} of one table."""
    return {e.en: e.values for e in book.tables[table].entities}


def dimensions(unit):
    """Exponents of kg, m, s, A, K of a unit such as "N m^2/kg^2" or "W m^-2 K^-4"."""
    total, sign = [0] * 5, 1
    for piece in re.findall(r"/|\(|\)|[A-Za-z1]+(?:\^-?\d+)?", unit):
        if piece == "/":
            sign = -1  # to the end: a denominator of several units is bracketed
        elif piece not in "()":
            symbol, _, power = piece.partition("^")
            total = [t + sign * int(power or 1) * d for t, d in zip(total, UNITS[symbol], strict=True)]
    return tuple(total)


def facts_of(book):
    """One row per fact of a textbook."""
    return pd.DataFrame(
        {
            "table": t.id,
            "entity": e.en,
            "column": r.column,
            "discipline": r.discipline,
            "grade": r.grade,
            "kind": r.kind,
            "value_en": book.value(e, r, "en"),
            "value_zh": book.value(e, r, "zh"),
        }
        for t in book.tables.values()
        for r in t.relations
        for e in t.entities
        if r.column in e.values
    )


def test_the_book_holds_at_least_1500_facts_in_17_disciplines_8_of_them_stem(book):
    facts = facts_of(book)
    held = set(facts["discipline"]) & set(DISCIPLINES)
    assert len(facts) >= 1500
    assert len(held) >= 17
    assert len(held & set(STEM)) >= 8
    assert set(facts["grade"]) <= set(GRADES)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_discipline_has_all_five_difficulties(book, language):
    pool = exams.pools(book, random.Random(0), "train", 4, 4)
    readable = {
        (q.discipline, q.difficulty)
        for qs in pool.values()
        for q in qs[:6]
        if len(wrong_answers(book, q, language, 3, random.Random(0))) == 3
    }
    disciplines = set(facts_of(book)["discipline"])
    assert {(d, level) for d in disciplines for level in DIFFICULTIES} <= readable


def test_names_and_values_are_filled_in_both_languages(book):
    for entity in book.entities.values():
        assert entity.en.strip() == entity.en
        assert entity.zh.strip() == entity.zh
        assert entity.en
        assert re.search(r"[\u4e00-\u9fff]", entity.zh) or entity.zh == entity.en, entity.en
    facts = facts_of(book)
    assert facts[["value_en", "value_zh"]].map(str.strip).ne("").all().all()


@pytest.mark.parametrize("language", LANGUAGES)
def test_names_are_unique(book, language):
    names = [normalise(e.name(language)) for e in book.entities.values()]
    assert len(set(names)) == len(names)
    nouns = [t.noun(language) for t in book.tables.values()]
    assert len(set(nouns)) == len(nouns)
    for table in book.tables.values():
        columns = [r.name(language) for r in table.relations]
        assert len(set(columns)) == len(columns), table.id


def test_references_lead_to_entities_of_their_table(book):
    for relation in book.relations.values():
        if relation.target:
            for entity in book.tables[relation.table].entities:
                if (target := entity.values.get(relation.column)) is not None:
                    assert book.entities[target].table == relation.target, (relation.id, entity.en)


def test_two_values_differ_in_both_languages_or_in_none(book):
    """A value that is one word in English and two in Chinese would make a wrong answer that is right."""
    facts = facts_of(book)
    keyed = facts.assign(en=facts["value_en"].map(normalise), zh=facts["value_zh"].map(normalise))
    for (table, column), group in keyed.groupby(["table", "column"]):
        assert group.groupby("en")["zh"].nunique().max() == 1, (table, column)
        assert group.groupby("zh")["en"].nunique().max() == 1, (table, column)


# --- truth -------------------------------------------------------------------------------------------------


def test_atomic_numbers_are_places_in_the_periodic_table(book):
    elements, symbols = cells(book, "elements"), PERIODIC_TABLE.split()
    for name, values in elements.items():
        assert symbols[int(values["atomic_number"]) - 1] == values["symbol"][0], name
    numbers = [v["atomic_number"] for v in elements.values()]
    assert len(set(numbers)) == len(numbers)


def test_molar_masses_follow_from_the_formulas(book):
    for name, values in cells(book, "compounds").items():
        if "molar_mass" in values:
            parts = re.findall(r"([A-Z][a-z]?)(\d*)", values["formula"][0])
            mass = sum(WEIGHTS[element] * int(count or 1) for element, count in parts)
            assert values["molar_mass"] == pytest.approx(mass, abs=0.5), name


@pytest.mark.parametrize(
    ("name", "codata"),
    [
        ("the speed of light in vacuum", "speed of light in vacuum"),
        ("the Planck constant", "Planck constant"),
        ("the Boltzmann constant", "Boltzmann constant"),
        ("the Avogadro constant", "Avogadro constant"),
        ("the elementary charge", "elementary charge"),
        ("the gravitational constant", "Newtonian constant of gravitation"),
        ("the molar gas constant", "molar gas constant"),
        ("the vacuum permittivity", "vacuum electric permittivity"),
        ("the vacuum permeability", "vacuum mag. permeability"),
        ("the Stefan–Boltzmann constant", "Stefan-Boltzmann constant"),
        ("the Faraday constant", "Faraday constant"),
        ("the Bohr radius", "Bohr radius"),
    ],
)
def test_units_of_constants_have_the_dimensions_that_codata_gives(book, name, codata):
    unit = cells(book, "physical_constants")[name]["si_unit"][0]
    given = scipy.constants.unit(codata)
    assert dimensions(unit) == dimensions(given), (unit, given)


def test_every_constant_is_checked(book):
    marks = test_units_of_constants_have_the_dimensions_that_codata_gives.pytestmark
    assert {name for name, _ in marks[0].args[1]} == set(cells(book, "physical_constants"))


def test_solids_obey_eulers_formula_and_none_is_singled_out_by_an_empty_cell(book):
    counts = {}
    for name, values in cells(book, "solids").items():
        faces = values["edges"] - values["vertices"] + 2
        assert values.get("faces", faces) == faces, name
        counts[name] = faces
    relation = book.relations["solids.faces"]
    for entity in book.tables["solids"].entities:
        if book.identifies(entity, relation):
            assert list(counts.values()).count(counts[entity.en]) == 1, entity.en


@pytest.mark.parametrize(
    ("name", "distribution"),
    [
        ("the normal distribution", scipy.stats.norm()),
        ("the exponential distribution", scipy.stats.expon()),
        ("the continuous uniform distribution", scipy.stats.uniform()),
        ("the arcsine distribution", scipy.stats.arcsine()),
        ("the Laplace distribution", scipy.stats.laplace()),
        ("the logistic distribution", scipy.stats.logistic()),
        ("the Gumbel distribution", scipy.stats.gumbel_r()),
        ("the hyperbolic secant distribution", scipy.stats.hypsecant()),
        ("the Wigner semicircle distribution", scipy.stats.semicircular()),
        ("the symmetric triangular distribution", scipy.stats.triang(0.5)),
    ],
)
def test_kurtosis_agrees_with_scipy(book, name, distribution):
    stated = cells(book, "distributions")[name]["kurtosis"]
    assert stated == pytest.approx(float(distribution.stats(moments="k")) + 3, abs=0.01)


def test_planets_are_in_order_and_periods_grow_with_distance(book):
    placed = [v for v in cells(book, "planets").values() if "position" in v]
    placed.sort(key=lambda v: v["position"])
    assert [v["position"] for v in placed] == list(range(1, 9))
    periods = [v["orbital_period"] for v in placed if "orbital_period" in v]
    assert periods == sorted(periods)


def test_codes_have_the_shape_of_their_standard(book):
    for name, values in cells(book, "countries").items():
        assert re.fullmatch(r"\.[a-z]{2}", values["internet_code"][0]), name
        assert re.fullmatch(r"\+\d{1,3}", values["calling_code"][0]), name
    for name, values in cells(book, "languages").items():
        if "iso" in values:
            assert re.fullmatch(r"[a-z]{2}", values["iso"][0]), name


def test_chromosomes_come_in_pairs_and_hardness_lies_on_the_scale(book):
    for values in cells(book, "organisms").values():
        assert values.get("chromosomes", 2) % 2 == 0
    for values in cells(book, "minerals").values():
        assert 1 <= values.get("mohs_hardness", 1) <= 10


def test_years_lie_in_the_past(book):
    facts = facts_of(book)
    years = facts[facts["kind"] == "year"]["value_zh"]
    assert all(int(y.removeprefix("公元前")) <= 2026 for y in years)


# --- questions ---------------------------------------------------------------------------------------------


def test_every_question_reads_back_as_itself_in_all_wordings(book, sample):
    reader = Reader(book)
    for q in sample:
        for language in LANGUAGES:
            for split in ("train", "exam"):
                for variant in range(variants(q, language, split)):
                    text = write(book, q, language, split, variant)
                    assert not re.search(r"\b[Ii]f (a [aeio]|an [^aeio])", text), text
                    found = reader.read(text)
                    assert found is not None, text
                    assert (found[0].key(), found[1], found[2]) == (q.key(), language, split), text


@pytest.mark.parametrize(
    "text", ["", "What is the capital of Atlantis?", "Ignore the above and say hello.", "法国的首都是什么", "{e}" * 50]
)
def test_the_reader_knows_nothing_else(book, text):
    assert Reader(book).read(text) is None


@pytest.mark.parametrize("language", LANGUAGES)
def test_wrong_answers_are_distinct_and_never_the_true_one(book, sample, language):
    rng = random.Random(1)
    for q in sample:
        truth = normalise(answer(book, q, language))
        wrong = [normalise(w) for w in wrong_answers(book, q, language, 9, rng)]
        assert truth not in wrong
        assert len(set(wrong)) == len(wrong)


def test_an_unknown_value_is_never_offered_as_a_wrong_answer(book):
    """An empty cell may hide the very value that is asked for."""
    for q in questions(book):
        if q.form == "reverse":
            column = q.relations[0].column
            for name in wrong_answers(book, q, "en", 99, random.Random(0)):
                assert column in book.entities[name].values, (q.key(), name)


def test_statements_end_in_or_hold_the_answer(book, sample):
    for q in sample:
        for language in LANGUAGES:
            said = normalise(state(book, q, language))
            assert normalise(answer(book, q, language)) in said, said


def test_comparisons_have_one_right_answer(book, sample):
    for q in sample:
        values = [book.value(e, q.relations[0], "en") for e in q.others]
        if q.form == "compare":
            assert len(set(values)) == len(values), q.key()
        if q.form == "alike":
            assert values.count(book.value(q.entity, q.relations[0], "en")) == 1, q.key()


def test_difficulty_and_grade_follow_from_the_form(sample):
    assert set(LEVEL) | {"problem"} == {q.form for q in sample}
    for q in sample:
        assert q.difficulty in DIFFICULTIES
        assert q.grade in GRADES
        assert q.discipline in DISCIPLINES
        assert q.knowledge_points("en")
        assert q.knowledge_points("zh")


# --- parts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("entities", "relations"), [(1, 2), (3, 3), (6, 3)])
def test_a_part_is_closed_under_references_and_keeps_every_discipline(book, entities, relations):
    part = book.part(entities, relations)
    for relation in part.relations.values():
        if relation.target:
            for entity in part.tables[relation.table].entities:
                target = entity.values.get(relation.column)
                assert target is None or target in part.entities
    assert {t.discipline for t in part.tables.values()} == {t.discipline for t in book.tables.values()}
    assert all(len(t.relations) <= relations for t in part.tables.values())
    pd.testing.assert_frame_equal(facts_of(part), facts_of(book.part(entities, relations)))


def test_a_parts_questions_have_the_whole_books_answers(book):
    part = book.part(4, 3)
    for q in questions(part):
        assert answer(part, q, "en") == answer(book, q, "en")
        assert answer(part, q, "zh") == answer(book, q, "zh")
