"""All that a training script imports: rules, masks, penalties, proximal maps, schedules, conventions, optimizers.

- A rule is one class with a formula, a unit and a range, in `coupled` (added to the gradient), `decoupled` (shrinks the
  weights in addition to the step) or `projected` (moves the weights after the step), and one entry in `registry.KINDS`.
  `base.Rule` documents the hooks; tables, plots and the command line derive from the class.
- A user's own rule is a subclass of `Rule` under the decorator `rule`, in the user's own script.
- `optimizers` joins any rule to any optax preconditioner; `transformation` is the update itself.
- Everything is written for one member. Coefficients and other numbers may be traced: no ``if coefficient == 0``. Zero
  is a value like any other, and gives the bits of the base optimizer.
- Constructors contain no logic, because JAX calls them with tracers; `registry.check` validates where an optimizer or a
  grid is made.

Every name is listed in ``__init__.pyi`` and loaded when it is first used, so that `convert` needs no array library.

.. include:: choosing.md
.. include:: rules.md
.. include:: masks.md
.. include:: training_scripts.md
.. include:: coefficients.md
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
