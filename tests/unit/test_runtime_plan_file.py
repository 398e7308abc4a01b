import re
import tomllib
from fractions import Fraction
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import FieldInfo, fields

from protocol.plan import Model, Plan, Training, plan_hash
from runtime.plan_file import PlanError, load_plan
from runtime.tables import is_table

EXAMPLE = Path(__file__).parents[2] / "plan.toml"
SMALLEST = '[model]\ncatalog = "mlp"\n'


def plan_of(folder: Path, text: str) -> Plan:
    file = folder / "plan.toml"
    file.write_text(text)
    return load_plan(file)


def mistakes(folder: Path, text: str) -> str:
    with pytest.raises(PlanError) as caught:
        plan_of(folder, text)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{folder / 'plan.toml'}: ") for line in lines)
    return "\n".join(line.removeprefix(f"{folder / 'plan.toml'}: ") for line in lines)


def test_a_plan_needs_only_a_model(tmp_path: Path) -> None:
    assert plan_of(tmp_path, SMALLEST) == Plan(model=Model(catalog="mlp"))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "[training]\nlocal_epochs = 0",
            "training.local_epochs is 0; write a whole number at least 1 and at most 1000 (default 2)",
        ),
        (
            "[training]\nlearning_rate = 'fast'",
            'training.learning_rate is "fast"; write a number above 0.0 (default 0.1)',
        ),
        (
            "[training]\nloss = 'hinge'",
            (
                'training.loss is "hinge"; write one of "bce", "cross_entropy", "huber", "l1", "mse" '
                '(default "cross_entropy")'
            ),
        ),
        (
            "[training]\nlocal_epoch = 1",
            "training.local_epoch is not a key; did you mean local_epochs?",
        ),
        ("[trainig]\n", "trainig is not a key; did you mean training?"),
        (
            "[selection.eligibility]\ncharging = 1",
            "selection.eligibility.charging is 1; write true or false (default false)",
        ),
        (
            "[selection]\ncount = 9\nfraction = 0.5",
            "selection.count is 9 and selection.fraction is 0.5; keep one of them",
        ),
        (
            "[selection]\ncount = 4",
            "selection.min_cohort is 5, above selection.count 4; lower it or raise count",
        ),
        (
            "[secure_aggregation]\nthreshold = 9",
            (
                "secure_aggregation.threshold is 9, but a member of a cohort of selection.min_cohort 5 has 4 "
                "neighbours; lower it to at most 4 or raise min_cohort"
            ),
        ),
        (
            "[secure_aggregation]\ncoordinate_limit = 99",
            (
                "secure_aggregation.coordinate_limit is 99.0, above clip 10.0, which no coordinate can "
                "exceed; lower it or leave it out"
            ),
        ),
        (
            "[secure_aggregation]\nsketch = 0.1",
            (
                "secure_aggregation.sketch is 0.1, but nothing is rotated at 32 bits without privacy; lower "
                "bits, to 16 for example, or leave sketch out"
            ),
        ),
        (
            "[secure_aggregation]\nbits = 16\ncoordinate_limit = 0.5",
            (
                "secure_aggregation.coordinate_limit is 0.5, but updates are rotated below 32 bits and with "
                "privacy, and have no coordinates to limit; leave it out"
            ),
        ),
        (
            "[privacy]\nmode = 'distributed'",
            ("privacy.target_epsilon is None and privacy.noise_multiplier is None; give exactly one of them"),
        ),
        (
            "[privacy]\ntarget_epsilon = 4.0",
            (
                'privacy.mode is "none", and the other keys of the table say how much; write '
                'mode = "distributed", or leave the table out'
            ),
        ),
        (
            (
                "[privacy]\nmode = 'central'\ntarget_epsilon = 4.0\n"
                "[privacy.adaptive_clipping]\nlearning_rate = 0.5"
            ),
            (
                "privacy.adaptive_clipping.quantile is missing, so the clip stays and the other keys do "
                "nothing; write quantile = 0.5, or leave the table out"
            ),
        ),
        (
            "[deadlines]\nmax_lifetime = 60",
            (
                "deadlines.max_lifetime is 60.0, but the phases may take 520.0 s together; raise it to at "
                "least that, or secrets are erased before they are needed"
            ),
        ),
        (
            "[training]\nloss = 'mse'",
            'stopping.metric is "accuracy", which training.loss "mse" does not have; write metric = "loss"',
        ),
        (
            "[stopping]\ntarget = 90",
            "stopping.target is 90.0; an accuracy is above 0 and at most 1: write 0.9 for 90 %",
        ),
    ],
)
def test_a_wrong_value_names_key_value_and_fix(tmp_path: Path, text: str, line: str) -> None:
    assert mistakes(tmp_path, f"{SMALLEST}\n{text}") == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 'model.catalog and model.onnx are missing; write one, for example catalog = "cnn1d"'),
        (
            "model = 3",
            (
                "model is 3; write a table with the keys catalog, parameters, onnx, output, frozen, private, "
                "lora"
            ),
        ),
        (
            "[model.parameters]\nclasses = 'six'",
            "model.parameters is {'classes': 'six'}; write a table, each value a whole number",
        ),
        (
            "[model]\ncatalog = 'mlp'\nonnx = 'plan.toml'",
            'model.catalog is "mlp" and model.onnx is "plan.toml"; keep one of them',
        ),
        (
            "[model]\nonnx = 'plan.toml'\nparameters = {classes = 7}",
            "model.parameters is {'classes': 7} but model.onnx has its sizes already; remove it",
        ),
    ],
)
def test_a_wrong_model_names_key_value_and_fix(tmp_path: Path, text: str, line: str) -> None:
    assert mistakes(tmp_path, text) == line


