"""What `pyproject.toml` cannot say: `configs` travels in the package, as `rainmer.configs`."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["rainmer*", "detection*", "eval*"]), "rainmer.configs"],
    package_dir={"rainmer.configs": "configs"},
)
