"""The papers' claims put to the test on the shipped bundles; benchmarks/make_evidence.py runs it.

``study`` says what a study is, and each study is a module; ``running`` measures what is not yet kept,
``store`` keeps it, ``findings`` reads it, ``rules`` turn figures into verdicts on ``claims``, ``glance`` into
advice, and ``page`` and ``places`` write docs/evidence.md and the figures that README and cards quote.
"""
