"""A file of options to begin with, for the teacher and the data at hand."""

from functools import partial
from pathlib import Path

from kdcompress.data import Data, load_data
from kdcompress.errors import DataError, UsageError
from kdcompress.models.inspection import Inspection, inspect
from kdcompress.models.layouts import LAYOUTS, UNREADABLE
from kdcompress.models.proposal import as_pairs, smaller_student
from kdcompress.models.teachers import Size
from kdcompress.progress import Listener
from kdcompress.settings.config import line


def starting_options(
    teacher: Path,
    data: str,
    data_dir: Path | None = None,
    image_size: int | None = None,
    *,
    listener: Listener = Listener(),
) -> str:
    """TOML for `--config`: what the files tell, what they do not as lines to fill in, and the options worth knowing.

    Args:
        image_size: the side that images are brought to; None for the teacher's, where it tells one and theirs differs.

    Raises:
        KdcompressError: if the teacher or the data cannot be read, or they do not go together.
    """
    found = inspect(teacher)
    images, image_size = _images(data, data_dir, image_size, found.input_size, listener)
    if found.classes is not None and found.classes != len(images.classes):
        raise UsageError(
            f"--teacher {teacher} tells {found.classes} classes apart, and --data {data} has {len(images.classes)}"
        )
    C, H, W = images.input_size
    own = found.input_size
    if own is not None and own[0] != C:
        raise UsageError(f"--teacher {teacher} takes images of {own[0]} channels, and --data {data} has {C}")
    if own is not None and image_size is not None and own[1:] != (image_size, image_size):
        raise UsageError(f"--teacher {teacher} was made for images of {own[1]}x{own[2]}, got --image-size {image_size}")
    where = [f"{line('data', data)}  # {len(images.classes)} classes, {C}x{H}x{W}"]
    if data_dir is not None:
        where.append(line("data-dir", str(data_dir)))
    if image_size is not None:
        where.append(line("image-size", image_size))
    return "\n".join(
        [
            "# kdcompress distill --config FILE, then kdcompress evaluate --config FILE",
            "# Lines that begin with # are not read: take the # away to have what stands there.",
            "",
            *where,
            '# FILL IN: eps = "8/255"  # the radius to stand, in pixels of [0,1]: usually the teacher\'s',
            '# norm = "Linf"',
            *_teacher(found),
            "",
            "[distill]",
            *proposed_student(found.parameters, len(images.classes), C),
            "epochs = 30",
            "# batch-size = 128",
            '# align = "jacobian"  # kept more where it was measured, at the same cost',
            '# iga-weight = "auto/2"  # lower it where clean accuracy suffers; auto scales with eps and image size',
            "# cache-teacher = true  # for a slow teacher",
            'out = "student/"',
            "",
            "[evaluate]",
            'model = "student/student.safetensors"',
            f"images = {min(1000, len(images.test or ()))}",
            "max-robust-drop = 0.03  # exit code 1 where more than 3 points of robust accuracy may be lost",
            'report = "report.json"',
            'html = "report.html"',
            "",
        ]
    )


def _images(
    data: str, data_dir: Path | None, image_size: int | None, own: Size | None, listener: Listener
) -> tuple[Data, int | None]:
    """The test split, and the side that its images are to be brought to: as asked, else the teacher's where it tells.

    Args:
        own: (C, H, W) of the images that the teacher was made for.
    """
    read = partial(load_data, data, data_dir=data_dir, splits=["test"], on_progress=listener.count)
    side = own[-1] if own is not None and own[1] == own[2] else None
    try:
        images = read(image_size=image_size)
    except DataError:
        if image_size is not None or side is None:
            raise
        return read(image_size=side), side  # images of several sizes, perhaps
    if image_size is None and side is not None and images.input_size[1:] != (side, side):
        return images, side
    return images, image_size


def proposed_student(teacher: int, classes: int, channels: int) -> list[str]:
    """Lines for a student that is smaller than the teacher; see `smaller_student`."""
    arguments, size = smaller_student(teacher, classes, channels)
    lines = ['student = "resnet18"  # any timm network']
    if arguments:
        said = f"{size / 1000:,.0f}k parameters for the teacher's {teacher / 1000:,.0f}k"
        lines.append(f"{line('student-arg', as_pairs(arguments))}  # {said}")
    return lines


def _teacher(found: Inspection) -> list[str]:
    """What the file tells, and lines to fill in for what it does not."""
    lines = [line("teacher", found.path)]
    if found.kdcompress:
        factory = found.arch is not None and ":" in found.arch  # code runs only where its user names it
        return [*lines, f"# FILL IN: {line('teacher-arch', found.arch)}  # as it was built"] if factory else lines
    if found.arch is None:
        lines.append('# FILL IN: teacher-arch = "..."  # a timm name, or file.py:function that builds it')
    elif found.arch in LAYOUTS:
        lines.append(f"# its layout is recognised: {found.arch}")
    else:
        others = f"  # or {', '.join(found.others)}" if found.others else ""
        lines.append(f"{line('teacher-arch', found.arch)}{others}")
    if found.arch in UNREADABLE:
        lines.append(f'# FILL IN: teacher-arg = ["{UNREADABLE[found.arch]}=silu"]  # or relu: the weights do not tell')
    if not found.normalised:
        lines.append('# FILL IN: teacher-mean = "0.4914,0.4822,0.4465"  # or "none" where it takes [0,1] as it is')
        lines.append('# FILL IN: teacher-std = "0.2471,0.2435,0.2616"')
    return lines
