"""The pages in a real browser: they draw themselves, every image decodes, and nothing is asked of the network."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from kdcompress.render.html import certificates
from kdcompress.render.html.page import page
from tests.sample_certification import certification
from tests.sample_report import evidence, hostile_report, report, shown

NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next((found for name in NAMES if (found := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"needs a browser: none of {', '.join(NAMES)} is installed")

SECONDS = 120
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"),
    *("--disable-component-update", "--disable-sync", "--enable-logging=stderr", "--hide-scrollbars"),
)
# A second page that looks at the first through a frame; the page itself has no script, and forbids it.
WITNESS = """<!DOCTYPE html><iframe id="page" src="page.html" width="{width}" height="600"></iframe><script>
addEventListener("load", () => {{
  const shown = document.getElementById("page").contentDocument;
  const images = [...shown.images];
  document.body.dataset.images = images.length;
  document.body.dataset.decoded = images.filter(image => image.complete && image.naturalWidth > 0).length;
  document.body.dataset.overflow = shown.documentElement.scrollWidth - shown.documentElement.clientWidth;
  document.body.dataset.scripts = shown.scripts.length;
}});
</script>"""


def browse(folder: Path, file: str, *flags: str) -> subprocess.CompletedProcess[str]:
    assert BROWSER is not None
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [BROWSER, *FLAGS, profile, *flags, (folder / file).as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)


def console_errors(stderr: str) -> list[str]:
    """What the page did wrong, as the browser logs it; its own complaints about the machine are none of ours."""
    return [line for line in stderr.splitlines() if "CONSOLE" in line]


@dataclass(frozen=True)
class Opened:
    """A page on the disk, and what a reader must find in it."""

    folder: Path
    text: str
    parts: tuple[str, ...]


@pytest.fixture(scope="module", params=["report", "certificates"])
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    if request.param == "report":
        text = page(report(), evidence())
        parts = ("3 of 7 gates missed", "Robust accuracy over eps", "Class by class", "wide_resnet28_10")
    else:
        text = certificates.page(certification())
        parts = ("Certified radii", "CLEVER: an estimate", "Proposition 2", "What made these figures")
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "page.html").write_text(text, encoding="utf-8")
    return Opened(folder, text, parts)


def test_a_page_opens_with_its_verdict_and_its_figures_and_without_a_complaint(opened: Opened) -> None:
    browsed = browse(opened.folder, "page.html", "--dump-dom")
    for part in opened.parts:
        assert part in browsed.stdout
    assert console_errors(browsed.stderr) == []


@pytest.mark.parametrize("width", [1200, 360])
def test_every_image_decodes_and_nothing_sticks_out_of_the_page(opened: Opened, width: int) -> None:
    (opened.folder / "witness.html").write_text(WITNESS.format(width=width), encoding="utf-8")
    browsed = browse(opened.folder, "witness.html", "--allow-file-access-from-files", "--dump-dom")
    seen = dict(re.findall(r'data-(\w+)="(-?\d+)"', browsed.stdout))
    images = str(opened.text.count("<img "))
    assert seen == {"images": images, "decoded": images, "overflow": "0", "scripts": "0"}


def colour_of_the_paper(picture: Path) -> tuple[int, ...]:
    with Image.open(picture) as image:
        corner = image.convert("RGB").getpixel((3, 3))
    assert isinstance(corner, tuple)
    return corner


@pytest.mark.parametrize(("flag", "dark"), [(None, False), ("--blink-settings=preferredColorScheme=0", True)])
def test_a_page_follows_the_readers_choice_of_light_or_dark(opened: Opened, flag: str | None, dark: bool) -> None:
    picture = opened.folder / f"shot-{dark}.png"
    browse(opened.folder, "page.html", f"--screenshot={picture}", "--window-size=900,700", *([flag] if flag else []))
    assert (max(colour_of_the_paper(picture)) < 64) == dark
    with Image.open(picture) as image:
        assert len(image.getcolors(1 << 24) or ()) > 50, "an empty page"


def test_a_page_prints(opened: Opened) -> None:
    paper = opened.folder / "page.pdf"
    browse(opened.folder, "page.html", f"--print-to-pdf={paper}")
    assert paper.read_bytes().startswith(b"%PDF") and paper.stat().st_size > 20_000


def test_names_that_are_programs_stay_names(tmp_path: Path) -> None:
    hostile = hostile_report()
    name = hostile.data.name
    (tmp_path / "page.html").write_text(page(hostile, evidence(gallery=(shown(id=name, label=name),))), "utf-8")
    (tmp_path / "witness.html").write_text(WITNESS.format(width=900), encoding="utf-8")
    browsed = browse(tmp_path, "witness.html", "--allow-file-access-from-files", "--dump-dom")
    assert 'data-scripts="0"' in browsed.stdout
    assert console_errors(browsed.stderr) == []
