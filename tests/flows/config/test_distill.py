"""Configurations: the shipped ones load, settings win, and every mistake is one line that says how to mend it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from flows.config.distill import DistillConfig, checked, load_config, shipped_configs, with_settings
from models.methods import MethodConfig
from storage.datasets.registry import get_dataset
from storage.errors import BadFile, UnknownName, UsageError
from tasks.teacher.lab import lab_folder
from tasks.training.spec import training_id

MINIMAL: dict[str, Any] = {
    "dataset": {"name": "svamp"},
    "teacher": {"source": "stored"},
    "student": {"model": "some-t5"},
}


def complaint(*settings: str, name: str = "lab") -> str:
    with pytest.raises(UsageError) as caught:
        load_config(name, settings)
    text = str(caught.value)
    assert "\n" not in text
    return text


# ---- what is shipped ----


def test_there_are_shipped_ones() -> None:
    assert "lab" in shipped_configs()


@pytest.mark.parametrize("name", shipped_configs())
def test_every_shipped_configuration_loads(name: str) -> None:
    config = load_config(name)
    dataset = get_dataset(config.dataset.name)
    assert set(config.dataset.splits().values()) <= set(dataset.splits), "splits that the dataset has"
    assert [method.name for method in config.methods()] == [config.method.name, *config.compare]
    # What Prefect stores and shows as a form is the same configuration.
    assert DistillConfig.model_validate(config.model_dump(mode="json")) == config
    assert DistillConfig.model_validate_json(config.model_dump_json()) == config
    assert DistillConfig.model_json_schema()["properties"].keys() == DistillConfig.model_fields.keys()


@pytest.mark.parametrize("name", shipped_configs())
def test_a_shipped_configuration_is_commented_and_says_how_it_is_run(name: str) -> None:
    text = (Path(__file__).parents[3] / "flows" / "configs" / f"{name}.yaml").read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert f"qcrd distill {name}" in text


def test_the_smallest_configuration_has_the_papers_defaults() -> None:
    config = checked(MINIMAL)
    assert (config.method, config.compare) == (MethodConfig(), ())
    assert (config.teacher.n, config.teacher.temperature) == (5, 0.7)
    assert (config.negatives.lag, config.negatives.temperature) == (5, 1.5)
    assert (config.discriminator.loss, config.discriminator.pretrain_steps) == ("ratio", 500)
    assert (config.votes.positives, config.votes.n) == ("majority", None)


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(MINIMAL))
    assert load_config(str(file)) == checked(MINIMAL)
    assert load_config(str(file), ["votes.n=3"]).votes.n == 3


# ---- settings ----


def test_settings_win_over_the_file_and_leave_the_rest() -> None:
    before = load_config("lab")
    after = load_config(
        "lab", ["rounds.rounds=7", "method.scheme=mean", "optimisation.learning_rate=1e-4", "compare=[mi, finetune]",
                "negatives.lag=fixed", "student.lora=null", "dataset.validation_split=", "student.new.hidden=64"],
    )  # fmt: skip
    assert (after.rounds.rounds, after.method.scheme, after.optimisation.learning_rate) == (7, "mean", 1e-4)
    assert (after.compare, after.negatives.lag, after.student.lora) == (("mi", "finetune"), "fixed", None)
    assert after.student.new is not None
    assert after.student.new.hidden == 64
    assert after.rounds.epochs_per_round == before.rounds.epochs_per_round
    assert after.teacher == before.teacher
    assert load_config("lab") == before, "nothing is changed for the next"


def test_the_last_of_two_settings_counts_and_its_input_is_left_alone() -> None:
    content: dict[str, Any] = {"votes": {"n": 1}}
    assert with_settings(content, ["votes.n=2", "votes.n=3", " votes.seed =4"]) == {"votes": {"n": 3, "seed": 4}}
    assert content == {"votes": {"n": 1}}
    assert with_settings({}, ["a.b.c=[1, x]", "d=x=y"]) == {"a": {"b": {"c": [1, "x"]}}, "d": "x=y"}


@pytest.mark.parametrize("setting", ["rounds.rounds", "=3", "rounds..rounds=3", ".=1", ""])
def test_a_setting_has_a_key_and_a_value(setting: str) -> None:
    assert complaint(setting) == f"--set takes section.key=value, such as rounds.rounds=4; got {setting!r}."


def test_a_setting_that_is_no_yaml() -> None:
    assert complaint("compare=[dss").startswith("--set compare: '[dss' is no YAML value: ")


# ---- mistakes: the key, the value, what is allowed, the nearest ----

NAMES = (
    "answering, cascade, compare, compare_rounds, dataset, discriminator, drift, method, negatives, optimisation, own, "
    "registry, rounds, student, teacher, variants, votes"
)


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("negatives.lga=3", "Unknown key 'negatives.lga'. Did you mean 'lag'? Allowed there: batch_size, keep, "
                            "lag, max_tokens, temperature, top_k, top_p. `qcrd keys negatives` explains them."),
        ("optimization.seed=1", f"Unknown key 'optimization'. Did you mean 'optimisation'? Allowed there: {NAMES}. "
                                "`qcrd keys` explains them."),
        ("xyz=1", f"Unknown key 'xyz'. Allowed there: {NAMES}. `qcrd keys` explains them."),
        ("student.new.hiden=3", "Unknown key 'student.new.hiden'. Did you mean 'hidden'? Allowed there: activation, "
                                "architecture, heads, hidden, intermediate, layers, seed, vocab_size. "
                                "`qcrd keys student.new` explains them."),
        ("votes.positive=gold", "Unknown key 'votes.positive'. Did you mean 'positives'? Allowed there: "
                                "check_arithmetic, n, positives, seed. `qcrd keys votes` explains them."),
        ("method.scheme=minmax", "method.scheme: 'minmax' is not allowed. Did you mean 'min-max'? Allowed: 'min-max', "
                                 "'max-min', 'mean', 'sample' or 'weighted-mean'."),
        ("compare=[dds]", "compare.0: 'dds' is not allowed. Did you mean 'dss'? Allowed: 'finetune', 'label-distill', "
                          "'single-task', 'dss', 'mi' or 'qcrd'."),
        ("negatives.lag=fixd", "negatives.lag: 'fixd' is not allowed. Did you mean 'fixed'? Allowed: a valid integer, "
                               "'fixed' or 'none'."),
        ("negatives.lag=0", "negatives.lag: 0 is not allowed. Allowed: a number greater than or equal to 1, 'fixed' or "
                            "'none'."),
        ("rounds=3", "rounds is a section, with keys of its own (answer_tokens, epochs_per_round, evaluation_batch, "
                     "explain_validation, keep, nodes, nodes_on, patience, processes, rendezvous, rounds, "
                     "threads), not 3."),
        ("optimisation.learning_rate=0", "optimisation.learning_rate: Input should be greater than 0, not 0."),
        ("rounds.rounds=many", "rounds.rounds: Input should be a valid integer, unable to parse string as an integer, "
                               "not 'many'."),
        ("student.dtype=fp16", "student.dtype: T5 overflows to NaN in float16; use 'bfloat16' or 'float32', not "
                               "'fp16'."),
        ("optimisation.precision=half", "optimisation.precision: T5 overflows to NaN in float16; use bfloat16 or "
                                        "float32, not 'half'."),
        ("compare=[qcrd]", "the configuration: `compare` names methods beside qcrd, each once."),
        ("compare=[dss, dss]", "the configuration: `compare` names methods beside qcrd, each once."),
        ("teacher.files=[{answers: recorded}]", "teacher.files.0.path is missing."),
        ("dataset.folds=1", "dataset.folds: Input should be greater than or equal to 2, not 1."),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(setting: str, text: str) -> None:
    assert complaint(setting) == f"lab: {text}"


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("method.labels=teacher", "method.labels=teacher"),
        ("method.name=label-distill", "label-distill"),
        ("compare=[label-distill]", "label-distill"),
    ],
)
def test_a_teacher_gives_no_equations(setting: str, named: str) -> None:
    assert complaint("dataset.name=svamp-equation", "compare=[]", setting) == (
        "lab: the configuration: svamp-equation trains the gold equation, and a teacher's majority answer comes with "
        f"none: leave {named} out, or take dataset.name=svamp."
    )
    assert load_config("lab", ["dataset.name=svamp", "compare=[]", setting]).dataset.name == "svamp"


def test_several_mistakes_are_told_at_once() -> None:
    text = complaint("method.name=qrcd", "method.bta=1", "rounds.keep=0")
    assert "method.name: 'qrcd' is not allowed. Did you mean 'qcrd'?" in text
    assert "Unknown key 'method.bta'. Did you mean 'beta'?" in text
    assert "rounds.keep: Input should be greater than or equal to 1, not 0." in text


def test_missing_sections_are_named() -> None:
    with pytest.raises(UsageError) as caught:
        checked({})
    assert str(caught.value) == "dataset is missing. teacher is missing. student is missing."


def test_an_unknown_configuration_is_named_with_the_nearest() -> None:
    with pytest.raises(UnknownName) as caught:
        load_config("labb")
    text = str(caught.value)
    assert text.startswith("Unknown configuration 'labb'. Did you mean 'lab'? Allowed: ")
    assert text.endswith("Or the path of your own, ending in .yaml.")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "cannot be read: No such file or directory. Shipped: "),
        ("a: [", "is no YAML: "),
        ("- a list", "must be a mapping of sections (dataset, teacher, variants, votes, "),
        ("", "must be a mapping of sections ("),
        (b"\xff\xfe\x00", "is no YAML: "),
    ],
)
def test_a_file_that_is_no_configuration_is_named(tmp_path: Path, content: str | bytes | None, text: str) -> None:
    file = tmp_path / "mine.yml"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BadFile) as caught:
        load_config(str(file))
    assert str(caught.value).startswith(f"{file} {text}")
    assert "\n" not in str(caught.value)


# ---- what becomes of it ----


def test_methods_that_are_compared_share_the_weights_and_are_else_as_published() -> None:
    config = load_config(
        "lab", ["method.label_weight=0.3", "method.discriminator=false", "method.refresh_every=2",
                "method.targets=answer-first", "method.wrong_weight=0.1", "method.labels=teacher",
                "compare=[dss, finetune]"]
    )  # fmt: skip
    first, dss, finetune = config.methods()
    assert (first.name, first.discriminator, first.refresh_every) == ("qcrd", False, 2)
    assert dss == MethodConfig(name="dss", label_weight=0.3, labels="teacher")
    assert finetune == MethodConfig(name="finetune", label_weight=0.3, labels="teacher")


def test_a_training_is_what_the_configuration_says(tmp_path: Path) -> None:
    config = load_config("lab")
    first, second = (config.training(method, tmp_path) for method in config.methods()[:2])
    assert first.student.tokenizer == str(lab_folder(tmp_path)), "the lab's own, where it lies"
    assert first.model_copy(update={"method": second.method}) == second
    assert first.rounds == config.rounds
    fewer = load_config("lab", ["compare_rounds=2"])
    assert [fewer.training(method, tmp_path).rounds.rounds for method in fewer.methods()] == [4, 2]
    assert training_id(first, "data", "validation") != training_id(second, "data", "validation")
    assert training_id(first, "data", "validation") == training_id(
        config.training(config.method, tmp_path), "data", "validation"
    )


@pytest.mark.parametrize(
    ("setting", "changed"),
    [
        ("discriminator.hidden=7", {"qcrd"}),
        ("negatives.lag=2", {"qcrd"}),
        ("method.beta=0.3", {"qcrd"}),
        ("method.scheme=mean", {"qcrd"}),
        ("method.mi_weight=0.3", {"mi"}),
        ("method.rationale_weight=0.3", {"qcrd", "mi", "dss"}),
        ("method.labels=teacher", {"qcrd", "mi", "dss", "finetune"}),
        ("optimisation.learning_rate=0.3", {"qcrd", "mi", "dss", "finetune", "label-distill"}),
        ("rounds.evaluation_batch=7", set()),
        ("negatives.batch_size=7", set()),
    ],
)
def test_a_setting_makes_another_training_of_those_methods_that_use_it(
    setting: str, changed: set[str], tmp_path: Path
) -> None:
    def ids(settings: list[str]) -> dict[str, str]:
        config = load_config("lab", ["compare=[dss, mi, finetune, label-distill]", *settings])
        return {
            method.name: training_id(config.training(method, tmp_path), "data", "validation")
            for method in config.methods()
        }

    before, after = ids([]), ids([setting])
    assert {name for name in before if before[name] != after[name]} == changed


def test_where_a_models_folder_lies_makes_no_other_training(tmp_path: Path) -> None:
    def identity(folder: Path, content: str) -> str:
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(content, encoding="utf-8")
        config = load_config("lab", [f"student.tokenizer={folder}"])
        return training_id(config.training(config.method, tmp_path), "data", "validation")

    here = identity(tmp_path / "here", "{}")
    assert identity(tmp_path / "there", "{}") == here
    assert identity(tmp_path / "elsewhere", '{"other": 1}') != here


# ---- passwords ----


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("teacher.url=http://me:sk-Planted7@host/v1",  # pragma: allowlist secret
         "teacher.url: it must hold no user name, password or query; a key belongs in QCRD_TEACHER_API_KEY."),
        ("teacher.url=https://host/v1?key=sk-Planted7", "teacher.url: it must hold no user name, password or query; a "
         "key belongs in QCRD_TEACHER_API_KEY."),
        ("teacher.url=http://[sk-Planted7", "teacher.url: its host must be a name or address, and its port a number "
         "from 0 to 65535."),
        ("teacher.key_secret=sk-Planted7", "teacher.key_secret: it is the name of a Prefect Secret block (small "
         "letters, digits and -), not the key itself."),
        ("teacher.server_args=[--api-key, sk-Planted7]", "teacher.server_args: vLLM's argument --api-key is not "
         "allowed: arguments are stored and shown, and our own server needs no key."),
        ("teacher.server_args=[--api_key=sk-Planted7]", "teacher.server_args: vLLM's argument --api-key is not "
         "allowed: arguments are stored and shown, and our own server needs no key."),
        ("teacher.server_args=[--trust]", "teacher.server_args: vLLM's argument --trust-remote-code is not allowed: no "
         "code of a model repository is run."),
        ("teacher.key=sk-Planted7", "Unknown key 'teacher.key'."),
    ],
)  # fmt: skip
def test_a_key_in_the_wrong_place_is_refused_and_not_repeated(setting: str, line: str) -> None:
    text = complaint(setting)
    assert line in text
    assert "Planted7" not in text


def test_a_key_in_the_wrong_place_is_not_repeated_by_pydantic_either() -> None:
    """Prefect checks a flow's parameters itself, and shows what pydantic says."""
    content = load_config("lab").model_dump() | {"teacher": {"model": "m", "url": "http://me:sk-Planted7@host/v1"}}
    with pytest.raises(ValidationError, match="no user name, password or query") as error:
        DistillConfig.model_validate(content)
    assert "Planted7" not in str(error.value)


def test_a_secret_block_belongs_to_an_endpoint() -> None:
    assert "`key_secret` belongs to `url`" in complaint("teacher.key_secret=my-key")
    config = load_config("lab", ["teacher.url=https://host/v1/", "teacher.key_secret=my-key"])
    assert (config.teacher.url, config.teacher.key_secret) == ("https://host/v1", "my-key")
