"""A model card: Markdown with the block of metadata that model hubs read, from a report.

Every name is written as JSON, which YAML reads as text: a class called `yes` or `a: b` stays one.
"""

import json
from pathlib import PurePath
from typing import Any

from kdcompress.render.markdown import escaped, markdown
from kdcompress.report import IN_MEMORY, ModelReport, Report
from kdcompress.threat import render_eps


def model_card(report: Report) -> str:
    """The card of the report's student, or of its teacher where that is alone.

    Guarantees:
        Robust accuracy that shows signs of gradient masking is not in the metadata, where no warning stands beside it.
    """
    model = report.models.get("student") or report.models["teacher"]
    figures = markdown(report)
    if not report.gates:  # a heading that says so is for pipelines
        _, _, figures = figures.partition("\n\n")
    return f"---\n{_metadata(report, model)}---\n\n{_head(report, model)}\n{figures}\n{_tail(report, model)}"


def _metadata(report: Report, model: ModelReport) -> str:
    """YAML: what hubs search and show."""
    lines = [
        "library_name: kdcompress",  # whose file it is; the network inside is timm's
        "pipeline_tag: image-classification",
        "tags: [image-classification, adversarial-robustness, knowledge-distillation, timm]",
        "model-index:",
        f"- name: {_text(model.arch)}",
        "  results:",
        "  - task:",
        "      type: image-classification",
        "    dataset:",
        f"      name: {_text(report.data.name)}",
        f"      type: {_text(report.data.name)}",
        f"      split: {report.data.split}",
        "    metrics:",
    ]
    for name, value in _metrics(report, model):
        lines += ["    - type: accuracy", f"      name: {_text(name)}", f"      value: {value}"]
    return "\n".join(lines) + "\n"


def _metrics(report: Report, model: ModelReport) -> list[tuple[str, float]]:
    found = [(f"clean accuracy, {model.clean_accuracy.n} images", model.clean_accuracy.value)]
    trusted = model.masking is None or not model.masking.reasons
    if (robust := model.robust_accuracy) is not None and trusted:
        found.append((f"accuracy under {robust.attack}, {_ball(report)}, {robust.n} images", robust.value))
    return found


def _head(report: Report, model: ModelReport) -> str:
    return f"""# {escaped(model.arch)}

An image classifier for {len(report.data.classes)} classes, of {model.params:,} parameters and {model.macs:,}
multiply-accumulates an image. Its file has the sha256 `{model.sha256}`.

{_use(report)}## What was measured
"""


def _use(report: Report) -> str:
    """How the file that was judged is loaded, with what was said of it; nothing of a network that had no file.

    Files are named without the folders of the machine where they were.
    """
    asked = report.settings.get("student") or report.settings.get("teacher") or {}
    path = PurePath(asked.get("path", "student.safetensors"))
    if path.parts[:1] == (IN_MEMORY,):
        return ""
    said = {name: asked[name] for name in ("arch", "args", "mean", "std") if asked.get(name)}
    if ":" in str(said.get("arch", "")):
        file, _, function = said["arch"].rpartition(":")
        said["arch"] = f"{PurePath(file).name}:{function}"
    given = "".join(f", {name}={value!r}" for name, value in said.items())
    return f"""## Use

```python
from pathlib import Path

from kdcompress import load_model

model = load_model(Path({_text(path.name)}){given}).model  # inputs in [0,1], (B, C, H, W) -> logits (B, K)
```

"""


def _tail(report: Report, model: ModelReport) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in report.versions.items())
    return f"""## What the figures do not say

- Robust accuracy is an upper bound on true robustness, under the attack and the threat model named beside it alone.
- Intervals cover the choice of images, not the choice of a training seed.
- Nothing was measured on other data than {escaped(report.data.name)}, nor under changes of light, camera or place.

Measured by kdcompress on {escaped(report.device)}; {versions}.
"""


def _ball(report: Report) -> str:
    return f"{report.threat_model.norm} {render_eps(report.threat_model.eps)}"


def _text(value: Any) -> str:
    return json.dumps(value)
