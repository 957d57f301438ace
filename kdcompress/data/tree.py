"""The folder layout DIR/{train,test}/<class>/<image>, wherever the tree is stored."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image

from kdcompress.data.items import IMAGE_SUFFIXES, Items, listed, open_image
from kdcompress.errors import DataError

# Folders that may hold the test split, best first.
TEST_FOLDERS = ("test", "val", "validation")
SPLIT_FOLDERS = ("train", *TEST_FOLDERS)


@dataclass(frozen=True, eq=False)
class Tree:
    """Folders and files on a disk or in an archive; paths are relative to the root, with `/`.

    Attributes:
        where: the root, as the user knows it.
        children: path -> sorted names of its folders and of its files.
        open: path of a file -> the image in it, not yet decoded.
    """

    where: str
    children: Callable[[str], tuple[list[str], list[str]]]
    open: Callable[[str], Image.Image]


def folder_tree(root: Path) -> Tree:
    """The tree below a folder on the disk. Links are followed."""

    def children(path: str) -> tuple[list[str], list[str]]:
        try:
            with os.scandir(root / path) as entries:
                kinds = [(entry.name, entry.is_dir()) for entry in entries]
        except OSError as error:
            raise DataError(
                f"{root / path}: cannot list the folder ({error.strerror}); check its permissions"
            ) from error
        # A broken link counts as a file: opening it names it, leaving it out would shrink the data unnoticed.
        return sorted(name for name, folder in kinds if folder), sorted(name for name, folder in kinds if not folder)

    return Tree(str(root), children, lambda path: open_image(os.path.join(root, path)))  # noqa: PTH118 (faster)


def tree_splits(tree: Tree) -> tuple[dict[str, Items], tuple[str, ...]]:
    """The splits `train` and `test` in the tree, where they are there, and notes on what was left out.

    A single folder around the splits is looked through. `val` or `validation` is the test split where there is no
    `test`.

    Raises:
        DataError: if there are no split folders, or a split or class folder is empty.
    """
    base, folders = "", _visible(tree.children("")[0])
    if not set(folders) & set(SPLIT_FOLDERS) and len(folders) == 1:
        base, folders = f"{folders[0]}/", _visible(tree.children(folders[0])[0])
    tests = [name for name in TEST_FOLDERS if name in folders]
    if "train" not in folders and not tests:
        found = listed("folders", set(folders)) or "no folders"
        raise DataError(
            f"--data {tree.where}: expected train/<class>/ and test/<class>/ (or val/<class>/) with images, found "
            f"{found}; move the class folders into train/ and test/"
        )
    splits = {"train": _items(tree, f"{base}train")} if "train" in folders else {}
    if tests:
        splits["test"] = _items(tree, base + tests[0])
    notes = tuple(f"{tests[0]} is the test split; {ignored} is ignored" for ignored in tests[1:])
    if tests and tests[0] != "test" and not notes:
        notes = (f"there is no test split; {tests[0]} stands in for it",)
    return splits, notes


def _items(tree: Tree, split: str) -> Items:
    classes = tuple(_visible(tree.children(split)[0]))
    if not classes:
        raise DataError(f"{tree.where}/{split}: expected one folder for each class, found none; see --data")
    ids: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        files = list(_files(tree, split, name))
        images = [file for file in files if PurePosixPath(file).suffix.lower() in IMAGE_SUFFIXES]
        if not images:
            found = f"found {len(files)} other files such as {files[0]}" if files else "the folder is empty"
            raise DataError(
                f"{tree.where}/{split}/{name}: expected images ({', '.join(sorted(IMAGE_SUFFIXES))}) in every class "
                f"folder, {found}; add images or remove the folder"
            )
        ids += images
        labels += [label] * len(images)
    kept = tuple(ids)
    return Items(classes, kept, tuple(labels), lambda i: tree.open(f"{split}/{kept[i]}"), f"{tree.where}/{split}/")


def _files(tree: Tree, split: str, folder: str) -> Iterator[str]:
    """Visible files below a folder of the split, deeper ones too, by paths relative to the split."""
    folders, files = tree.children(f"{split}/{folder}")
    yield from (f"{folder}/{name}" for name in _visible(files))
    for name in _visible(folders):
        yield from _files(tree, split, f"{folder}/{name}")


def _visible(names: list[str]) -> list[str]:
    """Without hidden ones, and without the folder of resource forks that macOS puts into archives."""
    return [name for name in names if not name.startswith(".") and name != "__MACOSX"]