def test_an_onnx_file_is_looked_for_beside_the_plan(tmp_path: Path) -> None:
    assert "is not a file" in mistakes(tmp_path, "[model]\nonnx = 'mine.onnx'")
    (tmp_path / "mine.onnx").touch()
    assert plan_of(tmp_path, "[model]\nonnx = 'mine.onnx'").model.onnx == "mine.onnx"


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = f"{SMALLEST}\n[training]\nbatch_size = 0\n[stopping]\nrounds = -1\nsteps = 3"

    assert len(mistakes(tmp_path, text).splitlines()) == 3


def test_a_file_that_is_not_there_or_not_toml_says_so(tmp_path: Path) -> None:
    assert mistakes(tmp_path, "[model").startswith("is not TOML: ")
    with pytest.raises(PlanError, match="cannot be read \\(No such file or directory\\)"):
        load_plan(tmp_path / "none.toml")


# The commented example.


def tables_of(cls: type[msgspec.Struct], prefix: str = "") -> dict[str, FieldInfo]:
    found: dict[str, FieldInfo] = {}
    for one in fields(cls):
        key = f"{prefix}{one.name}"
        found |= tables_of(one.type, f"{key}.") if is_table(one.type) else {key: one}
    return found


def remarks_of(text: str) -> dict[str, str]:
    """Dotted key to its remark, from lines such as `# threshold = 0   # default: 0; raises …`."""
    found: dict[str, str] = {}
    table = ""
    for line in text.splitlines():
        if header := re.match(r"\[([a-z_.]+)\] *(?:# (.*))?", line):
            table = header[1]
            found[table] = header[2] or ""
        elif key := re.match(r"(?:# )?([a-z_]+) = [^#]+(?:# (.*))?$", line):
            found[f"{table}.{key[1]}"] = key[2] or ""
    return found


def default_in(remark: str) -> object:
    text = remark.removeprefix("default: ").split(";")[0].split(",")[0].strip()
    return float(Fraction(text)) if "/" in text else tomllib.loads(f"x = {text}")["x"]


def test_the_example_is_a_valid_plan() -> None:
    assert load_plan(EXAMPLE).model.catalog == "cnn1d"


@pytest.mark.parametrize(("key", "one"), tables_of(Plan).items())
def test_the_example_shows_every_key_with_its_true_default(key: str, one: FieldInfo) -> None:
    remark = remarks_of(EXAMPLE.read_text())[key]

    if one.default_factory is not msgspec.NODEFAULT:
        assert remark.startswith("default: empty")
    elif one.default is None:
        assert remark.startswith("no default: ")
    else:
        assert default_in(remark) == (list(one.default) if isinstance(one.default, tuple) else one.default)


def test_every_line_of_the_example_that_is_commented_out_is_valid_too(tmp_path: Path) -> None:
    text = re.sub(r"(?m)^# (?=[a-z_]+ = )", "", EXAMPLE.read_text())
    text = re.sub(r"(?m)^(onnx|output|fraction|coordinate_limit|noise_multiplier) = .*$", "", text)
    text = text.replace('mode = "none"', 'mode = "distributed"')

    assert plan_of(tmp_path, text).stopping.target == 0.95


# The name of a plan.


def test_the_hash_is_of_the_meaning_and_not_of_the_spelling(tmp_path: Path) -> None:
    short = plan_of(tmp_path, "[model]\ncatalog = 'mlp'\nparameters = {a = 1, b = 2}")
    long = plan_of(
        tmp_path,
        "training = {learning_rate = 0.1}\n[model]\ncatalog = 'mlp'\n[model.parameters]\nb = 2\na = 1",
    )

    assert plan_hash(short) == plan_hash(long)
    assert len(plan_hash(short)) == 32
    assert plan_hash(Plan(Model("mlp"), Training(proximal=1))) == plan_hash(
        Plan(Model("mlp"), Training(proximal=1.0))
    )


def test_the_hash_of_another_plan_is_another() -> None:
    assert plan_hash(Plan(Model("mlp"))) != plan_hash(Plan(Model("mlp"), Training(batch_size=17)))
