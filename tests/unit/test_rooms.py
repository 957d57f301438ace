"""The order of rooms: what may import what, and what must not be imported before it is needed."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import kdcompress

PACKAGE = Path(kdcompress.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# From the ground up; rooms of one line may not import each other.
ORDER: tuple[tuple[str, ...], ...] = (
    ("errors", "versions", "files"),
    ("threat",),
    ("settings", "report", "evidence"),
    ("progress", "comparison", "certification", "reading"),
    ("seats",),
    ("maths", "devices", "models", "data"),
    ("processes",),
    ("attacks", "bounds", "engine", "gates"),
    ("training", "evaluation"),
    ("export",),
    ("demo", "bench", "plan", "starting"),
    ("render", "tracking"),
    ("cli",),
    ("__main__",),
)
FOUNDATION = frozenset(room for rooms in ORDER[:4] for room in rooms)
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
TRACKERS = frozenset({"tensorboard", "wandb", "mlflow"})
SLOW = frozenset({"torch", "torchvision", "timm", "scipy", "sklearn", "numpy", "matplotlib", "pyautoattack"}) | TRACKERS


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str:
    """The first name under the package: `kdcompress.maths.norms` is in `maths`."""
    return module.split(".")[1]


def imports(tree: ast.AST, *, module_level: bool) -> Iterator[str]:
    """Names of imported modules; inside functions too unless `module_level`. Imports for types alone are left out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the room"
            assert node.module is not None
            # `from kdcompress import gates` names a room only in its list.
            yield from (
                (f"{node.module}.{alias.name}" for alias in node.names)
                if node.module == "kdcompress"
                else (node.module,)
            )
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        elif not (module_level and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)):
            yield from imports(node, module_level=module_level)


def own(path: Path, *, module_level: bool = True) -> set[str]:
    found = imports(ast.parse(path.read_text(encoding="utf-8")), module_level=module_level)
    return {name for name in found if name.startswith("kdcompress.")}


def foreign(path: Path, *, module_level: bool = True) -> set[str]:
    found = imports(ast.parse(path.read_text(encoding="utf-8")), module_level=module_level)
    return {name.split(".")[0] for name in found if not name.startswith("kdcompress.")}


def each_module() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", MODULES, ids=module_name)


def test_every_module_has_a_room() -> None:
    rooms = {room(module_name(path)) for path in MODULES if module_name(path) != "kdcompress"}
    assert rooms == set(LEVEL)


@each_module()
def test_a_module_imports_from_its_own_room_or_earlier_ones(path: Path) -> None:
    name = module_name(path)
    if name == "kdcompress":
        assert own(path) == set()
        return
    for imported in own(path):
        if room(imported) != room(name):
            assert LEVEL[room(imported)] < LEVEL[room(name)], f"{name} imports {imported}"


@each_module()
def test_rendering_takes_only_the_record_of_training_and_the_interval_of_a_share_which_need_no_torch(
    path: Path,
) -> None:
    if room(f"{module_name(path)}.") == "render":
        taken = {name for name in own(path, module_level=False) if room(name) in {"training", "evaluation", "maths"}}
        assert taken <= {"kdcompress.training.run_record", "kdcompress.maths.intervals"}


def test_there_is_no_import_cycle_between_modules() -> None:
    graph = {module_name(path): own(path) & {module_name(path) for path in MODULES} for path in MODULES}
    settled: set[str] = set()
    while rest := graph.keys() - settled:
        free = {name for name in rest if graph[name] - {name} <= settled}
        assert free, f"a cycle among {sorted(rest)}"
        settled |= free


@pytest.mark.parametrize(
    "path", [path for path in MODULES if module_name(path) != "kdcompress" and room(module_name(path)) in FOUNDATION]
)
def test_the_foundation_imports_nothing_slow(path: Path) -> None:
    assert foreign(path).isdisjoint(SLOW)


@each_module()
def test_only_one_module_imports_the_attack_package(path: Path) -> None:
    assert ("pyautoattack" in foreign(path, module_level=False)) == (path == PACKAGE / "attacks" / "autoattack.py")


@each_module()
def test_a_trackers_package_is_imported_in_its_own_file_alone(path: Path) -> None:
    used = foreign(path, module_level=False) & TRACKERS
    assert used <= ({path.stem} if path.parent == PACKAGE / "tracking" else set())


@each_module()
def test_only_the_command_line_and_rendering_print(path: Path) -> None:
    name = module_name(path)
    if name == "kdcompress" or room(name) in {"cli", "render"}:
        return
    called = {
        ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)
    }
    assert called.isdisjoint({"print", "sys.exit", "exit", "os.getenv", "os.environ.get", "sys.stdout.write"})


@each_module()
def test_the_mathematics_reads_no_clock_and_no_file(path: Path) -> None:
    if room(f"{module_name(path)}.") == "maths":
        assert foreign(path, module_level=False).isdisjoint({"time", "datetime", "os", "pathlib", "random", "sys"})


def test_the_whole_command_line_is_imported_without_anything_slow() -> None:
    script = "import sys, kdcompress.__main__; print(*{name.partition('.')[0] for name in sys.modules})"
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(finished.stdout.split())
    assert "kdcompress" in loaded
    assert loaded.isdisjoint(SLOW)
