"""What `pyproject.toml` cannot say: `configs` travels in the package, as `rainmer.configs`."""

from setuptools import find_namespace_packages, setup

configs = ["rainmer.configs", *(f"rainmer.configs.{n}" for n in find_namespace_packages("configs"))]
setup(
    packages=[*find_namespace_packages(include=["rainmer*", "detection*", "eval*"]), *configs],
    package_dir={"rainmer.configs": "configs"},
)
