"""Loads use cases and trainers from a folder with one folder per use case."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from tailrace.errors import UseCaseError
from tailrace.usecase.declaration import UseCase
from tailrace.usecase.findings import nearest

MODULE = "usecase.py"


def use_case_names(path: Path) -> list[str]:
    """Names of the use cases below a folder: its folders that hold a `usecase.py`, sorted."""
    return sorted(file.parent.name for file in path.glob(f"*/{MODULE}") if not file.parent.name.startswith((".", "_")))


def load_use_case(path: Path, name: str) -> UseCase:
    """Loads `<path>/<name>/usecase.py` anew and returns the use case it declares.

    The module runs under a private name, so folders of different repositories never clash.

    Raises:
        UseCaseError: there is no such folder, the module does not run, or it does not declare
            exactly one use case, of its folder's name.
    """
    names = use_case_names(path)
    if name not in names:
        raise UseCaseError(name, [f"there is no {path / name / MODULE}{nearest(name, names)}"])
    module = _execute(path / name / MODULE, name)
    declared = list({id(value): value for value in vars(module).values() if isinstance(value, UseCase)}.values())
    if len(declared) != 1:
        found = ", ".join(repr(use_case.name) for use_case in declared) or "none"
        raise UseCaseError(name, [f"{path / name / MODULE} must declare exactly one tr.UseCase, it declares {found}"])
    if declared[0].name != name:
        raise UseCaseError(
            name, [f'name: {declared[0].name!r} differs from the folder; write name="{name}" or rename the folder']
        )
    return declared[0]


def load_trainer(path: Path, train: str) -> Callable[..., Any]:
    """Loads the function that `Binary(train="module:function")` names, `module` counted from `path`.

    Example:
        "card_fraud.train:fit" is the function `fit` in `<path>/card_fraud/train.py`.

    Raises:
        UseCaseError: the module or the function is not there, or the module does not run.
    """
    module_name, _, function = train.partition(":")
    file = path.joinpath(*module_name.split(".")).with_suffix(".py")
    use_case = module_name.split(".")[0]
    if not file.is_file():
        modules = [".".join(f.relative_to(path).with_suffix("").parts) for f in path.glob("*/*.py")]
        raise UseCaseError(use_case, [f"model.train: there is no {file}{nearest(module_name, modules)}"])
    found = getattr(_execute(file, use_case), function, None)
    if not callable(found):
        raise UseCaseError(use_case, [f"model.train: {file} defines no function {function!r}"])
    trainer: Callable[..., Any] = found
    return trainer


def load_stream(path: Path, name: str) -> Callable[[int, int], Any]:
    """Loads the function `tables(seed, days)` of `<path>/<name>/stream.py`: a synthetic stream of the use case.

    Raises:
        UseCaseError: there is none, or the module does not run.
    """
    file = path / name / "stream.py"
    if not file.is_file():
        raise UseCaseError(
            name, [f"there is no {file} with a synthetic stream; write one, or give recordings: --events, --outcomes"]
        )
    found = getattr(_execute(file, name), "tables", None)
    if not callable(found):
        raise UseCaseError(name, [f"{file} defines no function tables(seed, days)"])
    tables: Callable[[int, int], Any] = found
    return tables


def _execute(file: Path, use_case: str) -> ModuleType:
    place = hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:12]
    name = f"_tailrace_{place}_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UseCaseError(use_case, [f"{file} is no Python module"])
    module = importlib.util.module_from_spec(spec)
    # Annotations of event types are looked up in sys.modules.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except UseCaseError:
        del sys.modules[name]
        raise
    except SyntaxError as error:
        del sys.modules[name]
        raise UseCaseError(use_case, [f"{error.filename or file}:{error.lineno}: {error.msg}"]) from error
    except (
        ArithmeticError,
        AttributeError,
        ImportError,
        LookupError,
        NameError,
        OSError,
        TypeError,
        ValueError,
    ) as error:
        del sys.modules[name]
        raise UseCaseError(use_case, [_where(error, file)]) from error
    return module


def _where(error: Exception, file: Path) -> str:
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == file]
    hint = nearest(error.name, dir(error.obj)) if isinstance(error, AttributeError) and error.name else ""
    hint = hint if hint.startswith("; did you mean") else ""
    return f"{file}:{lines[-1] if lines else 0}: {type(error).__name__}: {error}{hint}"
