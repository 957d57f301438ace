"""What a model file is, in words."""

from rich.console import Group
from rich.table import Table
from rich.text import Text

from kdcompress.models.inspection import Inspection
from kdcompress.render.words import count, file_size


def inspected(found: Inspection) -> Group:
    """A line for each thing that is known, what is not, and what to type."""
    table = Table(show_header=False, show_edge=False, pad_edge=False, box=None)
    for name, said in _lines(found):
        table.add_row(Text(name), Text(said))
    missing = [Text(f"missing: {line}") for line in found.missing]
    first, *options = found.command.split(" --")
    return Group(table, *missing, Text(), Text(" \\\n    --".join([f"{first} --{options[0]}", *options[1:]])))


def _lines(found: Inspection) -> list[tuple[str, str]]:
    args = "".join(f" {key}={value}" for key, value in found.arch_args.items())
    arch = "not recognised" if found.arch is None else f"{found.arch}{args}"
    weights = f"{count(found.parameters)} parameters in {found.tensors} tensors ({', '.join(found.dtypes)})"
    if found.normalised:
        numbers = "none: inputs enter as they are" if found.mean is None else f"mean {_numbers(found.mean)}"
        norm = numbers if found.std is None else f"{numbers}, std {_numbers(found.std)}"
    else:
        norm = "not in the file"
    classes = "not told" if found.classes is None else f"{found.classes}"
    if found.class_names:
        classes += f" ({', '.join(found.class_names[:5])}{', ...' if len(found.class_names) > 5 else ''})"
    lines = [
        ("file", f"{found.path}, {file_size(found.file_bytes)}"),
        ("format", found.format + (", written by kdcompress" if found.kdcompress else "")),
        ("weights", weights + (f", under {found.origin}" if found.origin else "")),
        ("architecture", arch + (f" (or {', '.join(found.others)})" if found.others else "")),
        ("classes", classes),
        ("normalisation", norm),
        ("sha256", found.sha256),
    ]
    if found.pruned:
        lines.append(("note", "channels were taken from it by kdcompress prune: it is smaller than its architecture"))
    if found.averaged:
        lines.append(("note", "these are averaged weights; others beside them are left out"))
    if found.input_size is not None:
        lines.insert(5, ("made for", "x".join(map(str, found.input_size))))
    if found.assumed is not None:
        lines.append(("note", found.assumed))
    return lines


def _numbers(values: tuple[float, ...] | None) -> str:
    return ", ".join(f"{value:.4g}" for value in values or ())
