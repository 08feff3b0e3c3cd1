"""String options are taken as they stand; the rest of a command line stays Hydra's."""

import shlex

import pytest
from harness.commands import compose_raw
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from lediflow.config.composition.explanations import explain_unreadable
from lediflow.config.composition.literal import (
    QUOTED,
    literal_arguments,
    override_value,
    split,
    without_references,
)
from lediflow.config.composition.schema import (
    EvaluateCommand,
    PrepareCommand,
    SampleCommand,
    SubmitCommand,
    TrainCommand,
)
from lediflow.errors import UserError

ODD = [
    "/data/ü日", "a#b", "[x]", "(p)", "a b", " a ", "~", "~/x", "$HOME/x", "a:b", ":", "{}", "{a:b}", "'x", "a'b'",
    '"q', "a\\b", "a\\", "\\\\x", "!", "%", "2024_05_03", "1e3", "true", "on", "007", "1_000", "0x10", "1.50", "a,b",
    "runs/a,train.images=5", "x=y", "choice(a,b)", "str(5)", "it's", "`x`", "[a", "-", "--x", "a\tb", "*", "./null",
    "a\\'b", "\\", "a;b|c&d", "null/x",
]  # fmt: skip


def written(*arguments, schema=TrainCommand):
    return literal_arguments(arguments, [schema])


def read(argument):
    """What Hydra and OmegaConf make of an argument."""
    return OmegaConf.create({"value": OverridesParser.create().parse_override(argument).value()}).value


@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize(
    ("schema", "key"),
    [
        (TrainCommand, "run"),
        (TrainCommand, "parent"),
        (TrainCommand, "data.reading.cache"),
        (PrepareCommand, "source"),
    ],
    ids=["run", "parent", "cache", "source"],
)
def test_a_string_option_is_taken_literally(schema, key, value):
    (argument,) = written(f"{key}={value}", schema=schema)
    assert str(read(argument)) == value


def test_it_arrives_so_in_the_command():
    odd = ["run=2024_05_03", "sampler=[x] (ü)", "output=1e3", "codec_path=a,b=c"]
    config = compose_raw("sample", *written(*odd, schema=SampleCommand))
    assert [config.run, config.sampler, config.output, config.codec_path] == [
        item.partition("=")[2] for item in odd
    ]


def test_values_that_hydra_reads_literally_are_not_quoted():
    plain = ["run=runs/demo/flow-learned-seed0", "stage=flow", "seed=0", "--cfg", "job", "~parent", "+stage.x=5",
             "train.ema.sigma_rels=[0.05]", "experiment=demo", "hydra/launcher=submitit_slurm"]  # fmt: skip
    assert written(*plain) == plain


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("run='a b'", "a b"),
        ('run="a b"', "a b"),
        (r"run='it\'s'", "it's"),
        ("parent=null", None),
        ("run=null", "null"),
    ],
)
def test_quotes_and_null_keep_their_meaning(argument, value):
    assert read(*written(argument)) == value


def test_references_to_other_options_keep_working(monkeypatch):
    monkeypatch.setenv("PLACE", "there")
    given = ["run=${paths.runs}/x (1)", "data.path=${oc.env:PLACE,a}/shards", r"name=\${x}"]
    config = compose_raw("train", *written(*given))
    assert (config.run, config.data.path, config.name) == ("runs/x (1)", "there/shards", "${x}")


@pytest.mark.parametrize("text", ["${x}", r"\${x}", r"a\\${", "$HOME", "a\\b", "it's", "{x}", "x\\"])
def test_a_generated_override_has_exactly_the_given_value(text):
    assert read(f"run={override_value(text)}") == text
    assert OmegaConf.create({"value": without_references(text)}).value == text


@pytest.mark.parametrize(
    ("argument", "values"),
    [
        ("parent=a,b", ["a", "b"]),
        ("parent=runs/ü, x y", ["runs/ü", "x y"]),
        ("name=007,1_000", ["007", "1_000"]),
        ("name='a,b',c", ["a,b", "c"]),
        ("name=choice(007,ü)", ["007", "ü"]),
        ("run=${oc.env:X,y},b", ["${oc.env:X,y}", "b"]),
        ("seed=0,1,2", ["0", "1", "2"]),
        ("stage=flow,auxiliary", ["flow", "auxiliary"]),
        ("seed=range(0,2)", ["0", "1"]),
    ],
)
def test_a_sweep_over_strings_takes_them_literally(argument, values):
    _, argument = written("-m", argument)
    sweep = OverridesParser.create().parse_override(argument)
    jobs = [OverridesParser.create().parse_override(f"x={value}") for value in sweep.sweep_string_iterator()]
    assert [str(job.value()) for job in jobs] == values


def test_an_existing_name_with_a_comma_is_not_a_sweep(tmp_path):
    old = tmp_path / "flow-learned-seed0,train.images=5"
    old.mkdir()
    assert read(written("-m", f"parent={old}")[1]) == str(old)


def test_an_ambiguous_name_is_refused_with_the_candidates():
    with pytest.raises(UserError, match="nothing has this whole name") as refused:
        written("-m", "parent=runs/a,train.images=5")
    one = shlex.split(str(refused.value).partition("For one name write ")[2])[0].rstrip(",")
    assert read(one) == "runs/a,train.images=5"


def test_lists_and_mappings_of_strings_are_taken_literally():
    given = ["results=[/ü/a,b c]", "runs={A:[x,train.images=5],B:[007]}", "step_counts=[1,2]"]
    config = compose_raw("evaluate", *written(*given, schema=EvaluateCommand))
    assert config.results == ["/ü/a", "b c"]
    assert config.runs == {"A": ["x", "train.images=5"], "B": ["007"]}
    assert config.step_counts == [1, 2]


def test_options_of_slurm_are_strings_too():
    arguments = written(
        "slurm.account=1e3", "+slurm.environment.A=007", "slurm.nodes=2", schema=SubmitCommand
    )
    assert [read(item) for item in arguments[::2]] == ["1e3", 2]
    assert compose_raw("submit", *arguments).slurm.environment.A == "007"


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("=3", "no option"),
        ("run=a\nb", "line break"),
        ("run=a\n", "line break"),
        ("run=a\udcff", "not UTF-8"),
    ],
)
def test_values_that_no_option_can_have_are_refused(argument, words):
    with pytest.raises(UserError, match=words):
        written(argument)


def test_an_invalid_command_line_is_refused_with_a_valid_one():
    answer = explain_unreadable("hydra.x=a b (c")
    assert read(shlex.split(answer.rpartition(": ")[2])[0]) == "a b (c"
    answer = explain_unreadable("labels=[{a b")
    assert read(shlex.split(answer.rpartition("as in ")[2])[0]) == ["a b", "c"]


def test_parts_end_at_commas_outside_of_quotes_and_brackets():
    assert split("a,'b,c',[d,e],${f:g,h},i'j,k") == ["a", "'b,c'", "[d,e]", "${f:g,h}", "i'j", "k"]
    assert QUOTED.fullmatch(r"'a\'b'") and not QUOTED.fullmatch("'a'b'")
