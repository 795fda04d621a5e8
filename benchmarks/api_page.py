"""Write docs/api.md from the docstrings of what ``import rdm_cli`` offers.

python benchmarks/api_page.py
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import rdm_cli
from rdm_cli.registry import SOLVERS, load

PAGE = Path(__file__).resolve().parent.parent / "docs" / "api.md"

PIPELINE = "encode decode manipulate explain interpolate trajectory sample attributes to load_images"
CLASSES = {
    "Pipeline": PIPELINE.split(),
    "Codes": "save load select concatenate without_x_T replace".split(),
    "CodeInfo": [],
    "Encoder": ["__call__"],
    "RdmError": [],
}

HEAD = """# The Python API

This page is written by `python benchmarks/api_page.py` from the docstrings; change those. The notebook
[six-verbs.ipynb](six-verbs.ipynb) shows the same at work.

```python
import numpy as np
from PIL import Image

import rdm_cli as rdm

pipe = rdm.open_pipeline("avatars64-diffae")
print(pipe)  # method, image size, shape of z, attributes, device, precision
codes = pipe.encode(["a.png", Image.open("b.png"), np.asarray(Image.open("c.png"))])
pictures = pipe.decode(codes)  # a tensor (3, 3, H, W) in [-1, 1]
images = pipe.decode(codes, output="pil")
codes.save("codes/")  # a file for each
codes = rdm.Codes.load("codes/")
```

Edit, interpolate, draw, and look at it:

```python
print(pipe.attributes)
smiling = pipe.manipulate(codes, {"smiling": 0.3})  # codes
shown = pipe.manipulate("a.png", {"smiling": 0.3}, output="pil")  # pictures
path = pipe.interpolate(codes[0], codes[1], [0, 0.25, 0.5, 0.75, 1])
drawn = pipe.sample(4, solver="unipc", steps=12)
rdm.show({"before": pipe.decode(codes), "smiling": pipe.decode(smiling)}, ["a", "b", "c"])
rdm.show(pipe.decode(path)), rdm.show(pipe.decode(drawn))
```

Whatever is wrong is an `RdmError` (a file, a bundle, a setting) or a `ValueError` (the range, shape or type
of what was given).
"""

SOLVERS_HEAD = """## Solvers

Each is a function of a denoiser `eps_fn(x_t, t)`, which may be your own. They are records in
`rdm_cli.kernels.solvers`: `UNIPC.decode(eps_fn, x_T, spec, steps)` yields x_t after each step, for a
`SamplingSpec` of `rdm_cli.kernels.spec`. Those with an inversion have
`encode(eps_fn, x_0, spec, steps, iterations)`, too.

| name | record | inversion |
| --- | --- | --- |
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD, "## Functions"]
    parts += [
        entry(f"rdm_cli.{name}", getattr(rdm_cli, name)) for name in ("open_pipeline", "show", "set_up")
    ]
    for name, members in CLASSES.items():
        cls = getattr(rdm_cli, name)
        parts.append(f"## {name}\n\n{words(cls)}")
        parts += [entry(f"{name}.{member}", inspect.getattr_static(cls, member)) for member in members]
    parts += [SOLVERS_HEAD + "\n".join(map(solver_row, SOLVERS))]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def solver_row(name: str) -> str:
    """A solver's line of the table."""
    inverts = load(SOLVERS, "solver", name).encode is not None
    return f"| `{name}` | `{SOLVERS[name].partition(':')[2]}` | {'yes' if inverts else 'no'} |"


def entry(title: str, member: Any) -> str:
    """One function, method or property: its signature and its docstring."""
    if isinstance(member, property):
        return f"### `{title}`\n\n{words(member)}"
    function = inspect.unwrap(member.__func__ if isinstance(member, staticmethod) else member)
    signature = re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(function)))  # annotations
    signature = re.sub(r"<function (\w+) at \w+>", r"\1", signature)
    signature = signature.replace("(self, ", "(").replace("(self)", "()")
    return f"### `{title}`\n\n```text\n{title}{signature}\n```\n\n{words(member)}"


def words(member: Any) -> str:
    """A docstring as Markdown: code in single backticks, references by their last name."""
    text = inspect.getdoc(member) or ""
    text = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", text)
    return text.replace("``", "`")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
