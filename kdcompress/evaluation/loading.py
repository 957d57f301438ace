"""What every judgement of networks begins with: read the files, then the data, then build the networks."""

from collections.abc import Mapping
from dataclasses import dataclass

from kdcompress.data import Split, load_data
from kdcompress.models.checkpoints import Checkpoint, read_checkpoint
from kdcompress.models.teachers import LoadedModel, load_named
from kdcompress.progress import Listener
from kdcompress.report import DataRecord
from kdcompress.settings import DataSettings, EvaluationSettings, ModelFile


@dataclass(frozen=True, eq=False)
class Loaded:
    """Networks, and the images that they are judged on.

    Attributes:
        models: by name, in the order of `files`.
        images: of the test split, in the seeded order.
        record: what a report says of the images, but for their fingerprint.
        notes: what a reader must know of data and networks.
    """

    models: dict[str, LoadedModel]
    images: Split
    input_size: tuple[int, int, int]
    record: DataRecord
    notes: tuple[str, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of the labels."""
        return self.record.classes


def load(
    files: Mapping[str, ModelFile | None], data: DataSettings, evaluation: EvaluationSettings, listener: Listener
) -> Loaded:
    """The networks named, and the first images of the seeded test split.

    Args:
        files: by name; None where there is none. A name is the prefix of its options, but for `student`.

    Raises:
        KdcompressError: if a file, the data or an option is wrong; networks' files are read before the data.
    """
    named = {name: file for name, file in files.items() if file is not None}
    checkpoints = {name: read_checkpoint(file.path) for name, file in named.items()}
    made_for = _size(next(iter(checkpoints.values())))
    found = load_data(
        data.data,
        data_dir=data.data_dir,
        image_size=data.image_size or (made_for[1] if made_for and made_for[1] == made_for[2] else None),
        splits=["test"],
        colour=made_for is not None and made_for[0] == 3,
        on_progress=listener.count,
    )
    assert found.test is not None  # the one split asked for
    models = {
        name: load_named(
            file,
            checkpoints[name],
            classes=found.classes,
            input_size=found.input_size,
            option="" if name == "student" else name,
        )
        for name, file in named.items()
    }
    listener.detail(found.line)
    for name, model in models.items():
        listener.detail(f"{name}: {model.line}")
    notes = notes_of(models)
    for note in notes:
        listener.note(note)
    if (evaluation.images or 0) > len(found.test):
        listener.note(f"--images {evaluation.images}: the test split has {len(found.test)}, all are taken")
    images = found.test.shuffled(evaluation.images, evaluation.seed)
    record = DataRecord(
        name=found.name, images=len(images), of=len(found.test), seed=evaluation.seed, classes=found.classes, sha256=""
    )
    return Loaded(models, images, found.input_size, record, (*found.notes, *notes))


def notes_of(models: Mapping[str, LoadedModel]) -> tuple[str, ...]:
    """What was decided about the networks on the way."""
    return tuple(f"{name}: {note}" for name, model in models.items() for note in model.notes)


def _size(checkpoint: Checkpoint) -> tuple[int, int, int] | None:
    """(C, H, W) of the images that a file of ours was made for; other files do not say."""
    return None if checkpoint.record is None else checkpoint.record.input_size
