"""visrep: see first, act later. Pre-train visual representations without reward, then learn tasks with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visrep.envs.make import make_env
    from visrep.network_files import load_encoder, save_encoder

__version__ = "0.1.0"
__all__ = ["load_encoder", "make_env", "save_encoder"]

_HOMES = {
    "load_encoder": "visrep.network_files",
    "save_encoder": "visrep.network_files",
    "make_env": "visrep.envs.make",
}


def __getattr__(name: str) -> Any:
    # Lazy, so that load_encoder needs torch and safetensors only.
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'visrep' has no attribute {name!r}")
