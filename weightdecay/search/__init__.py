"""Grids, their axes, and the distributions that candidates are drawn from.

.. include:: grids.md
"""
