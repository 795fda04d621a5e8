"""Model cards: what a bundle's README.md says."""

from __future__ import annotations

from collections.abc import Sequence

from rdm_cli.escapes import printable


def training_card(
    *,
    name: str,
    title: str,
    commands: Sequence[str],
    data: str,
    num_images: int,
    num_parameters: int,
    is_first_stage: bool = False,
) -> str:
    """The card of a bundle trained here; figures measured later are the author's to add.

    ``commands`` began the run and went on with it.
    """
    called = printable(name)
    usage = [f"rdm encode IMAGES -o codes/ --bundle {called}", f"rdm reconstruct IMAGE --bundle {called}"]
    if is_first_stage:
        usage = [f"rdm train lrdm IMAGES -o my-lrdm --first-stage {called}"]
    lines = "\n".join(f"    {line}" for line in usage)
    made_by = "\n".join(f"    {printable(command)}" for command in commands)
    return f"""# {called}

A bundle of {title}, trained with rdm.

- Data: {printable(data)}.
- Images seen: {num_images:,}.
- Parameters of encoder and decoder: {num_parameters:,}.

{made_by}

Use it:

{lines}
"""


def conversion_card(*, name: str, title: str, files: list[str], summary: str) -> str:
    """The card of a bundle converted from official checkpoints."""
    listed = "\n".join(f"- `{printable(file)}`" for file in files)
    return f"""# {printable(name)}

A bundle of {title}, converted by `rdm bundles convert` from the authors' files

{listed}

Contents: {printable(summary)}. Its sampler is the paper's. The weights keep the licence under which their
authors published them.
"""
