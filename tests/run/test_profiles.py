"""Settings: profiles, YAML files and dials, and one clear line for whatever is wrong with them."""

import subprocess
import sys

import pytest

from qatoolkit.core.settings import replace
from qatoolkit.run import stages
from qatoolkit.run.profiles import PROFILES, Profile, load_profile
from qatoolkit.run.store import open_run


def yaml_file(folder, text):
    path = folder / "mine.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refused(*args, **dials):
    """The one line with which settings are refused."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the callers look at the message)
        load_profile(*args, **dials)
    assert type(caught.value) is ValueError
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", list(PROFILES))
def test_built_in_profiles_load_by_name(name):
    assert load_profile(name) is PROFILES[name]
    assert load_profile(name).name == name
    assert load_profile(PROFILES[name]) is PROFILES[name]


def test_profiles_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        load_profile("smoke").plan.questions = 3


def test_an_unknown_profile_is_named_with_those_there_are():
    message = refused("huge")
    assert "'huge'" in message
    assert all(name in message for name in PROFILES)


def test_a_profile_without_arms_says_so_where_an_arm_is_needed():
    none = {"arms": dict.fromkeys(load_profile("smoke").arms), "compare": []}
    assert "ablations: []" in refused("smoke", **none)
    profile = load_profile("smoke", **none, ablations=[])
    assert profile.main_set is None
    with pytest.raises(ValueError, match="no arms, so nothing is mid-trained"):
        _ = profile.main_arm


def test_the_main_arm_is_the_first_compared_that_is_trained():
    assert load_profile("smoke", compare=[["base", "linkqa"]]).main_arm == "linkqa"


# --- dials ---------------------------------------------------------------------------------------------


def test_a_dial_changes_one_setting_and_nothing_else():
    base, turned = load_profile("demo"), load_profile("demo", **{"boostqa.refine": False})
    assert turned.boostqa == replace(base.boostqa, refine=False)
    assert replace(turned, boostqa=base.boostqa) == base


def test_several_dials_add_up():
    turned = load_profile("smoke", **{"linkqa.length": 6, "linkqa.alpha": 1, "scaling.tokens": [0.5, 1]})
    assert (turned.linkqa.length, turned.linkqa.alpha) == (6, 1.0)
    assert isinstance(turned.linkqa.alpha, float)
    assert turned.scaling.tokens == (0.5, 1.0)


def test_a_group_can_be_given_as_a_whole():
    turned = load_profile("smoke", plan={"questions": 7, "target": 0.5})
    assert (turned.plan.questions, turned.plan.target) == (7, 0.5)
    assert turned.plan.low_n == PROFILES["smoke"].plan.low_n


@pytest.mark.parametrize(
    ("dial", "value", "parts"),
    [
        ("boostqa.refined", True, ["boostqa.refined", "boostqa.refine"]),
        ("colour", "red", ["colour", "textbook"]),
        ("plan", 5, ["plan", "5", "questions"]),
        ("plan.questions", "many", ["plan.questions", "'many'", "int"]),
        ("plan.questions", 2.5, ["plan.questions", "2.5", "int"]),
        ("plan.questions", True, ["plan.questions", "True", "int"]),
        ("plan.questions", 0, ["plan.questions", "0", "above 0"]),
        ("plan.target", 1.5, ["plan.target", "1.5", "between 0 and 1"]),
        ("plan.target", float("nan"), ["plan.target", "nan", "between 0 and 1"]),
        ("boostqa.refine", 1, ["boostqa.refine", "1", "bool"]),
        ("teacher.budget", -1, ["teacher.budget", "-1", "0 or more"]),
        ("teacher.budget", "free", ["teacher.budget", "'free'", "float 0 or more"]),
        ("teacher.base_url", 80, ["teacher.base_url", "80", "str, or null"]),
        ("textbook.entities", -3, ["textbook.entities", "-3", "above 0", "or null"]),
        ("textbook.relations", 0, ["textbook.relations", "0", "above 0", "or null"]),
        ("textbook.families", -1, ["textbook.families", "-1", "above 0", "or null"]),
        ("annotate.knowledge_points", "some", ["annotate.knowledge_points", "'some'", "missing, all"]),
        ("annotate.levels", "top", ["annotate.levels='top'", "'leaf', 'all', a whole number"]),
        ("annotate.under", ["KP"], ["annotate.under=('KP',)", "give levels"]),
        ("annotate.separator", "", ["annotate.separator", "one character or more"]),
        ("linkqa.length", 1, ["linkqa.length", "1", "3 or more"]),
        ("linkqa.length", 2, ["linkqa.length", "2", "3 or more", "int"]),
        ("linkqa.merges", "nowhere.csv", ["linkqa.merges", "'nowhere.csv'", "an existing CSV file"]),
        ("linkqa.merges", 3, ["linkqa.merges", "3", "str, or null"]),
        ("linkqa.beta", -0.1, ["linkqa.beta", "-0.1", "0 or more"]),
        ("linkqa.alpha", float("inf"), ["linkqa.alpha", "inf", "finite"]),
        ("linkqa.adjust", {"physics": {"H4": float("inf")}}, ["linkqa.adjust.physics", "inf", "shares of H3"]),
        ("scaling.initial", [0.5, 0], ["scaling.initial", "above 0"]),
        ("scaling.sizes", "xs", ["scaling.sizes", "'xs'", "a list"]),
        ("ablations", [{"linkqa.length": 2}], ["ablations", "linkqa.length", "2", "3 or more"]),
        ("ablations", [{"linkqa.most_seed": 2}], ["linkqa.most_seed", "did you mean linkqa.most_seeds"]),
        ("ablations", [{"arm": "other"}], ["ablations", "'other'", "boostqa_linkqa"]),
        ("ablations", [{"midtrain.seed": 1}], ["midtrain.seed is not an ablation", "ablation_seeds"]),
        ("ablation_tokens", 0, ["ablation_tokens", "0", "above 0, at most 1"]),
        ("arms", {"mine": ["nothing"]}, ["arms.mine", "'nothing'", "seeds"]),
        ("arms", {"mine": {"nothing": 1}}, ["arms.mine", "'nothing'", "seeds"]),
        ("arms", {"mine": {"boostqa": 0}}, ["arms.mine", "{'boostqa': 0}", "ratios above 0"]),
        ("arms", {"mine": "boostqa"}, ["arms.mine", "'boostqa'", "a list of data sets"]),
        ("compare", [["boostqa", "basis"]], ["compare", "'basis'", "base"]),
        ("data", {"mine": {"strategy": "magic"}}, ["'magic'", "boostqa, linkqa"]),
        ("linkqa.most_seeds", 1, ["linkqa.most_seeds", "1", "between 2 and 4"]),
        ("midtrain.replay", -0.2, ["midtrain.replay", "-0.2", "between 0 and 1"]),
        ("midtrain.z_loss", -1, ["midtrain.z_loss", "-1", "0 or more"]),
        ("midtrain.learning_rate", float("inf"), ["midtrain.learning_rate", "inf", "finite"]),
        ("student.size", "xl", ["student.size", "'xl'", "xxs, xs, s, m, 130m"]),
        ("scaling.sizes", ["xs", "huge"], ["scaling.sizes", "'huge'", "xxs, xs, s, m, 130m"]),
        ("student.block", 1, ["student.block", "1", "2 or more"]),
        ("student.micro_batch", 0, ["student.micro_batch", "0", "above 0", "or null"]),
        ("student.weight_decay", -0.1, ["student.weight_decay", "-0.1", "0 or more"]),
        ("student.save_every", -1, ["student.save_every", "-1", "0 or more"]),
        ("teacher.temperature", -1, ["teacher.temperature", "-1", "0 or more"]),
    ],
)
def test_a_wrong_dial_names_field_value_and_what_is_allowed(dial, value, parts):
    message = refused("smoke", **{dial: value})
    assert all(part in message for part in parts), message


@pytest.mark.parametrize("group", [n for n, f in Profile.model_fields.items() if hasattr(f.annotation, "model_fields")])
def test_every_group_refuses_a_setting_it_does_not_have(group):
    assert f"{group}.nonsense" in refused("demo", **{f"{group}.nonsense": 1})


# --- YAML ----------------------------------------------------------------------------------------------


def test_yaml_overrides_a_profile_and_takes_the_files_name(tmp_path):
    path = yaml_file(
        tmp_path,
        "profile: smoke\nplan:\n  questions: 9\nteacher: {budget: 2, base_url: null}\nscaling:\n  sizes: [xs, s]\n",
    )
    mine = load_profile(path)
    assert mine.name == "mine"
    assert mine.plan.questions == 9
    assert mine.teacher.budget == 2.0
    assert mine.scaling.sizes == ("xs", "s")
    assert mine.textbook == PROFILES["smoke"].textbook
    assert load_profile(str(path)) == mine


def test_a_file_of_merges_is_found_beside_the_yaml_file_that_names_it(tmp_path, monkeypatch):
    (tmp_path / "merges.csv").write_text("kept,merged\na,b\n", encoding="utf-8")
    path = yaml_file(tmp_path, "profile: smoke\nlinkqa: {merges: merges.csv}\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_profile(path).linkqa.merges == str(tmp_path / "merges.csv")
    assert load_profile(path, **{"linkqa.length": 5}).linkqa.merges == str(tmp_path / "merges.csv")
    assert "merges.csv" in refused(yaml_file(tmp_path, "linkqa: {merges: elsewhere/merges.csv}\n"))


def test_a_checkpoint_is_found_beside_the_yaml_file_that_names_it(tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    (tmp_path / "model").mkdir()
    path = yaml_file(tmp_path, "student: {checkpoint: model}")
    assert load_profile(path).student.checkpoint == str(tmp_path / "model")
    path = yaml_file(tmp_path, "student: {checkpoint: some/model}")
    assert load_profile(path).student.checkpoint == "some/model"


def test_dials_win_over_yaml(tmp_path):
    path = yaml_file(tmp_path, "profile: smoke\nplan: {questions: 9}\n")
    assert load_profile(path, **{"plan.questions": 11}).plan.questions == 11


def test_yaml_may_name_the_profile_itself(tmp_path):
    assert load_profile(yaml_file(tmp_path, "name: other\nprofile: demo\n")).name == "other"


@pytest.mark.parametrize("text", ["3e-3", "3.0e-3", "0.003", "3E-3"])
def test_yaml_numbers_with_exponents_are_numbers(tmp_path, text):
    """YAML 1.1 takes 3e-3, without a point, for a text; no user does."""
    path = yaml_file(tmp_path, f"profile: smoke\nmidtrain: {{learning_rate: {text}}}\n")
    assert load_profile(path).midtrain.learning_rate == 0.003


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("plan: [1, 2\nteacher: x", ["mine.yaml", "line", "not valid YAML"]),
        ("plan:\n\tquestions: 3", ["mine.yaml", "line 2", "not valid YAML"]),
        (b"plan: \xff\xfe\x00", ["mine.yaml", "not valid YAML"]),
        ("- plan", ["mine.yaml", "list"]),
        ("", ["mine.yaml", "NoneType"]),
        ("profile: enormous", ["mine.yaml", "'enormous'", "smoke"]),
        ("profile: [smoke]", ["mine.yaml", "['smoke']", "smoke"]),
        ("plan: {questions: -5}", ["plan.questions", "-5"]),
        ("teacher: {budget: -1}", ["teacher.budget", "-1"]),
        ("teacher: {budget: .nan}", ["teacher.budget", "nan"]),
        ("plans: {questions: 5}", ["plans", "plan"]),
        ("plan: null", ["plan", "None", "questions"]),
        ("1: 2", ["1"]),
        ("plan: {questions: 9}\nplan: {target: 0.5}", ["mine.yaml, line 2", "'plan' is given twice"]),
        ("plan: {target: 0.5, questions: 9, target: 0.6}", ["mine.yaml, line 1", "'target' is given twice"]),
        ("a: !!python/object/apply:os.getcwd []", ["mine.yaml", "not valid YAML"]),
    ],
)
def test_a_wrong_file_ends_in_one_clear_line(tmp_path, text, parts):
    message = refused(yaml_file(tmp_path, text))
    assert all(part in message for part in parts), message


def test_a_missing_file_is_named(tmp_path):
    assert "nowhere.yaml does not exist" in refused(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("text", "part"), [("teacher: {budget: -1}", "teacher.budget is -1"), ("plan: [", "not valid YAML")]
)
def test_the_command_line_ends_with_code_2_and_that_line_and_writes_nothing(tmp_path, text, part):
    path, results = yaml_file(tmp_path, text), tmp_path / "results"
    command = [sys.executable, "-m", "qatoolkit.run.cli", "status", "--profile", str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, env={"QATOOLKIT_RESULTS": str(results)})
    assert ended.returncode == 2
    said = [line for line in ended.stderr.splitlines() if "working on it" not in line]  # of a slow machine
    assert len(said) == 1
    assert part in said[0]
    assert not results.exists()


def test_a_profile_says_how_its_sources_are_to_be_read(tmp_path, monkeypatch):
    monkeypatch.setenv("QATOOLKIT_RESULTS", str(tmp_path / "results"))
    (tmp_path / "odd.jsonl").write_text('{"task_text": "What is 2 + 2?", "key": "4"}\n', encoding="utf-8")
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "profile: smoke\nseeds:\n  sources: [odd.jsonl]\n  licence: CC0\n"
        "  mapping: {question: task_text, answer: key}\n",
        encoding="utf-8",
    )
    seeds = stages.seeds(open_run("odd", profile=str(mine))).seeds
    assert seeds[["question", "answer", "licence"]].values.tolist() == [["What is 2 + 2?", "4", "CC0"]]
    mine.write_text("profile: smoke\nseeds:\n  mapping: task_text\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"seeds\.mapping is 'task_text'"):
        load_profile(mine)


def test_dials_of_a_named_entry_are_dotted_and_unknown_strategies_are_refused():
    turned = load_profile("smoke", **{"data.boostqa_untargeted.strategy": "linkqa"})
    assert turned.data["boostqa_untargeted"].strategy == "linkqa"
    assert turned.data["boostqa_untargeted"].dials == {"plan.rule": "uniform"}
    assert "no strategy is called 'mine.each'" in refused("smoke", **{"strategies.mine.each": 1})


def test_all_faults_of_a_profile_are_told_at_once(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "profile: smoke\nplan: {questoins: 50}\nprobe: {per_cel: 9}\nboostqa: {refine: perhaps}\nlader: []\n"
    )
    with pytest.raises(ValueError, match=r"plan\.questoins") as error:
        load_profile(file)
    said = str(error.value)
    for part in ("'probe.per_cel'", "boostqa.refine"):
        assert part in said
    assert said.endswith("; and 1 more")
    assert "\n" not in said
