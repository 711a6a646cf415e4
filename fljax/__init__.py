"""fljax: fast simulation of cross-device federated learning in JAX.

Submodules are imported when they are first used, so that `import fljax` itself is quick and
asks for nothing but the standard library.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_SUBMODULES = (
    "algorithms",
    "compression",
    "config",
    "data",
    "engine",
    "models",
    "privacy",
    "recording",
    "reports",
    "studies",
    "tasks",
)
# Functions that are reachable at the top level, and the modules that define them.
_FUNCTIONS = {
    "ask": "training.analytics",
    "default_config": "config",
    "export_model": "export.model",
    "initialize_distributed": "engine.devices.distributed",
    "StopTraining": "training.stopping",
    "load_config": "config",
    "load_model": "recording",
    "load_run": "recording",
    "predictor": "config.prediction",
    "run_config": "config.experiment",
    "simulate": "training.simulation",
    "sweep": "studies",
    "use_all_cores": "engine.devices.execution",
    "use_compilation_cache": "engine.devices.compilation",
}

__all__ = ["__version__", *_SUBMODULES, *_FUNCTIONS]


def __getattr__(name: str) -> Any:
    """Imports a public submodule or function on first use (PEP 562)."""
    if name in _SUBMODULES:
        return import_module(f"{__name__}.{name}")
    if name in _FUNCTIONS:
        value = getattr(import_module(f"{__name__}.{_FUNCTIONS[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
