"""Removes tokens and passwords from texts before they are sent to a dashboard or shown on a page.

A secret is recognised by its place (the credentials of a URL, a value after a name such as `token` or `api_key`), by
the form that its service gives it (`hf_...`, `ghp_...`), or because it is the value of an environment variable with
such a name. What cannot be distinguished from other text, such as a bare word in a comment, stays.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"
WORKING_FOLDER = "PWD"  # every shell sets it
SHORTEST = 8  # characters; shorter values of environment variables are too likely to occur in other text

NAME = (
    r"(?:[A-Za-z0-9_.\-]*[_.\-])?"  # a prefix: WANDB_API_KEY, data.reading.token, --hub-token
    r"(?:api[_\-]?key|access[_\-]?key(?:[_\-]?id)?|secret(?:[_\-]?(?:access[_\-]?)?key)?|private[_\-]?key"
    r"|token|auth[_\-]?token|password|passwd|passphrase|credentials?)"
)
SECRET_NAME = re.compile(rf"(?i){NAME}")
CREDENTIALS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*://)[^/\s@'\"]+@")
QUERY = re.compile(
    r"(?i)(?P<name>[?&](?:[a-z0-9_\-]*(?:token|key|secret|signature|password|credential)|sig|auth)=)[^&\s'\"#]+"
)
ASSIGNED = re.compile(
    rf"(?i)(?P<name>(?<![A-Za-z0-9]){NAME}[\"']?\s*[=:]\s*)"
    r"(?:(?P<quote>[\"'])[^\"']+(?P=quote)|[^\s\"',;&}\]]+)"
)
FLAG = re.compile(rf"(?i)(?P<name>(?<!\S)--?{NAME}[\"',]*\s+[\"']?)[^\s\"',\-][^\s\"',]*")
HEADER = re.compile(r"(?i)\b(?P<name>(?:bearer|basic)\s+)[A-Za-z0-9._~+/\-]{8,}=*")
FORMS = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|gh[opusr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_\-]{16,}"
    r"|wandb_v\d_[A-Za-z0-9_\-]{16,}|sk-[A-Za-z0-9_\-]{20,}|xox[abprs]-[A-Za-z0-9\-]{10,}|(?:AKIA|ASIA)[A-Z0-9]{16}"
    r"|eyJ[A-Za-z0-9_\-]{10,}\.[A-Za-z0-9_\-]{10,}\.[A-Za-z0-9_\-]*)"
)


def without_secrets(value: Any, env: Mapping[str, str] = os.environ) -> Any:
    """The value with every secret replaced by `***`: a text, or lists and dicts with texts at any depth.

    In a dict, a text under a name such as `token` is a secret. Numbers and other objects are returned as they are.
    """
    return _cleaned(value, secret_values(env))


def secret_values(env: Mapping[str, str]) -> list[str]:
    """Values of environment variables whose names say that they are secret, the longest first."""
    named = {
        name: value for name, value in env.items() if SECRET_NAME.fullmatch(name) and name != WORKING_FOLDER
    }
    found = {value for value in named.values() if len(value) >= SHORTEST}
    return sorted(found, key=len, reverse=True)


def _cleaned(value: Any, known: list[str]) -> Any:
    if isinstance(value, str):
        return clean_text(value, known)
    if isinstance(value, Mapping):
        return {key: _cleaned_entry(key, item, known) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return _cleaned_list(value, known)
    return value


def _cleaned_entry(key: Any, item: Any, known: list[str]) -> Any:
    is_secret = isinstance(item, str) and item and isinstance(key, str) and SECRET_NAME.fullmatch(key)
    return HIDDEN if is_secret else _cleaned(item, known)


def _cleaned_list(items: list[Any] | tuple[Any, ...], known: list[str]) -> list[Any]:
    """A list of arguments, too: the one after `--token` is a secret."""
    found: list[Any] = []
    for place, item in enumerate(items):
        flag = items[place - 1] if place else None
        is_flag = isinstance(flag, str) and flag.startswith("-") and SECRET_NAME.fullmatch(flag.lstrip("-"))
        is_secret = is_flag and isinstance(item, str)
        found.append(HIDDEN if is_secret else _cleaned(item, known))
    return found


def clean_text(text: str, known: list[str]) -> str:
    """One text without secrets; `known` are values to remove wherever they stand."""
    for value in known:
        text = text.replace(value, HIDDEN)
    text = CREDENTIALS.sub(rf"\g<scheme>{HIDDEN}@", text)
    for pattern in (QUERY, FLAG, HEADER):
        text = pattern.sub(rf"\g<name>{HIDDEN}", text)
    text = ASSIGNED.sub(_without_value, text)
    return FORMS.sub(HIDDEN, text)


def _without_value(assigned: re.Match[str]) -> str:
    """An assignment with its value hidden, in the quotes that it had."""
    quote = assigned["quote"] or ""
    return f"{assigned['name']}{quote}{HIDDEN}{quote}"
