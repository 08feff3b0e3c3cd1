"""Tokens and passwords disappear from texts, and nothing else does."""

import pytest

from lediflow.tracking.secrets import without_secrets

KEY = "0123456789abcdef0123456789abcdef01234567"

HIDDEN = {
    "git URL with a token": f"https://oauth2:{KEY}@git.example.org/group/project.git",
    "git URL with a bare token": f"https://{KEY}@github.com/group/project.git",
    "password of a store": "s3://user:correct-horse@store.example.org/shards",
    "query of a URL": f"https://data.example.org/shards?token={KEY}&part=3",
    "signed URL": f"https://data.example.org/a.tar?X-Amz-Signature={KEY}",
    "assignment": f"WANDB_API_KEY={KEY} python -m lediflow.train",
    "quoted assignment": f"hub_token='{KEY}'",
    "option": f"python -m lediflow.train data.reading.token={KEY} seed=0",
    "flag": f"python -m lediflow.sync RUN --api-key {KEY}",
    "flag with an equals sign": f"python -m lediflow.sync RUN --api-key={KEY}",
    "JSON": f'{{"secret_access_key": "{KEY}"}}',
    "quoted words": "password: 'correct-horse battery' seed=0",
    "header": f"Authorization: Bearer {KEY}",
    "token by its form": "hub hf_abcdefghijklmnopqrstuv",
    "list of arguments": ["train", "--token", KEY],
    "entry of options": {"data": {"password": KEY}},
}


@pytest.mark.parametrize("value", HIDDEN.values(), ids=HIDDEN)
def test_a_secret_is_replaced(value):
    cleaned = str(without_secrets(value, {}))
    for secret in (KEY, "correct-horse", "hf_abcdefghijklmnopqrstuv"):
        assert secret not in cleaned
    assert "***" in cleaned


def test_the_value_of_a_secret_environment_variable_is_removed_wherever_it_stands():
    env = {"WANDB_API_KEY": KEY, "HF_TOKEN": "short", "HOME": "/home/someone"}
    assert without_secrets([f"seen {KEY} in /home/someone", "short"], env) == [
        "seen *** in /home/someone",
        "short",
    ]


def test_paths_and_other_values_of_the_environment_stay():
    env = {
        "PWD": "/home/someone/project",
        "OLDPWD": "/home/someone",
        "USER": "someone-here",
        "TOKENIZERS": "parallel",
    }
    text = "/home/someone/project/runs/flow of someone-here, parallel"
    assert without_secrets(text, env) == text


def test_the_rest_of_a_text_stays():
    text = f"https://user:pass-word@host.example.org/a.git token={KEY} seed=0"
    assert without_secrets(text, {}) == "https://***@host.example.org/a.git token=*** seed=0"


PLAIN = [
    "python -m lediflow.train experiment=smoke stage=flow run=runs/flow parent=runs/aux seed=0",
    "the keys are 16x16 tokens: 4 heads",
    f"commit {KEY}",
    "key=mask.png anonymise",
    "git@github.com:group/project.git",
    "https://github.com/group/project.git",
    {"num_tokens": 64, "seed": 0, "tokens": "16x16", "keys": ["a", "b"], "token": None},
    [1, 2.5, None, True],
]


@pytest.mark.parametrize("value", PLAIN, ids=str)
def test_ordinary_texts_and_options_are_unchanged(value):
    assert without_secrets(value, {"USER": "someone-here"}) == value
