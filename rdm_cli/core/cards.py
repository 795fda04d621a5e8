"""Model cards: what a bundle's README.md says."""

from __future__ import annotations

from rdm_cli.escapes import printable


def training_card(
    *, name: str, title: str, command: str, data: str, num_images: int, num_parameters: int
) -> str:
    """The card of a bundle trained here; figures measured later are the author's to add."""
    return f"""# {printable(name)}

A bundle of {title}, trained with rdm.

- Data: {printable(data)}.
- Images seen: {num_images:,}.
- Parameters of encoder and decoder: {num_parameters:,}.

    {printable(command)}

Use it:

    rdm encode IMAGES -o codes/ --bundle {printable(name)}
    rdm reconstruct IMAGE --bundle {printable(name)}
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
