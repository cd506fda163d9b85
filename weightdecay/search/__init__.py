"""Grids, their axes, the distributions of their values, and the strategies that decide what is trained next.

- A member is a dictionary of hyperparameters. Its JSON is its identity (`member`): it is stored, hashed and compared.
- The order of a grid is deterministic. A larger draw with the same seed begins with the smaller one.
- Every value is checked where the grid is made (`axis_values`), before anything is compiled.
- A new distribution is one class in `distributions`. A strategy (`strategies`, ``wd.strategies``) knows nothing of
  devices; it decides by what is known of the members alone.

.. include:: grids.md
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
