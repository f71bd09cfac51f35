"""RunState: everything that must survive a crash, registered by name, as plain data that loads without pickle."""

from __future__ import annotations

import hashlib
import random
import warnings
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch

from visrep.errors import UserError

Capture: TypeAlias = Callable[[], Any]
Restore: TypeAlias = Callable[[Any], Any]

_INT64 = 2**63


@runtime_checkable
class Stateful(Protocol):
    """What torch modules, optimisers, samplers, counters and the like offer."""

    def state_dict(self) -> Any:
        """The state, from plain values, tensors and arrays."""
        ...

    def load_state_dict(self, state_dict: Any) -> Any:
        """Take the state back."""
        ...


class RunState:
    """Named parts of a run. ``capture`` gives one dict for the checkpoint; ``restore`` puts it back into the parts.

    The global random generators of Python, NumPy and torch are parts from the start.
    """

    def __init__(self) -> None:
        self._parts: dict[str, tuple[Capture, Restore]] = {}
        self.register("global_random", (_capture_global_random, _restore_global_random))

    @property
    def names(self) -> tuple[str, ...]:
        """Registered names, in order."""
        return tuple(self._parts)

    def register(
        self, name: str, part: Stateful | torch.Generator | np.random.Generator | tuple[Capture, Restore]
    ) -> None:
        """Add a part: a generator, a pair of callables (capture, restore), or anything with a state dict.

        Raises:
            ValueError: the name is taken.
            TypeError: the part is none of these.
        """
        if name in self._parts:
            raise ValueError(f"state {name!r} is registered twice")
        self._parts[name] = _callables(name, part)

    def capture(self) -> dict[str, Any]:
        """The state of every part, loadable by ``torch.load(weights_only=True)``.

        Tensors are those of the running parts, not copies: write them to disk before the next update.
        """
        return {name: _encode(capture(), name) for name, (capture, _) in self._parts.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Put a captured state back.

        Raises:
            UserError: names are missing or unknown, or a part does not take its state (another architecture).
        """
        missing, unknown = sorted(set(self._parts) - set(state)), sorted(set(state) - set(self._parts))
        if missing or unknown:
            complaints = [f"it lacks {', '.join(missing)}"] if missing else []
            complaints += [f"this run has no {', '.join(unknown)}"] if unknown else []
            raise UserError(
                f"the checkpoint belongs to a run that is put together differently: {'; '.join(complaints)}. "
                "Continue it with the configuration and version that wrote it, or choose another run_dir"
            )
        for name, (_, restore) in self._parts.items():
            try:
                restore(_decode(state[name]))
            except UserError:
                raise
            except (RuntimeError, ValueError, KeyError, TypeError) as error:
                reason = "\n".join(str(error).splitlines()[:5])
                raise UserError(
                    f"the checkpoint's {name!r} does not fit this run (written by another architecture or version?): "
                    f"{type(error).__name__}: {reason}"
                ) from error


def _callables(name: str, part: Any) -> tuple[Capture, Restore]:
    if isinstance(part, torch.Generator):
        return part.get_state, lambda state: _restore_generator(part, state)
    if isinstance(part, np.random.Generator):
        bits = part.bit_generator
        return lambda: bits.state, lambda state: setattr(bits, "state", state)
    if isinstance(part, tuple) and len(part) == 2 and all(map(callable, part)):
        return part
    if isinstance(part, Stateful):
        return part.state_dict, part.load_state_dict
    raise TypeError(
        f"state {name!r}: a {type(part).__name__} is neither a generator, nor a pair of callables, nor has a state_dict"
    )


# -- random generators ------------------------------------------------------------------------------------------------


def _restore_generator(generator: torch.Generator, state: torch.Tensor) -> None:
    if state.numel() == generator.get_state().numel():
        generator.set_state(state)
        return
    # A run that moves between CPU and CUDA cannot go on bit for bit; it goes on with a stream that its past decides.
    warnings.warn(
        f"the random stream was saved on another kind of device; reseeding it on {generator.device}", stacklevel=2
    )
    digest = hashlib.sha256(bytes(state.tolist())).digest()
    generator.manual_seed(int.from_bytes(digest[:7], "little"))


def seed_globals(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators.

    Networks draw their first weights from torch's; the other two are for environments and extensions that use them.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _capture_global_random() -> dict[str, Any]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),
        "torch": torch.get_rng_state(),
        "cuda": cuda,
    }


def _restore_global_random(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_initialized() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


# -- plain data -------------------------------------------------------------------------------------------------------
# weights_only loading knows tensors, dicts, lists, tuples, strings and numbers up to 64 bits; the rest gets a tag.

_ARRAY, _INTEGER = "__ndarray__", "__integer__"


def _encode(value: Any, where: str) -> Any:
    if isinstance(value, np.ndarray):
        flat = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
        return {_ARRAY: torch.from_numpy(flat.copy()), "dtype": value.dtype.str, "shape": list(value.shape)}
    if isinstance(value, np.generic):
        return _encode(value.item(), where)
    if isinstance(value, int) and not isinstance(value, bool) and not -_INT64 <= value < _INT64:
        return {_INTEGER: str(value)}
    if isinstance(value, dict):
        return {key: _encode(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_encode(item, f"{where}[{i}]") for i, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    if value is None or isinstance(value, bool | int | float | str | torch.Tensor):
        return value.detach() if isinstance(value, torch.Tensor) else value
    raise TypeError(f"state {where}: a {type(value).__name__} cannot be saved as plain data")


def _decode(value: Any) -> Any:
    if isinstance(value, dict):
        if _ARRAY in value:
            return value[_ARRAY].numpy().view(np.dtype(value["dtype"])).reshape(value["shape"]).copy()
        if _INTEGER in value:
            return int(value[_INTEGER])
        return {key: _decode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_decode(item) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    return value
