"""Classifiers with planted shortcuts, and what ``rdm audit`` and ``rdm augment`` make of them."""
