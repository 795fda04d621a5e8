"""The studies, in the order in which they are measured and stand on the page."""

from __future__ import annotations

from evidence import attributes, denoising, edits, few_shot, generation, interpolation, reconstruction

STUDIES = {
    study.name: study
    for study in (
        reconstruction.STUDY,
        attributes.STUDY,
        edits.STUDY,
        denoising.STUDY,
        generation.STUDY,
        few_shot.STUDY,
        interpolation.STUDY,
    )
}
