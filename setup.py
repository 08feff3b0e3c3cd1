"""Everything is in pyproject.toml; here only: a wheel carries conf/ inside the package."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConf(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            shutil.copytree("conf", Path(self.build_lib) / "lediflow" / "conf", dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithConf})
