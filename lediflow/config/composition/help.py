"""The page that `--help` prints: what a command does, examples, and its options with the values of this command line.

The text is `hydra.help` of the command's file in conf/. Hydra's own `--help` lists all groups of conf/, which takes
seconds, whether the page shows them or not.
"""

from __future__ import annotations

from collections.abc import Iterable
from string import Template

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict

from lediflow.config.composition.compose import conf_folder

FLAGS = ("--help", "-h")


def help_page(config_name: str, arguments: Iterable[str]) -> str:
    """The page of a command; `arguments` are those of the command line, whose flags and their values are left out."""
    overrides = get_args_parser().parse_known_args([*arguments])[0].overrides
    with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = hydra.compose(config_name, overrides, return_hydra_config=True)
    HydraConfig.instance().set_config(config)  # the text may refer to it
    text = config.hydra.help.template
    with open_dict(config):
        del config["hydra"]
    return Template(text).substitute(CONFIG=OmegaConf.to_yaml(config)).rstrip()
