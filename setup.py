"""What ``pyproject.toml`` cannot say: the folder ``plugins`` is the package ``semcodec_plugins``, with all inside."""

from setuptools import find_packages, setup

METHODS = ["semcodec_plugins", *(f"semcodec_plugins.{name}" for name in find_packages("plugins"))]
setup(packages=[*find_packages(include=["semcodec", "semcodec.*"]), *METHODS])
